//! Managed fields: which manager owns which field of an object.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields` and
//! `sigs.k8s.io/structured-merge-diff/merge/update.go`.
//!
//! Differs: managers of another API version of the same kind are compared in the version at hand,
//! since no kind served here renames its fields between versions.

use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value, json};

use super::{
    fields::FieldSet,
    json::check_depth,
    typed::{Comparison, Node, compare},
};
use crate::schema::Model;

/// Past this many updating managers the oldest are merged into one.
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Who writes, how and when.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// The field manager: the request's, or else the first part of its user agent.
    pub manager: &'a str,
    /// The API version of the request, for example `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that is written, for example `status`.
    pub subresource: Option<&'a str>,
    /// The time of the request.
    pub time: Timestamp,
    /// Fields that this endpoint does not write and so never owns, for example `status` on the
    /// main resource.
    pub ignored: &'a FieldSet,
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applies: bool,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<Timestamp>,
    pub(super) fields: FieldSet,
}

impl Manager {
    pub(super) fn new(writer: &Writer<'_>, applies: bool, fields: FieldSet) -> Self {
        Self {
            name: writer.manager.to_owned(),
            applies,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.unwrap_or_default().to_owned(),
            time: None,
            fields,
        }
    }

    /// Whether both are one manager: appliers are told apart without their version.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.applies == other.applies
            && self.subresource == other.subresource
            && (self.applies || self.api_version == other.api_version)
    }

    /// How a conflict names it.
    pub(super) fn printed(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn decode(entry: &Value) -> Option<Self> {
        let fields = FieldSet::from_fields_v1(entry.get("fieldsV1")?)?;
        let entry: ManagedFieldsEntry = serde_json::from_value(entry.clone()).ok()?;
        Some(Self {
            name: entry.manager.unwrap_or_default(),
            applies: match entry.operation.as_deref()? {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            },
            api_version: entry.api_version.unwrap_or_default(),
            subresource: entry.subresource.unwrap_or_default(),
            time: entry.time.map(|time| time.0),
            fields,
        })
    }

    fn encode(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_fields_v1(),
        });
        if let Some(time) = self.time.and_then(|time| Timestamp::from_second(time.as_second()).ok())
        {
            entry["time"] = Value::String(time.to_string());
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = Value::String(self.subresource.clone());
        }
        entry
    }
}

/// The managers of an object; none if it has no managed fields or they cannot be read.
pub(super) fn decode(object: &Value) -> Option<Vec<Manager>> {
    let entries = object.get("metadata")?.get("managedFields")?.as_array()?;
    entries.iter().map(Manager::decode).collect()
}

/// Writes the managers into the object, in upstream's order.
pub(super) fn encode(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    managers.sort_by(|a, b| {
        let key = |m: &Manager| (!m.applies, m.time.map_or(0, Timestamp::as_second));
        key(a)
            .cmp(&key(b))
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        meta.remove("managedFields");
    } else {
        let entries = managers.iter().map(Manager::encode).collect();
        meta.insert("managedFields".into(), Value::Array(entries));
    }
}

/// The object without its managed fields, which own nothing and are owned by nobody.
pub(super) fn unmanaged(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

static NOBODYS: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_names(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// Without what nobody owns: the object's identity and what the server alone writes.
pub(super) fn stripped(fields: &FieldSet) -> FieldSet {
    fields.difference(&NOBODYS)
}

/// An object of that kind before anybody wrote a field of it.
pub(super) fn blank(like: &Value) -> Value {
    let mut blank = Map::new();
    for key in ["apiVersion", "kind"] {
        if let Some(value) = like.get(key) {
            blank.insert(key.into(), value.clone());
        }
    }
    blank.insert("metadata".into(), Value::Object(Map::new()));
    Value::Object(blank)
}

/// Takes from every other manager what the write changed or removed.
pub(super) fn disown(managers: &mut Vec<Manager>, writer: &Manager, change: &Comparison) {
    for manager in managers.iter_mut().filter(|manager| !manager.is(writer)) {
        for taken in [&change.modified, &change.added, &change.removed] {
            manager.fields.subtract(taken);
        }
    }
    managers.retain(|manager| manager.is(writer) || !manager.fields.is_empty());
}

/// Sets `metadata.managedFields` of `new` after a create (`live` is `None`), an update or a patch
/// that is not an apply: the writer owns what it changed, everybody else no longer does.
///
/// The managed fields of the request (in `new`) take the place of the live ones unless there are
/// none or they cannot be read; `[{}]` clears them, and an object without any is not tracked until
/// its first apply. An object that its schema cannot describe keeps what it had.
pub fn update<'a>(
    model: impl Into<Model<'a>>,
    live: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    let model = model.into();
    let mut managers = managers_of_request(live, new);
    if managers.is_empty() && live.is_some() {
        encode(new, managers);
        return;
    }
    match live {
        Some(live) => track(model, live, new, &mut managers, writer),
        None => track(model, &blank(new), new, &mut managers, writer),
    }
    cap(&mut managers);
    encode(new, managers);
}

fn managers_of_request(live: Option<&Value>, new: &Value) -> Vec<Manager> {
    let sent = new.get("metadata").and_then(|meta| meta.get("managedFields"));
    let sent = sent.and_then(Value::as_array).filter(|sent| !sent.is_empty());
    if let Some([Value::Object(only)]) = sent.map(Vec::as_slice)
        && only.is_empty()
    {
        return Vec::new();
    }
    sent.and_then(|_| decode(new)).or_else(|| live.and_then(decode)).unwrap_or_default()
}

/// Gives the writer what differs between the two objects.
pub(super) fn track(
    model: Model<'_>,
    live: &Value,
    new: &Value,
    managers: &mut Vec<Manager>,
    writer: &Writer<'_>,
) {
    if check_depth([live, new].into_iter()).is_err() {
        return;
    }
    let Ok(change) = compare(Node::root(model), live, new) else { return };
    let change = change.without(writer.ignored);
    let mut own = Manager::new(writer, false, FieldSet::default());
    // The writer itself loses what the write removed, as everybody else does.
    for manager in managers.iter_mut().filter(|manager| manager.is(&own)) {
        manager.fields.subtract(&change.removed);
    }
    disown(managers, &own, &change);
    own.fields = stripped(&change.modified.union(&change.added));
    if !own.fields.is_empty() {
        own.time = Some(writer.time);
        match managers.iter_mut().find(|manager| manager.is(&own)) {
            Some(known) => {
                known.fields.extend(own.fields);
                known.time = own.time;
            }
            None => managers.push(own),
        }
    }
    managers.retain(|manager| !manager.fields.is_empty());
}

/// Merges the oldest updating managers of each version until few enough are left.
fn cap(managers: &mut Vec<Manager>) {
    let mut updaters = managers.iter().filter(|manager| !manager.applies).count();
    if updaters <= UPDATERS_MAX {
        return;
    }
    managers.sort_by(|a, b| (a.applies, a.time, &a.name).cmp(&(b.applies, b.time, &b.name)));
    let mut at = 0;
    while updaters > UPDATERS_MAX && at < managers.len() && !managers[at].applies {
        let version = &managers[at].api_version;
        match managers[..at].iter().position(|earlier| earlier.api_version == *version) {
            None => at += 1,
            Some(first) => {
                let merged = managers.remove(at);
                let bucket = &mut managers[first];
                bucket.name = ANCIENT.into();
                bucket.subresource = String::new();
                bucket.fields = bucket.fields.union(&merged.fields);
                bucket.time = merged.time;
                updaters -= 1;
            }
        }
    }
}
