//! What differs between two objects, and between two clusters.

use std::{collections::BTreeMap, fmt, sync::Arc};

use orch_core::Object;
use serde_json::Value;

use crate::sim::View;

/// A value is shown up to here.
const SHOWN_CHARS: usize = 120;
/// Lists whose elements have one of these are compared by it, others by position.
const NAMES: [&str; 6] = ["name", "type", "uid", "containerPort", "ip", "key"];

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: `spec.template.spec.containers[web].image`.
    pub path: String,
    /// What was there; `None` if nothing was.
    pub old: Option<Value>,
    /// What is there; `None` if nothing is.
    pub new: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{}: {} → {}", self.path, shown(old), shown(new)),
            (None, Some(new)) => write!(f, "+{}: {}", self.path, shown(new)),
            (Some(old), None) => write!(f, "-{}: {}", self.path, shown(old)),
            (None, None) => f.write_str(&self.path),
        }
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The fields in which two objects differ, in the order of their paths. What only says that there
/// was a write (`resourceVersion`, `managedFields`) is left out.
pub(super) fn differences(old: &Object, new: &Object) -> Vec<Difference> {
    differences_of(&bare(old), &bare(new))
}

/// The fields in which two documents differ.
pub(super) fn differences_of(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(old), Some(new), &mut found);
    found
}

/// Whether a node says nothing but that it is still there.
pub(crate) fn only_beats(old: &Object, new: &Object) -> bool {
    differences(old, new).iter().all(|found| found.path.ends_with("lastHeartbeatTime"))
}

fn bare(object: &Object) -> Value {
    let mut value = object.to_value();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
        meta.remove("managedFields");
    }
    value
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let (old, new) = (elements(old), elements(new));
            for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                let get = |list: &BTreeMap<String, &Value>| list.get(name).copied().cloned();
                let (a, b) = (get(&old), get(&new));
                compare(&format!("{path}[{name}]"), a.as_ref(), b.as_ref(), found);
            }
        }
        (old, new) => {
            found.push(Difference { path: path.to_owned(), old: old.cloned(), new: new.cloned() });
        }
    }
}

/// A list's elements by what tells them apart.
fn elements(list: &[Value]) -> BTreeMap<String, &Value> {
    let by = |name: &&str| -> Option<BTreeMap<String, &Value>> {
        let named = list.iter().map(|item| Some((plain(item.get(*name)?)?, item)));
        let named: BTreeMap<String, &Value> = named.collect::<Option<_>>()?;
        (named.len() == list.len()).then_some(named)
    };
    let numbered =
        || list.iter().enumerate().map(|(at, item)| (format!("{at:03}"), item)).collect();
    NAMES.iter().find_map(by).unwrap_or_else(numbered)
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// How an object is named in what tests print.
pub(super) fn name_of(object: &Object) -> String {
    match object.namespace() {
        "" => format!("{} {}", object.kind(), object.name()),
        namespace => format!("{} {namespace}/{}", object.kind(), object.name()),
    }
}

/// What differs between two revisions of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterDiff {
    /// Objects that are there at the later one only.
    pub created: Vec<Arc<Object>>,
    /// Objects that are there at the earlier one only.
    pub deleted: Vec<Arc<Object>>,
    /// Objects that differ: as they are later, and in what.
    pub changed: Vec<(Arc<Object>, Vec<Difference>)>,
}

impl ClusterDiff {
    /// Compares two views.
    pub fn between(old: &View, new: &View) -> Self {
        let by_id = |view: &View| -> BTreeMap<(String, String), Arc<Object>> {
            let id = |object: &Object| {
                (format!("{} {}", object.api_version(), name_of(object)), uid(object))
            };
            view.objects().map(|object| (id(object), object.clone())).collect()
        };
        let (mut before, mut diff) = (by_id(old), Self::default());
        for (id, object) in by_id(new) {
            match before.remove(&id) {
                None => diff.created.push(object),
                Some(earlier) => {
                    let found = differences(&earlier, &object);
                    if !found.is_empty() {
                        diff.changed.push((object, found));
                    }
                }
            }
        }
        diff.deleted = before.into_values().collect();
        diff
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty() && self.changed.is_empty()
    }
}

fn uid(object: &Object) -> String {
    object.metadata().uid.clone().unwrap_or_default()
}

impl fmt::Display for ClusterDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for object in &self.created {
            writeln!(f, "+ {}", name_of(object))?;
        }
        for object in &self.deleted {
            writeln!(f, "- {}", name_of(object))?;
        }
        for (object, differences) in &self.changed {
            writeln!(f, "~ {}", name_of(object))?;
            for difference in differences {
                writeln!(f, "    {difference}")?;
            }
        }
        Ok(())
    }
}

/// The difference of one object's two states as one line.
pub(super) fn in_one_line(differences: &[Difference]) -> String {
    let shown: Vec<String> = differences.iter().map(Difference::to_string).collect();
    shown.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn check(old: Value, new: Value, expected: &[&str]) {
        let object = |fields: Value| {
            let mut object: Map<String, Value> = Map::new();
            object.insert("metadata".into(), json!({"name": "a", "resourceVersion": "1"}));
            object.extend(fields.as_object().unwrap().clone());
            Object::from_value(&Value::Object(object)).unwrap()
        };
        let found = differences(&object(old), &object(new));
        let found: Vec<String> = found.iter().map(Difference::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn differences_name_fields_and_elements() {
        check(json!({"a": 1}), json!({"a": 1}), &[]);
        check(
            json!({"a": {"b": 1}}),
            json!({"a": {"b": 2, "c": "x"}}),
            &["a.b: 1 → 2", "+a.c: \"x\""],
        );
        let list = |image: &str| json!({"l": [{"name": "b", "image": image}, {"name": "a"}]});
        check(
            list("x"),
            json!({"l": [{"name": "b", "image": "y"}]}),
            &["-l[a]: {\"name\":\"a\"}", "l[b].image: \"x\" → \"y\""],
        );
        check(json!({"l": [1, 2]}), json!({"l": [1]}), &["-l[001]: 2"]);
    }
}
