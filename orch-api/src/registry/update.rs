//! Replacement and patches, of objects and of their subresources.

use std::sync::Arc;

use orch_core::{
    ApiError, Object,
    client::{PatchKind, WriteOptions},
    patch, schema,
    status::FieldError,
};
use orch_store::Precondition;
use serde_json::{Map, Value};

use super::{
    Addressed, Caller, Written, convert, meta_str, metadata, scale, stored::Put, to_served_object,
};
use crate::{
    admission::{AdmissionRequest, Operation},
    server::Inner,
};

/// How often a write that does not insist on a revision is tried against faster writers.
const TRIES: usize = 5;
/// An unconditional replacement always wins in the end; this bounds a livelock.
const TRIES_UNCONDITIONAL: usize = 64;

/// What is to be done to an object.
pub(super) enum Change {
    Replace(Value),
    Patch(PatchKind, Value),
}

/// An update as it is about to be stored.
struct Draft {
    old_object: Arc<Object>,
    old: Value,
    new: Value,
}

impl Inner {
    pub(super) async fn update(
        &self,
        caller: &Caller,
        at: &Addressed,
        mut change: Change,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if let Change::Replace(body) = &mut change {
            self.check_body(caller, at, body, options)?;
        }
        let tries = if matches!(change, Change::Replace(_)) { TRIES_UNCONDITIONAL } else { TRIES };
        for _ in 0..tries {
            let Some(old) = self.get_stored(at).await? else {
                return self.create_by_update(caller, at, change, options).await;
            };
            let (body, insists) = self.apply(caller, at, &mut change, &old, options)?;
            match self.update_once(caller, at, &old, body, &change, options).await? {
                Some(object) => {
                    let object = self.answer(at, object)?;
                    return Ok(Written::existing(object));
                }
                None if insists => return Err(at.stale()),
                None => {}
            }
        }
        Err(at.stale())
    }

    fn answer(&self, at: &Addressed, object: Arc<Object>) -> Result<Arc<Object>, ApiError> {
        if at.target.subresource.as_deref() == Some("scale") {
            return scale::read(at, &object);
        }
        to_served_object(&at.resource, object)
    }

    /// Checks a body before it is brought together with the object.
    fn check_body(
        &self,
        caller: &Caller,
        at: &Addressed,
        body: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        if at.target.subresource.as_deref() == Some("scale") {
            metadata::check_kind(body, "autoscaling/v1", "Scale")?;
            metadata::settle_name(at, body)?;
            return self.check_schema_of(caller, ("autoscaling", "v1", "Scale"), body, options);
        }
        metadata::check_kind(body, &at.resource.api_version, &at.of().kind)?;
        metadata::settle_name(at, body)?;
        metadata::settle_namespace(at, body)?;
        self.check_schema(caller, at, body, options)
    }

    /// Checks a configuration that is applied: it is a part of an object.
    fn check_config(
        &self,
        caller: &Caller,
        at: &Addressed,
        config: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let stated = |field: &str| config.get(field).is_some_and(Value::is_string);
        if !stated("apiVersion") || !stated("kind") {
            return Err(ApiError::bad_request("apiVersion and kind must be set in an apply patch"));
        }
        // Upstream types a configuration as it came: what is not declared is an error, whatever
        // the client says about the validation of fields.
        if at.target.subresource.as_deref() != Some("scale") {
            patch::check_declared(super::managed::model(at, at.of()), config)?;
        }
        self.check_body(caller, at, config, options)
    }

    async fn create_by_update(
        &self,
        caller: &Caller,
        at: &Addressed,
        change: Change,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if at.target.subresource.is_some() {
            return Err(at.not_found());
        }
        let mut body = match change {
            Change::Replace(body) if at.strategy.allows_create_on_update() => {
                if meta_str(&body, "resourceVersion").is_some() {
                    return Err(at.not_found());
                }
                body
            }
            Change::Patch(PatchKind::Apply, mut config) => {
                self.check_config(caller, at, &mut config, options)?;
                self.apply_server_side(at, None, &config, options)?
            }
            _ => return Err(at.not_found()),
        };
        convert::to_stored(&at.resource, &mut body);
        at.strategy.set_defaults(&mut body);
        self.authorize(caller, &at.target, "create").await?;
        self.create_stored(caller, at, body, options).await
    }

    /// The object as the change wants it, in the version that is served, and whether the change
    /// insists on the revision it was made from.
    fn apply(
        &self,
        caller: &Caller,
        at: &Addressed,
        change: &mut Change,
        old: &Object,
        options: &WriteOptions,
    ) -> Result<(Value, bool), ApiError> {
        let (kind, patch) = match change {
            // Who insists has one try, and needs no copy for another.
            Change::Replace(body) if meta_str(body, "resourceVersion").is_some() => {
                return Ok((body.take(), true));
            }
            Change::Replace(body) => return Ok((body.clone(), false)),
            Change::Patch(kind, patch) => (*kind, patch),
        };
        let scaled = at.target.subresource.as_deref() == Some("scale");
        let mut body = old.to_value();
        let (group, version, of) = if scaled {
            let fields = at.strategy.scale().ok_or_else(ApiError::no_such_path)?;
            body = scale::of(&fields, &body);
            ("autoscaling", "v1", "Scale")
        } else {
            convert::to_served(&at.resource, &mut body);
            let of = at.of();
            (&*of.group, &*of.version, &*of.kind)
        };
        let definition = schema::of(group, version, of);
        let applied = match kind {
            PatchKind::Json => patch::json_patch(&mut body, patch),
            PatchKind::Merge => patch::merge_patch(&mut body, patch),
            PatchKind::Strategic => patch::strategic_merge_patch(definition, &mut body, patch),
            _ => {
                let mut config = patch.clone();
                self.check_config(caller, at, &mut config, options)?;
                let body = self.apply_server_side(at, Some(old), &config, options)?;
                let insists = meta_str(&config, "resourceVersion").is_some();
                return Ok((body, insists));
            }
        };
        applied.map_err(ApiError::from)?;
        let insists = meta_str(patch, "resourceVersion").is_some();
        let gone = format!("the patch changed the kind of the object to something else than {of}");
        if body.get("kind").and_then(Value::as_str) != Some(of) {
            return Err(ApiError::bad_request(gone));
        }
        self.check_body(caller, at, &mut body, options)?;
        Ok((body, insists))
    }

    /// Brings a changed object together with what is there; `None` if somebody was faster.
    async fn update_once(
        &self,
        caller: &Caller,
        at: &Addressed,
        old_object: &Arc<Object>,
        mut body: Value,
        change: &Change,
        options: &WriteOptions,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        let old = old_object.to_value();
        self.check_preconditions(at, &body, &old)?;
        if at.target.subresource.as_deref() == Some("scale") {
            let mut new = old.clone();
            scale::write(at, &mut new, &body)?;
            body = new;
        } else {
            convert::to_stored(&at.resource, &mut body);
        }
        at.strategy.set_defaults(&mut body);
        let mut draft = Draft { old_object: old_object.clone(), old, new: body };
        let mut errors = self.settle(at, &mut draft)?;
        self.admit_update(caller, at, &mut draft, options).await?;
        if !change.is_apply() {
            self.manage(caller, at, &mut draft.new, Some(&draft.old), options);
        }
        if generation_counts(at) && at.strategy.generation_changes(&draft.new, &draft.old) {
            metadata::raise_generation(&mut draft.new, &draft.old)?;
        }
        let context = self.write_context(caller, options.dry_run);
        let hook = self.hook(&at.resource.stored).filter(|_| at.target.subresource.is_none());
        if let Some(hook) = hook {
            hook.before_update(&context, &mut draft.new, &draft.old).await?;
        }
        errors.extend(validation(at, &draft));
        let stored = self.store_update(caller, at, &mut draft, errors, options).await;
        if let Some(hook) = hook {
            match &stored {
                Ok(Some(_)) if options.dry_run => {}
                Ok(Some(_)) => hook.after_update(&context, &draft.new, &draft.old).await,
                _ => hook.failed(&context, &draft.new, Some(&draft.old)).await,
            }
        }
        stored
    }

    fn check_preconditions(
        &self,
        at: &Addressed,
        body: &Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        let of = at.of();
        match meta_str(body, "resourceVersion").filter(|version| *version != "0") {
            Some(version) if Some(version) != meta_str(old, "resourceVersion") => {
                return Err(at.stale());
            }
            None if at.target.subresource.is_none()
                && !at.strategy.allows_unconditional_update() =>
            {
                let why = "must be specified for an update";
                let error = FieldError::invalid("metadata.resourceVersion", 0, why);
                return Err(ApiError::invalid(&of.group, &of.kind, at.name(), &[error]));
            }
            _ => {}
        }
        match (meta_str(body, "uid"), meta_str(old, "uid")) {
            (Some(wanted), Some(is)) if wanted != is => {
                let why = format!(
                    "Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}"
                );
                Err(ApiError::conflict(&of.group, &of.plural, at.name(), &why))
            }
            _ => Ok(()),
        }
    }

    /// Restores what this update may not touch.
    fn settle(&self, at: &Addressed, draft: &mut Draft) -> Result<Vec<FieldError>, ApiError> {
        let errors = metadata::settle_update(&mut draft.new, &draft.old)?;
        let (new, old) = (&mut draft.new, &draft.old);
        match at.target.subresource.as_deref() {
            None => at.strategy.prepare_for_update(new, old),
            Some("status") => at.strategy.prepare_for_status_update(new, old),
            Some("scale") => {}
            Some(sub) => at.strategy.prepare_for_subresource_update(sub, new, old),
        }
        Ok(errors)
    }

    async fn admit_update(
        &self,
        caller: &Caller,
        at: &Addressed,
        draft: &mut Draft,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        if self.admission.is_empty() {
            return Ok(());
        }
        let mut request = AdmissionRequest {
            object: Some(draft.new.take()),
            old: Some(draft.old_object.clone()),
            ..self.admission_request(caller, at, Operation::Update, options)
        };
        let admitted = self.mutate(&mut request).await;
        draft.new = request.object.unwrap_or_default();
        at.strategy.set_defaults(&mut draft.new);
        admitted
    }

    async fn store_update(
        &self,
        caller: &Caller,
        at: &Addressed,
        draft: &mut Draft,
        errors: Vec<FieldError>,
        options: &WriteOptions,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        if !errors.is_empty() && !caller.unchecked {
            return Err(ApiError::invalid(&at.of().group, &at.of().kind, at.name(), &errors));
        }
        for warning in at.strategy.warnings(&draft.new, Some(&draft.old)) {
            caller.warn(warning);
        }
        let request = AdmissionRequest {
            object: Some(draft.new.take()),
            old: Some(draft.old_object.clone()),
            ..self.admission_request(caller, at, Operation::Update, options)
        };
        let validated = self.validate(&request).await;
        draft.new = request.object.unwrap_or_default();
        validated?;
        let revision = draft.old_object.revision().unwrap_or_default();
        let bytes = super::stored::encode(&mut draft.new)?;
        // A write that changes nothing is no write: whoever applies the same manifest again and
        // again makes no events.
        if same_content(&draft.new, &draft.old) {
            return Ok(Some(draft.old_object.clone()));
        }
        if options.dry_run {
            let Put::Done(object) = super::stored::unstored(bytes)? else { return Ok(None) };
            return Ok(Some(object));
        }
        if super::delete::is_finished(at, &draft.new) {
            return self.finish_deletion(caller, at, draft.old_object.clone(), bytes).await;
        }
        match self.put(&at.resource, at.key(), bytes, Precondition::ModRevision(revision)).await? {
            Put::Done(object) => Ok(Some(object)),
            Put::Lost => Ok(None),
        }
    }
}

/// Whether two objects differ in nothing but the resource version. The order of their fields means
/// nothing, so their bytes are not compared.
fn same_content(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match old.get(key) {
            Some(old) if key == "metadata" => same_metadata(value, old),
            old => old == Some(value),
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let others = |fields: &Map<String, Value>| {
        fields.len() - usize::from(fields.contains_key("resourceVersion"))
    };
    let mut stated = new.iter().filter(|(key, _)| *key != "resourceVersion");
    others(new) == others(old) && stated.all(|(key, value)| old.get(key) == Some(value))
}

impl Change {
    fn is_apply(&self) -> bool {
        matches!(self, Self::Patch(PatchKind::Apply, _))
    }
}

fn generation_counts(at: &Addressed) -> bool {
    at.strategy.has_generation() && !matches!(at.target.subresource.as_deref(), Some("status"))
}

fn validation(at: &Addressed, draft: &Draft) -> Vec<FieldError> {
    let (new, old) = (&draft.new, &draft.old);
    let mut errors = metadata::validate(new, at.resource.custom.is_some());
    errors.extend(match at.target.subresource.as_deref() {
        Some("status") => at.strategy.validate_status_update(new, old),
        None | Some("scale") => at.strategy.validate_update(new, old),
        Some(sub) => at.strategy.validate_subresource_update(sub, new, old),
    });
    errors
}
