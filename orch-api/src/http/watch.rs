//! Watches over HTTP: one JSON document a line, flushed one by one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use orch_core::{
    ApiError, ClientError, Object, Target,
    client::{WatchEvent, WatchStream},
};
use serde_json::{Value, json};

use super::{
    Exchange,
    accept::{Accepted, Encoding, Shape},
    options::Query,
    respond,
    table::{Rows, partial},
};
use crate::{connect::BoxBody, serve::ShutdownSignal};

pub(super) fn serve<'a>(
    exchange: &'a Exchange,
    query: &'a Query,
    target: Target,
    accepted: Accepted,
) -> BoxFuture<'a, Result<Response<BoxBody>, ApiError>> {
    async move {
        if accepted.encoding == Encoding::Protobuf {
            let why = "watches are answered in application/json only";
            return Err(ApiError::new(orch_core::status::Reason::NotAcceptable, why));
        }
        let mut options = query.watch()?;
        if let Some(name) = &target.name {
            options.field_selector = Some(format!("metadata.name={name}"));
        }
        let of = &target.resource;
        let resource = exchange.server.resource(&of.group, &of.version, &of.plural).await?;
        let frames = Frames {
            rows: (accepted.shape == Shape::Table)
                .then(|| Rows::of(exchange, query, &resource))
                .transpose()?,
            shape: accepted.shape,
            kind: resource.of.kind.to_string(),
            api_version: resource.api_version.clone(),
            headed: false,
            told: exchange.server.metrics.as_ref().map(|metrics| {
                metrics.watch_events([
                    &resource.of.group,
                    &resource.of.version,
                    &resource.of.plural,
                ])
            }),
        };
        let events = exchange.server.watch(&exchange.caller, target, options).await;
        // A revision that is too old is told inside the stream, as upstream does.
        let events: WatchStream = match events {
            Ok(events) => events,
            Err(error) if error.code() == 410 => stream::iter([Err(error.into())]).boxed(),
            Err(error) => return Err(error),
        };
        let events = match exchange.parts.extensions.get::<ShutdownSignal>() {
            Some(signal) => events.take_until(signal.0.clone().cancelled_owned()).boxed(),
            None => events,
        };
        let mut response = Response::new(frames.body(events));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(respond::JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }
    .boxed()
}

/// Turns events into lines.
struct Frames {
    shape: Shape,
    rows: Option<Rows>,
    kind: String,
    api_version: String,
    /// A table names its columns in its first event only.
    headed: bool,
    /// Counts the events that were told, where somebody wants to know.
    told: Option<Arc<AtomicU64>>,
}

impl Frames {
    fn body(mut self, events: WatchStream) -> BoxBody {
        let lines = events.map(move |event| Ok(Frame::data(self.line(event))));
        StreamBody::new(lines).boxed_unsync()
    }

    fn line(&mut self, event: Result<WatchEvent, ClientError>) -> Bytes {
        if let Some(told) = &self.told {
            told.fetch_add(1, Ordering::Relaxed);
        }
        let (kind, object) = match event {
            Ok(WatchEvent::Added(object)) => ("ADDED", object),
            Ok(WatchEvent::Modified(object)) => ("MODIFIED", object),
            Ok(WatchEvent::Deleted(object)) => ("DELETED", object),
            Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
                return self.bookmark(&resource_version, initial_events_end);
            }
            Ok(_) => return Bytes::new(),
            Err(error) => {
                let error = match error {
                    ClientError::Api(error) => error,
                    other => ApiError::internal(other),
                };
                return value_line("ERROR", &respond::status_json(&error));
            }
        };
        match self.shape {
            Shape::Plain => object_line(kind, &object),
            Shape::Metadata => value_line(kind, &partial(&object.to_value())),
            Shape::Table => {
                let table = self.table(&object);
                value_line(kind, &table)
            }
        }
    }

    fn table(&mut self, object: &Object) -> Value {
        let headed = !std::mem::replace(&mut self.headed, true);
        let version = json!({"resourceVersion": object.resource_version()});
        self.rows.as_ref().map_or(Value::Null, |rows| rows.table(&version, [object], headed))
    }

    fn bookmark(&self, version: &str, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape {
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": version}, "columnDefinitions": null,
                "rows": [{"cells": null, "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                }}],
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Shape::Plain => json!({
                "kind": self.kind, "apiVersion": self.api_version, "metadata": metadata,
            }),
        };
        value_line("BOOKMARK", &object)
    }
}

fn object_line(kind: &str, object: &Object) -> Bytes {
    let mut out = BytesMut::with_capacity(object.encoded_len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    object.write_json(&mut out);
    out.put_slice(b"}\n");
    out.freeze()
}

fn value_line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}
