//! Answers to ranges, from the heads of the keys.

use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use super::{index::Index, state::first_after, version::Version};
use crate::store::{Entry, KeyRange, RangeRequest, RangeResponse, Revision};

/// What a range is read from: the keys and the changes of one moment.
pub(super) struct Source<'a> {
    pub(super) keys: &'a Index,
    pub(super) history: &'a Vector<Arc<Version>>,
    /// The revision of that moment.
    pub(super) current: Revision,
}

impl Source<'_> {
    /// The keys of a range as they were at revision `at`.
    pub(super) fn range(&self, request: &RangeRequest, at: Revision) -> RangeResponse {
        let Self { keys, current, .. } = *self;
        if let Some(key) = request.range.single() {
            let entry = keys.get(key).and_then(|head| head.at(at));
            return collect(entry.into_iter(), current, request);
        }
        let entries = keys.range(&request.range).filter_map(|head| head.at(at));
        let limit = if request.count_only { 0 } else { request.limit.unwrap_or(usize::MAX) };
        if limit == usize::MAX {
            return collect(entries, current, request);
        }
        let entries: Vec<Entry> = entries.take(limit).map(|entry| given(entry, request)).collect();
        // A page that is not full is the last: its count needs no counting.
        let complete = entries.len() < limit;
        let count = if complete { entries.len() } else { self.count(&request.range, at) };
        let more = !request.count_only && count > entries.len();
        RangeResponse { revision: current, entries, more, count }
    }

    /// How many keys of a range were live at `at`: those of today, put right by the changes
    /// since, or counted one by one where that is less work.
    fn count(&self, range: &KeyRange, at: Revision) -> usize {
        let today = self.keys.count(range);
        let since = first_after(self.history, at);
        if self.history.len() - since > today {
            return self.keys.range(range).filter(|head| head.at(at).is_some()).count();
        }
        let (mut gone, mut come) = (0, 0);
        for change in self.history.focus().narrow(since..) {
            let key = &change.entry.key;
            // The first change after `at` tells what was there before, once for every key.
            if !range.contains(key) || change.older_revision() > at {
                continue;
            }
            let was = change.previous().is_some();
            let is = self.keys.get(key).is_some_and(|head| !head.deleted);
            gone += usize::from(was && !is);
            come += usize::from(is && !was);
        }
        today + gone - come
    }
}

/// An entry as far as it is wanted.
fn given(entry: &Entry, request: &RangeRequest) -> Entry {
    let value = if request.keys_only { Bytes::new() } else { entry.value.clone() };
    Entry { key: entry.key.clone(), value, ..*entry }
}

/// The answer that has these entries, as far as they are wanted.
pub(super) fn collect<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    revision: Revision,
    request: &RangeRequest,
) -> RangeResponse {
    let limit = if request.count_only { 0 } else { request.limit.unwrap_or(usize::MAX) };
    let mut response = RangeResponse { revision, ..RangeResponse::default() };
    for entry in entries {
        if response.count < limit {
            response.entries.push(given(entry, request));
        }
        response.count += 1;
    }
    response.more = !request.count_only && response.count > response.entries.len();
    response
}
