//! Lists whose items come one by one, and the frames of a watch.
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf/collections.go`,
//! `k8s.io/apimachinery/pkg/util/framer`.

use serde_json::Value;

use super::{DEPTH_MAX, ProtobufError, encode, envelope, of_kind, wire};
use crate::schema::{self, Definition};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// The numbers of a list's fields, the same in every kind.
const METADATA: u32 = 1;
const ITEMS: u32 = 2;

/// Encodes a list without holding its items as values at once.
///
/// ```
/// use orch_core::protobuf::{self, ListEncoder};
/// use serde_json::json;
///
/// let mut list = ListEncoder::new("v1", "PodList", &json!({"resourceVersion": "7"}))?;
/// list.push(&json!({"metadata": {"name": "web"}}))?;
/// let decoded = protobuf::decode(&list.finish())?;
/// assert_eq!(decoded["items"][0]["metadata"]["name"], "web");
/// # Ok::<(), protobuf::ProtobufError>(())
/// ```
#[derive(Debug)]
pub struct ListEncoder<'a> {
    api_version: &'a str,
    kind: &'a str,
    item: &'static Definition,
    raw: Vec<u8>,
}

impl<'a> ListEncoder<'a> {
    /// A list of that kind, which ends in `List`, with that metadata.
    ///
    /// # Errors
    /// [`ProtobufError::UnknownKind`], and [`ProtobufError::WrongType`] if the metadata is none.
    pub fn new(
        api_version: &'a str,
        kind: &'a str,
        metadata: &Value,
    ) -> Result<Self, ProtobufError> {
        let item = of_kind(api_version, kind.strip_suffix("List").unwrap_or(kind))?;
        let map = metadata.as_object().ok_or(ProtobufError::WrongType("metadata"))?;
        let list_meta =
            schema::definition(LIST_META).ok_or(ProtobufError::WrongType("metadata"))?;
        let mut raw = Vec::new();
        wire::put_bytes(&mut raw, METADATA, &encode::message(list_meta, map, DEPTH_MAX)?);
        Ok(Self { api_version, kind, item, raw })
    }

    /// Appends an item. Its `kind` and `apiVersion`, if it has them, are left out.
    ///
    /// # Errors
    /// [`ProtobufError::WrongType`], [`ProtobufError::TooDeep`].
    pub fn push(&mut self, item: &Value) -> Result<(), ProtobufError> {
        let map = item.as_object().ok_or(ProtobufError::WrongType("items"))?;
        let message = encode::message(self.item, map, DEPTH_MAX)?;
        wire::put_bytes(&mut self.raw, ITEMS, &message);
        Ok(())
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        envelope(self.api_version, self.kind, &self.raw)
    }
}

/// One frame of a watch: the length in four bytes, then a `WatchEvent` without an envelope, which
/// holds the object with its envelope. `event` is `ADDED`, for example.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut raw_extension = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(&mut raw_extension, 1, object);
    let mut frame = vec![0; 4];
    frame.reserve(raw_extension.len() + event.len() + 16);
    wire::put_bytes(&mut frame, 1, event.as_bytes());
    wire::put_bytes(&mut frame, 2, &raw_extension);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::{decode, encode as to_bytes};

    #[test]
    fn a_list_decodes_to_its_items_without_their_kinds() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        let metadata = json!({"resourceVersion": "3", "continue": "c", "remainingItemCount": 2});
        let mut list = ListEncoder::new("v1", "PodList", &metadata).unwrap();
        list.push(&pod).unwrap();
        let expected = json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": metadata,
            "items": [{"metadata": {"name": "a"}}],
        });
        assert_eq!(decode(&list.finish()).unwrap(), expected);
    }

    #[test]
    fn metadata_alone_has_a_form() {
        let partial = json!({"metadata": {"name": "a"}});
        let mut list =
            ListEncoder::new("meta.k8s.io/v1", "PartialObjectMetadataList", &json!({})).unwrap();
        list.push(&partial).unwrap();
        assert!(!list.finish().is_empty());
        let mut one = partial;
        one["kind"] = "PartialObjectMetadata".into();
        one["apiVersion"] = "meta.k8s.io/v1".into();
        assert_eq!(decode(&to_bytes(&one).unwrap()).unwrap(), one);
    }

    #[test]
    fn a_frame_says_how_long_it_is() {
        let frame = watch_frame("ADDED", b"object");
        assert_eq!(frame, b"\x00\x00\x00\x11\x0a\x05ADDED\x12\x08\x0a\x06object");
    }
}
