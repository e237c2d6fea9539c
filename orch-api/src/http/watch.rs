//! Watches over HTTP: one event after the other, each in a frame of its own.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use orch_core::{
    ApiError, ClientError, Object, Target,
    client::{WatchEvent, WatchStream},
};
use serde_json::{Value, json};

use super::{
    Exchange,
    accept::{Accepted, Offers, Shape},
    frames::{Form, frame},
    options::Query,
    respond,
    table::Rows,
};
use crate::{catalog::Resource, connect::BoxBody, serve::ShutdownSignal, server::Inner};

pub(super) fn serve<'a>(
    exchange: &'a Exchange,
    query: &'a Query,
    target: Target,
    resource: &'a Resource,
    accepted: Accepted,
) -> BoxFuture<'a, Result<Response<BoxBody>, ApiError>> {
    async move {
        let mut options = query.watch()?;
        if let Some(name) = &target.name {
            options.field_selector = Some(format!("metadata.name={name}"));
        }
        let rows = match accepted.shape {
            Shape::Table => Some(Rows::of(exchange, query, resource, accepted)?),
            _ => None,
        };
        let events = exchange.server.watch(&exchange.caller, target, options).await;
        // A revision that is too old is told inside the stream, as upstream does.
        let events: WatchStream = match events {
            Ok(events) => events,
            Err(error) if error.code() == 410 => stream::iter([Err(error.into())]).boxed(),
            Err(error) => return Err(error),
        };
        let media_type = accepted.encoding.stream_media_type().ok_or_else(|| {
            Offers { cbor: exchange.server.options.cbor, ..Offers::default() }.no_stream()
        })?;
        let events = match exchange.parts.extensions.get::<ShutdownSignal>() {
            Some(signal) => events.take_until(signal.0.clone().cancelled_owned()).boxed(),
            None => events,
        };
        let told = Told {
            server: exchange.server.clone(),
            rows,
            // A list's metadata is nothing that an event could be turned into.
            accepted: match accepted.shape {
                Shape::MetadataList => Accepted { shape: Shape::Plain, ..accepted },
                _ => Accepted { pretty: false, ..accepted },
            },
            kind: resource.of.kind.to_string(),
            api_version: resource.api_version.clone(),
            headed: false,
            told: exchange.server.metrics.as_ref().map(|metrics| {
                let of = &resource.of;
                metrics.watch_events([&of.group, &of.version, &of.plural])
            }),
        };
        let mut response = Response::new(told.body(events));
        respond::describe(&mut response, media_type);
        Ok(response)
    }
    .boxed()
}

/// Turns events into frames.
struct Told {
    server: Arc<Inner>,
    accepted: Accepted,
    rows: Option<Rows>,
    kind: String,
    api_version: String,
    /// A table names its columns in its first event only.
    headed: bool,
    /// Counts the events that were told, where somebody wants to know.
    told: Option<Arc<AtomicU64>>,
}

impl Told {
    fn body(mut self, events: WatchStream) -> BoxBody {
        let frames = events.map(move |event| {
            let frame = self.frame(event).or_else(|error| self.error(&error));
            // What has no form in the encoding that was agreed ends the watch.
            frame.map(Frame::data).map_err(Into::into)
        });
        StreamBody::new(frames).boxed_unsync()
    }

    fn frame(&mut self, event: Result<WatchEvent, ClientError>) -> Result<Bytes, ApiError> {
        if let Some(told) = &self.told {
            told.fetch_add(1, Ordering::Relaxed);
        }
        let (event, object) = match event {
            Ok(WatchEvent::Added(object)) => ("ADDED", object),
            Ok(WatchEvent::Modified(object)) => ("MODIFIED", object),
            Ok(WatchEvent::Deleted(object)) => ("DELETED", object),
            Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
                let object = self.bookmark(&resource_version, initial_events_end);
                return frame("BOOKMARK", &object, self.accepted.encoding);
            }
            Ok(_) => return Ok(Bytes::new()),
            Err(ClientError::Api(error)) => return Err(error),
            Err(other) => return Err(ApiError::internal(other)),
        };
        if self.rows.is_none() {
            return self.server.frames.of(Form { event, accepted: self.accepted }, &object);
        }
        frame(event, &self.table(&object), self.accepted.encoding)
    }

    fn error(&self, error: &ApiError) -> Result<Bytes, ApiError> {
        frame("ERROR", &respond::status_json(error), self.accepted.encoding)
    }

    fn table(&mut self, object: &Object) -> Value {
        let headed = !std::mem::replace(&mut self.headed, true);
        let version = json!({"resourceVersion": object.resource_version()});
        self.rows.as_ref().map_or(Value::Null, |rows| rows.table(&version, [object], headed))
    }

    fn bookmark(&self, version: &str, ends_initial: bool) -> Value {
        let mut metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shape_version = self.accepted.shape_version();
        match self.accepted.shape {
            Shape::Table => json!({
                "kind": "Table", "apiVersion": shape_version,
                "metadata": {"resourceVersion": version}, "columnDefinitions": null,
                "rows": [{"cells": null, "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": shape_version,
                    "metadata": metadata,
                }}],
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": shape_version,
                "metadata": metadata,
            }),
            Shape::Plain | Shape::MetadataList => json!({
                "kind": self.kind, "apiVersion": self.api_version, "metadata": metadata,
            }),
        }
    }
}
