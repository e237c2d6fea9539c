//! Objects, lists and tables as bytes.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`,
//! `k8s.io/kubernetes/pkg/printers/tablegenerator.go`.

use std::io::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use orch_core::{ApiError, Object, client::ObjectList};
use serde_json::{Value, json};

use super::{
    Exchange,
    accept::{Accepted, Encoding, Shape},
    options::Query,
    respond,
};
use crate::{
    catalog::{Behaviour, Resource},
    connect::BoxBody,
};

/// Bodies from this size on are compressed for clients that take it, as upstream does.
const GZIP_MIN: usize = 128 << 10;

/// One object in the shape that was asked for.
pub(super) fn object(
    exchange: &Exchange,
    query: &Query,
    resource: &Resource,
    object: &Object,
    accepted: Accepted,
    subresource: bool,
) -> Result<Bytes, ApiError> {
    let printable = !subresource || object.kind() == resource.of.kind;
    match accepted.shape {
        Shape::Table if printable => {
            let version = object.resource_version();
            let rows = Rows::of(exchange, query, resource)?;
            let table = rows.table(&json!({"resourceVersion": version}), [object], true);
            Ok(Bytes::from(table.to_string()))
        }
        Shape::Metadata => Ok(Bytes::from(partial(&object.to_value()).to_string())),
        _ => Ok(object.to_json()),
    }
}

/// A list in the shape that was asked for.
pub(super) fn list(
    exchange: &Exchange,
    query: &Query,
    resource: &Resource,
    list: &ObjectList,
    accepted: Accepted,
) -> Result<Bytes, ApiError> {
    let mut metadata = json!({"resourceVersion": list.resource_version});
    if let Some(token) = &list.continue_token {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(remaining) = list.remaining_item_count {
        metadata["remainingItemCount"] = remaining.into();
    }
    match accepted.shape {
        Shape::Table => {
            let rows = Rows::of(exchange, query, resource)?;
            let items = list.items.iter().map(|item| &**item);
            Ok(Bytes::from(rows.table(&metadata, items, true).to_string()))
        }
        Shape::Metadata => {
            let items: Vec<Value> =
                list.items.iter().map(|object| partial(&object.to_value())).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            });
            Ok(Bytes::from(list.to_string()))
        }
        Shape::Plain => Ok(plain_list(resource, list, &metadata)),
    }
}

/// A list assembled from the objects' own bytes.
fn plain_list(resource: &Resource, list: &ObjectList, metadata: &Value) -> Bytes {
    let size: usize = list.items.iter().map(|item| item.encoded_len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.list_kind(),
        resource.api_version
    );
    out.put_slice(head.as_bytes());
    for (at, item) in list.items.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        item.write_json(&mut out);
    }
    out.put_slice(b"]}\n");
    out.freeze()
}

/// Only the metadata of an object.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// What becomes of an object's row besides its cells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

/// Prints the rows of one kind.
pub(super) struct Rows {
    strategy: Behaviour,
    include: Include,
    now: jiff::Timestamp,
}

impl Rows {
    pub(super) fn of(
        exchange: &Exchange,
        query: &Query,
        resource: &Resource,
    ) -> Result<Self, ApiError> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::Nothing,
            "Object" => Include::Object,
            other => {
                let why = format!("unrecognized includeObject value: {other:?}");
                return Err(ApiError::bad_request(why));
            }
        };
        let strategy = resource.behaviour();
        Ok(Self { strategy, include, now: exchange.server.environment.clock.now() })
    }

    pub(super) fn table<'a>(
        &self,
        metadata: &Value,
        objects: impl IntoIterator<Item = &'a Object>,
        headed: bool,
    ) -> Value {
        let rows: Vec<Value> = objects.into_iter().map(|object| self.row(object)).collect();
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": if headed { self.columns() } else { Value::Array(Vec::new()) },
            "rows": rows,
        })
    }

    fn columns(&self) -> Value {
        let column = |column: &crate::strategy::Column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        };
        match &self.strategy {
            Behaviour::BuiltIn(strategy) => strategy.columns().iter().map(column).collect(),
            Behaviour::Custom(version) => version.column_definitions(),
        }
    }

    fn row(&self, object: &Object) -> Value {
        let value = object.to_value();
        let mut row = json!({"cells": self.strategy.row(&value, self.now)});
        match self.include {
            Include::Nothing => row["object"] = Value::Null,
            Include::Metadata => row["object"] = partial(&value),
            Include::Object => row["object"] = value,
        }
        row
    }
}

/// The response of a body in the encoding that was agreed, compressed if that pays.
pub(super) fn encoded(
    exchange: &Exchange,
    query: &Query,
    code: StatusCode,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<BoxBody>, ApiError> {
    let (body, media_type) = match accepted.encoding {
        Encoding::Json if pretty(exchange, query) => {
            let value: Value = serde_json::from_slice(&body).map_err(ApiError::internal)?;
            let text = serde_json::to_vec_pretty(&value).map_err(ApiError::internal)?;
            (Bytes::from(text), respond::JSON)
        }
        Encoding::Json => (body, respond::JSON),
        Encoding::Protobuf => {
            let value: Value = serde_json::from_slice(&body).map_err(ApiError::internal)?;
            let packed = orch_core::protobuf::encode(&value).map_err(|error| {
                ApiError::new(orch_core::status::Reason::NotAcceptable, error.to_string())
            })?;
            (Bytes::from(packed), "application/vnd.kubernetes.protobuf")
        }
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&body).map_err(ApiError::internal)?;
            let text = serde_saphyr::to_string(&value).map_err(ApiError::internal)?;
            (Bytes::from(text), "application/yaml")
        }
    };
    if body.len() < GZIP_MIN || !takes_gzip(exchange) {
        return Ok(respond::bytes(code, media_type, body));
    }
    // Speed before size, as upstream's level 1.
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    gzip.write_all(&body).map_err(ApiError::internal)?;
    let packed = gzip.finish().map_err(ApiError::internal)?;
    let mut response = respond::bytes(code, media_type, packed);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

fn takes_gzip(exchange: &Exchange) -> bool {
    let accepts = exchange.parts.headers.get_all(header::ACCEPT_ENCODING);
    accepts.iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| one.split(';').next().unwrap_or_default().trim() == "gzip")
    })
}

/// Whether the answer is to be read by a human: on request, and for browsers and curl.
fn pretty(exchange: &Exchange, query: &Query) -> bool {
    if let Some(text) = query.get("pretty") {
        return text.is_empty() || !matches!(text, "false" | "0");
    }
    let agent = exchange.parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    agent.is_some_and(|agent| {
        agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
    })
}
