//! Sets of field paths: who owns what, and their `FieldsV1` form.

use std::collections::{BTreeMap, btree_map};

use serde_json::{Map, Value};

/// A set of paths into an object.
///
/// A path is a row of elements as `FieldsV1` writes them: `f:spec`, `k:{"name":"web"}` for an
/// element of a list by its key, `v:"x"` for an element by its value, `i:0` by its index.
///
/// Source: `sigs.k8s.io/structured-merge-diff/fieldpath/set.go` and `serialize.go`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    entries: BTreeMap<String, Entry>,
}

/// One element of a path: whether the path that ends here is in the set, and what is below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) member: bool,
    pub(super) children: FieldSet,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn member() -> Self {
        Self { member: true, children: FieldSet::default() }
    }
}

impl FieldSet {
    /// The set of these paths of field names, for example `["status", "metadata.labels"]`.
    pub fn of_names(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let (mut at, mut names) = (&mut set, path.split('.').peekable());
            while let Some(name) = names.next() {
                let entry = at.entries.entry(format!("f:{name}")).or_default();
                entry.member |= names.peek().is_none();
                at = &mut entry.children;
            }
        }
        set
    }

    /// Reads `fieldsV1`. `None` if it is not of that form.
    pub fn from_fields_v1(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, below) in fields.as_object()? {
            if key == "." {
                continue;
            }
            let below_map = below.as_object()?;
            let entry =
                Entry { member: is_member(below_map), children: Self::from_fields_v1(below)? };
            set.entries.insert(canonical(key)?, entry);
        }
        Some(set)
    }

    /// Writes `fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        self.clone().into_fields_v1()
    }

    /// Writes `fieldsV1`, out of this set's own strings.
    pub(super) fn into_fields_v1(self) -> Value {
        let fields = self.entries.into_iter().map(|(key, entry)| {
            let mut below = entry.children.into_fields_v1();
            if let Value::Object(below) = &mut below
                && entry.member
                && !below.is_empty()
            {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            (key, below)
        });
        Value::Object(fields.collect())
    }

    /// Whether a path is in this set and in one that is written as `fieldsV1`.
    pub(super) fn meets(&self, fields: &Map<String, Value>) -> bool {
        self.entries.iter().any(|(element, entry)| {
            let Some(Value::Object(below)) = fields.get(element) else { return false };
            entry.member && is_member(below) || entry.children.meets(below)
        })
    }

    /// Whether all of its paths are in a set that is written as `fieldsV1`.
    pub(super) fn is_within(&self, fields: &Map<String, Value>) -> bool {
        self.entries.iter().all(|(element, entry)| {
            let Some(Value::Object(below)) = fields.get(element) else { return false };
            (is_member(below) || !entry.member) && entry.children.is_within(below)
        })
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, element: &str) -> Option<&Entry> {
        self.entries.get(element)
    }

    /// Adds what is under one element; nothing if that is empty.
    pub(super) fn put(&mut self, element: String, entry: Entry) {
        if entry.is_empty() {
            return;
        }
        match self.entries.entry(element) {
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
            }
            btree_map::Entry::Occupied(mut old) => {
                let old = old.get_mut();
                old.member |= entry.member;
                old.children.extend(entry.children);
            }
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (element, entry) in other.entries {
            self.put(element, entry);
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(element, entry)| (element.as_str(), entry))
    }

    /// The paths in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.extend(other.clone());
        union
    }

    /// The paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.filtered(|element, entry| {
            let other = other.get(element)?;
            Some(Entry {
                member: entry.member && other.member,
                children: entry.children.intersection(&other.children),
            })
        })
    }

    /// The paths that are not in the other; what is below a path of the other stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Removes the paths that are in the other; what is below a path of the other stays.
    ///
    /// It costs as much as the other has paths, however large this set is.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (element, taken) in &other.entries {
            let Some(entry) = self.entries.get_mut(element) else { continue };
            entry.member &= !taken.member;
            entry.children.subtract(&taken.children);
            if entry.is_empty() {
                self.entries.remove(element);
            }
        }
    }

    /// The paths that are neither in the other nor below a path of the other.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.subtract_below(other);
        left
    }

    /// Removes the paths that are in the other or below a path of the other.
    ///
    /// It costs as much as the other has paths, however large this set is.
    pub(super) fn subtract_below(&mut self, other: &Self) {
        for (element, taken) in &other.entries {
            let Some(entry) = self.entries.get_mut(element) else { continue };
            if !taken.member {
                entry.children.subtract_below(&taken.children);
            }
            if taken.member || entry.is_empty() {
                self.entries.remove(element);
            }
        }
    }

    fn filtered(&self, keep: impl Fn(&str, &Entry) -> Option<Entry>) -> Self {
        let kept = self.entries.iter().filter_map(|(element, entry)| {
            let kept = keep(element, entry).filter(|entry| !entry.is_empty())?;
            Some((element.clone(), kept))
        });
        Self { entries: kept.collect() }
    }

    /// The paths as upstream prints them: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut String, paths: &mut Vec<String>) {
        for (element, entry) in &self.entries {
            let length = prefix.len();
            prefix.push_str(&printed(element));
            if entry.member {
                paths.push(prefix.clone());
            }
            entry.children.collect_paths(prefix, paths);
            prefix.truncate(length);
        }
    }
}

/// Whether the path that ends where this is written is in the set.
fn is_member(below: &Map<String, Value>) -> bool {
    below.is_empty() || below.contains_key(".")
}

/// The element of an object in a list whose elements these key fields tell apart.
pub(super) fn key_element(mut keys: Vec<(&str, Value)>) -> String {
    keys.sort_by_key(|(name, _)| *name);
    let parts: Vec<String> = keys
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::String((*name).to_owned())))
        .collect();
    format!("k:{{{}}}", parts.join(","))
}

/// The same element in the one form that comparisons need; `None` if it is no element.
fn canonical(element: &str) -> Option<String> {
    let (kind, rest) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "i" => rest.parse::<i64>().ok().map(|at| format!("i:{at}")),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|value| format!("v:{value}")),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
            Some(key_element(keys.iter().map(|(k, v)| (k.as_str(), v.clone())).collect()))
        }
        _ => None,
    }
}

fn printed(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let mut parts: Vec<String> =
                keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            parts.sort();
            format!("[{}]", parts.join(","))
        }
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: &Value) -> FieldSet {
        FieldSet::from_fields_v1(fields).unwrap()
    }

    #[test]
    fn fields_v1_round_trips() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            "f:finalizers": {"v:\"x\"": {}}, "f:list": {"i:0": {}}}});
        assert_eq!(set(&fields).to_fields_v1(), fields);
        for wrong in [json!([]), json!({"f:a": 1}), json!({"a": {}}), json!({"k:x": {}})] {
            assert_eq!(FieldSet::from_fields_v1(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sets_do_what_sets_do() {
        let a = set(&json!({"f:x": {".": {}, "f:y": {}}, "f:z": {}}));
        let b = set(&json!({"f:x": {}, "f:w": {}}));
        assert_eq!(a.difference(&b).to_fields_v1(), json!({"f:x": {"f:y": {}}, "f:z": {}}));
        assert_eq!(a.recursive_difference(&b).to_fields_v1(), json!({"f:z": {}}));
        assert_eq!(a.intersection(&b).to_fields_v1(), json!({"f:x": {}}));
        assert_eq!(a.union(&b).paths(), [".w", ".x", ".x.y", ".z"]);
        assert!(a.difference(&a).is_empty());
    }

    #[test]
    fn sets_are_held_against_what_is_written() {
        let written = json!({"f:x": {".": {}, "f:y": {}}, "f:z": {"f:w": {}}});
        let check = |fields: Value, within: bool, meets: bool| {
            let written = written.as_object().unwrap();
            assert_eq!(set(&fields).is_within(written), within, "{fields}");
            assert_eq!(set(&fields).meets(written), meets, "{fields}");
        };
        check(json!({}), true, false);
        check(json!({"f:x": {}}), true, true);
        check(json!({"f:x": {".": {}, "f:y": {}}, "f:z": {"f:w": {}}}), true, true);
        check(json!({"f:x": {"f:y": {}, "f:z": {}}}), false, true);
        check(json!({"f:z": {}}), false, false);
        check(json!({"f:x": {"f:y": {"f:a": {}}}}), false, false);
    }

    #[test]
    fn paths_print_as_upstream_prints_them() {
        let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}},
            "f:finalizers": {"v:\"x\"": {}}}});
        let expected = [".spec.containers[name=\"a\"].image", ".spec.finalizers[=\"x\"]"];
        assert_eq!(set(&fields).paths(), expected);
    }
}
