//! The events of a watch as bytes, encoded once for all who watch.
//!
//! Source: `k8s.io/apiserver/pkg/storage/cacher/caching_object.go`. Differs: upstream keeps the
//! encodings with the object for as long as its event is being told; here those of the last few
//! hundred objects are kept.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use orch_core::{ApiError, Object, cbor, protobuf};
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    accept::{Accepted, Encoding, Shape},
    serialize,
    table::partial,
};

/// How many objects' events are kept, and how long one may be: 64 MiB of frames at the very most.
const SLOTS: usize = 256;
const KEPT_BYTES_MAX: usize = 64 << 10;
/// How many frames of one object are kept: an event in a few forms.
const FRAMES_MAX: usize = 4;

/// A frame of an event that tells of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// `ADDED` and so on.
    pub(super) event: &'static str,
    pub(super) accepted: Accepted,
}

struct Slot {
    object: Arc<Object>,
    frames: Vec<(Form, Bytes)>,
}

/// The frames of the objects that were told last.
#[derive(Default)]
pub(crate) struct Frames {
    /// By revision, so that what is newest stays.
    slots: OnceLock<Box<[Mutex<Option<Slot>>]>>,
}

impl Frames {
    /// The frame of an event. Whoever is second to ask gets what was made for the first.
    pub(super) fn of(&self, form: Form, object: &Arc<Object>) -> Result<Bytes, ApiError> {
        let Some(revision) = object.revision() else { return make(form, object) };
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Mutex::new(None)).collect());
        let slot = &slots[(revision % SLOTS as u64) as usize];
        // The lock is held while the frame is made: the others need the same one.
        let mut slot = slot.lock();
        if let Some(slot) = &*slot
            && Arc::ptr_eq(&slot.object, object)
            && let Some((_, frame)) = slot.frames.iter().find(|(of, _)| *of == form)
        {
            return Ok(frame.clone());
        }
        let frame = make(form, object)?;
        if frame.len() > KEPT_BYTES_MAX {
            return Ok(frame);
        }
        match &mut *slot {
            Some(slot) if Arc::ptr_eq(&slot.object, object) => {
                slot.frames.truncate(FRAMES_MAX - 1);
                slot.frames.insert(0, (form, frame.clone()));
            }
            // An older object that is told late must not take the place of a newer one.
            Some(slot) if slot.object.revision() > Some(revision) => {}
            other => {
                let frames = vec![(form, frame.clone())];
                *other = Some(Slot { object: object.clone(), frames });
            }
        }
        Ok(frame)
    }
}

fn make(form: Form, object: &Object) -> Result<Bytes, ApiError> {
    match (form.accepted.shape, form.accepted.encoding) {
        (Shape::Metadata, encoding) => {
            frame(form.event, &partial(&object.to_value(), form.accepted), encoding)
        }
        (_, Encoding::Json) => Ok(json_frame(form.event, object.encoded_len(), |out| {
            object.write_json(out);
        })),
        (_, encoding) => frame(form.event, &object.to_value(), encoding),
    }
}

/// The frame of an event that tells of something else than a stored object.
pub(super) fn frame(event: &str, object: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    let encoded = serialize::encode(object, encoding, false)?;
    Ok(match encoding {
        Encoding::Protobuf => protobuf::watch_frame(event, &encoded).into(),
        Encoding::Cbor => cbor::watch_event(event, &encoded).into(),
        Encoding::Json | Encoding::Yaml => json_frame(event, encoded.len(), |out| {
            out.put_slice(&encoded);
        }),
    })
}

fn json_frame(event: &str, length: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(length + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(event.as_bytes());
    out.put_slice(b"\",\"object\":");
    write(&mut out);
    out.put_slice(b"}\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(revision: u64) -> Arc<Object> {
        let mut value = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
        let bytes = Object::encode_for_store(&mut value).unwrap();
        Arc::new(Object::from_encoded(bytes, revision).unwrap())
    }

    #[test]
    fn a_frame_is_made_once_and_not_kept_for_ever() {
        let frames = Frames::default();
        let form = |event, encoding| Form {
            event,
            accepted: Accepted { encoding, ..Accepted::default() },
        };
        let added = form("ADDED", Encoding::Json);
        let first = object(3);
        let made = frames.of(added, &first).unwrap();
        assert_eq!(made.as_ptr(), frames.of(added, &first).unwrap().as_ptr());
        let text = r#"{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"3","name":"a"}}}"#;
        assert_eq!(made, format!("{text}\n"));
        // Another form, and another object of the same revision, are others.
        let packed = frames.of(form("ADDED", Encoding::Protobuf), &first).unwrap();
        assert_eq!(packed.len(), 4 + usize::from(packed[3]));
        assert_ne!(frames.of(form("MODIFIED", Encoding::Json), &first).unwrap(), made);
        assert_eq!(made.as_ptr(), frames.of(added, &first).unwrap().as_ptr());
        let newer = object(3 + SLOTS as u64);
        frames.of(added, &newer).unwrap();
        assert_ne!(made.as_ptr(), frames.of(added, &first).unwrap().as_ptr());
        let kept = frames.of(added, &newer).unwrap();
        assert_eq!(kept.as_ptr(), frames.of(added, &newer).unwrap().as_ptr());
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
