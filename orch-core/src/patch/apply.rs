//! Server-side apply: an object that states what its author cares about, merged with what others
//! care about.
//!
//! Source: KEP-555; `sigs.k8s.io/structured-merge-diff/merge/update.go`;
//! `k8s.io/apimachinery/pkg/util/managedfields/internal`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use serde_json::Value;

use super::{
    fields::FieldSet,
    json::check_depth,
    managed::{self, Manager, Writer},
    typed::{self, Node},
};
use crate::{
    schema::Model,
    status::{ApiError, Reason},
};

const LAST_APPLIED_NAME: &str = "kubectl.kubernetes.io/last-applied-configuration";
const LAST_APPLIED: &str =
    "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
/// Bytes of all annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A field that the applied configuration sets to another value than a manager that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner as upstream prints it: `"kubectl-client-side-apply" using apps/v1`.
    pub manager: String,
    /// The field, for example `.spec.replicas`.
    pub field: String,
}

/// An apply that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Others own what the configuration changes. 409.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit its schema. 500, as upstream answers it.
    #[error("failed to create typed patch object ({object}): {why}")]
    NotTyped {
        /// Namespace, name, version and kind.
        object: String,
        /// What does not fit.
        why: String,
    },
    /// The configuration states managed fields. 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        let Conflict { manager, field } = only;
        return format!("Apply failed with 1 conflict: conflict with {manager}: {field}");
    }
    let (mut lines, mut last) = (Vec::new(), "");
    for conflict in conflicts {
        if conflict.manager != last {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = &conflict.manager;
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::ManagedFieldsSet => Self::bad_request(message),
            ApplyError::NotTyped { .. } => Self::new(Reason::Unknown, message),
            ApplyError::Conflicts(conflicts) => {
                let cause = |conflict: Conflict| StatusCause {
                    reason: Some("FieldManagerConflict".into()),
                    message: Some(format!("conflict with {}", conflict.manager)),
                    field: Some(conflict.field),
                };
                Self::new(Reason::Conflict, message).with_details(StatusDetails {
                    causes: Some(conflicts.into_iter().map(cause).collect()),
                    ..StatusDetails::default()
                })
            }
        }
    }
}

/// Checks that a configuration states nothing that its schema does not declare, before anything
/// is taken out of it. [`apply`] does the same.
///
/// # Errors
/// [`ApplyError::NotTyped`].
pub fn check_declared<'a>(model: impl Into<Model<'a>>, config: &Value) -> Result<(), ApplyError> {
    let untyped = |why: String| ApplyError::NotTyped { object: described(config), why };
    check_depth(std::iter::once(config)).map_err(|error| untyped(error.to_string()))?;
    match typed::undeclared(Node::root(model.into()), config, &mut String::new()) {
        Some(why) => Err(untyped(why)),
        None => Ok(()),
    }
}

/// Applies a configuration: what it states is merged into the live object (`None` creates one),
/// what its manager applied before and states no more is removed unless somebody else owns it, and
/// the managed fields say so. An apply that changes nothing gives the live object back unchanged.
///
/// # Errors
/// [`ApplyError::Conflicts`] where others own what it changes, unless `force` takes it from them;
/// [`ApplyError::NotTyped`] for fields that the schema does not have and list elements
/// without their keys; [`ApplyError::ManagedFieldsSet`].
pub fn apply<'a>(
    model: impl Into<Model<'a>>,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let sent = config.get("metadata").and_then(|meta| meta.get("managedFields"));
    if sent.is_some_and(|sent| !sent.is_null()) {
        return Err(ApplyError::ManagedFieldsSet);
    }
    let model = model.into();
    let node = Node::root(model);
    let config = without_nulls(config);
    check_declared(model, &config)?;
    let untyped = |why: String| ApplyError::NotTyped { object: described(&config), why };
    let (plain, before) = match live {
        Some(live) => (managed::unmanaged(live), managed::decode(live).unwrap_or_default()),
        None => (managed::blank(&config), Vec::new()),
    };
    let mut managers = before.clone();
    if managers.is_empty() && live.is_some() {
        let nobody = FieldSet::default();
        let first = Writer { manager: "before-first-apply", ignored: &nobody, ..writer.clone() };
        managed::track(model, &managed::blank(&plain), &plain, &mut managers, &first);
    }
    let applied = Applied { node, live: &plain, config: &config, writer };
    let mut merged = match applied.run(managers.clone(), force).map_err(&untyped)? {
        Ok(merged) => merged,
        Err(conflicts) => {
            let left = applied.without_last_applied(conflicts);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(printed(&left)));
            }
            match applied.run(managers, true).map_err(&untyped)? {
                Ok(merged) => merged,
                Err(left) => return Err(ApplyError::Conflicts(printed(&left))),
            }
        }
    };
    if writer.manager == "kubectl" {
        renew_last_applied(&mut merged.object, &config);
    }
    if let (true, Some(live)) = (merged.object == plain && merged.owners_equal(&before), live) {
        return Ok(live.clone());
    }
    merged.stamp(writer, &before, live.is_none_or(|_| merged.object != plain));
    let Merged { mut object, managers } = merged;
    managed::encode(&mut object, managers);
    Ok(object)
}

/// Which fields of which manager an apply would overwrite.
type Contested = Vec<(Manager, FieldSet)>;

fn printed(contested: &[(Manager, FieldSet)]) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = contested
        .iter()
        .flat_map(|(manager, fields)| {
            let name = manager.printed();
            fields.paths().into_iter().map(move |field| Conflict { manager: name.clone(), field })
        })
        .collect();
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    conflicts
}

struct Merged {
    object: Value,
    managers: Vec<Manager>,
}

impl Merged {
    fn owners_equal(&self, before: &[Manager]) -> bool {
        self.managers.len() == before.len()
            && self.managers.iter().all(|manager| {
                before.iter().any(|old| old.is(manager) && old.fields == manager.fields)
            })
    }

    /// The applier's entry carries the time of the last apply that changed something.
    fn stamp(&mut self, writer: &Writer<'_>, before: &[Manager], changed: bool) {
        let renewed = changed || !self.owners_equal(before);
        let own = Manager::new(writer, true, FieldSet::default());
        for manager in self.managers.iter_mut().filter(|manager| manager.is(&own)) {
            let old = before.iter().find(|old| old.is(&own)).and_then(|old| old.time);
            manager.time = if renewed { Some(writer.time) } else { old };
        }
    }
}

struct Applied<'a> {
    node: Node<'a>,
    live: &'a Value,
    config: &'a Value,
    writer: &'a Writer<'a>,
}

impl Applied<'_> {
    /// The outer error is an object that its schema cannot describe.
    fn run(
        &self,
        mut managers: Vec<Manager>,
        force: bool,
    ) -> Result<Result<Merged, Contested>, String> {
        let merged = typed::merge(self.node, self.live, self.config)?;
        let stated = typed::fields_of(self.node, self.config)?;
        let own = Manager::new(self.writer, true, stated.recursive_difference(self.writer.ignored));
        let last = managers.iter().position(|manager| manager.is(&own));
        let last = last.map(|at| managers.remove(at).fields);
        managers.push(own.clone());
        let object = match last.filter(|last| !last.is_empty()) {
            Some(last) => self.pruned(&merged, &managers, &last)?,
            None => merged,
        };
        let change = typed::compare(self.node, self.live, &object)?;
        let change = change.without(self.writer.ignored);
        let changed = change.modified.union(&change.added);
        let contested: Contested = managers
            .iter()
            .filter(|manager| !manager.is(&own))
            .map(|manager| (manager.clone(), manager.fields.intersection(&changed)))
            .filter(|(_, fields)| !fields.is_empty())
            .collect();
        if !force && !contested.is_empty() {
            return Ok(Err(contested));
        }
        managed::disown(&mut managers, &own, &change);
        for manager in managers.iter_mut().filter(|manager| manager.is(&own)) {
            manager.fields = managed::stripped(std::mem::take(&mut manager.fields));
        }
        managers.retain(|manager| !manager.fields.is_empty());
        Ok(Ok(Merged { object, managers }))
    }

    /// Removes what was applied before, is not applied now, and belongs to nobody else.
    fn pruned(
        &self,
        merged: &Value,
        managers: &[Manager],
        last: &FieldSet,
    ) -> Result<Value, String> {
        let named = |set: &FieldSet| typed::with_named_fields(self.node, set);
        let fields = |value: &Value| typed::fields_of(self.node, value).map(|set| named(&set));
        let without = |removed: &FieldSet| {
            typed::without(self.node, merged, removed).unwrap_or_else(|| managed::blank(merged))
        };
        let last = named(last);
        let all = fields(merged)?;
        let owned = managers
            .iter()
            .fold(FieldSet::default(), |owned, manager| owned.union(&manager.fields));
        // First without all that was applied, then with what is owned put back, and last with what
        // was never applied put back, which went only because what it is in went.
        let kept = fields(&without(&last))?.union(&named(&owned));
        let kept = fields(&without(&all.difference(&kept)))?;
        Ok(without(&all.difference(&kept).intersection(&last)))
    }

    /// `kubectl apply --server-side` may take over what client-side `kubectl apply` set last.
    fn without_last_applied(&self, contested: Contested) -> Contested {
        if self.writer.manager != "kubectl" {
            return contested;
        }
        let last = self.live.pointer(LAST_APPLIED).and_then(Value::as_str);
        let last: Option<Value> = last.and_then(|last| serde_json::from_str(last).ok());
        let allowed = last.and_then(|last| {
            let stated = typed::fields_of(self.node, &last).ok()?;
            let change = typed::compare(self.node, self.live, &last).ok()?;
            Some(stated.difference(&change.modified).difference(&change.added))
        });
        let Some(allowed) = allowed else { return contested };
        contested
            .into_iter()
            .map(|(manager, fields)| (manager, fields.difference(&allowed)))
            .filter(|(_, fields)| !fields.is_empty())
            .collect()
    }
}

/// Client-side `kubectl apply` must find what was applied last, whichever way that was. Past what
/// annotations may hold it finds nothing.
fn renew_last_applied(object: &mut Value, config: &Value) {
    let Some(annotation) = object.pointer_mut(LAST_APPLIED) else { return };
    let mut stated = config.clone();
    if let Some(Value::Object(annotations)) = stated.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED_NAME);
    }
    let text = format!("{stated}\n");
    if text.len() <= ANNOTATIONS_MAX {
        *annotation = Value::String(text);
    } else if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED_NAME);
    }
}

/// Nulls state nothing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn described(config: &Value) -> String {
    let text = |path: &str| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}, Kind={}", text("/apiVersion"), text("/kind"))
}
