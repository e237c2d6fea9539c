//! Deletion: at once, after a grace period, or when the last finalizer is gone.
//!
//! Source: `k8s.io/apiserver/pkg/registry/rest/delete.go`, `registry/generic/registry/store.go`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use jiff::SignedDuration;
use orch_core::{
    ApiError, Object, Target,
    client::{DeleteOptions, ListOptions, Propagation},
    clock::to_seconds,
};
use orch_store::Precondition;
use serde_json::{Value, json};

use super::{Addressed, Caller, Written, metadata, stored::Put, to_served_object};
use crate::{
    custom::{DEFINITIONS, FINALIZER, mark_terminating},
    server::Inner,
};

const TRIES: usize = 64;
/// How many objects of a collection are deleted at the same time.
const DELETIONS_MAX: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The kinds whose deletion answers with the object instead of a `Status`.
const RETURNED: [&str; 11] = [
    "pods",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "storageclasses",
    "volumeattachments",
    "csinodes",
    "csidrivers",
];

/// What a deletion does now.
enum Step {
    /// Mark the object; somebody else has to finish.
    Mark(Value),
    /// The object is marked already as it should be.
    Wait,
    Remove,
}

impl Inner {
    pub(super) async fn delete(
        &self,
        caller: &Caller,
        at: &Addressed,
        options: &DeleteOptions,
    ) -> Result<Written, ApiError> {
        let mut request = self.deletion_request(caller, at, options);
        request.old = Some(self.get_stored(at).await?.ok_or_else(|| at.not_found())?);
        self.mutate(&mut request).await?;
        self.validate(&request).await?;
        for _ in 0..TRIES {
            let Some(object) = self.get_stored(at).await? else { return Err(at.not_found()) };
            preconditions(at, &object, options)?;
            let done = match self.step(at, &object, options)? {
                Step::Wait => Some(self.reply(at, object, false)?),
                Step::Mark(value) => self.mark(caller, at, &object, value, options.dry_run).await?,
                Step::Remove => self.remove_now(caller, at, object, options.dry_run).await?,
            };
            if let Some(object) = done {
                return Ok(Written::existing(object));
            }
        }
        Err(at.stale())
    }

    async fn mark(
        &self,
        caller: &Caller,
        at: &Addressed,
        object: &Object,
        mut value: Value,
        dry_run: bool,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        let bytes = super::stored::encode(&mut value)?;
        let precondition = Precondition::ModRevision(object.revision().unwrap_or_default());
        let put = if dry_run {
            super::stored::unstored(bytes)?
        } else {
            self.put(&at.resource, at.key(), bytes, precondition).await?
        };
        match put {
            Put::Done(object) => {
                if let Some(hook) = self.hook(&at.resource.stored).filter(|_| !dry_run) {
                    hook.after_mark(&self.write_context(caller, false), &value).await;
                }
                Ok(Some(self.reply(at, object, false)?))
            }
            Put::Lost => Ok(None),
        }
    }

    async fn remove_now(
        &self,
        caller: &Caller,
        at: &Addressed,
        object: Arc<Object>,
        dry_run: bool,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        if !dry_run {
            let revision = object.revision().unwrap_or_default();
            if self.remove(at.key(), revision).await?.is_none() {
                return Ok(None);
            }
            self.after_delete(caller, at, &object).await;
        }
        Ok(Some(self.reply(at, object, true)?))
    }

    async fn after_delete(&self, caller: &Caller, at: &Addressed, object: &Object) {
        if let Some(hook) = self.hook(&at.resource.stored) {
            hook.after_delete(&self.write_context(caller, false), &object.to_value()).await;
        }
    }

    /// An update took the last finalizer of an object that is being deleted: it goes.
    pub(super) async fn finish_deletion(
        &self,
        caller: &Caller,
        at: &Addressed,
        old: Arc<Object>,
        last: Bytes,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        let revision = old.revision().unwrap_or_default();
        let Some(removed) = self.remove(at.key(), revision).await? else { return Ok(None) };
        self.after_delete(caller, at, &old).await;
        Ok(Some(Arc::new(Object::from_encoded(last, removed).map_err(ApiError::internal)?)))
    }

    fn step(
        &self,
        at: &Addressed,
        object: &Object,
        options: &DeleteOptions,
    ) -> Result<Step, ApiError> {
        let meta = object.metadata();
        let mut finalizers = finalizers_after(at, object, options);
        // A negative period has always meant the shortest.
        let asked = options.grace_period_s.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let grace = at.strategy.grace_period_s(object, asked);
        let pending = meta.deletion_timestamp.is_some();
        let defines = *at.of() == DEFINITIONS;
        // What a definition defines goes before it does.
        if defines && !pending && !finalizers.iter().any(|name| name == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        let namespaced_content = at.resource.prefix == "/registry/namespaces/"
            && has_spec_finalizers(&object.to_value());
        let waits = !finalizers.is_empty() || namespaced_content;
        if !waits && grace.is_none_or(|seconds| seconds <= 0) {
            return Ok(Step::Remove);
        }
        let unchanged = meta.finalizers.as_deref().unwrap_or_default() == finalizers;
        let shorter = match (grace, meta.deletion_grace_period_seconds) {
            (Some(new), Some(now)) => new < now,
            _ => false,
        };
        if pending && unchanged && !shorter {
            return Ok(Step::Wait);
        }
        let mut value = object.to_value();
        self.stamp_deletion(&mut value, pending, grace.unwrap_or(0), shorter)?;
        set_finalizers(&mut value, &finalizers)?;
        if defines {
            mark_terminating(&mut value, self.environment.clock.now());
        }
        if namespaced_content {
            value["status"]["phase"] = "Terminating".into();
            // A namespace is emptied for as long as that takes: it has no period.
            metadata::metadata(&mut value)?.remove("deletionGracePeriodSeconds");
        }
        Ok(Step::Mark(value))
    }

    fn stamp_deletion(
        &self,
        value: &mut Value,
        pending: bool,
        grace_s: i64,
        shorter: bool,
    ) -> Result<(), ApiError> {
        if pending && !shorter {
            return Ok(());
        }
        let now = to_seconds(self.environment.clock.now());
        let grace = SignedDuration::from_secs(grace_s.max(0));
        let at = now.saturating_add(grace).unwrap_or(now);
        let meta = metadata::metadata(value)?;
        meta.insert("deletionTimestamp".into(), at.to_string().into());
        meta.insert("deletionGracePeriodSeconds".into(), grace_s.max(0).into());
        // A kind that keeps a generation counts the wish to go as a change of the wish.
        if let Some(generation) = meta.get("generation").and_then(Value::as_i64)
            && generation > 0
        {
            meta.insert("generation".into(), (generation + 1).into());
        }
        Ok(())
    }

    fn reply(
        &self,
        at: &Addressed,
        object: Arc<Object>,
        removed: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let of = at.of();
        if !removed || RETURNED.contains(&&*of.plural) {
            return to_served_object(&at.resource, object);
        }
        let mut details = json!({
            "name": at.name(), "kind": of.plural, "uid": object.metadata().uid,
        });
        if !of.group.is_empty() {
            details["group"] = of.group.as_ref().into();
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details,
        });
        Ok(Arc::new(Object::from_value(&status).map_err(ApiError::internal)?))
    }

    /// Deletes what a list selects; gives the list.
    pub(super) async fn delete_collection(
        &self,
        caller: &Caller,
        at: &Addressed,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<Written, ApiError> {
        let found = self.list(at, list).await?;
        let deletions: Vec<_> =
            found.items.iter().map(|object| self.delete_one(caller, at, options, object)).collect();
        // A store that syncs to a disk takes many writes at once about as fast as one.
        let deletions = stream::iter(deletions).buffered(DELETIONS_MAX);
        let items: Vec<Option<Value>> = deletions.try_collect().await?;
        let items: Vec<Value> = items.into_iter().flatten().collect();
        let list = json!({
            "kind": at.resource.list_kind(), "apiVersion": at.resource.api_version,
            "metadata": {"resourceVersion": found.resource_version}, "items": items,
        });
        let object = Object::from_value(&list).map_err(ApiError::internal)?;
        Ok(Written::existing(Arc::new(object)))
    }
}

impl Inner {
    /// Deletes one of a collection; `None` if somebody else was first.
    fn delete_one<'a>(
        &'a self,
        caller: &'a Caller,
        at: &'a Addressed,
        options: &'a DeleteOptions,
        object: &'a Object,
    ) -> BoxFuture<'a, Result<Option<Value>, ApiError>> {
        let key = object.key();
        let target = Target::object(at.of().clone(), key.namespace(), &key.name);
        let one =
            Addressed { resource: at.resource.clone(), strategy: at.strategy.clone(), target };
        let deletion = async move {
            match self.delete(caller, &one, options).await {
                Ok(_) => Ok(Some(object.to_value())),
                Err(error) if error.code() == 404 => Ok(None),
                Err(error) => Err(error),
            }
        };
        deletion.boxed()
    }
}

fn preconditions(at: &Addressed, object: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let meta = object.metadata();
    let check = |what: &str, wanted: &Option<String>, is: Option<&str>| match wanted {
        Some(wanted) if is != Some(wanted.as_str()) => {
            let is = is.unwrap_or_default();
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"
            );
            Err(ApiError::conflict(&at.of().group, &at.of().plural, at.name(), &why))
        }
        _ => Ok(()),
    };
    check("UID", &options.uid, meta.uid.as_deref())?;
    check("ResourceVersion", &options.resource_version, meta.resource_version.as_deref())
}

/// The finalizers that the object has once the propagation policy is taken into account.
fn finalizers_after(at: &Addressed, object: &Object, options: &DeleteOptions) -> Vec<String> {
    let before = object.metadata().finalizers.clone().unwrap_or_default();
    let has = |name: &str| before.iter().any(|f| f == name);
    let (orphan, foreground) = match options.propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(_) => (false, false),
        None if has(ORPHAN) || has(FOREGROUND) => (has(ORPHAN), has(FOREGROUND)),
        None => (at.strategy.orphans_by_default(), false),
    };
    let mut after: Vec<String> =
        before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        after.push(ORPHAN.into());
    }
    if foreground {
        after.push(FOREGROUND.into());
    }
    let same = after.len() == before.len() && after.iter().all(|f| before.contains(f));
    if same { before } else { after }
}

fn set_finalizers(value: &mut Value, finalizers: &[String]) -> Result<(), ApiError> {
    let meta = metadata::metadata(value)?;
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
    Ok(())
}

fn has_spec_finalizers(value: &Value) -> bool {
    value["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// Whether nothing holds an object any more that was asked to go.
pub(super) fn is_finished(at: &Addressed, value: &Value) -> bool {
    let meta = &value["metadata"];
    if meta.get("deletionTimestamp").is_none_or(Value::is_null) {
        return false;
    }
    let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    let graceful = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    let content = at.resource.prefix == "/registry/namespaces/" && has_spec_finalizers(value);
    !held && !graceful && !content
}
