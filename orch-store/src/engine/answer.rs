//! Answers to ranges, from the heads of the keys.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::version::Version;
use crate::store::{Entry, KeyRange, RangeRequest, RangeResponse, Revision};

/// The heads of a range, in the order of keys.
pub(super) fn heads<'a>(
    keys: &'a OrdMap<Bytes, Arc<Version>>,
    range: &'a KeyRange,
) -> impl Iterator<Item = &'a Arc<Version>> {
    let reversed = range.end.as_ref().is_some_and(|end| *end <= range.start);
    let entries = match &range.end {
        _ if reversed => keys.range::<_, Bytes>(&range.start..&range.start),
        Some(end) => keys.range::<_, Bytes>(&range.start..end),
        None => keys.range::<_, Bytes>(&range.start..),
    };
    entries.map(|(_, head)| head)
}

/// The keys of a range as they were at revision `at`, in a store that is at `current`.
pub(super) fn range(
    keys: &OrdMap<Bytes, Arc<Version>>,
    request: &RangeRequest,
    at: Revision,
    current: Revision,
) -> RangeResponse {
    if let Some(key) = request.range.single() {
        let entry = keys.get(key).and_then(|head| head.at(at));
        return collect(entry.into_iter(), current, request);
    }
    collect(heads(keys, &request.range).filter_map(|head| head.at(at)), current, request)
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
            let value = if request.keys_only { Bytes::new() } else { entry.value.clone() };
            response.entries.push(Entry { key: entry.key.clone(), value, ..*entry });
        }
        response.count += 1;
    }
    response.more = !request.count_only && response.count > response.entries.len();
    response
}
