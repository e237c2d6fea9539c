//! Kubernetes' protobuf encoding of objects, driven by the [schema model](crate::schema).
//!
//! client-go's typed clients send it by default. A message is the magic `k8s\0` and an envelope
//! (`runtime.Unknown`) that names the object's version and kind and holds its bytes; field numbers
//! are the schema's, so that no code is generated per kind.
//!
//! ```
//! use orch_core::protobuf;
//!
//! let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}});
//! let bytes = protobuf::encode(&pod)?;
//! assert_eq!(protobuf::decode(&bytes)?, pod);
//! # Ok::<(), protobuf::ProtobufError>(())
//! ```
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` and the `generated.proto` files.

mod decode;
mod encode;
mod stream;
mod wire;

use std::cell::Cell;

use serde_json::{Map, Value};

use decode::Limits;
pub use stream::{ListEncoder, watch_frame};

use crate::schema::{self, Definition};

/// The media type. That of a watch has the parameter `stream=watch` besides.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// As much as the API server takes in one request.
const BYTES_MAX: usize = 3 * 1024 * 1024;
/// Messages inside messages; no built-in kind but a recursive JSON schema comes near it.
const DEPTH_MAX: usize = 64;
/// A message of a few bytes becomes an object of several hundred: as many as a full request of
/// sensible ones has.
const MESSAGES_MAX: usize = 250_000;

/// Bytes that are no object, or an object that has no protobuf form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// The bytes do not begin with the magic.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// More bytes than a request may have.
    #[error("the message has more than {0} bytes")]
    TooLarge(usize),
    /// Too many messages inside each other.
    #[error("the message is nested more than {0} levels deep")]
    TooDeep(usize),
    /// Too many messages, which would take too much memory.
    #[error("the message consists of more than {0} messages")]
    TooMany(usize),
    /// The bytes are no message.
    #[error("illegal protobuf message: {0}")]
    Malformed(&'static str),
    /// The envelope says that its content is compressed or otherwise encoded.
    #[error("unsupported content encoding {0:?}")]
    ContentEncoding(String),
    /// JSON inside the message (a raw extension, say) cannot be read.
    #[error("the message holds malformed JSON")]
    Json(#[source] serde_json::Error),
    /// The kind is not built in: custom resources have no protobuf form.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A value has another type than its field.
    #[error("the value of {0} has the wrong type")]
    WrongType(&'static str),
}

/// Whether the bytes begin as a protobuf-encoded object does.
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes an object, which is at most 3 MiB long: its fields with `apiVersion` and `kind`.
///
/// Zero values that Go leaves out of JSON are left out here too.
///
/// # Errors
/// [`ProtobufError`]; the API server answers it as 400.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    if bytes.len() > BYTES_MAX {
        return Err(ProtobufError::TooLarge(BYTES_MAX));
    }
    let messages = Cell::new(MESSAGES_MAX);
    decode_envelope(bytes, Limits { depth: DEPTH_MAX, messages: &messages })
}

fn decode_envelope(bytes: &[u8], limits: Limits<'_>) -> Result<Value, ProtobufError> {
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?)?;
    if !envelope.content_encoding.is_empty() {
        return Err(ProtobufError::ContentEncoding(envelope.content_encoding.to_owned()));
    }
    if envelope.content_type == "application/json" {
        return serde_json::from_slice(envelope.raw).map_err(ProtobufError::Json);
    }
    let (api_version, kind) = (envelope.api_version, envelope.kind);
    let definition = of_kind(api_version, kind)?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), Value::String(api_version.to_owned()));
    object.insert("kind".into(), Value::String(kind.to_owned()));
    decode::message(definition, &mut object, envelope.raw, limits)?;
    Ok(Value::Object(object))
}

/// Encodes an object, which must have `apiVersion` and `kind`.
///
/// # Errors
/// [`ProtobufError::UnknownKind`], [`ProtobufError::WrongType`], [`ProtobufError::TooDeep`].
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let definition = of_kind(api_version, kind)?;
    let map = object.as_object().ok_or(ProtobufError::WrongType("the object"))?;
    Ok(envelope(api_version, kind, &encode::message(definition, map, DEPTH_MAX)?))
}

/// Whether a kind has a protobuf form: custom resources have none.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    of_kind(api_version, kind).is_ok()
}

/// What has nothing but metadata in its message, and is in no OpenAPI document.
const METADATA_ONLY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

fn of_kind(api_version: &str, kind: &str) -> Result<&'static Definition, ProtobufError> {
    let found = match (api_version, kind) {
        ("meta.k8s.io/v1" | "meta.k8s.io/v1beta1", "PartialObjectMetadata") => {
            schema::definition(METADATA_ONLY)
        }
        _ => schema::of_api_version(api_version, kind),
    };
    found.ok_or_else(|| ProtobufError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })
}

/// Magic and envelope around a message.
fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 8);
    wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut bytes = Vec::with_capacity(MAGIC.len() + type_meta.len() + raw.len() + 16);
    bytes.extend_from_slice(MAGIC);
    wire::put_bytes(&mut bytes, 1, &type_meta);
    wire::put_bytes(&mut bytes, 2, raw);
    wire::put_bytes(&mut bytes, 3, b"");
    wire::put_bytes(&mut bytes, 4, b"");
    bytes
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    content_encoding: &'a str,
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Self::default();
        for field in wire::fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => {
                    for field in wire::fields(value.bytes()?) {
                        let (number, value) = field?;
                        match number {
                            1 => envelope.api_version = value.text()?,
                            2 => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes()?,
                3 => envelope.content_encoding = value.text()?,
                4 => envelope.content_type = value.text()?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}
