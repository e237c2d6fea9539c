//! Objects and lists as bytes, in the form that was agreed.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`,
//! `responsewriters/writers.go`, `k8s.io/apimachinery/pkg/runtime/serializer/json/collections.go`.

use std::{io::Write as _, sync::Arc, vec};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use orch_core::{ApiError, Object, cbor, client::ObjectList, protobuf, status::Reason};
use serde_json::{Value, json};

use super::{
    Exchange,
    accept::{Accepted, Encoding, Offers, Shape},
    options::Query,
    respond,
    table::{Rows, partial},
};
use crate::{catalog::Resource, connect::BoxBody};

/// Bodies that are longer are compressed for clients that take it, as upstream does.
const GZIP_MIN: usize = 128 << 10;
/// A list that is longer is written piece by piece, so that it is nowhere as a whole.
const PIECE: usize = 128 << 10;

/// How one request is answered.
pub(super) struct Answer<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) query: &'a Query,
    pub(super) resource: &'a Resource,
    pub(super) accepted: Accepted,
}

impl Answer<'_> {
    /// One object in the shape that was asked for. `Status`es have no other shape.
    pub(super) fn object(
        &self,
        code: StatusCode,
        object: &Object,
    ) -> Result<Response<BoxBody>, ApiError> {
        let accepted = self.accepted;
        let is_status = object.kind() == "Status" && object.api_version() == "v1";
        let printable = object.kind() == self.resource.of.kind;
        let value = match accepted.shape {
            _ if is_status => None,
            Shape::Table if printable => {
                let rows = Rows::of(self.exchange, self.query, self.resource, accepted)?;
                let metadata = json!({"resourceVersion": object.resource_version()});
                Some(rows.table(&metadata, [object], true))
            }
            Shape::Metadata => Some(partial(&object.to_value(), accepted)),
            Shape::MetadataList => return Err(self.wrong_number("List", "not a list", "")),
            _ => None,
        };
        let bytes = match (value, accepted.encoding) {
            (Some(value), _) => self.encode(&value)?,
            (None, Encoding::Json) if !self.pretty() => object.to_json(),
            (None, _) => self.encode(&object.to_value())?,
        };
        self.respond(code, bytes)
    }

    /// A list in the shape that was asked for.
    pub(super) fn list(&self, list: ObjectList) -> Result<Response<BoxBody>, ApiError> {
        let mut metadata = json!({"resourceVersion": list.resource_version});
        if let Some(token) = &list.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = list.remaining_item_count {
            metadata["remainingItemCount"] = remaining.into();
        }
        match self.accepted.shape {
            Shape::Table => {
                let rows = Rows::of(self.exchange, self.query, self.resource, self.accepted)?;
                let items = list.items.iter().map(|item| &**item);
                let table = rows.table(&metadata, items, true);
                self.respond(StatusCode::OK, self.encode(&table)?)
            }
            Shape::Metadata => Err(self.wrong_number("", "a list", "List")),
            Shape::MetadataList => {
                let kind = "PartialObjectMetadataList";
                let version = self.accepted.shape_version();
                let item = |object: &Object| partial(&object.to_value(), self.accepted);
                let body = self.whole_list((version, kind), &metadata, &list.items, item)?;
                self.respond(StatusCode::OK, body)
            }
            Shape::Plain if self.accepted.encoding == Encoding::Json && !self.pretty() => {
                Ok(self.json_list(&metadata, list.items))
            }
            Shape::Plain => {
                let kind = self.resource.list_kind();
                let names = (self.resource.api_version.as_str(), &*kind);
                let item = |object: &Object| self.item(object);
                let body = self.whole_list(names, &metadata, &list.items, item)?;
                self.respond(StatusCode::OK, body)
            }
        }
    }

    /// An item of a list: kind and version of a built-in one are those of the list, as Go's typed
    /// lists have it. Custom resources keep theirs.
    fn item(&self, object: &Object) -> Value {
        let mut value = object.to_value();
        if self.resource.custom.is_none()
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        value
    }

    /// A list in an encoding that is made of values.
    fn whole_list(
        &self,
        (api_version, kind): (&str, &str),
        metadata: &Value,
        objects: &[Arc<Object>],
        item: impl Fn(&Object) -> Value,
    ) -> Result<Bytes, ApiError> {
        if self.accepted.encoding == Encoding::Protobuf {
            let mut list = protobuf::ListEncoder::new(api_version, kind, metadata)
                .map_err(|error| not_marshalable(&error))?;
            for object in objects {
                list.push(&item(object)).map_err(|error| not_marshalable(&error))?;
            }
            return Ok(list.finish().into());
        }
        let items: Vec<Value> = objects.iter().map(|object| item(object)).collect();
        let list = json!({
            "kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items,
        });
        self.encode(&list)
    }

    /// A list assembled from the objects' own bytes.
    fn json_list(&self, metadata: &Value, items: Vec<Arc<Object>>) -> Response<BoxBody> {
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            self.resource.list_kind(),
            self.resource.api_version
        );
        let size: usize = items.iter().map(|item| item.encoded_len() + 1).sum();
        let whole = size + head.len() < PIECE;
        let typed = self.resource.custom.is_none();
        let mut pieces = Pieces { head: Some(head), items: items.into_iter(), typed, over: false };
        if whole {
            let body = pieces.next().unwrap_or_default();
            return respond::bytes(StatusCode::OK, respond::JSON, body);
        }
        let compresses = takes_gzip(&self.exchange.parts.headers);
        let body: BoxBody = if compresses {
            let mut gzip = Some(gzip());
            let packed = std::iter::from_fn(move || match (gzip.as_mut(), pieces.next()) {
                (None, _) => None,
                (Some(gzip), Some(piece)) => Some(pack(gzip, &piece)),
                (Some(_), None) => gzip.take().and_then(|gzip| gzip.finish().ok()).map(Bytes::from),
            });
            streamed(packed)
        } else {
            streamed(pieces)
        };
        let mut response = Response::new(body);
        respond::describe(&mut response, respond::JSON);
        if compresses {
            respond::gzipped(&mut response);
        }
        response
    }

    fn pretty(&self) -> bool {
        self.accepted.pretty || is_pretty(&self.exchange.parts.headers, self.query)
    }

    fn encode(&self, value: &Value) -> Result<Bytes, ApiError> {
        encode(value, self.accepted.encoding, self.pretty())
    }

    /// The response of a body, compressed if that pays.
    fn respond(&self, code: StatusCode, body: Bytes) -> Result<Response<BoxBody>, ApiError> {
        let media_type = self.accepted.encoding.media_type();
        if body.len() <= GZIP_MIN || !takes_gzip(&self.exchange.parts.headers) {
            return Ok(respond::bytes(code, media_type, body));
        }
        let mut gzip = gzip();
        gzip.write_all(&body).map_err(ApiError::internal)?;
        let packed = gzip.finish().map_err(ApiError::internal)?;
        let mut response = respond::bytes(code, media_type, packed);
        respond::gzipped(&mut response);
        Ok(response)
    }

    /// The refusal of metadata of an object where there is a list, or the other way round.
    fn wrong_number(&self, asked: &str, is: &str, has: &str) -> ApiError {
        let of = &self.resource.of;
        // The names of upstream's internal types.
        let is_of = match (self.resource.custom.is_some(), has) {
            (true, "") => "*unstructured.Unstructured".to_owned(),
            (true, _) => "*unstructured.UnstructuredList".to_owned(),
            (false, _) => {
                let package = match of.group.split('.').next().unwrap_or_default() {
                    "" | "events" => "core",
                    package => package,
                };
                format!("*{package}.{}{has}", of.kind)
            }
        };
        let why = format!(
            "you requested PartialObjectMetadata{asked}, but the requested object is {is} ({is_of})"
        );
        ApiError::new(Reason::NotAcceptable, why)
    }
}

/// The pieces of a list: each as long as the objects that fit into it.
struct Pieces {
    head: Option<String>,
    items: vec::IntoIter<Arc<Object>>,
    typed: bool,
    over: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let waiting: usize = self.items.as_slice().iter().take(1).map(|i| i.encoded_len()).sum();
        let mut out = BytesMut::with_capacity(PIECE.max(waiting) + 256);
        let mut first = false;
        if let Some(head) = self.head.take() {
            out.put_slice(head.as_bytes());
            first = true;
        }
        while let Some(item) = self.items.as_slice().first() {
            if out.len() + item.encoded_len() > PIECE && !out.is_empty() && !first {
                return Some(out.freeze());
            }
            if !std::mem::take(&mut first) {
                out.put_u8(b',');
            }
            match self.typed {
                true => item.write_untyped_json(&mut out),
                false => item.write_json(&mut out),
            }
            self.items.next();
        }
        self.over = true;
        out.put_slice(b"]}\n");
        Some(out.freeze())
    }
}

fn streamed(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> BoxBody {
    StreamBody::new(stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
}

/// Speed before size, as upstream's level 1.
fn gzip() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

fn pack(gzip: &mut GzEncoder<Vec<u8>>, piece: &[u8]) -> Bytes {
    // Writing to memory does not fail.
    let _ = gzip.write_all(piece);
    Bytes::from(std::mem::take(gzip.get_mut()))
}

/// A value in an encoding.
pub(super) fn encode(value: &Value, encoding: Encoding, pretty: bool) -> Result<Bytes, ApiError> {
    Ok(match encoding {
        Encoding::Json if pretty => {
            serde_json::to_vec_pretty(value).map_err(ApiError::internal)?.into()
        }
        Encoding::Json => serde_json::to_vec(value).map_err(ApiError::internal)?.into(),
        Encoding::Yaml => serde_saphyr::to_string(value).map_err(ApiError::internal)?.into(),
        Encoding::Protobuf => {
            protobuf::encode(value).map_err(|error| not_marshalable(&error))?.into()
        }
        Encoding::Cbor => cbor::encode(value).into(),
    })
}

fn not_marshalable(error: &protobuf::ProtobufError) -> ApiError {
    ApiError::new(Reason::NotAcceptable, error.to_string())
}

/// An error in the form that the client prefers, or as JSON if it takes no form at all.
pub(super) fn error(
    headers: &HeaderMap,
    query: &Query,
    cbor: bool,
    error: &ApiError,
) -> Response<BoxBody> {
    let offers = Offers { cbor, error: true, ..Offers::default() };
    let (encoding, pretty) = match super::accept::negotiate(headers, offers) {
        Ok(accepted) => (accepted.encoding, accepted.pretty || is_pretty(headers, query)),
        Err(_) => (Encoding::Json, true),
    };
    let status = respond::status_json(error);
    let body = encode(&status, encoding, pretty).unwrap_or_else(|_| status.to_string().into());
    respond::error(error, encoding.media_type(), body)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT_ENCODING).map(HeaderValue::to_str);
    matches!(accepts, Some(Ok(text)) if text.split(',').any(|one| one.trim() == "gzip"))
}

/// Whether the answer is to be read by a human: on request, and for browsers and curl.
fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(text) = query.get("pretty").filter(|text| !text.is_empty()) {
        return matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    agent.is_some_and(|agent| {
        agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
    })
}
