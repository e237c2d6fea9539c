//! Creation.

use orch_core::{
    ApiError,
    client::{FieldValidation, WriteOptions},
    schema,
    status::FieldError,
};
use orch_store::Precondition;
use serde_json::Value;

use super::{
    Addressed, Caller, Written, convert, meta_str, metadata, method_not_allowed, stored::Put,
    to_served_object,
};
use crate::{
    admission::{AdmissionRequest, Operation},
    custom::CustomVersion,
    server::Inner,
    strategy::{Action, WriteContext},
};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// How often a generated name is tried.
const NAME_TRIES: usize = 8;
/// How often an action is tried against faster writers.
const ACTION_TRIES: usize = 16;

impl Inner {
    pub(super) async fn create(
        &self,
        caller: &Caller,
        at: &Addressed,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if at.target.subresource.is_some() || !at.resource.verbs.has("get") {
            return self.create_virtual(caller, at, body, options).await;
        }
        if at.resource.custom.as_ref().is_some_and(|version| version.is_terminating()) {
            return Err(ApiError::method_not_allowed(&at.of().group, &at.of().plural, "create"));
        }
        metadata::check_kind(&mut body, &at.resource.api_version, &at.of().kind)?;
        metadata::settle_namespace(at, &mut body)?;
        if meta_str(&body, "resourceVersion").is_some() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.check_schema(caller, at, &mut body, options)?;
        convert::to_stored(&at.resource, &mut body);
        at.strategy.set_defaults(&mut body);
        self.create_stored(caller, at, body, options).await
    }

    /// Creates an object that is already in the version that is stored.
    pub(super) async fn create_stored(
        &self,
        caller: &Caller,
        at: &Addressed,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut body = body;
        // What admission and the server add is not the writer's: an apply that leaves it out must
        // not take it away. What server-side apply makes knows its managers already.
        if !has_managers(&body) {
            self.manage(caller, at, &mut body, None, options);
        }
        let body = self.admit_create(caller, at, body, options).await?;
        let base = match meta_str(&body, "name") {
            Some(_) => None,
            None => Some(meta_str(&body, "generateName").map(str::to_owned).ok_or_else(|| {
                let error =
                    FieldError::required("metadata.name", "name or generateName is required");
                ApiError::invalid(&at.of().group, &at.of().kind, "", &[error])
            })?),
        };
        let Some(base) = base else {
            return match self.create_named(caller, at, body, options).await? {
                Ok(written) => Ok(written),
                Err(name) => Err(ApiError::already_exists(&at.of().group, &at.of().plural, &name)),
            };
        };
        let mut last = String::new();
        for _ in 0..NAME_TRIES {
            let mut named = body.clone();
            let name = metadata::generate_name(&base, &self.environment);
            metadata::metadata(&mut named)?.insert("name".into(), name.into());
            match self.create_named(caller, at, named, options).await? {
                Ok(written) => return Ok(written),
                Err(name) => last = name,
            }
        }
        Err(ApiError::already_exists(&at.of().group, &at.of().plural, &last))
    }

    /// The inner error is the name that was taken.
    async fn create_named(
        &self,
        caller: &Caller,
        at: &Addressed,
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<Result<Written, String>, ApiError> {
        let name = meta_str(&new, "name").unwrap_or_default().to_owned();
        metadata::stamp_new(&mut new, &self.environment, at.strategy.has_generation())?;
        at.strategy.prepare_for_create(&mut new);
        let context = self.write_context(caller, options.dry_run);
        let hook = self.hook(&at.resource.stored);
        if let Some(hook) = hook {
            hook.before_create(&context, &mut new).await?;
        }
        let stored = self.store_new(caller, at, &mut new, &name, options).await;
        if let Some(hook) = hook
            && !matches!(stored, Ok(Put::Done(_)))
        {
            hook.failed(&context, &new, None).await;
        }
        match stored? {
            Put::Done(object) => {
                let object = to_served_object(&at.resource, object)?;
                Ok(Ok(Written { object, created: true }))
            }
            Put::Lost => Ok(Err(name)),
        }
    }

    async fn store_new(
        &self,
        caller: &Caller,
        at: &Addressed,
        new: &mut Value,
        name: &str,
        options: &WriteOptions,
    ) -> Result<Put, ApiError> {
        let mut errors = metadata_errors(at, new);
        errors.extend(at.strategy.validate(new));
        if !errors.is_empty() && !caller.unchecked {
            return Err(ApiError::invalid(&at.of().group, &at.of().kind, name, &errors));
        }
        for warning in at.strategy.warnings(new, None) {
            caller.warn(warning);
        }
        let new_value = std::mem::take(new);
        let request = self.admission_request(caller, at, Operation::Create, options);
        let request = AdmissionRequest { object: Some(new_value), ..request };
        let validated = self.validate(&request).await;
        *new = request.object.unwrap_or_default();
        validated?;
        let bytes = super::stored::encode(new)?;
        let key = at.resource.key(at.namespace(), name);
        if options.dry_run {
            let taken = self.exists(&key).await?;
            return if taken { Ok(Put::Lost) } else { super::stored::unstored(bytes) };
        }
        self.put(&at.resource, key, bytes, Precondition::Absent).await
    }

    /// Runs the mutating half of admission on a new object.
    async fn admit_create(
        &self,
        caller: &Caller,
        at: &Addressed,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        if self.admission.is_empty() {
            return Ok(body);
        }
        let request = self.admission_request(caller, at, Operation::Create, options);
        let mut request = AdmissionRequest { object: Some(body), ..request };
        self.mutate(&mut request).await?;
        let mut body = request.object.unwrap_or_default();
        at.strategy.set_defaults(&mut body);
        Ok(body)
    }

    pub(crate) fn write_context(&self, caller: &Caller, dry_run: bool) -> WriteContext {
        WriteContext {
            user: caller.user.clone(),
            client: self.own_client(),
            environment: self.environment.clone(),
            dry_run,
        }
    }

    /// Checks the body against its kind's schema: wrong types are refused, unknown fields dropped.
    pub(super) fn check_schema(
        &self,
        caller: &Caller,
        at: &Addressed,
        body: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let of = at.of();
        if let Some(version) = &at.resource.custom {
            return check_custom(caller, of, version, body, options);
        }
        self.check_schema_of(caller, (&of.group, &of.version, &of.kind), body, options)
    }

    pub(super) fn check_schema_of(
        &self,
        caller: &Caller,
        (group, version, kind): (&str, &str, &str),
        body: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let definition = schema::of(group, version, kind);
        if caller.duplicates.is_empty() && definition.is_some_and(|of| schema::is_clean(of, body)) {
            return Ok(());
        }
        if let Some(definition) = definition {
            schema::check_types(definition, body)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
        }
        let how = options.field_validation.unwrap_or_default();
        if how != FieldValidation::Ignore {
            let mut told: Vec<String> =
                definition.into_iter().flat_map(|of| schema::unknown_fields(of, body)).collect();
            let twice: Vec<String> =
                caller.duplicates.iter().filter(|one| !inside(one, &told)).cloned().collect();
            told.extend(twice);
            if !told.is_empty() {
                complain(caller, (version, kind), how, &told)?;
            }
        }
        let Some(definition) = definition else { return Ok(()) };
        schema::prune(definition, body);
        Ok(())
    }

    /// Answers a POST to something that stores nothing of its own.
    async fn create_virtual(
        &self,
        caller: &Caller,
        at: &Addressed,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let (group, plural) = (&*at.of().group, &*at.of().plural);
        let subresource = at.target.subresource.as_deref();
        let answering = self.virtual_resource(group, plural, subresource);
        let action = crate::server::action(group, plural, subresource);
        if answering.is_none() && action.is_none() {
            let what = subresource.map_or(plural.to_owned(), |sub| format!("{plural}/{sub}"));
            return Err(not_supported(&format!("{what} is not supported by this server")));
        }
        let sub = at.subresource();
        let (group, version) = sub
            .and_then(|sub| sub.group_version)
            .unwrap_or((at.of().group.as_ref(), at.of().version.as_ref()));
        let kind = sub.map_or(at.of().kind.as_ref(), |sub| &*sub.kind);
        let api_version =
            if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        metadata::check_kind(&mut body, &api_version, kind)?;
        if at.namespace().is_some() && meta_str(&body, "namespace").is_some() {
            metadata::settle_namespace(at, &mut body)?;
        }
        self.check_schema_of(caller, (group, version, kind), &mut body, options)?;
        let request = self.admission_request(caller, at, Operation::Create, options);
        let mut request = AdmissionRequest { object: Some(body), ..request };
        self.mutate(&mut request).await?;
        self.validate(&request).await?;
        let body = request.object.unwrap_or_default();
        let context = self.write_context(caller, options.dry_run);
        let answer = match (answering, action) {
            (Some(answering), _) => answering.create(&context, &at.target, body).await?,
            (None, Some(action)) => self.act(at, action, &body, options).await?,
            (None, None) => return Err(method_not_allowed()),
        };
        let object = orch_core::Object::from_value(&answer).map_err(ApiError::internal)?;
        Ok(Written { object: object.into(), created: true })
    }
}

impl Inner {
    /// Changes an object through a POST to one of its subresources. Nobody comes to manage a field
    /// by that.
    ///
    /// Source: `pkg/registry/core/pod/storage/storage.go`, whose binding changes what is stored
    /// without a field manager.
    async fn act(
        &self,
        at: &Addressed,
        action: &dyn Action,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let target = action.object(&at.target, body);
        let of = self.address(target, "get").await?;
        for _ in 0..ACTION_TRIES {
            let old = self.get_stored(&of).await?.ok_or_else(|| of.not_found())?;
            let mut new = old.to_value();
            action.apply(body, &mut new, self.environment.clock.now())?;
            let bytes = super::stored::encode(&mut new)?;
            let precondition = Precondition::ModRevision(old.revision().unwrap_or_default());
            if options.dry_run {
                return Ok(action.answer());
            }
            if let Put::Done(_) = self.put(&of.resource, of.key(), bytes, precondition).await? {
                return Ok(action.answer());
            }
        }
        Err(of.stale())
    }
}

/// Whether a complaint is about a field that nobody knows, or about something inside of one:
/// upstream's decoder does not look at those.
fn inside(complaint: &str, unknown: &[String]) -> bool {
    let path = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let own = path(complaint);
    unknown.iter().map(|one| path(one)).any(|outer| {
        own.strip_prefix(&outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// Checks a custom object against what its definition says of fields.
fn check_custom(
    caller: &Caller,
    of: &orch_core::ResourceType,
    version: &CustomVersion,
    body: &mut Value,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    let mut told = caller.duplicates.clone();
    if let Some(meta) = schema::definition(OBJECT_META)
        && let Some(value) = body.get_mut("metadata")
    {
        schema::check_types(meta, value)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let unknown = schema::unknown_fields(meta, value);
        told.extend(unknown.iter().map(|u| u.replace("field \"", "field \"metadata.")));
        schema::prune(meta, value);
    }
    told.extend(version.structural().prune(body));
    let how = options.field_validation.unwrap_or_default();
    if told.is_empty() || how == FieldValidation::Ignore {
        return Ok(());
    }
    complain(caller, (&of.version, &of.kind), how, &told)
}

/// What strict decoding found: an error or warnings, as the client chose.
fn complain(
    caller: &Caller,
    (version, kind): (&str, &str),
    how: FieldValidation,
    told: &[String],
) -> Result<(), ApiError> {
    match how {
        FieldValidation::Strict => Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            told.join(", ")
        ))),
        FieldValidation::Warn => {
            for one in told {
                caller.warn(one.as_str());
            }
            Ok(())
        }
        FieldValidation::Ignore => Ok(()),
    }
}

fn has_managers(object: &Value) -> bool {
    object["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty())
}

/// What is wrong with the metadata of a new object.
fn metadata_errors(at: &Addressed, new: &Value) -> Vec<FieldError> {
    let name = meta_str(new, "name").unwrap_or_default();
    let complaint = |why: String| FieldError::invalid("metadata.name", name, why);
    let mut errors: Vec<FieldError> =
        at.strategy.validate_name(name).into_iter().map(complaint).collect();
    errors.extend(metadata::validate(new, at.resource.custom.is_some()));
    errors
}

pub(super) fn not_supported(why: &str) -> ApiError {
    ApiError::new(orch_core::status::Reason::MethodNotAllowed, why)
}
