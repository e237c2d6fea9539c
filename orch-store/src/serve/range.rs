//! Ranges: what is asked of the store, and what is made of its answer.
//!
//! Source: `server/etcdserver/txn/range.go`.

use tonic::Status;

use super::{
    convert::{key_range, key_value, requested},
    refusal,
};
use crate::{
    protocol::etcdserverpb::{
        self as pb,
        range_request::{SortOrder, SortTarget},
    },
    store::{Entry, RangeRequest, RangeResponse},
};

/// Refuses what etcd refuses.
pub(super) fn check(request: &pb::RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(refusal::empty_key());
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(refusal::invalid_sort_option()) }
}

/// How the entries of an answer are treated, once the store gave them.
struct Treatment {
    order: SortOrder,
    target: SortTarget,
    filtered: bool,
}

impl Treatment {
    fn of(request: &pb::RangeRequest) -> Self {
        Self {
            order: request.sort_order(),
            target: request.sort_target(),
            filtered: request.min_mod_revision != 0
                || request.max_mod_revision != 0
                || request.min_create_revision != 0
                || request.max_create_revision != 0,
        }
    }

    /// Whether the limit can be left to the store.
    fn limits_first(&self) -> bool {
        let by_key = self.target == SortTarget::Key && self.order == SortOrder::Ascend;
        (self.order == SortOrder::None || by_key) && !self.filtered
    }

    /// Whether the entries are other than in the order of keys. Without an order, another target
    /// than the key is ascending, though the limit was applied in the order of keys: so is etcd.
    fn sorts(&self) -> bool {
        self.target != SortTarget::Key || self.order == SortOrder::Descend
    }

    /// Whether the store's entries are the answer as they are.
    fn is_plain(&self) -> bool {
        self.limits_first() && !self.sorts()
    }
}

/// What is asked of the store.
pub(super) fn question(request: &pb::RangeRequest) -> RangeRequest {
    let treatment = Treatment::of(request);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let limit = match limit {
        _ if request.count_only || !treatment.limits_first() => None,
        // One more, so that the answer can be told to be cut off after it is sorted.
        Some(limit) if treatment.sorts() => Some(limit.saturating_add(1)),
        limit => limit,
    };
    RangeRequest {
        range: key_range(&request.key, &request.range_end),
        revision: requested(request.revision),
        limit,
        count_only: request.count_only,
        keys_only: request.keys_only && request.sort_target() != SortTarget::Value,
    }
}

/// The answer, without its header.
pub(super) fn answer(request: &pb::RangeRequest, found: RangeResponse) -> pb::RangeResponse {
    let RangeResponse { mut entries, mut more, count, .. } = found;
    let treatment = Treatment::of(request);
    if !treatment.is_plain() && !request.count_only {
        if treatment.filtered {
            entries.retain(|entry| passes(request, entry));
        }
        if treatment.sorts() {
            sort(&mut entries, &treatment);
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        more = limit.is_some_and(|limit| entries.len() > limit);
        entries.truncate(limit.unwrap_or(usize::MAX));
    }
    let mut kvs: Vec<_> = entries.into_iter().map(key_value).collect();
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::RangeResponse { header: None, kvs, more, count: i64::try_from(count).unwrap_or(i64::MAX) }
}

fn passes(request: &pb::RangeRequest, entry: &Entry) -> bool {
    let within = |revision: u64, least: i64, most: i64| {
        (least == 0 || i128::from(revision) >= i128::from(least))
            && (most == 0 || i128::from(revision) <= i128::from(most))
    };
    within(entry.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(entry.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Stable in both directions, as etcd's is for short answers: ties stay in the order of keys.
fn sort(entries: &mut [Entry], treatment: &Treatment) {
    let order = |a: &Entry, b: &Entry| match treatment.target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match treatment.order {
        SortOrder::Descend => entries.sort_by(|a, b| order(b, a)),
        SortOrder::None | SortOrder::Ascend => entries.sort_by(order),
    }
}
