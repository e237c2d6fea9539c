//! An object of the API: its own encoding first, typed views of it second.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::{BufMut, Bytes, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::resource::Key;

/// The bytes are not a Kubernetes object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not JSON, or JSON of another shape than the type that was asked for.
    #[error("the object is not of the expected shape")]
    Shape(#[source] serde_json::Error),
    /// There is no `metadata` to speak of.
    #[error("the object has no metadata")]
    NoMetadata,
}

/// One revision of one object, immutable and shared by `Arc`.
///
/// The JSON encoding is the truth: what is read is served from these bytes, including fields that
/// no typed struct knows. Typed structs are views, decoded at most once per `Object` and shared
/// ([`Object::decode`]).
///
/// An object that comes from a store does not hold its `metadata.resourceVersion` in its bytes,
/// because the store assigns it when it commits; it is spliced in when the bytes are written out.
pub struct Object {
    json: Bytes,
    /// Where in `json` the revision is spliced in, and the revision.
    splice: Option<(usize, u64)>,
    head: Head,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "metadata_without_managers")]
    metadata: ObjectMeta,
}

/// `managedFields` is often half of an object and hardly ever read: it stays in the bytes.
fn metadata_without_managers<'de, D>(deserializer: D) -> Result<ObjectMeta, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let mut meta = ObjectMeta::deserialize(deserializer)?;
    meta.managed_fields = None;
    Ok(meta)
}

impl Object {
    /// An object as a store holds it: without a resource version, which is `revision`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an object with metadata.
    pub fn from_stored(json: Bytes, revision: u64) -> Result<Self, DecodeError> {
        let mut head: Head = serde_json::from_slice(&json).map_err(DecodeError::Shape)?;
        let at = metadata_start(&json).ok_or(DecodeError::NoMetadata)?;
        head.metadata.resource_version = Some(revision.to_string());
        Ok(Self { json, splice: Some((at, revision)), head, typed: OnceLock::new() })
    }

    /// The same object as it stands at another revision, for example that of its deletion.
    ///
    /// # Errors
    /// [`DecodeError`] if this object's bytes hold no metadata.
    pub fn at_revision(&self, revision: u64) -> Result<Self, DecodeError> {
        if self.splice.is_some() {
            return Self::from_stored(self.json.clone(), revision);
        }
        Self::from_stored(Self::encode_for_store(&mut self.to_value())?, revision)
    }

    /// An object as it came over the wire, its resource version (if any) inside.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the bytes are not an object.
    pub fn from_json(json: Bytes) -> Result<Self, DecodeError> {
        let head: Head = serde_json::from_slice(&json).map_err(DecodeError::Shape)?;
        Ok(Self { json, splice: None, head, typed: OnceLock::new() })
    }

    /// An object from a JSON value.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the value is not an object.
    pub fn from_value(value: &Value) -> Result<Self, DecodeError> {
        Self::from_json(Bytes::from(serde_json::to_vec(value).map_err(DecodeError::Shape)?))
    }

    /// An object from its typed form.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if it does not serialize to an object.
    pub fn from_typed<K: Serialize>(typed: &K) -> Result<Self, DecodeError> {
        Self::from_json(Bytes::from(serde_json::to_vec(typed).map_err(DecodeError::Shape)?))
    }

    /// The bytes that a store keeps for a value: its JSON without `metadata.resourceVersion`.
    ///
    /// # Errors
    /// [`DecodeError::NoMetadata`] if the value has no `metadata` object.
    pub fn encode_for_store(value: &mut Value) -> Result<Bytes, DecodeError> {
        let meta = value.get_mut("metadata").and_then(Value::as_object_mut);
        meta.ok_or(DecodeError::NoMetadata)?.remove("resourceVersion");
        Ok(Bytes::from(serde_json::to_vec(value).map_err(DecodeError::Shape)?))
    }

    /// `apiVersion`, for example `apps/v1`.
    pub fn api_version(&self) -> &str {
        &self.head.api_version
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        &self.head.kind
    }

    /// The metadata, with its resource version and without `managedFields`.
    pub fn metadata(&self) -> &ObjectMeta {
        &self.head.metadata
    }

    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::of(&self.head.metadata)
    }

    /// The resource version, empty if there is none.
    pub fn resource_version(&self) -> &str {
        self.head.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// The store's revision of this object, where it came from a store.
    pub fn revision(&self) -> Option<u64> {
        self.splice.map(|(_, revision)| revision)
    }

    /// How many bytes [`Object::write_json`] writes at most.
    pub fn encoded_len(&self) -> usize {
        self.json.len() + if self.splice.is_some() { 44 } else { 0 }
    }

    /// Appends the object's JSON, resource version included.
    pub fn write_json(&self, out: &mut impl BufMut) {
        let Some((at, revision)) = self.splice else {
            out.put_slice(&self.json);
            return;
        };
        out.put_slice(&self.json[..at]);
        out.put_slice(b"\"resourceVersion\":\"");
        out.put_slice(revision.to_string().as_bytes());
        let empty = self.json[at..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
        out.put_slice(if empty { b"\"" } else { b"\"," });
        out.put_slice(&self.json[at..]);
    }

    /// The object's own bytes. Of an object that comes from a store they lack the resource version.
    pub fn stored_json(&self) -> &Bytes {
        &self.json
    }

    /// The object's JSON, resource version included.
    pub fn to_json(&self) -> Bytes {
        if self.splice.is_none() {
            return self.json.clone();
        }
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.write_json(&mut out);
        out.freeze()
    }

    /// The object as a JSON value, resource version included.
    pub fn to_value(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.json).unwrap_or(Value::Null);
        if let (Some((_, revision)), Some(meta)) =
            (self.splice, value.get_mut("metadata").and_then(Value::as_object_mut))
        {
            meta.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        value
    }

    /// The typed view. Decoded on the first call and shared with every later caller that asks for
    /// the same type.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the object does not fit `K`.
    pub fn decode<K>(&self) -> Result<Arc<K>, DecodeError>
    where
        K: DeserializeOwned + Send + Sync + 'static,
    {
        if let Some(typed) = self.typed.get()
            && let Ok(typed) = Arc::clone(typed).downcast::<K>()
        {
            return Ok(typed);
        }
        let typed: Arc<K> =
            Arc::new(serde_json::from_slice(&self.to_json()).map_err(DecodeError::Shape)?);
        let _first_type_wins = self.typed.set(typed.clone());
        Ok(typed)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.kind(), self.key(), self.resource_version())
    }
}

/// The position behind the `{` of the top-level `metadata`. The bytes must be valid JSON.
fn metadata_start(json: &[u8]) -> Option<usize> {
    let (mut depth, mut at, mut key) = (0usize, 0usize, None);
    while at < json.len() {
        match json[at] {
            b'"' => {
                let end = string_end(json, at)?;
                if depth == 1 && key.is_none() {
                    key = Some(&json[at + 1..end]);
                }
                at = end;
            }
            b'{' if depth == 1 && key == Some(b"metadata") => return Some(at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 1 => key = None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The position of the quote that ends the string which starts at `start`.
fn string_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn stored(value: &str) -> Object {
        Object::from_stored(Bytes::copy_from_slice(value.as_bytes()), 42).unwrap()
    }

    #[test]
    fn the_revision_is_spliced_into_the_top_level_metadata() {
        for body in [
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#,
            r#"{"kind":"ConfigMap","metadata":{},"apiVersion":"v1"}"#,
            r#"{"data":{"metadata":"{\"metadata\":{"},"metadata": { "name":"a" },"x":[{"metadata":{}}]}"#,
            r#"{"z":"metadata","metadata":{ }}"#,
        ] {
            let object = stored(body);
            let mut expected: Value = serde_json::from_str(body).unwrap();
            expected["metadata"]["resourceVersion"] = json!("42");
            assert_eq!(serde_json::from_slice::<Value>(&object.to_json()).unwrap(), expected);
            assert_eq!(object.to_value(), expected);
            assert!(object.to_json().len() <= object.encoded_len());
        }
    }

    #[test]
    fn what_is_stored_has_no_revision_and_keeps_unknown_fields() {
        let mut value = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "novel": 1});
        let bytes = Object::encode_for_store(&mut value).unwrap();
        let object = Object::from_stored(bytes, 9).unwrap();
        assert_eq!(object.to_value()["novel"], 1);
        assert_eq!(object.resource_version(), "9");
    }

    #[test]
    fn decoding_is_shared() {
        let object = stored(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
        let first = object.decode::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &object.decode::<ConfigMap>().unwrap()));
        assert_eq!(first.metadata.resource_version.as_deref(), Some("42"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Object::from_stored(Bytes::from_static(b"[1]"), 1).is_err());
        assert!(Object::from_stored(Bytes::from_static(b"{\"a\":1}"), 1).is_err());
    }
}
