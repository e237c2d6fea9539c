//! Managed fields: which manager owns which field of an object.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields` and
//! `sigs.k8s.io/structured-merge-diff/merge/update.go`.
//!
//! Differs: managers of another API version of the same kind are compared in the version at hand,
//! since no kind served here renames its fields between versions.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

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
    /// The entry as it stands, of a manager whose fields nobody needs to know: `fields` is empty
    /// then.
    kept: Option<Value>,
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
            kept: None,
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
        Some(Self { fields, ..Self::head(entry)? })
    }

    /// Who it is, without what it owns.
    fn head(entry: &Value) -> Option<Self> {
        let text = |field: &str| match entry.get(field) {
            None | Some(Value::Null) => Some(""),
            Some(value) => value.as_str(),
        };
        let time = match text("time")? {
            "" => None,
            time => Some(time.parse().ok()?),
        };
        text("fieldsType")?;
        Some(Self {
            name: text("manager")?.to_owned(),
            applies: match text("operation")? {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            },
            api_version: text("apiVersion")?.to_owned(),
            subresource: text("subresource")?.to_owned(),
            time,
            fields: FieldSet::default(),
            kept: None,
        })
    }

    /// Reads an entry that this module wrote. Its fields are decoded only if a write changes which
    /// they are: not if a writer writes what it has written before, and not if it touches nothing
    /// of another's.
    fn of_entry(entry: Value, writer: &Self, change: &Comparison) -> Option<Self> {
        let head = Self::head(&entry)?;
        let fields = entry.get("fieldsV1")?.as_object()?;
        let (written, removed) = ([&change.modified, &change.added], &change.removed);
        let stays = if head.is(writer) {
            written.iter().all(|part| part.is_within(fields))
        } else {
            !written.iter().any(|part| part.meets(fields))
        };
        if !stays || removed.meets(fields) {
            return Self::decode(&entry);
        }
        Some(Self { kept: Some(entry), ..head })
    }

    /// Decodes the fields that were left as they stood.
    fn know_fields(&mut self) {
        if let Some(entry) = self.kept.take() {
            let fields = entry.get("fieldsV1").and_then(FieldSet::from_fields_v1);
            self.fields = fields.unwrap_or_default();
        }
    }

    fn owns_nothing(&self) -> bool {
        self.fields.is_empty() && self.kept.is_none()
    }

    fn encode(self) -> Value {
        if let Some(entry) = self.kept {
            return entry;
        }
        let mut entry = Map::new();
        let mut put = |field: &str, value: Value| entry.insert(field.into(), value);
        put("manager", self.name.into());
        put("operation", if self.applies { "Apply" } else { "Update" }.into());
        put("apiVersion", self.api_version.into());
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", self.fields.into_fields_v1());
        if let Some(time) = self.time.and_then(written_time) {
            put("time", time);
        }
        if !self.subresource.is_empty() {
            put("subresource", self.subresource.into());
        }
        Value::Object(entry)
    }
}

/// A time as entries have it, to the second.
fn written_time(time: Timestamp) -> Option<Value> {
    Timestamp::from_second(time.as_second()).ok().map(|time| time.to_string().into())
}

/// The managers of an object; none if it has no managed fields or they cannot be read.
pub(super) fn decode(object: &Value) -> Option<Vec<Manager>> {
    entries(object)?.iter().map(Manager::decode).collect()
}

fn entries(object: &Value) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

/// Writes the managers into the object, in upstream's order.
pub(super) fn encode(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.owns_nothing());
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
        let entries = managers.into_iter().map(Manager::encode).collect();
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
pub(super) fn stripped(mut fields: FieldSet) -> FieldSet {
    fields.subtract(&NOBODYS);
    fields
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
    managers.retain(|manager| manager.is(writer) || !manager.owns_nothing());
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
    let sent = take_entries(new);
    if live.is_some() && clears(&sent) {
        return;
    }
    let of_live = live.and_then(entries);
    let known = match of_live {
        // What comes back as it was served is what this module has written.
        Some(entries) if sent.is_empty() => Some(entries.clone()),
        Some(entries) if sent == *entries => Some(sent.clone()),
        _ => None,
    };
    let own = Manager::new(writer, false, FieldSet::default());
    let change = match live {
        Some(live) => changed(model, live, new, writer),
        None => changed(model, &blank(new), new, writer),
    };
    let lazily = known.zip(change.as_ref()).and_then(|(entries, change)| {
        entries.into_iter().map(|entry| Manager::of_entry(entry, &own, change)).collect()
    });
    let mut managers: Vec<Manager> = match lazily {
        Some(managers) => managers,
        None => managers_of_request(live, &sent),
    };
    if managers.is_empty() && live.is_some() {
        return;
    }
    if let Some(change) = change {
        own_changes(&mut managers, own, change, writer.time);
    }
    cap(&mut managers);
    encode(new, managers);
}

/// Takes the managed fields of a request out of it.
fn take_entries(new: &mut Value) -> Vec<Value> {
    let meta = new.get_mut("metadata").and_then(Value::as_object_mut);
    match meta.and_then(|meta| meta.remove("managedFields")) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

/// Whether a request says that nothing is to be managed any more.
fn clears(sent: &[Value]) -> bool {
    matches!(sent, [Value::Object(only)] if only.is_empty())
}

fn managers_of_request(live: Option<&Value>, sent: &[Value]) -> Vec<Manager> {
    if clears(sent) {
        return Vec::new();
    }
    let decoded = || sent.iter().map(Manager::decode).collect::<Option<Vec<_>>>();
    let of_request = (!sent.is_empty()).then(decoded).flatten();
    of_request.or_else(|| live.and_then(decode)).unwrap_or_default()
}

/// Gives the writer what differs between the two objects.
pub(super) fn track(
    model: Model<'_>,
    live: &Value,
    new: &Value,
    managers: &mut Vec<Manager>,
    writer: &Writer<'_>,
) {
    if let Some(change) = changed(model, live, new, writer) {
        let own = Manager::new(writer, false, FieldSet::default());
        own_changes(managers, own, change, writer.time);
    }
}

/// What a write changes; `None` if the schema cannot describe the objects.
fn changed(model: Model<'_>, live: &Value, new: &Value, writer: &Writer<'_>) -> Option<Comparison> {
    check_depth([live, new].into_iter()).ok()?;
    let change = compare(Node::root(model), live, new).ok()?;
    Some(change.without(writer.ignored))
}

/// Gives a change to its writer, and takes it from everybody else.
fn own_changes(managers: &mut Vec<Manager>, mut own: Manager, change: Comparison, time: Timestamp) {
    // The writer itself loses what the write removed, as everybody else does.
    for manager in managers.iter_mut().filter(|manager| manager.is(&own)) {
        manager.fields.subtract(&change.removed);
    }
    disown(managers, &own, &change);
    let Comparison { mut modified, added, .. } = change;
    modified.extend(added);
    own.fields = stripped(modified);
    if !own.fields.is_empty() {
        own.time = Some(time);
        match managers.iter_mut().find(|manager| manager.is(&own)) {
            Some(known) => {
                known.time = own.time;
                match known.kept.as_mut().and_then(Value::as_object_mut) {
                    // It has these fields.
                    Some(entry) => {
                        entry.extend(written_time(time).map(|time| ("time".to_owned(), time)));
                    }
                    None => known.fields.extend(own.fields),
                }
            }
            None => managers.push(own),
        }
    }
    managers.retain(|manager| !manager.owns_nothing());
}

/// Merges the oldest updating managers of each version until few enough are left.
fn cap(managers: &mut Vec<Manager>) {
    let mut updaters = managers.iter().filter(|manager| !manager.applies).count();
    if updaters <= UPDATERS_MAX {
        return;
    }
    managers.iter_mut().for_each(Manager::know_fields);
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
                bucket.fields.extend(merged.fields);
                bucket.time = merged.time;
                updaters -= 1;
            }
        }
    }
}
