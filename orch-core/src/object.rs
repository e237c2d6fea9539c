//! An object of the API: its own encoding first, typed views of it second.

mod encoding;
mod head;

use std::{
    any::Any,
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::{BufMut, Bytes, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::resource::Key;
use head::{Head, METADATA_KEY, Meta, Place};

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
/// no typed struct knows. Typed structs are views, decoded for the first who asks and shared
/// ([`Object::decode`], [`Object::metadata`]). Names, kind and version are read from the bytes:
/// an object that is only stored, listed and watched costs little more than its encoding.
///
/// An object that comes from a store does not hold its `metadata.resourceVersion` in its bytes,
/// because the store assigns it when it commits; it is spliced in when the bytes are written out.
pub struct Object {
    json: Bytes,
    head: Head,
    /// Of an object whose bytes lack the resource version.
    revision: u64,
    views: OnceLock<Box<Views>>,
}

/// What is made of the bytes for those who ask. Most objects in a cache are never asked.
#[derive(Default)]
struct Views {
    version: OnceLock<Box<str>>,
    metadata: OnceLock<Box<ObjectMeta>>,
    typed: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Object {
    /// An object as a store holds it: without a resource version, which is `revision`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an object with metadata.
    pub fn from_stored(json: Bytes, revision: u64) -> Result<Self, DecodeError> {
        // Decoded only to be sure that it can be: most objects are never asked for their metadata.
        serde_json::from_slice::<Meta>(&json).map_err(DecodeError::Shape)?;
        Self::spliced(json, revision)
    }

    /// An object in the bytes that [`Object::encode_for_store`] has made of a checked value: they
    /// are not read again to be sure.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an object with metadata.
    pub fn from_encoded(json: Bytes, revision: u64) -> Result<Self, DecodeError> {
        Self::spliced(json, revision)
    }

    fn spliced(json: Bytes, revision: u64) -> Result<Self, DecodeError> {
        let mut head = Head::of_any(&json).map_err(DecodeError::Shape)?;
        if head.metadata == 0 {
            return Err(DecodeError::NoMetadata);
        }
        head.spliced = true;
        Ok(Self { json, head, revision, views: OnceLock::new() })
    }

    /// The same object as it stands at another revision, for example that of its deletion.
    ///
    /// # Errors
    /// [`DecodeError`] if this object's bytes hold no metadata.
    pub fn at_revision(&self, revision: u64) -> Result<Self, DecodeError> {
        if self.head.spliced {
            let (json, views) = (self.json.clone(), OnceLock::new());
            return Ok(Self { json, head: self.head, revision, views });
        }
        Self::from_encoded(Self::encode_for_store(&mut self.to_value())?, revision)
    }

    /// An object as it came over the wire, its resource version (if any) inside.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the bytes are not an object.
    pub fn from_json(json: Bytes) -> Result<Self, DecodeError> {
        let meta: Meta = serde_json::from_slice(&json).map_err(DecodeError::Shape)?;
        let head = Head::of_any(&json).map_err(DecodeError::Shape)?;
        let views = Views { metadata: OnceLock::from(Box::new(meta.metadata)), ..Views::default() };
        Ok(Self { json, head, revision: 0, views: OnceLock::from(Box::new(views)) })
    }

    /// An object from a JSON value.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the value is not an object.
    pub fn from_value(value: &Value) -> Result<Self, DecodeError> {
        Self::from_json(encoding::encode(value).map_err(DecodeError::Shape)?)
    }

    /// An object from its typed form.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if it does not serialize to an object.
    pub fn from_typed<K: Serialize>(typed: &K) -> Result<Self, DecodeError> {
        Self::from_json(Bytes::from(serde_json::to_vec(typed).map_err(DecodeError::Shape)?))
    }

    /// The bytes that a store keeps for a value: its JSON without `metadata.resourceVersion`, with
    /// kind, version and names first.
    ///
    /// # Errors
    /// [`DecodeError::NoMetadata`] if the value has no `metadata` object.
    pub fn encode_for_store(value: &mut Value) -> Result<Bytes, DecodeError> {
        let meta = value.get_mut("metadata").and_then(Value::as_object_mut);
        meta.ok_or(DecodeError::NoMetadata)?.remove("resourceVersion");
        encoding::encode(value).map_err(DecodeError::Shape)
    }

    /// `apiVersion`, for example `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.head.text(Place::ApiVersion, &self.json)
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.head.text(Place::Kind, &self.json)
    }

    /// The name, empty if there is none.
    pub fn name(&self) -> &str {
        self.head.text(Place::Name, &self.json)
    }

    /// The namespace, empty if there is none.
    pub fn namespace(&self) -> &str {
        self.head.text(Place::Namespace, &self.json)
    }

    /// The metadata, with its resource version and without `managedFields`. Decoded on the first
    /// call and kept.
    pub fn metadata(&self) -> &ObjectMeta {
        self.views().metadata.get_or_init(|| Box::new(self.decode_metadata()))
    }

    /// The metadata as by [`Object::metadata`], for those who look at it once: what has to be
    /// decoded for them is not kept.
    pub fn glance_metadata(&self) -> Cow<'_, ObjectMeta> {
        match self.views.get().and_then(|views| views.metadata.get()) {
            Some(meta) => Cow::Borrowed(meta),
            None => Cow::Owned(self.decode_metadata()),
        }
    }

    fn decode_metadata(&self) -> ObjectMeta {
        let decoded = self.metadata_json().and_then(|json| serde_json::from_slice(&json).ok());
        let mut meta: ObjectMeta = decoded.unwrap_or_else(|| {
            tracing::error!(object = ?self, "metadata that was checked is malformed");
            ObjectMeta {
                name: Some(self.name().to_owned()),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            }
        });
        if let Some(revision) = self.revision() {
            meta.resource_version = Some(revision.to_string());
        }
        meta
    }

    /// The bytes of the metadata, `managedFields` left out; `None` if there is no metadata.
    fn metadata_json(&self) -> Option<Vec<u8>> {
        let start = self.head.metadata as usize;
        let end = head::value_end(&self.json, start.checked_sub(1)?)?;
        let mut json = self.json.get(start - 1..end)?.to_vec();
        head::cut_managers(&mut json, 1);
        Some(json)
    }

    fn views(&self) -> &Views {
        self.views.get_or_init(Box::default)
    }

    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::new(self.namespace(), self.name())
    }

    /// The resource version, empty if there is none.
    pub fn resource_version(&self) -> &str {
        match self.revision() {
            Some(revision) => {
                self.views().version.get_or_init(|| revision.to_string().into_boxed_str())
            }
            None => self.metadata().resource_version.as_deref().unwrap_or_default(),
        }
    }

    /// Whether this is the same revision as `other`, of what is the same object.
    pub fn is_revision_of(&self, other: &Self) -> bool {
        match (self.revision(), other.revision()) {
            (Some(own), Some(other)) => own == other,
            _ => {
                let own = self.resource_version();
                own == other.resource_version() && !own.is_empty()
            }
        }
    }

    /// The resource version for those who keep it for longer than the object, empty if there is
    /// none.
    pub fn to_resource_version(&self) -> String {
        match self.revision() {
            Some(revision) => revision.to_string(),
            None => self.resource_version().to_owned(),
        }
    }

    /// The store's revision of this object, where it came from a store.
    pub fn revision(&self) -> Option<u64> {
        self.head.spliced.then_some(self.revision)
    }

    /// How many bytes [`Object::write_json`] writes at most.
    pub fn encoded_len(&self) -> usize {
        self.json.len() + if self.revision().is_some() { 44 } else { 0 }
    }

    /// Appends the object's JSON, resource version included.
    pub fn write_json(&self, out: &mut impl BufMut) {
        self.write_from(0, out);
    }

    /// Appends the object's JSON without `kind` and `apiVersion`, resource version included: an
    /// item of a list whose kind says what its items are.
    ///
    /// Source: `k8s.io/apimachinery/pkg/runtime`, whose lists decode items without their types.
    pub fn write_untyped_json(&self, out: &mut impl BufMut) {
        if self.head.ordered {
            out.put_u8(b'{');
            self.write_from(self.head.metadata as usize - METADATA_KEY, out);
            return;
        }
        let mut value = self.to_value();
        if let Some(object) = value.as_object_mut() {
            object.remove("kind");
            object.remove("apiVersion");
        }
        out.put_slice(value.to_string().as_bytes());
    }

    /// Appends the bytes from `start` on, which is no further than the metadata.
    fn write_from(&self, start: usize, out: &mut impl BufMut) {
        if !self.head.spliced {
            out.put_slice(&self.json[start..]);
            return;
        }
        let at = self.head.metadata as usize;
        out.put_slice(&self.json[start..at]);
        out.put_slice(b"\"resourceVersion\":\"");
        put_number(self.revision, out);
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
        if self.revision().is_none() {
            return self.json.clone();
        }
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.write_json(&mut out);
        out.freeze()
    }

    /// The object as a JSON value, resource version included.
    pub fn to_value(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.json).unwrap_or(Value::Null);
        if let (Some(revision), Some(meta)) =
            (self.revision(), value.get_mut("metadata").and_then(Value::as_object_mut))
        {
            meta.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        value
    }

    /// The object's JSON, resource version included and `managedFields` left out.
    fn unmanaged_json(&self) -> Bytes {
        let metadata = self.head.metadata as usize;
        let mut out = Vec::with_capacity(self.encoded_len());
        self.write_json(&mut out);
        if metadata > 0 {
            head::cut_managers(&mut out, metadata);
        }
        Bytes::from(out)
    }

    /// The typed view, without `managedFields`: they are often half of an object and more than half
    /// of what its typed form would take, and a write that leaves them out keeps them. Decoded on
    /// the first call and shared with every later caller that asks for the same type.
    ///
    /// Source: `pkg/scheduler/scheduler.go`, `cmd/kube-controller-manager/app`: their informers trim
    /// them as well.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] if the object does not fit `K`.
    pub fn decode<K>(&self) -> Result<Arc<K>, DecodeError>
    where
        K: DeserializeOwned + Send + Sync + 'static,
    {
        let slot = &self.views().typed;
        let known = slot.lock().clone();
        if let Some(Ok(typed)) = known.map(Arc::downcast::<K>) {
            return Ok(typed);
        }
        let typed: Arc<K> =
            Arc::new(serde_json::from_slice(&self.unmanaged_json()).map_err(DecodeError::Shape)?);
        let mut slot = slot.lock();
        if slot.is_none() {
            *slot = Some(typed.clone());
        }
        Ok(typed)
    }

    /// Lets go of the typed view, because a newer revision has taken this one's place: whoever uses
    /// the view still has it, and nobody keeps it beside the bytes for as long as the history lasts.
    pub fn forget_typed(&self) {
        let Some(views) = self.views.get() else { return };
        let forgotten = views.typed.lock().take();
        drop(forgotten);
    }
}

/// Writes a number without making a string of it.
fn put_number(number: u64, out: &mut impl BufMut) {
    let (mut digits, mut start, mut left) = ([0u8; 20], 20, number);
    while left > 0 || start == 20 {
        start -= 1;
        digits[start] = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
    }
    out.put_slice(&digits[start..]);
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.kind(), self.key(), self.resource_version())
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
            let mut untyped = Vec::new();
            object.write_untyped_json(&mut untyped);
            let item = expected.as_object_mut().unwrap();
            item.remove("kind");
            item.remove("apiVersion");
            assert_eq!(serde_json::from_slice::<Value>(&untyped).unwrap(), expected);
        }
    }

    #[test]
    fn a_stored_object_begins_with_what_says_what_it_is() {
        let mut value = json!({
            "data": {"kind": "x"}, "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"annotations": {"a": "b"}, "namespace": "n", "name": "a",
                "labels": {"l": "m"}, "resourceVersion": "7"},
        });
        let bytes = Object::encode_for_store(&mut value).unwrap();
        let start =
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"n","#;
        assert!(bytes.starts_with(start.as_bytes()), "{bytes:?}");
        let object = Object::from_encoded(bytes, 0).unwrap();
        assert_eq!((object.kind(), object.api_version()), ("ConfigMap", "v1"));
        assert_eq!((object.namespace(), object.name()), ("n", "a"));
        assert_eq!((object.resource_version(), object.revision()), ("0", Some(0)));
        let last = object.at_revision(u64::MAX).unwrap();
        assert_eq!(last.resource_version(), u64::MAX.to_string());
        assert_eq!(last.to_value()["metadata"]["resourceVersion"], u64::MAX.to_string());
        assert_eq!(object.to_value(), serde_json::from_slice::<Value>(&object.to_json()).unwrap());
        assert_eq!(object.metadata().labels.as_ref().unwrap()["l"], "m");
        let mut item = Vec::new();
        object.write_untyped_json(&mut item);
        let start = r#"{"metadata":{"resourceVersion":"0","name":"a","namespace":"n","#;
        assert!(item.starts_with(start.as_bytes()));
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
    fn an_object_that_nobody_asks_costs_little_besides_its_bytes() {
        assert!(size_of::<Object>() <= 96, "{}", size_of::<Object>());
    }

    #[test]
    fn a_glance_at_the_metadata_sees_all_of_it_and_keeps_nothing() {
        for body in [
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","managedFields":[{"manager":"{"}],"labels":{"x":"}"}},"spec":{}}"#,
            r#"{"metadata" : {"name":"a", "labels":{"x":"}"} } , "kind":"Pod"}"#,
        ] {
            let object = stored(body);
            let glance = object.glance_metadata().into_owned();
            assert!(object.views.get().is_none());
            assert_eq!(&glance, object.metadata());
            assert_eq!(glance.labels.as_ref().unwrap()["x"], "}");
            assert_eq!(glance.resource_version.as_deref(), Some("42"));
            assert_eq!(glance.managed_fields, None);
            assert!(matches!(object.glance_metadata(), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn decoding_is_shared() {
        let object = stored(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
        let first = object.decode::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &object.decode::<ConfigMap>().unwrap()));
        assert_eq!(first.metadata.resource_version.as_deref(), Some("42"));
    }

    #[test]
    fn a_view_that_was_forgotten_lives_on_with_its_users_and_is_made_again() {
        let object = stored(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
        let first = object.decode::<ConfigMap>().unwrap();
        object.forget_typed();
        assert_eq!(Arc::strong_count(&first), 1, "the object does not hold it");
        let again = object.decode::<ConfigMap>().unwrap();
        assert_eq!(first, again);
        assert!(Arc::ptr_eq(&again, &object.decode::<ConfigMap>().unwrap()));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Object::from_stored(Bytes::from_static(b"[1]"), 1).is_err());
        assert!(Object::from_stored(Bytes::from_static(b"{\"a\":1}"), 1).is_err());
    }
}
