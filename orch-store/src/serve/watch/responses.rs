//! Responses made of events.

use std::collections::VecDeque;

use super::open::OpenWatch;
use crate::{
    protocol::{etcdserverpb as pb, mvccpb},
    serve::{convert, shared::Shared},
    store::{Event, EventKind, Revision},
};

/// A response is closed at the end of the revision with which it gets this large.
const RESPONSE_BYTES: usize = 1 << 20;

/// What an event needs in a response beside its keys and values, at most.
const EVENT_BYTES: usize = 128;

/// Queues the events that the watch is for, in order; `false` if there are none. A revision is
/// never split over two responses, unless the client takes fragments.
pub(super) fn push(
    shared: &Shared,
    queue: &mut VecDeque<pb::WatchResponse>,
    id: i64,
    watch: &OpenWatch,
    events: &[Event],
) -> bool {
    let mut response = Draft::default();
    let mut any = false;
    for revision in events.chunk_by(|a, b| a.entry.mod_revision == b.entry.mod_revision) {
        for event in revision.iter().filter(|event| wants(watch, event)) {
            any = true;
            response.add(event, watch.with_previous);
        }
        if response.bytes >= RESPONSE_BYTES {
            std::mem::take(&mut response).close(shared, queue, id, watch);
        }
    }
    if !response.events.is_empty() {
        response.close(shared, queue, id, watch);
    }
    any
}

fn wants(watch: &OpenWatch, event: &Event) -> bool {
    match event.kind {
        EventKind::Put => !watch.without_puts,
        EventKind::Delete => !watch.without_deletions,
    }
}

/// A response that is being filled.
#[derive(Default)]
struct Draft {
    events: Vec<mvccpb::Event>,
    revision: Revision,
    bytes: usize,
}

impl Draft {
    fn add(&mut self, event: &Event, with_previous: bool) {
        let event_bytes = size(event, with_previous);
        self.revision = event.entry.mod_revision;
        self.bytes += event_bytes;
        self.events.push(convert::event(event, with_previous));
    }

    fn close(
        self,
        shared: &Shared,
        queue: &mut VecDeque<pb::WatchResponse>,
        id: i64,
        watch: &OpenWatch,
    ) {
        let response = pb::WatchResponse {
            header: shared.header(self.revision),
            watch_id: id,
            ..pb::WatchResponse::default()
        };
        if !watch.fragments || self.bytes < shared.message_bytes_max() {
            queue.push_back(pb::WatchResponse { events: self.events, ..response });
            return;
        }
        let mut fragments = fragments(self.events, shared.message_bytes_max()).peekable();
        while let Some(events) = fragments.next() {
            let fragment = fragments.peek().is_some();
            queue.push_back(pb::WatchResponse { events, fragment, ..response.clone() });
        }
    }
}

fn size(event: &Event, with_previous: bool) -> usize {
    let previous = event.previous.as_ref().filter(|_| with_previous);
    let previous = previous.map_or(0, |entry| entry.key.len() + entry.value.len());
    event.entry.key.len() + event.entry.value.len() + previous + EVENT_BYTES
}

/// Divides events into parts that are smaller than `bytes_max`, or have one event.
fn fragments(
    events: Vec<mvccpb::Event>,
    bytes_max: usize,
) -> impl Iterator<Item = Vec<mvccpb::Event>> {
    let mut parts: Vec<Vec<mvccpb::Event>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let kvs = [&event.kv, &event.prev_kv].into_iter().flatten();
        let size = EVENT_BYTES + kvs.map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
        match parts.last_mut() {
            Some(part) if bytes + size < bytes_max => part.push(event),
            _ => {
                parts.push(vec![event]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts.into_iter()
}
