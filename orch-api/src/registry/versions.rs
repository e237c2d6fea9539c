//! Objects in the version that somebody wants to see them in.
//!
//! The verbs work on an object in one version: of most kinds the one that is stored. Where a
//! webhook converts it is the one that the client speaks, as upstream has it for custom resources;
//! what comes from the store is converted first, and what goes there last.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use orch_core::{
    ApiError, ClientError, Object, ResourceType,
    client::{WatchEvent, WatchStream},
    schema,
};
use serde_json::Value;

use super::{convert, scale};
use crate::{
    admission::AdmissionRequest, catalog::Resource, custom::ConversionWebhook, server::Inner,
};

/// What the object of a request is.
enum Shape {
    /// The resource's own kind.
    Own,
    /// Its scale.
    Scale,
    /// The kind of a subresource that has one of its own.
    Other,
}

/// The objects of a request in one version.
#[derive(Debug)]
pub(crate) struct Versioned {
    /// Group, version and kind of the objects.
    pub(crate) kind: (String, String, String),
    /// The new object, `null` if there is none.
    pub(crate) object: Value,
    /// The object as it was, `null` if there was none.
    pub(crate) old: Value,
}

impl Resource {
    /// Who converts, if a webhook does.
    pub(crate) fn converter(&self) -> Option<&ConversionWebhook> {
        self.custom.as_ref()?.converter()
    }

    /// The version that the verbs work on.
    pub(super) fn worked_on(&self) -> (&ResourceType, &str) {
        match self.converter() {
            Some(_) => (&self.of, &self.api_version),
            None => (&self.stored, &self.stored_api_version),
        }
    }

    fn shape(&self, subresource: Option<&str>) -> Shape {
        match subresource.and_then(|name| self.subresource(name)) {
            None => Shape::Own,
            Some(sub) if sub.name == "scale" => Shape::Scale,
            Some(sub) if sub.kind == self.of.kind && sub.group_version.is_none() => Shape::Own,
            Some(_) => Shape::Other,
        }
    }

    /// Group, version and kind of what a subresource (or the resource itself) takes.
    pub(crate) fn kind_of(&self, subresource: Option<&str>) -> (String, String, String) {
        let of = &self.of;
        let sub = subresource.and_then(|name| self.subresource(name));
        let own = (&*of.group, &*of.version);
        let (group, version) = sub.and_then(|sub| sub.group_version).unwrap_or(own);
        let kind = sub.map_or(&*of.kind, |sub| &*sub.kind);
        (group.to_owned(), version.to_owned(), kind.to_owned())
    }
}

impl Inner {
    /// The objects of a request, in the version of a resource that is the same one.
    pub(crate) async fn versioned(
        &self,
        request: &AdmissionRequest,
        seen_as: &Resource,
    ) -> Result<Versioned, ApiError> {
        let subresource = request.target.subresource.as_deref();
        let object = request.object.clone().unwrap_or_default();
        let old = request.old.as_ref().map(|old| old.to_value()).unwrap_or_default();
        let kind = seen_as.kind_of(subresource);
        let (object, old) = match seen_as.shape(subresource) {
            Shape::Own => {
                (self.to_version(seen_as, object).await?, self.to_version(seen_as, old).await?)
            }
            Shape::Scale => {
                let fields = seen_as.behaviour().scale().ok_or_else(ApiError::no_such_path)?;
                let of = |value: Value| match value {
                    Value::Null => Value::Null,
                    value => scale::of(&fields, &value),
                };
                (of(object), of(old))
            }
            Shape::Other => (object, old),
        };
        Ok(Versioned { kind, object, old })
    }

    /// Puts an object that was changed in one version into the request; tells whether it differs.
    pub(crate) async fn take_back(
        &self,
        request: &mut AdmissionRequest,
        seen_as: &Resource,
        mut changed: Value,
    ) -> Result<bool, ApiError> {
        let subresource = request.target.subresource.as_deref();
        let (group, version, kind) = seen_as.kind_of(subresource);
        if let Some(definition) = schema::of(&group, &version, &kind) {
            schema::check_types(definition, &changed).map_err(ApiError::internal)?;
            schema::prune(definition, &mut changed);
        }
        let at = request.origin.resource.clone().ok_or_else(ApiError::no_such_path)?;
        let before = request.object.take().unwrap_or_default();
        let new = match seen_as.shape(subresource) {
            Shape::Own => {
                let mut new = self.to_worked_version(&at, seen_as, changed).await?;
                if at.verbs.has("get") {
                    at.behaviour().set_defaults(&mut new);
                }
                new
            }
            Shape::Scale => {
                let fields = at.behaviour().scale().ok_or_else(ApiError::no_such_path)?;
                let mut new = before.clone();
                scale::set(&fields, &mut new, changed["spec"]["replicas"].as_i64().unwrap_or(0));
                new
            }
            Shape::Other => changed,
        };
        let differs = new != before;
        request.object = Some(new);
        Ok(differs)
    }

    async fn to_version(&self, to: &Resource, mut value: Value) -> Result<Value, ApiError> {
        if value.is_null() {
            return Ok(value);
        }
        if let Some(webhook) = to.converter() {
            let converted = self.convert_custom(webhook, &to.api_version, vec![value]).await?;
            return Ok(converted.into_iter().next().unwrap_or_default());
        }
        convert::to_served(to, &mut value);
        Ok(value)
    }

    async fn to_worked_version(
        &self,
        at: &Resource,
        from: &Resource,
        mut value: Value,
    ) -> Result<Value, ApiError> {
        if let Some(webhook) = at.converter() {
            let converted = self.convert_custom(webhook, &at.api_version, vec![value]).await?;
            return Ok(converted.into_iter().next().unwrap_or_default());
        }
        convert::to_stored(from, &mut value);
        Ok(value)
    }

    /// A stored object in the version that the verbs work on.
    pub(super) async fn to_worked_object(
        &self,
        resource: &Resource,
        object: Arc<Object>,
    ) -> Result<Arc<Object>, ApiError> {
        let Some(webhook) = resource.converter() else { return Ok(object) };
        let converted = self.served_objects(resource, webhook, vec![object]).await?;
        converted.into_iter().next().ok_or_else(|| ApiError::internal("an object was lost"))
    }

    /// Stored objects that a webhook converts, as clients of this version see them.
    async fn served_objects(
        &self,
        resource: &Resource,
        webhook: &ConversionWebhook,
        mut objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        let other: Vec<usize> = (0..objects.len())
            .filter(|at| objects[*at].api_version() != resource.api_version)
            .collect();
        let values = other.iter().map(|at| objects[*at].to_value()).collect();
        let converted = self.convert_custom(webhook, &resource.api_version, values).await?;
        let strategy = resource.behaviour();
        for (at, mut value) in other.into_iter().zip(converted) {
            strategy.set_defaults(&mut value);
            let revision = objects[at].revision();
            objects[at] = Arc::new(match revision {
                Some(revision) => {
                    let bytes = super::stored::encode(&mut value)?;
                    Object::from_encoded(bytes, revision).map_err(ApiError::internal)?
                }
                None => Object::from_value(&value).map_err(ApiError::internal)?,
            });
        }
        Ok(objects)
    }

    /// The objects of a list as clients see them.
    pub(super) async fn served_list(
        &self,
        resource: &Resource,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        let objects = match resource.converter() {
            Some(webhook) => self.served_objects(resource, webhook, objects).await?,
            None if !resource.converts() => return Ok(objects),
            None => objects,
        };
        objects.into_iter().map(|object| convert::to_served_object(resource, object)).collect()
    }

    /// What the store keeps of an encoded object that the verbs worked on.
    pub(super) async fn to_store(
        &self,
        resource: &Resource,
        bytes: Bytes,
    ) -> Result<Bytes, ApiError> {
        let Some(webhook) = resource.converter().filter(|_| !resource.is_stored()) else {
            return Ok(bytes);
        };
        let value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
        let to = &resource.stored_api_version;
        let converted = self.convert_custom(webhook, to, vec![value]).await?;
        super::stored::encode(&mut converted.into_iter().next().unwrap_or_default())
    }

    /// The events of a watch as clients see them, converted one by one by a webhook.
    pub(super) fn converted_events(
        &self,
        resource: Arc<Resource>,
        events: WatchStream,
    ) -> WatchStream {
        let server = self.weak();
        let convert = move |event| converted(server.clone(), resource.clone(), event).boxed();
        events.then(convert).boxed()
    }
}

async fn converted(
    server: Weak<Inner>,
    resource: Arc<Resource>,
    event: Result<WatchEvent, ClientError>,
) -> Result<WatchEvent, ClientError> {
    let gone = || ApiError::internal("the API server is gone");
    let server = server.upgrade().ok_or_else(gone)?;
    let (kind, object): (fn(_) -> _, _) = match event? {
        WatchEvent::Added(object) => (WatchEvent::Added, object),
        WatchEvent::Modified(object) => (WatchEvent::Modified, object),
        WatchEvent::Deleted(object) => (WatchEvent::Deleted, object),
        other => return Ok(other),
    };
    Ok(kind(server.to_worked_object(&resource, object).await?))
}
