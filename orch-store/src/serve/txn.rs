//! Transactions: from the wire to the store's and back.
//!
//! Source: `server/etcdserver/api/v3rpc/key.go`, `server/etcdserver/txn/txn.go`.

use std::cmp::Ordering;

use tonic::Status;

use super::{
    convert::{inner_header, key_range, key_value},
    kv::{check_put, put_step},
    range, refusal,
};
use crate::{
    protocol::etcdserverpb::{
        self as pb,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    store::{
        Compare, Entry, KeyRange, Operand, Operator, Revision, Step, StepResult, Transaction,
        TransactionOutcome,
    },
};

/// Refuses what etcd refuses, in its order. `operations_max` holds for each list on its own, and
/// an inner transaction has what its outer one left.
pub(super) fn check(request: &pb::TxnRequest, operations_max: usize) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = operations_max.checked_sub(longest) else {
        return Err(refusal::too_many_operations());
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(refusal::empty_key());
    }
    let mut operations = request.success.iter().chain(&request.failure);
    operations.try_for_each(|operation| match &operation.request {
        Some(Request::RequestRange(request)) => range::check(request),
        Some(Request::RequestPut(request)) => check_put(request),
        Some(Request::RequestDeleteRange(request)) if request.key.is_empty() => {
            Err(refusal::empty_key())
        }
        Some(Request::RequestDeleteRange(_)) => Ok(()),
        Some(Request::RequestTxn(request)) => check(request, left),
        None => Err(refusal::key_not_found()),
    })
}

/// Whether the transaction has ranges only.
pub(super) fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether one way through the transaction may change more than one key, so that two changes
/// could meet.
pub(super) fn changes_several(request: &pb::TxnRequest) -> bool {
    let several = |operations: &[pb::RequestOp]| {
        let inner =
            |operation: &pb::RequestOp| matches!(operation.request, Some(Request::RequestTxn(_)));
        let changes = |operation: &&pb::RequestOp| {
            !matches!(operation.request, Some(Request::RequestRange(_)))
        };
        operations.iter().any(inner) || operations.iter().filter(changes).count() > 1
    };
    several(&request.success) || several(&request.failure)
}

/// The store's form of a transaction that has been checked.
pub(super) fn transaction(request: &pb::TxnRequest) -> Transaction {
    Transaction {
        compare: request.compare.iter().filter_map(comparison).collect(),
        success: request.success.iter().filter_map(step).collect(),
        failure: request.failure.iter().filter_map(step).collect(),
    }
}

fn step(operation: &pb::RequestOp) -> Option<Step> {
    Some(match operation.request.as_ref()? {
        Request::RequestRange(request) => Step::Range(range::question(request)),
        Request::RequestPut(request) => put_step(request),
        Request::RequestDeleteRange(request) => {
            Step::Delete(key_range(&request.key, &request.range_end))
        }
        Request::RequestTxn(request) => Step::Transaction(transaction(request)),
    })
}

/// A comparison; `None` for one that always holds.
fn comparison(compare: &pb::Compare) -> Option<Compare> {
    let range = key_range(&compare.key, &compare.range_end);
    let operator = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Operator::Equal,
        Ok(CompareResult::NotEqual) => Operator::NotEqual,
        Ok(CompareResult::Greater) => Operator::Greater,
        Ok(CompareResult::Less) => Operator::Less,
        // etcd lets an operator that it does not know pass.
        Err(_) => return None,
    };
    // An operand of another kind than the target counts as the target's zero.
    let union = compare.target_union.as_ref();
    let operand = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => number(
            Operand::Version,
            match union {
                Some(TargetUnion::Version(version)) => *version,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Create) => number(
            Operand::CreateRevision,
            match union {
                Some(TargetUnion::CreateRevision(revision)) => *revision,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Mod) => number(
            Operand::ModRevision,
            match union {
                Some(TargetUnion::ModRevision(revision)) => *revision,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Value) => Ok(Operand::Value(match union {
            Some(TargetUnion::Value(value)) => value.clone(),
            _ => bytes::Bytes::new(),
        })),
        Ok(CompareTarget::Lease) => Ok(Operand::Lease(match union {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        })),
        // A target that etcd does not know equals everything.
        Err(_) => Err(Ordering::Equal),
    };
    match operand {
        Ok(operand) => Some(Compare { range, operator, operand }),
        Err(order) => constant(range, operator, order),
    }
}

/// An operand; or, for a number that no key can have, how every key stands to it.
fn number(operand: fn(u64) -> Operand, value: i64) -> Result<Operand, Ordering> {
    u64::try_from(value).map(operand).map_err(|_| Ordering::Greater)
}

/// A comparison whose outcome is known: `None` if it holds, or one that never does.
fn constant(range: KeyRange, operator: Operator, order: Ordering) -> Option<Compare> {
    let holds = match operator {
        Operator::Equal => order == Ordering::Equal,
        Operator::NotEqual => order != Ordering::Equal,
        Operator::Greater => order == Ordering::Greater,
        Operator::Less => order == Ordering::Less,
    };
    let never = Compare { range, operator: Operator::Less, operand: Operand::Version(0) };
    (!holds).then_some(never)
}

/// The answer, without the header of the whole.
pub(super) fn answer(request: &pb::TxnRequest, outcome: TransactionOutcome) -> pb::TxnResponse {
    // What changes nothing is of the revision before, as etcd has it.
    let before = outcome.revision - u64::from(changes(&outcome));
    branch(request, outcome, before, &mut false)
}

fn changes(outcome: &TransactionOutcome) -> bool {
    outcome.results.iter().any(|result| match result {
        StepResult::Range(_) => false,
        StepResult::Put(_) => true,
        StepResult::Delete(removed) => !removed.is_empty(),
        StepResult::Transaction(inner) => changes(inner),
    })
}

/// The responses of the branch that was taken; `changed` tells whether something was changed
/// before, and is kept up.
fn branch(
    request: &pb::TxnRequest,
    outcome: TransactionOutcome,
    before: Revision,
    changed: &mut bool,
) -> pb::TxnResponse {
    let operations = if outcome.succeeded { &request.success } else { &request.failure };
    let revision = outcome.revision;
    let pairs = operations.iter().filter_map(|op| op.request.as_ref()).zip(outcome.results);
    let respond = |(request, result): (&Request, StepResult)| match (request, result) {
        (Request::RequestRange(request), StepResult::Range(found)) => {
            let header = inner_header(found.revision);
            let answer = range::answer(request, found);
            Some(Response::ResponseRange(pb::RangeResponse { header, ..answer }))
        }
        (Request::RequestPut(request), StepResult::Put(previous)) => {
            *changed = true;
            let prev_kv = previous.filter(|_| request.prev_kv).map(key_value);
            Some(Response::ResponsePut(pb::PutResponse { header: inner_header(revision), prev_kv }))
        }
        (Request::RequestDeleteRange(request), StepResult::Delete(removed)) => {
            *changed |= !removed.is_empty();
            let header = inner_header(if *changed { revision } else { before });
            let removal = removal(removed, request.prev_kv);
            Some(Response::ResponseDeleteRange(pb::DeleteRangeResponse { header, ..removal }))
        }
        (Request::RequestTxn(request), StepResult::Transaction(inner)) => {
            let answer = branch(request, inner, before, changed);
            // etcd leaves the header of an inner transaction empty.
            let header = Some(pb::ResponseHeader::default());
            Some(Response::ResponseTxn(pb::TxnResponse { header, ..answer }))
        }
        _ => None,
    };
    let responses = pairs.map(respond).map(|response| pb::ResponseOp { response }).collect();
    pb::TxnResponse { header: None, succeeded: outcome.succeeded, responses }
}

/// The answer to a deletion, without its header.
pub(super) fn removal(removed: Vec<Entry>, with_previous: bool) -> pb::DeleteRangeResponse {
    let deleted = i64::try_from(removed.len()).unwrap_or(i64::MAX);
    let prev_kvs = match with_previous {
        true => removed.into_iter().map(key_value).collect(),
        false => Vec::new(),
    };
    pb::DeleteRangeResponse { header: None, deleted, prev_kvs }
}
