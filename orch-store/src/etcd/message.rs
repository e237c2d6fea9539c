//! The contract's words in etcd's, and back.

use bytes::Bytes;

use crate::{
    StoreError,
    protocol::{
        etcdserverpb::{
            self as pb, compare, compare::TargetUnion, request_op::Request, response_op::Response,
        },
        mvccpb,
    },
    store::{
        Compare, Entry, Event, EventKind, KeyRange, LeaseId, Operand, Operation, Operator,
        Precondition, Put, PutLease, RangeRequest, RangeResponse, Revision, Step, StepResult,
        Transaction, TransactionOutcome, Write, WriteOutcome,
    },
};

/// etcd's way of saying where a range begins and ends. Its end of one zero byte is "no end", and
/// no end is a single key, so that a range without keys must not come to look like either.
pub(super) fn bounds(range: &KeyRange) -> (Bytes, Bytes) {
    const ZERO: Bytes = Bytes::from_static(b"\0");
    let start = if range.start.is_empty() { ZERO } else { range.start.clone() };
    match &range.end {
        None => (start, ZERO),
        Some(_) if range.single().is_some_and(|key| !key.is_empty()) => (start, Bytes::new()),
        Some(end) if *end <= start => {
            let start = if start == ZERO { Bytes::from_static(b"\0\0") } else { start };
            (start.clone(), start)
        }
        Some(end) => (start, end.clone()),
    }
}

/// Whether no key can ever be in the range.
pub(super) fn is_nothing(range: &KeyRange) -> bool {
    let (start, end) = bounds(range);
    start == end && *start != *b"\0"
}

pub(super) fn entry(kv: mvccpb::KeyValue) -> Entry {
    Entry {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision.unsigned_abs(),
        mod_revision: kv.mod_revision.unsigned_abs(),
        version: kv.version.unsigned_abs(),
        lease: Some(kv.lease).filter(|id| *id != 0),
    }
}

pub(super) fn event(event: mvccpb::Event) -> Option<Event> {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventKind::Put,
        mvccpb::event::EventType::Delete => EventKind::Delete,
    };
    Some(Event { kind, entry: entry(event.kv?), previous: event.prev_kv.map(entry) })
}

pub(super) fn revision_of(header: Option<&pb::ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision.unsigned_abs())
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub(super) fn range_request(request: &RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = bounds(&request.range);
    pb::RangeRequest {
        key,
        range_end,
        // etcd's 0 is "without limit"; a limit of 0 entries is a count.
        limit: request.limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        revision: signed(request.revision.unwrap_or(0)),
        keys_only: request.keys_only,
        count_only: request.count_only || request.limit == Some(0),
        ..pb::RangeRequest::default()
    }
}

pub(super) fn range_response(request: &RangeRequest, response: pb::RangeResponse) -> RangeResponse {
    let count = usize::try_from(response.count).unwrap_or(0);
    RangeResponse {
        revision: revision_of(response.header.as_ref()),
        more: response.more || (request.limit == Some(0) && count > 0 && !request.count_only),
        entries: response.kvs.into_iter().map(entry).collect(),
        count,
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The transaction that is one guarded write.
pub(super) fn write_request(write: Write) -> pb::TxnRequest {
    let expected = match write.precondition {
        Precondition::None => None,
        Precondition::Absent => Some(0),
        Precondition::ModRevision(revision) => Some(revision),
    };
    let range = KeyRange::key(write.key.clone());
    let guard = |revision| {
        let operand = Operand::ModRevision(revision);
        compare_request(&Compare { range: range.clone(), operator: Operator::Equal, operand })
    };
    let compare = expected.map(guard).into_iter().collect();
    let failure = Request::RequestRange(range_request(&RangeRequest::new(range.clone())));
    let change = match write.operation {
        Operation::Put { value, lease } => {
            let lease = PutLease::Set(lease);
            put_request(&Put { key: write.key, value: Some(value), lease })
        }
        Operation::Delete => delete_request(&range),
    };
    let failure = vec![operation(failure)];
    pb::TxnRequest { compare, success: vec![operation(change)], failure }
}

pub(super) fn write_outcome(answer: pb::TxnResponse) -> WriteOutcome {
    let revision = revision_of(answer.header.as_ref());
    let found = answer.responses.into_iter().next().and_then(|response| response.response);
    let kv = match found {
        Some(Response::ResponsePut(put)) => put.prev_kv,
        Some(Response::ResponseDeleteRange(deleted)) => deleted.prev_kvs.into_iter().next(),
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    };
    let found = kv.map(entry);
    match answer.succeeded {
        true => WriteOutcome::Committed { revision, previous: found },
        false => WriteOutcome::PreconditionFailed { current: found, revision },
    }
}

fn put_request(put: &Put) -> Request {
    let lease = match put.lease {
        PutLease::Set(lease) => lease.unwrap_or(0),
        PutLease::Keep => 0,
    };
    Request::RequestPut(pb::PutRequest {
        key: put.key.clone(),
        value: put.value.clone().unwrap_or_default(),
        lease,
        prev_kv: true,
        ignore_value: put.value.is_none(),
        ignore_lease: put.lease == PutLease::Keep,
    })
}

fn delete_request(range: &KeyRange) -> Request {
    let (key, range_end) = bounds(range);
    Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: true })
}

fn compare_request(compare: &Compare) -> pb::Compare {
    let (key, range_end) = bounds(&compare.range);
    let result = match compare.operator {
        Operator::Equal => compare::CompareResult::Equal,
        Operator::NotEqual => compare::CompareResult::NotEqual,
        Operator::Greater => compare::CompareResult::Greater,
        Operator::Less => compare::CompareResult::Less,
    };
    let (target, union) = match &compare.operand {
        Operand::Version(version) => {
            (compare::CompareTarget::Version, TargetUnion::Version(signed(*version)))
        }
        Operand::CreateRevision(revision) => {
            (compare::CompareTarget::Create, TargetUnion::CreateRevision(signed(*revision)))
        }
        Operand::ModRevision(revision) => {
            (compare::CompareTarget::Mod, TargetUnion::ModRevision(signed(*revision)))
        }
        Operand::Value(value) => (compare::CompareTarget::Value, TargetUnion::Value(value.clone())),
        Operand::Lease(lease) => (compare::CompareTarget::Lease, TargetUnion::Lease(*lease)),
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key,
        range_end,
        target_union: Some(union),
    }
}

pub(super) fn transaction_request(transaction: &Transaction) -> pb::TxnRequest {
    let steps = |steps: &[Step]| steps.iter().map(|step| operation(step_request(step))).collect();
    pb::TxnRequest {
        compare: transaction.compare.iter().map(compare_request).collect(),
        success: steps(&transaction.success),
        failure: steps(&transaction.failure),
    }
}

fn step_request(step: &Step) -> Request {
    match step {
        Step::Range(request) => Request::RequestRange(range_request(request)),
        Step::Put(put) => put_request(put),
        Step::Delete(range) => delete_request(range),
        Step::Transaction(inner) => Request::RequestTxn(transaction_request(inner)),
    }
}

/// What came of a transaction. Inner ones have the revision of the whole, which is all that etcd
/// tells.
pub(super) fn transaction_outcome(
    transaction: &Transaction,
    answer: pb::TxnResponse,
) -> Result<TransactionOutcome, StoreError> {
    let revision = revision_of(answer.header.as_ref());
    outcome(transaction, answer, revision)
}

fn outcome(
    transaction: &Transaction,
    answer: pb::TxnResponse,
    revision: Revision,
) -> Result<TransactionOutcome, StoreError> {
    let succeeded = answer.succeeded;
    let steps = if succeeded { &transaction.success } else { &transaction.failure };
    if steps.len() != answer.responses.len() {
        return Err(strange_answer());
    }
    let responses = answer.responses.into_iter().map(|response| response.response);
    let results = steps.iter().zip(responses).map(|(step, response)| match (step, response) {
        (Step::Range(request), Some(Response::ResponseRange(range))) => {
            Ok(StepResult::Range(range_response(request, range)))
        }
        (Step::Put(_), Some(Response::ResponsePut(put))) => {
            Ok(StepResult::Put(put.prev_kv.map(entry)))
        }
        (Step::Delete(_), Some(Response::ResponseDeleteRange(deleted))) => {
            Ok(StepResult::Delete(deleted.prev_kvs.into_iter().map(entry).collect()))
        }
        (Step::Transaction(inner), Some(Response::ResponseTxn(answer))) => {
            Ok(StepResult::Transaction(outcome(inner, answer, revision)?))
        }
        _ => Err(strange_answer()),
    });
    let results = results.collect::<Result<_, _>>()?;
    Ok(TransactionOutcome { succeeded, revision, results })
}

/// The transaction went through, but what it gave cannot be told.
fn strange_answer() -> StoreError {
    StoreError::Unknown("etcd's answer does not fit the transaction".into())
}

/// What a transaction refers to, on any way through it.
#[derive(Default)]
pub(super) struct References {
    pub(super) changes: bool,
    pub(super) leases: Vec<LeaseId>,
    pub(super) revisions: Vec<Revision>,
}

impl References {
    pub(super) fn of(transaction: &Transaction) -> Self {
        let mut found = Self::default();
        found.collect(transaction);
        found
    }

    fn collect(&mut self, transaction: &Transaction) {
        for step in transaction.success.iter().chain(&transaction.failure) {
            match step {
                Step::Range(request) => self.revisions.extend(request.revision.filter(|r| *r > 0)),
                Step::Put(put) => {
                    self.changes = true;
                    if let PutLease::Set(Some(lease)) = put.lease {
                        self.leases.push(lease);
                    }
                }
                Step::Delete(_) => self.changes = true,
                Step::Transaction(inner) => self.collect(inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_never_widen_a_range() {
        let check = |start: &str, end: Option<&str>, expected: (&str, &str)| {
            let range = KeyRange {
                start: start.to_owned().into(),
                end: end.map(|end| end.to_owned().into()),
            };
            let (key, range_end) = bounds(&range);
            assert_eq!((&key[..], &range_end[..]), (expected.0.as_bytes(), expected.1.as_bytes()));
            let nothing = expected.0 == expected.1 && expected.0 != "\0";
            assert_eq!(is_nothing(&range), nothing, "{range:?}");
        };
        check("a", Some("a\0"), ("a", ""));
        check("a", Some("b"), ("a", "b"));
        check("a", None, ("a", "\0"));
        check("", None, ("\0", "\0"));
        check("", Some("b"), ("\0", "b"));
        check("\0", Some("\0\0"), ("\0", ""));
        // Ranges without keys.
        check("b", Some("a"), ("b", "b"));
        check("b", Some("\0"), ("b", "b"));
        check("b", Some(""), ("b", "b"));
        check("", Some(""), ("\0\0", "\0\0"));
        check("", Some("\0"), ("\0\0", "\0\0"));
    }

    #[test]
    fn references_are_found_at_any_depth() {
        let put = |lease| {
            Step::Put(Put { key: "a".into(), value: None, lease: PutLease::Set(Some(lease)) })
        };
        let at = |revision| {
            Step::Range(RangeRequest {
                revision: Some(revision),
                ..RangeRequest::new(KeyRange::key("a"))
            })
        };
        let inner = Transaction { failure: vec![put(2), at(9)], ..Transaction::default() };
        let outer = Transaction {
            success: vec![at(4), Step::Transaction(inner)],
            failure: vec![put(1)],
            ..Transaction::default()
        };
        let found = References::of(&outer);
        assert_eq!((found.changes, found.leases, found.revisions), (true, vec![2, 1], vec![4, 9]));
    }
}
