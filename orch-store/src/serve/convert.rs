//! Between the store's words and the wire's.

use bytes::Bytes;

use crate::{
    protocol::{etcdserverpb as pb, mvccpb},
    store::{Entry, Event, EventKind, KeyRange, Revision},
};

/// A part of a message that is smaller than this is copied before it is stored: the buffer that
/// it was received in has at least 8 KiB, and would live as long as the part does.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A part of a received message, to be kept.
pub(super) fn owned(part: &Bytes) -> Bytes {
    if part.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(part) } else { part.clone() }
}

/// etcd's way of saying where a range ends: empty is one key, a zero byte is open-ended.
pub(super) fn key_range(key: &Bytes, range_end: &Bytes) -> KeyRange {
    match &range_end[..] {
        [] => KeyRange::key(key.clone()),
        [0] => KeyRange { start: key.clone(), end: None },
        _ => KeyRange { start: key.clone(), end: Some(range_end.clone()) },
    }
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision of a request; what is not positive is etcd's way of saying the newest.
pub(super) fn requested(revision: i64) -> Option<Revision> {
    u64::try_from(revision).ok().filter(|revision| *revision > 0)
}

pub(super) fn key_value(entry: Entry) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: entry.key,
        create_revision: signed(entry.create_revision),
        mod_revision: signed(entry.mod_revision),
        version: signed(entry.version),
        value: entry.value,
        lease: entry.lease.unwrap_or(0),
    }
}

pub(super) fn event(event: &Event, with_previous: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let previous = event.previous.as_ref().filter(|_| with_previous);
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(key_value(event.entry.clone())),
        prev_kv: previous.cloned().map(key_value),
    }
}

/// The header of a response within a transaction: etcd fills in the revision alone.
pub(super) fn inner_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: signed(revision), ..pb::ResponseHeader::default() })
}
