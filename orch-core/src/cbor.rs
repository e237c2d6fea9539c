//! Kubernetes' CBOR encoding of objects: what JSON can say, in fewer bytes.
//!
//! Strings are written as byte strings and read from byte strings and texts alike; whole messages
//! are in tag 55799, which makes them recognizable. What JSON cannot say is refused when it is
//! read: numbers that are not finite or too large, simple values but true, false and null, keys
//! that are no strings, keys that are given twice.
//!
//! ```
//! use orch_core::cbor;
//!
//! let object = serde_json::json!({"kind": "ConfigMap", "data": {"a": "b"}});
//! let bytes = cbor::encode(&object);
//! assert!(bytes.starts_with(&[0xd9, 0xd9, 0xf7]));
//! assert_eq!(cbor::decode(&bytes)?, object);
//! # Ok::<(), cbor::CborError>(())
//! ```
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/cbor`, KEP-4222. Differs: bytes that a kind
//! holds as base64 in JSON are written as that text, which decoders of the kind take as well.

mod decode;
mod encode;

use minicbor::data::Type;

pub use decode::decode;
pub use encode::{encode, watch_event};

/// The media type of one object.
pub const CONTENT_TYPE: &str = "application/cbor";
/// The media type of a watch: one object after the other.
pub const SEQUENCE: &str = "application/cbor-seq";
/// The media type of a configuration for server-side apply.
pub const APPLY_PATCH: &str = "application/apply-patch+cbor";

/// The tag around every message, as it is written: self-described CBOR (RFC 8949, 3.4.6).
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// As deep as JSON is read.
const DEPTH_MAX: usize = 128;

/// Bytes that are no CBOR, or say what JSON cannot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// Not well-formed.
    #[error("cbor: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// Something follows the object.
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Trailing(usize, usize),
    /// A key is there twice.
    #[error("cbor: found duplicate map key {0:?} at map element index {1}")]
    DuplicateKey(String, usize),
    /// A key is no string.
    #[error("cbor: cannot use {0} as a map key")]
    Key(Type),
    /// Lists and maps inside each other.
    #[error("cbor: exceeded max nested level {0}")]
    TooDeep(usize),
    /// A number that no 64-bit integer holds, or a big number.
    #[error("cbor: an integer overflows int64")]
    TooLarge,
    /// NaN or an infinity.
    #[error("cbor: a floating-point number is NaN or infinite")]
    NotFinite,
    /// A simple value that JSON does not know.
    #[error("cbor: simple value {0} is not recognized")]
    Simple(String),
    /// A byte string that should be a string.
    #[error("cbor: invalid UTF-8 string")]
    NotText,
    /// What follows the tag of a time is none.
    #[error("cbor: a tagged time is no time")]
    Time,
}
