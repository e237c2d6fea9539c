//! Strategic merge patch: a merge patch that knows which lists merge by which key, with directives
//! inside the patch for what a merge cannot say.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{PatchError, json::check_depth};
use crate::schema::{Definition, PatchStrategy, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of that definition: all of it, or nothing.
///
/// # Errors
/// [`PatchError::NotSupported`] without a definition: custom resources take JSON merge patches
/// instead. [`PatchError::Malformed`] for a directive that does not fit and for a list element
/// without its merge key.
pub fn strategic_merge_patch(
    definition: Option<&Definition>,
    target: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    let definition = definition.ok_or(PatchError::NotSupported)?;
    let Value::Object(patch) = patch else {
        return Err(malformed("error decoding patch: expected an object"));
    };
    check_depth(patch.values().chain(std::iter::once(&*target)))?;
    let original = target.as_object().cloned().unwrap_or_default();
    let merged = merge_map(original, patch.clone(), Schema::Definition(definition))?;
    *target = Value::Object(merged);
    Ok(())
}

/// What is known about the value at hand.
#[derive(Clone, Copy)]
enum Schema<'a> {
    Definition(&'a Definition),
    /// The values of a map, or nothing at all.
    Values(Option<&'a Type>),
}

impl<'a> Schema<'a> {
    fn of(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::Reference(reference)) => Self::Definition(reference.definition()),
            Some(Type::Map(item)) => Self::Values(Some(item)),
            _ => Self::Values(None),
        }
    }

    /// The type and the strategy of one key of this value.
    fn child(self, key: &str) -> (Option<&'a Type>, PatchStrategy) {
        match self {
            Self::Definition(definition) => definition
                .field(key)
                .map_or((None, PatchStrategy::default()), |f| (Some(&f.ty), f.patch)),
            Self::Values(item) => (item, PatchStrategy::default()),
        }
    }

    /// The schema of a list's elements.
    fn elements(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::Array(item)) => Self::of(Some(item)),
            _ => Self::Values(None),
        }
    }
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

fn unknown_patch_type(directive: &Value, map: &Object) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    malformed(format!("unknown patch type: {directive} in map: {}", Value::Object(map.clone())))
}

fn no_merge_key(map: &Object, key: &str) -> PatchError {
    let map = Value::Object(map.clone());
    malformed(format!("map: {map} does not contain declared merge key: {key}"))
}

fn merge_map(
    mut original: Object,
    mut patch: Object,
    schema: Schema<'_>,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            Some("merge") => merge_map(original, patch, schema),
            _ => Err(unknown_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, schema)?;
    for (key, change) in patch {
        let deletes = key.starts_with(DELETE_FROM);
        let key = if deletes { directive_key(&key, DELETE_FROM)? } else { key };
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let (ty, strategy) = schema.child(&key);
        let merged = match (original.remove(&key), change) {
            (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace => {
                Some(Value::Object(merge_map(old, new, Schema::of(ty))?))
            }
            (Some(Value::Object(_)), new @ Value::Object(_)) => Some(new),
            (Some(Value::Array(old)), Value::Array(new)) => Some(Value::Array(if deletes {
                let gone = Places::of(&new, None);
                old.into_iter().filter(|element| gone.find(element).is_none()).collect()
            } else if strategy.merge {
                merge_list(old, new, Schema::elements(ty), strategy.key)?
            } else {
                new
            })),
            (old, _) if deletes => old,
            (_, new) => without_directives(without_nulls(new)),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: of the original's keys only these stay.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || malformed("invalid patch format of retainKeys");
    let keys = keys.as_array().ok_or_else(wrong)?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let retained = |key: &str| keys.contains(key);
    for (key, change) in &*patch {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER);
        if !change.is_null() && !directive && !retained(key) {
            return Err(wrong());
        }
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

fn directive_key(key: &str, prefix: &str) -> Result<String, PatchError> {
    let name = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
    name.map(str::to_owned).ok_or_else(|| {
        malformed(if prefix == DELETE_FROM {
            "invalid patch format of primitive list"
        } else {
            "invalid patch format of setElementOrder list"
        })
    })
}

/// `$setElementOrder/<list>`: merges the list and puts its elements into that order.
fn order_lists(
    original: &mut Object,
    patch: &mut Object,
    schema: Schema<'_>,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let wrong = || malformed("invalid patch format of setElementOrder list");
        let key = directive_key(&directive, ELEMENT_ORDER)?;
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(wrong()) };
        let (ty, strategy) = schema.child(&key);
        let (merged, server) = match (original.get(&key), patch.get(&key)) {
            (None, None) => continue,
            (Some(Value::Array(old)), None) => (old.clone(), old.clone()),
            (None, Some(Value::Array(new))) => {
                check_order(new, &order, strategy.key)?;
                (list_without_directives(new.clone()), Vec::new())
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                check_order(new, &order, strategy.key)?;
                let merged = if strategy.merge {
                    merge_list(old.clone(), new.clone(), Schema::elements(ty), strategy.key)?
                } else {
                    new.clone()
                };
                (merged, old.clone())
            }
            _ => return Err(malformed("expected a []interface {}, but received another type")),
        };
        let ordered = in_order(merged, &order, &server, strategy.key)?;
        patch.remove(&key);
        original.insert(key, Value::Array(ordered));
    }
    Ok(())
}

/// The patch's elements must come in the order that the directive states.
fn check_order(list: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if list.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    for element in list.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        if !order_left.any(|ordered| identity(ordered, key) == identity(element, key)) {
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                Value::Array(list.to_vec()),
                Value::Array(order.to_vec())
            )));
        }
    }
    Ok(())
}

/// What tells an element apart: the merge key's value, or the element itself.
fn identity<'a>(element: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => element.get(key),
        None => Some(element),
    }
}

/// Where the elements of a list are, by what tells them apart.
struct Places<'a> {
    key: Option<&'a str>,
    places: HashMap<String, usize>,
}

impl<'a> Places<'a> {
    fn of(list: &[Value], key: Option<&'a str>) -> Self {
        let mut places = HashMap::with_capacity(list.len());
        for (at, element) in list.iter().enumerate() {
            if let Some(identity) = identity(element, key) {
                places.entry(identity.to_string()).or_insert(at);
            }
        }
        Self { key, places }
    }

    /// The first element that is this one.
    fn find(&self, element: &Value) -> Option<usize> {
        self.places.get(&identity(element, self.key)?.to_string()).copied()
    }
}

/// Merges two lists whose elements merge by `key`, or (without one) are scalars.
fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    schema: Schema<'_>,
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let objects = old.iter().chain(&new).filter(|element| element.is_object()).count();
    if objects == 0 {
        if old.iter().chain(&new).any(Value::is_array) {
            return Err(malformed("lists of lists are not supported"));
        }
        let mut seen = HashSet::with_capacity(old.len() + new.len());
        let all = old.iter().chain(&new);
        let merged = all.filter(|element| seen.insert(element.to_string())).cloned().collect();
        return in_order(merged, &new, &old, None);
    }
    if objects != old.len() + new.len() {
        let both = Value::Array(vec![Value::Array(old), Value::Array(new)]);
        return Err(malformed(format!("list element types are not identical: {both}")));
    }
    let key = key.ok_or_else(|| malformed("cannot merge lists without merge key"))?;
    merge_objects(old, new, schema, key)
}

fn merge_objects(
    mut old: Vec<Value>,
    new: Vec<Value>,
    schema: Schema<'_>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let (mut changes, mut replaced) = (Vec::with_capacity(new.len()), false);
    let mut gone = HashSet::new();
    for element in new {
        let Value::Object(map) = element else { continue };
        match map.get(DIRECTIVE).map(|directive| (directive, directive.as_str())) {
            None => changes.push(map),
            Some((_, Some("delete"))) => {
                let deleted = map.get(key).ok_or_else(|| no_merge_key(&map, key))?;
                gone.insert(deleted.to_string());
            }
            Some((_, Some("replace"))) => replaced = true,
            Some((_, Some("merge"))) => {
                return Err(malformed("merging lists cannot yet be specified in the patch"));
            }
            Some((directive, _)) => return Err(unknown_patch_type(directive, &map)),
        }
    }
    if replaced {
        return Ok(changes.into_iter().map(Value::Object).collect());
    }
    let goes = |element: &Value| element.get(key).is_some_and(|k| gone.contains(&k.to_string()));
    old.retain(|element| gone.is_empty() || !goes(element));
    let server = old.clone();
    let mut places = Places::of(&old, Some(key)).places;
    let mut order = Vec::with_capacity(changes.len());
    for change in changes {
        let wanted = change.get(key).ok_or_else(|| no_merge_key(&change, key))?;
        order.push(Value::Object(Object::from_iter([(key.to_owned(), wanted.clone())])));
        let identity = wanted.to_string();
        match places.get(&identity).and_then(|at| old.get_mut(*at)) {
            Some(found) => {
                let element = found.as_object_mut().map(std::mem::take).unwrap_or_default();
                *found = Value::Object(merge_map(element, change, schema)?);
            }
            None => {
                let added = without_directives(without_nulls(Value::Object(change)));
                places.insert(identity, old.len());
                old.extend(added);
            }
        }
    }
    in_order(old, &order, &server, Some(key))
}

/// Puts the elements that `order` names into that order and weaves in the others, which keep the
/// order (and, where both are known, the place) that they have in `server`.
fn in_order(
    list: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let (mut named, mut others) = (Vec::new(), Vec::new());
    let (order, server) = (Places::of(order, key), Places::of(server, key));
    for element in list {
        if let (Some(key), Value::Object(map)) = (key, &element)
            && !map.contains_key(key)
        {
            return Err(no_merge_key(map, key));
        }
        match order.find(&element) {
            Some(at) => named.push((at, element)),
            None => others.push((server.find(&element), element)),
        }
    }
    named.sort_by_key(|(at, _)| *at);
    others.sort_by_key(|(at, _)| at.unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, element) in named {
        if let Some(at) = server.find(&element) {
            while let Some((_, other)) =
                others.next_if(|(other, _)| other.is_some_and(|other| other < at))
            {
                result.push(other);
            }
        }
        result.push(element);
    }
    result.extend(others.map(|(_, element)| element));
    Ok(result)
}

/// Nulls in what the original does not have delete nothing, and are not stored either.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn list_without_directives(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter_map(without_directives).collect()
}

/// What is new needs no directives; `None` for a value that is nothing but one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter(|(key, _)| {
                    let directive = key == RETAIN_KEYS;
                    !(directive || key.starts_with(ELEMENT_ORDER) || key.starts_with(DELETE_FROM))
                })
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect(),
        )),
        Value::Array(list) => Some(Value::Array(list_without_directives(list))),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
