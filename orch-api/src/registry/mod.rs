//! The verbs of the API over the store: what happens to an object between a request and its
//! revision.
//!
//! Source: `k8s.io/apiserver/pkg/registry/generic/registry/store.go`,
//! `pkg/endpoints/handlers`, `pkg/registry/rest`.

use std::sync::Arc;

use orch_core::{
    ApiError, Object, ResourceType, Target,
    client::{Read, ReadReply, Write},
    status::Reason,
};
use serde_json::Value;

mod admit;
mod body;
mod continuation;
mod convert;
mod create;
mod delete;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod list;
mod managed;
mod metadata;
mod scale;
mod stored;
mod update;
mod versions;
mod watch;

pub(crate) use body::{BodyError, decode_json};
pub(crate) use convert::to_served_object;
pub(crate) use versions::Versioned;

use crate::{
    admission::Notes,
    aggregation::API_SERVICES,
    auth::{Attributes, Decision, GROUP_MASTERS, UserInfo},
    catalog::{Behaviour, Resource, Subresource},
    custom::DEFINITIONS,
    server::Inner,
};

/// Who makes a call, and what it should be told besides the answer.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) user: Arc<UserInfo>,
    /// The field manager of writes that name none.
    pub(crate) manager: String,
    /// Kinds' validation is skipped: the server writes what clients may not.
    unchecked: bool,
    /// Complaints about fields that the body gives twice, found when it was read.
    pub(crate) duplicates: Vec<String>,
    /// What the caller and the audit log are told besides.
    pub(crate) notes: Notes,
}

impl Caller {
    pub(crate) fn new(user: Arc<UserInfo>, manager: impl Into<String>) -> Self {
        Self {
            user,
            manager: manager.into(),
            unchecked: false,
            duplicates: Vec::new(),
            notes: Notes::default(),
        }
    }

    /// The server itself, writing what validation would refuse.
    pub(crate) fn unchecked(manager: &str) -> Self {
        let user = Arc::new(UserInfo::master(manager));
        Self { unchecked: true, ..Self::new(user, manager) }
    }

    pub(crate) fn warn(&self, warning: impl Into<String>) {
        self.notes.warn(warning);
    }
}

/// How a write ended.
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    /// The object did not exist before.
    pub(crate) created: bool,
}

impl Written {
    fn existing(object: Arc<Object>) -> Self {
        Self { object, created: false }
    }
}

/// What a call addresses, found in the catalog.
pub(crate) struct Addressed {
    pub(crate) resource: Arc<Resource>,
    pub(crate) strategy: Behaviour,
    pub(crate) target: Target,
}

impl Addressed {
    pub(crate) fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.target.namespace.as_deref().filter(|_| self.resource.is_namespaced())
    }

    pub(crate) fn subresource(&self) -> Option<&Subresource> {
        self.resource.subresource(self.target.subresource.as_deref()?)
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        self.resource.key(self.namespace(), self.name())
    }

    pub(crate) fn of(&self) -> &ResourceType {
        &self.resource.of
    }

    /// Tells the caller if the version should not be used any more.
    pub(crate) fn warn_of_deprecation(&self, caller: &Caller) {
        let custom = self.resource.custom.as_ref();
        if let Some(warning) = custom.and_then(|version| version.deprecation()) {
            caller.warn(warning);
        }
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.of().group, &self.of().plural, self.name())
    }

    pub(crate) fn stale(&self) -> ApiError {
        ApiError::stale(&self.of().group, &self.of().plural, self.name())
    }
}

impl Inner {
    /// Finds what a call addresses and whether it has the verb.
    pub(crate) async fn address(&self, target: Target, verb: &str) -> Result<Addressed, ApiError> {
        let of = &target.resource;
        let resource = self.resource(&of.group, &of.version, &of.plural).await?;
        let has = match &target.subresource {
            None => resource.verbs.has(verb),
            Some(name) => {
                let sub = resource.subresource(name).ok_or_else(ApiError::no_such_path)?;
                sub.verbs.has(verb)
            }
        };
        if !has {
            return Err(method_not_allowed());
        }
        let strategy = resource.behaviour();
        Ok(Addressed { resource, strategy, target })
    }

    /// Refuses the call if its caller may not make it.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        target: &Target,
        verb: &str,
    ) -> Result<(), ApiError> {
        if self.authorizers.is_empty() || caller.user.in_group(GROUP_MASTERS) {
            return Ok(());
        }
        let attributes = Attributes {
            user: caller.user.clone(),
            verb: verb.to_owned(),
            group: target.resource.group.to_string(),
            version: target.resource.version.to_string(),
            resource: target.resource.plural.to_string(),
            subresource: target.subresource.as_deref().unwrap_or_default().to_owned(),
            namespace: target.namespace.clone().unwrap_or_default(),
            name: target.name.clone().unwrap_or_default(),
            path: target.path(),
        };
        self.authorize_attributes(&attributes).await
    }

    pub(crate) async fn authorize_attributes(&self, what: &Attributes) -> Result<(), ApiError> {
        if self.authorizers.is_empty() || what.user.in_group(GROUP_MASTERS) {
            return Ok(());
        }
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(what).await {
                Ok(Decision::Allow { .. }) => return Ok(()),
                Ok(Decision::Deny { reason }) => return Err(what.refusal(&reason)),
                Ok(Decision::NoOpinion { reason }) => reasons.push(reason),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Err(what.refusal(&reasons.join(", ")))
    }

    /// Answers a read.
    pub(crate) async fn read(&self, caller: &Caller, read: Read) -> Result<ReadReply, ApiError> {
        match read {
            Read::Get(target) => {
                let at = self.address(target, "get").await?;
                self.authorize(caller, &at.target, "get").await?;
                at.warn_of_deprecation(caller);
                Ok(ReadReply::Object(self.get(&at).await?))
            }
            Read::List(target, options) => {
                let mut at = self.address(target, "list").await?;
                single_name_as_field(&mut at.target, options.field_selector.as_deref());
                self.authorize(caller, &at.target, "list").await?;
                at.warn_of_deprecation(caller);
                at.target.name = None;
                Ok(ReadReply::List(self.list(&at, &options).await?))
            }
            _ => Err(method_not_allowed()),
        }
    }

    async fn get(&self, at: &Addressed) -> Result<Arc<Object>, ApiError> {
        let stored = self.get_stored(at).await?.ok_or_else(|| at.not_found())?;
        if at.target.subresource.as_deref() == Some("scale") {
            return scale::read(at, &stored);
        }
        to_served_object(&at.resource, stored)
    }

    /// Carries out a write.
    pub(crate) async fn write(&self, caller: &Caller, write: Write) -> Result<Written, ApiError> {
        let verb = match &write {
            Write::Create(..) => "create",
            Write::Update(..) => "update",
            Write::Patch(..) => "patch",
            Write::Delete(..) => "delete",
            Write::DeleteCollection(..) => "deletecollection",
            _ => return Err(method_not_allowed()),
        };
        let at = self.address(write.target().clone(), verb).await?;
        self.authorize(caller, &at.target, verb).await?;
        at.warn_of_deprecation(caller);
        let written = match write {
            Write::Create(_, body, options) => self.create(caller, &at, body, &options).await,
            Write::Update(_, body, options) => {
                self.update(caller, &at, update::Change::Replace(body), &options).await
            }
            Write::Patch(_, kind, patch, options) => {
                self.update(caller, &at, update::Change::Patch(kind, patch), &options).await
            }
            Write::Delete(_, options) => self.delete(caller, &at, &options).await,
            Write::DeleteCollection(_, options, list) => {
                self.delete_collection(caller, &at, &options, &list).await
            }
            _ => Err(method_not_allowed()),
        };
        if let Ok(written) = &written {
            self.take_effect(&at, written).await?;
        }
        written
    }
}

impl Inner {
    /// What configures the server counts from the next call on.
    async fn take_effect(&self, at: &Addressed, written: &Written) -> Result<(), ApiError> {
        let of = at.of();
        self.aggregated.notice(of);
        if *of == DEFINITIONS {
            self.newest_catalog().await?;
            let own = written.object.key().name;
            let name = if at.name().is_empty() { &own } else { at.name() };
            self.register_definition(name).await?;
        }
        if of.group == "admissionregistration.k8s.io" || *of == API_SERVICES {
            let current = self.cache.current_revision().await?;
            self.cache.fresh(current).await?;
        }
        if *of == API_SERVICES {
            self.remotes().await?;
        }
        Ok(())
    }
}

/// Somebody who may only read one object may list or watch exactly that one.
fn single_name_as_field(target: &mut Target, fields: Option<&str>) {
    let name = fields.and_then(|text| text.strip_prefix("metadata.name="));
    let name = name.map(|text| text.trim_start_matches('='));
    target.name = name.filter(|n| !n.is_empty() && !n.contains(',')).map(str::to_owned);
}

/// The refusal of a verb that a resource does not have.
///
/// Source: `k8s.io/apiserver/pkg/server/filters`, the router's answer of go-restful.
pub(crate) fn method_not_allowed() -> ApiError {
    let message = "the server does not allow this method on the requested resource";
    ApiError::new(Reason::MethodNotAllowed, message).with_details(Default::default())
}

/// A string of an object's metadata.
pub(crate) fn meta_str<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
}
