//! The status of a definition: which names it got, and whether it is served.
//!
//! Upstream's naming and establishing controllers come after the write; here the status is part
//! of it, so that who created a definition need not wait.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/status/naming_controller.go`,
//! `pkg/controller/establish`, `pkg/apis/apiextensions/helpers.go`.

use jiff::Timestamp;
use orch_core::clock::to_seconds;
use serde_json::{Value, json};

/// What a condition says: its status, reason and message.
type Said<'a> = (bool, &'a str, &'a str);

/// Whether a condition of a definition is true.
pub(super) fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|condition| condition["status"] == "True")
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = definition["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// Sets a condition. Its time changes when its status does.
pub(super) fn set(
    definition: &mut Value,
    kind: &str,
    (is, reason, message): Said<'_>,
    now: Timestamp,
) {
    let status = if is { "True" } else { "False" };
    let kept = condition(definition, kind)
        .filter(|old| old["status"] == status)
        .and_then(|old| old.get("lastTransitionTime").cloned());
    let since = kept.unwrap_or_else(|| to_seconds(now).to_string().into());
    let new = json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since,
    });
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    if !definition["status"]["conditions"].is_array() {
        definition["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = definition["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// Brings the status of a definition up to date with its names and those of the others.
pub(super) fn settle(definition: &mut Value, others: &[Value], now: Timestamp) {
    store_version(definition);
    let conflict = accept_names(definition, others);
    match &conflict {
        Some((reason, why)) => set(definition, "NamesAccepted", (false, reason, why), now),
        None => {
            let said = (true, "NoConflicts", "no conflicts found");
            set(definition, "NamesAccepted", said, now);
        }
    }
    if conflict.is_none() && !is_true(definition, "Established") {
        let said = (true, "InitialNamesAccepted", "the initial names have been accepted");
        set(definition, "Established", said, now);
    } else if condition(definition, "Established").is_none() {
        let said = (false, "NotAccepted", "not all names are accepted");
        set(definition, "Established", said, now);
    }
}

/// Notes the version that objects are stored in from now on.
fn store_version(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions
        .filter(|version| version["storage"] == true)
        .find_map(|version| version["name"].as_str().map(str::to_owned));
    let Some(storage) = storage else { return };
    if !definition["status"]["storedVersions"].is_array() {
        definition["status"]["storedVersions"] = json!([]);
    }
    if let Some(stored) = definition["status"]["storedVersions"].as_array_mut()
        && !stored.iter().any(|version| *version == storage)
    {
        stored.push(storage.into());
    }
}

/// Takes the names that no other definition of the group has; gives the last conflict's reason
/// and message, as upstream tells it.
fn accept_names(definition: &mut Value, others: &[Value]) -> Option<(&'static str, String)> {
    let taken = Taken::by(definition, others);
    let wanted = definition["spec"]["names"].clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({"plural": "", "kind": ""});
    }
    let mut conflict = None;
    let parts = [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("shortNames", "ShortNamesConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
        ("categories", ""),
    ];
    for (part, reason) in parts {
        let kinds = matches!(part, "kind" | "listKind");
        let clash = if part == "categories" { None } else { taken.clash(&wanted[part], kinds) };
        match clash {
            Some(name) => conflict = Some((reason, format!("{name:?} is already in use"))),
            None => crate::strategy::carry(&mut accepted, &wanted, part),
        }
    }
    definition["status"]["acceptedNames"] = accepted;
    conflict
}

/// The names that the other definitions of a group have.
struct Taken {
    names: Vec<String>,
    kinds: Vec<String>,
}

impl Taken {
    fn by(definition: &Value, others: &[Value]) -> Self {
        let mut taken = Self { names: Vec::new(), kinds: Vec::new() };
        let own = &definition["metadata"]["name"];
        let same_group = |other: &&Value| other["spec"]["group"] == definition["spec"]["group"];
        for other in others.iter().filter(same_group) {
            if other["metadata"]["name"] == *own {
                continue;
            }
            let names = &other["status"]["acceptedNames"];
            for part in ["plural", "singular", "shortNames"] {
                taken.names.extend(texts(&names[part]));
            }
            for part in ["kind", "listKind"] {
                taken.kinds.extend(texts(&names[part]));
            }
        }
        taken
    }

    fn clash(&self, wanted: &Value, kinds: bool) -> Option<String> {
        let taken = if kinds { &self.kinds } else { &self.names };
        texts(wanted).into_iter().find(|name| taken.contains(name))
    }
}

/// A name, or a list of names.
fn texts(value: &Value) -> Vec<String> {
    let one = value.as_str().into_iter();
    let many = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(many).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Notes that the objects of a definition are about to go.
pub(crate) fn mark_terminating(definition: &mut Value, now: Timestamp) {
    let why =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(definition, "Terminating", (true, "InstanceDeletionPending", why), now);
}
