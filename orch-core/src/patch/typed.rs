//! Values seen through their schema: which fields they have, how two of them differ, what they
//! give when merged, and what is left without some fields.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::LazyLock,
};

use serde_json::{Map, Value};

use super::fields::{Entry, FieldSet, key_element};
use crate::schema::{
    Definition, Field, ListType, MapType, Model, Shape, Structural, StructuralList, Type,
};

/// What the schema says about one value. Where it says nothing, types are deduced from the values:
/// objects by field, lists as a whole.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    definition: Option<&'a Definition>,
    ty: Option<&'a Type>,
    field: Option<&'a Field>,
    custom: Option<&'a Structural>,
    /// It is a whole custom object, whose metadata is like everybody's.
    root: bool,
}

/// Whether the schema names a field of an object.
#[derive(Clone, Copy)]
enum Named<'a> {
    Nothing,
    Field(&'a Field),
    Custom,
}

impl<'a> Named<'a> {
    fn is_known(self) -> bool {
        !matches!(self, Self::Nothing)
    }

    fn field(self) -> Option<&'a Field> {
        match self {
            Self::Field(field) => Some(field),
            _ => None,
        }
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How a value merges.
enum Rule<'a> {
    Leaf,
    Fields,
    Set,
    Keyed(Vec<&'a str>),
}

impl<'a> Node<'a> {
    pub(super) fn root(model: Model<'a>) -> Self {
        match model {
            Model::Deduced => Self::UNKNOWN,
            Model::BuiltIn(definition) => Self { definition: Some(definition), ..Self::UNKNOWN },
            Model::Custom(custom) => Self { root: true, ..Self::of_custom(custom) },
        }
    }

    fn of_custom(custom: &'a Structural) -> Self {
        Self { custom: Some(custom), ..Self::UNKNOWN }
    }

    fn of(ty: &'a Type, field: Option<&'a Field>) -> Self {
        Self { definition: ty.definition(), ty: Some(ty), field, ..Self::UNKNOWN }
    }

    const UNKNOWN: Self =
        Self { definition: None, ty: None, field: None, custom: None, root: false };

    fn struct_definition(self) -> Option<&'a Definition> {
        self.definition.filter(|definition| definition.shape == Shape::Struct)
    }

    fn rule(self, value: &Value) -> Rule<'a> {
        if let Some(custom) = self.custom {
            return rule_of_custom(custom, value);
        }
        match value {
            Value::Object(_) => {
                let own = self.definition.map(|definition| definition.map_type);
                match self.field.and_then(|field| field.map).or(own) {
                    Some(MapType::Atomic) => Rule::Leaf,
                    _ => Rule::Fields,
                }
            }
            Value::Array(_) => match self.field.map(|field| &field.list) {
                Some(ListType::Set) => Rule::Set,
                Some(ListType::Map(keys)) => Rule::Keyed(keys.to_vec()),
                _ => Rule::Leaf,
            },
            _ => Rule::Leaf,
        }
    }

    /// What is known about a key of this object, and its field if the schema names it.
    fn child(self, key: &str) -> (Self, Named<'a>) {
        if let Some(custom) = self.custom {
            return self.child_of_custom(custom, key);
        }
        if let Some(definition) = self.struct_definition() {
            return match definition.field(key) {
                Some(field) => (Self::of(&field.ty, Some(field)), Named::Field(field)),
                None => (Self::UNKNOWN, Named::Nothing),
            };
        }
        match self.ty {
            Some(Type::Map(item)) => (Self::of(item, None), Named::Nothing),
            _ => (Self::UNKNOWN, Named::Nothing),
        }
    }

    fn child_of_custom(self, custom: &'a Structural, key: &str) -> (Self, Named<'a>) {
        let whole = self.root || custom.is_embedded();
        if whole && key == "metadata" {
            let definition = crate::schema::definition(OBJECT_META);
            return (Self { definition, ..Self::UNKNOWN }, Named::Custom);
        }
        let named = custom.names(key) || whole && matches!(key, "apiVersion" | "kind");
        let child = custom.field(key).map_or(Self::UNKNOWN, Self::of_custom);
        (child, if named { Named::Custom } else { Named::Nothing })
    }

    /// Whether the schema rules a key out.
    fn lacks(self, key: &str, named: Named<'_>) -> bool {
        match self.custom {
            _ if named.is_known() => false,
            Some(custom) => custom.field(key).is_none() && !custom.allows(key),
            None => self.struct_definition().is_some(),
        }
    }

    fn item(self) -> Self {
        if let Some(custom) = self.custom {
            return custom.items().map_or(Self::UNKNOWN, Self::of_custom);
        }
        match self.ty {
            Some(Type::Array(item)) => Self::of(item, None),
            _ => Self::UNKNOWN,
        }
    }

    /// The path element of one element of a list.
    fn element(self, rule: &Rule<'_>, value: &Value) -> Result<String, String> {
        let Rule::Keyed(keys) = rule else {
            return Ok(format!("v:{value}"));
        };
        let map = value.as_object().ok_or("associative list may not have non-map elements")?;
        let mut parts = Vec::with_capacity(keys.len());
        for key in keys {
            let default = || {
                if let Some(custom) = self.item().custom {
                    return custom.field(key)?.default_value().cloned();
                }
                let field = self.item().definition?.field(key)?;
                field.default.map(|text| Value::String(text.to_owned()))
            };
            let part = map.get(*key).cloned().or_else(default).ok_or_else(|| {
                format!(
                    "associative list with keys has an element that omits key field {key:?} \
                     (and doesn't have default value)"
                )
            })?;
            parts.push((*key, part));
        }
        Ok(key_element(parts))
    }
}

fn rule_of_custom<'a>(custom: &'a Structural, value: &Value) -> Rule<'a> {
    match (value, custom.list_type()) {
        (Value::Object(_), _) if custom.map_type() == MapType::Atomic => Rule::Leaf,
        (Value::Object(_), _) => Rule::Fields,
        (Value::Array(_), StructuralList::Set) => Rule::Set,
        (Value::Array(_), StructuralList::Map(keys)) => {
            Rule::Keyed(keys.iter().map(String::as_str).collect())
        }
        _ => Rule::Leaf,
    }
}

/// The fields that a value has.
///
/// # Errors
/// An element of a list that misses its key.
pub(super) fn fields_of(node: Node<'_>, value: &Value) -> Result<FieldSet, String> {
    Ok(entry_of(node, value)?.children)
}

fn entry_of(node: Node<'_>, value: &Value) -> Result<Entry, String> {
    let rule = node.rule(value);
    match (&rule, value) {
        (Rule::Fields, Value::Object(map)) => {
            let mut children = FieldSet::default();
            for (key, value) in map {
                let (child, named) = node.child(key);
                let mut entry = entry_of(child, value)?;
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                entry.member |= empty || !named.is_known();
                children.put(format!("f:{key}"), entry);
            }
            Ok(Entry { member: false, children })
        }
        (Rule::Set | Rule::Keyed(_), Value::Array(list)) => {
            let mut children = FieldSet::default();
            for value in list {
                let mut entry = entry_of(node.item(), value)?;
                entry.member = true;
                children.put(node.element(&rule, value)?, entry);
            }
            Ok(Entry { member: false, children })
        }
        _ => Ok(Entry::member()),
    }
}

/// Where a value has lists, maps and objects that the schema says are owned as a whole.
pub(super) fn atomics(node: Node<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let known = node.definition.is_some() || node.ty.is_some() || node.custom.is_some();
    let length = path.len();
    if known && !path.is_empty() && matches!(node.rule(value), Rule::Leaf) {
        found.extend((value.is_object() || value.is_array()).then(|| path.clone()));
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let (child, named) = node.child(key);
                if named.is_known() {
                    path.push('.');
                    path.push_str(key);
                    atomics(child, value, path, found);
                    path.truncate(length);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                atomics(node.item(), item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Says where a value has a field that its schema lacks, or a key that is missing.
pub(super) fn undeclared(node: Node<'_>, value: &Value, path: &mut String) -> Option<String> {
    let (rule, length) = (node.rule(value), path.len());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let (child, named) = node.child(key);
                path.push('.');
                path.push_str(key);
                if node.lacks(key, named) {
                    return Some(format!("{path}: field not declared in schema"));
                }
                if let Some(found) = undeclared(child, value, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
        }
        Value::Array(list) => {
            let mut seen = std::collections::BTreeSet::new();
            for (at, value) in list.iter().enumerate() {
                if !matches!(rule, Rule::Leaf) {
                    match node.element(&rule, value) {
                        Err(why) => return Some(format!("{path}: element {at}: {why}")),
                        Ok(element) if !seen.insert(element.clone()) => {
                            let shown = element.split_once(':').map_or("", |(_, shown)| shown);
                            return Some(format!("{path}: duplicate entries for key [{shown}]"));
                        }
                        Ok(_) => {}
                    }
                }
                path.push_str(&format!("[{at}]"));
                if let Some(found) = undeclared(node.item(), value, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
    None
}

/// How two values differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    /// The same difference, blind to these fields and all below them.
    pub(super) fn without(mut self, ignored: &FieldSet) -> Self {
        for part in [&mut self.removed, &mut self.modified, &mut self.added] {
            part.subtract_below(ignored);
        }
        self
    }
}

#[derive(Default)]
struct Delta {
    removed: Entry,
    modified: Entry,
    added: Entry,
}

/// How `new` differs from `old`.
///
/// # Errors
/// An element of a list that misses its key.
pub(super) fn compare(node: Node<'_>, old: &Value, new: &Value) -> Result<Comparison, String> {
    let delta = delta(node, Some(old), Some(new))?;
    Ok(Comparison {
        removed: delta.removed.children,
        modified: delta.modified.children,
        added: delta.added.children,
    })
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Delta {
    let mut delta = Delta::default();
    match (old, new) {
        (None, Some(_)) => delta.added.member = true,
        (Some(_), None) => delta.removed.member = true,
        (old, new) => delta.modified.member = old != new,
    }
    delta
}

fn delta(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Delta, String> {
    if let (Some(old), Some(new)) = (old, new)
        && old == new
    {
        return check_keys(node, new).map(|()| Delta::default());
    }
    let shown = new.filter(|new| !new.is_null()).or(old);
    let Some(shown) = shown else { return Ok(leaf(old, new)) };
    let rule = node.rule(shown);
    let mut delta = match (&rule, shown) {
        (Rule::Fields, Value::Object(_)) => {
            let (Some(a), Some(b)) = (fields(old), fields(new)) else { return Ok(leaf(old, new)) };
            if a.is_empty() && b.is_empty() {
                return Ok(leaf(old, new));
            }
            delta_of_fields(node, (a, old.is_some()), (b, new.is_some()))?
        }
        (Rule::Set | Rule::Keyed(_), Value::Array(_)) => {
            let (Some(a), Some(b)) = (list(old), list(new)) else { return Ok(leaf(old, new)) };
            if a.is_empty() && b.is_empty() {
                return Ok(leaf(old, new));
            }
            delta_of_lists(node, &rule, a, b)?
        }
        _ => return Ok(leaf(old, new)),
    };
    delta.added.member |= old.is_none();
    delta.removed.member |= new.is_none();
    Ok(delta)
}

/// Checks that every element of every list in a value has its keys.
///
/// # Errors
/// An element that misses its key.
fn check_keys(node: Node<'_>, value: &Value) -> Result<(), String> {
    match value {
        Value::Object(map) if matches!(node.rule(value), Rule::Fields) => {
            map.iter().try_for_each(|(key, value)| check_keys(node.child(key).0, value))
        }
        Value::Array(list) => {
            let rule = node.rule(value);
            if let Rule::Leaf = rule {
                return Ok(());
            }
            list.iter().try_for_each(|value| {
                if let Rule::Keyed(keys) = &rule
                    && !keys.iter().all(|key| value.get(key).is_some())
                {
                    node.element(&rule, value)?;
                }
                check_keys(node.item(), value)
            })
        }
        _ => Ok(()),
    }
}

static NO_FIELDS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// The fields of a value: none if it is absent or null, `None` if it is no object.
fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(&NO_FIELDS),
        Some(value) => value.as_object(),
    }
}

fn list(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(value) => value.as_array().map(Vec::as_slice),
    }
}

fn delta_of_fields(
    node: Node<'_>,
    (old, old_exists): (&Map<String, Value>, bool),
    (new, new_exists): (&Map<String, Value>, bool),
) -> Result<Delta, String> {
    let mut all = Delta::default();
    let only_new = new.keys().filter(|key| !old.contains_key(*key));
    let empty = Value::Object(Map::new());
    for key in old.keys().chain(only_new) {
        let (child, named) = node.child(key);
        // Upstream's encoding has these fields whenever it has what they are in.
        let absent = named
            .field()
            .filter(|field| field.present)
            .map(|field| if field.ty.definition().is_some() { &empty } else { &Value::Null });
        let (a, b) = (
            old.get(key).or(absent.filter(|_| old_exists)),
            new.get(key).or(absent.filter(|_| new_exists)),
        );
        put(&mut all, || format!("f:{key}"), delta(child, a, b)?);
    }
    Ok(all)
}

/// Most fields are in none of the parts or in one, and only those need the element's name.
fn put(all: &mut Delta, element: impl Fn() -> String, delta: Delta) {
    let parts = [
        (&mut all.removed, delta.removed),
        (&mut all.modified, delta.modified),
        (&mut all.added, delta.added),
    ];
    for (all, part) in parts {
        if !part.is_empty() {
            all.children.put(element(), part);
        }
    }
}

/// A list's elements by their path elements; more than one where a key comes twice.
fn by_element<'v>(
    node: Node<'_>,
    rule: &Rule<'_>,
    list: &'v [Value],
) -> Result<BTreeMap<String, Vec<&'v Value>>, String> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for value in list {
        found.entry(node.element(rule, value)?).or_default().push(value);
    }
    Ok(found)
}

fn delta_of_lists(
    node: Node<'_>,
    rule: &Rule<'_>,
    old: &[Value],
    new: &[Value],
) -> Result<Delta, String> {
    let (old, mut new) = (by_element(node, rule, old)?, by_element(node, rule, new)?);
    let mut all = Delta::default();
    for (element, a) in old {
        let b = new.remove(&element).unwrap_or_default();
        let delta = match (a.as_slice(), b.as_slice()) {
            ([a], [b]) => delta(node.item(), Some(a), Some(b))?,
            ([a, ..], []) => delta(node.item(), Some(a), None)?,
            _ => leaf(Some(&Value::from(a.len())), Some(&Value::from(b.len()))),
        };
        put(&mut all, || element.clone(), delta);
    }
    for (element, b) in new {
        let delta = delta(node.item(), None, b.first().copied())?;
        put(&mut all, || element.clone(), delta);
    }
    Ok(all)
}

/// What applying `new` onto `old` gives: granular objects and lists keep what `new` does not name.
///
/// # Errors
/// An element of a list that misses its key.
pub(super) fn merge(node: Node<'_>, old: &Value, new: &Value) -> Result<Value, String> {
    let rule = node.rule(new);
    match (&rule, old, new) {
        (Rule::Fields, Value::Object(old), Value::Object(new)) => {
            let mut merged = old.clone();
            for (key, value) in new {
                let value = match old.get(key) {
                    Some(old) => merge(node.child(key).0, old, value)?,
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Ok(Value::Object(merged))
        }
        (Rule::Set | Rule::Keyed(_), Value::Array(old), Value::Array(new)) => {
            merge_lists(node, &rule, old, new).map(Value::Array)
        }
        _ => Ok(new.clone()),
    }
}

/// Elements of both come in the new order; elements of the old list alone keep their places.
fn merge_lists(
    node: Node<'_>,
    rule: &Rule<'_>,
    old: &[Value],
    new: &[Value],
) -> Result<Vec<Value>, String> {
    let named = |list: &[Value]| -> Result<Vec<String>, String> {
        list.iter().map(|value| node.element(rule, value)).collect()
    };
    let (old_names, new_names) = (named(old)?, named(new)?);
    let in_new: HashSet<&String> = new_names.iter().collect();
    let mut in_old = HashMap::with_capacity(old.len());
    for (at, name) in old_names.iter().enumerate() {
        in_old.entry(name).or_insert(at);
    }
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let mut at = 0;
    for (name, value) in new_names.iter().zip(new) {
        while let Some(old_name) = old_names.get(at)
            && !in_new.contains(old_name)
        {
            merged.push(old[at].clone());
            at += 1;
        }
        match in_old.get(name) {
            Some(found) => merged.push(merge(node.item(), &old[*found], value)?),
            None => merged.push(value.clone()),
        }
        at += usize::from(old_names.get(at) == Some(name));
    }
    let rest = old_names.iter().zip(old).skip(at);
    merged.extend(rest.filter(|(name, _)| !in_new.contains(name)).map(|(_, v)| v.clone()));
    Ok(merged)
}

/// The value without these fields; `None` where nothing is left of an object or a list.
pub(super) fn without(node: Node<'_>, value: &Value, removed: &FieldSet) -> Option<Value> {
    let rule = node.rule(value);
    let keep = |element: &str, child: Node<'_>, value: &Value| match removed.get(element) {
        None => Some(value.clone()),
        Some(entry) if entry.member => None,
        Some(entry) => without(child, value, &entry.children),
    };
    match (&rule, value) {
        (Rule::Fields, Value::Object(map)) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.clone(), keep(&format!("f:{key}"), node.child(key).0, value)?))
                })
                .collect();
            (!kept.is_empty() || map.is_empty()).then_some(Value::Object(kept))
        }
        (Rule::Set | Rule::Keyed(_), Value::Array(list)) => {
            let kept: Vec<Value> = list
                .iter()
                .filter_map(|value| match node.element(&rule, value) {
                    Ok(element) => keep(&element, node.item(), value),
                    Err(_) => Some(value.clone()),
                })
                .collect();
            (!kept.is_empty() || list.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

/// The same set, with every field that the schema names and that has something below it in the
/// set itself: removing all that is in an object removes the object.
pub(super) fn with_named_fields(node: Node<'_>, set: &FieldSet) -> FieldSet {
    let mut result = FieldSet::default();
    for (element, entry) in set.entries() {
        let (child, named) = match element.strip_prefix("f:") {
            Some(name) => node.child(name),
            None => (node.item(), Named::Nothing),
        };
        let children = with_named_fields(child, &entry.children);
        let member = entry.member || (named.is_known() && !children.is_empty());
        result.put(element.to_owned(), Entry { member, children });
    }
    result
}
