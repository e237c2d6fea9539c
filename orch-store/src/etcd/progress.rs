//! Progress with a member whose own cannot be trusted.
//!
//! Before 3.4.25 and 3.5.8 etcd answers a request for progress at once, though events at or before
//! its revision may still be on their way. Whoever believed it would lose them. But that there
//! were no changes of a range between two revisions can be read from its keys at every revision
//! between them: a put is seen as a key with just that revision, a deletion, where nothing was
//! put, as fewer keys.

use std::sync::Arc;

use super::{
    Inner,
    message::{bounds, signed},
    outcome::Call,
};
use crate::{
    protocol::etcdserverpb::{self as pb, request_op::Request, response_op::Response},
    store::{KeyRange, RangeRequest, Revision},
};

/// At most so many keys are looked at, counting each anew at every revision, and so many revisions.
const KEYS_MAX: u64 = 100_000;
const REVISIONS_MAX: u64 = 2_000;

/// etcd takes 128 operations in a transaction unless it is told otherwise.
const REVISIONS_PER_CALL: u64 = 100;

/// The newest revision, if nothing in the range has changed from `next` on. `None` where it has,
/// where it would take too much reading to find out, and where etcd does not answer.
pub(super) async fn quiet_until(
    inner: &Arc<Inner>,
    range: &KeyRange,
    next: Revision,
) -> Option<Revision> {
    let request = RangeRequest { count_only: true, ..RangeRequest::new(range.clone()) };
    let now = inner.range(&request).await.ok()?;
    if now.revision < next {
        return Some(now.revision);
    }
    let (revisions, keys) = (now.revision + 1 - next, now.count as u64 + 1);
    if revisions > REVISIONS_MAX || revisions.saturating_mul(keys) > KEYS_MAX {
        return None;
    }
    // The revision before the first is the measure of what follows. Nothing was written at 1.
    let mut first = next.saturating_sub(1).max(1);
    while first < now.revision {
        let last = now.revision.min(first + REVISIONS_PER_CALL - 1);
        if !is_quiet(inner, range, first, last).await? {
            return None;
        }
        first = last;
    }
    Some(now.revision)
}

/// Whether nothing changed after `first`, up to `last`.
async fn is_quiet(
    inner: &Arc<Inner>,
    range: &KeyRange,
    first: Revision,
    last: Revision,
) -> Option<bool> {
    let (key, range_end) = bounds(range);
    let read = |revision| {
        let request = pb::RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            revision: signed(revision),
            min_mod_revision: signed(revision),
            limit: 1,
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        pb::RequestOp { request: Some(Request::RequestRange(request)) }
    };
    let success = (first..=last).map(read).collect();
    let message = pb::TxnRequest { success, ..pb::TxnRequest::default() };
    let answer = inner.txn(Call::read(first), message).await.ok()?;
    let mut count = None;
    for (index, response) in answer.responses.into_iter().enumerate() {
        let Some(Response::ResponseRange(found)) = response.response else { return None };
        let put = index > 0 && !found.kvs.is_empty();
        if put || count.replace(found.count).is_some_and(|before| before != found.count) {
            return Some(false);
        }
    }
    Some(true)
}
