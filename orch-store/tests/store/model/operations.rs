//! What is done to a store and the model, by chance.

use bytes::Bytes;
use orch_store::{
    Compare, KeyRange, Operand, Operator, Precondition, Put, PutLease, Revision, Step, Transaction,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// How far before the revision after next: so numbers mean something in every store. 1 is the next
/// revision, 2 the newest.
pub(super) type Back = u64;

/// A revision from its distance.
pub(super) fn revision(newest: Revision, back: Back) -> Revision {
    (newest + 2).saturating_sub(back)
}

/// A range as it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) range: KeyRange,
    pub(super) back: Option<Back>,
    pub(super) limit: Option<usize>,
    pub(super) count_only: bool,
    pub(super) keys_only: bool,
}

/// A transaction of which some numbers are to be filled in: those of revisions are [`Back`].
#[derive(Clone, Debug)]
pub(super) struct Plan(pub(super) Transaction);

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Put { key: Bytes, value: Bytes, guard: Guard, lease: Option<i64> },
    Delete { key: Bytes, guard: Guard },
    Transact(Plan),
    Range(Question),
    Compact(Back),
    Grant { id: i64, ttl_s: i64 },
    KeepAlive(i64),
    Revoke(i64),
    Advance(u64),
    Watch { range: KeyRange, back: Option<Back> },
    Read { watcher: usize, items: usize },
    Leave(usize),
    Progress,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Guard {
    None,
    Absent,
    Revision(Back),
    /// The key as it is.
    Right,
}

/// Few bytes, so that keys meet and are each other's prefixes, and the ends of what bytes can be.
fn bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    vec(select(vec![0u8, 1, b'a', 0xff]), 0..=longest).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    // Now and then none, which is to be refused.
    prop_oneof![30 => bytes(2).prop_map(|key| [&b"k"[..], &key].concat().into()), 1 => bytes(0)]
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(KeyRange::key),
        key().prop_map(KeyRange::prefix),
        // Reversed and empty ones, too.
        (key(), key()).prop_map(|(start, end)| KeyRange { start, end: Some(end) }),
        key().prop_map(|start| KeyRange { start, end: None }),
        Just(KeyRange::prefix("")),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        Just(Guard::None),
        Just(Guard::Absent),
        (1u64..8).prop_map(Guard::Revision),
        Just(Guard::Right),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    1i64..4
}

fn question() -> impl Strategy<Value = Question> {
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.2));
    let revision = option::weighted(0.5, 1u64..20);
    (range(), revision, option::weighted(0.4, 0usize..4), flags).prop_map(
        |(range, back, limit, (count_only, keys_only))| Question {
            range,
            back,
            limit,
            count_only,
            keys_only,
        },
    )
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        (0u64..4).prop_map(Operand::Version),
        (1u64..10).prop_map(Operand::CreateRevision),
        (1u64..10).prop_map(Operand::ModRevision),
        bytes(1).prop_map(Operand::Value),
        (0i64..4).prop_map(Operand::Lease),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let operators = [Operator::Equal, Operator::NotEqual, Operator::Greater, Operator::Less];
    (range(), select(operators.to_vec()), operand())
        .prop_map(|(range, operator, operand)| Compare { range, operator, operand })
}

fn put() -> impl Strategy<Value = Put> {
    let kept = prop_oneof![
        8 => option::weighted(0.3, lease()).prop_map(PutLease::Set),
        1 => Just(PutLease::Keep),
    ];
    (key(), option::weighted(0.8, bytes(1)), kept).prop_map(|(key, value, lease)| Put {
        key,
        value,
        lease,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        question().prop_map(|question| Step::Range(super::harness::request(&question, None))),
        put().prop_map(Step::Put),
        put().prop_map(Step::Put),
        range().prop_map(Step::Delete),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| transaction(inner).prop_map(Step::Transaction))
}

fn transaction(step: impl Strategy<Value = Step> + Clone) -> impl Strategy<Value = Transaction> {
    (vec(compare(), 0..3), vec(step.clone(), 0..4), vec(step, 0..3))
        .prop_map(|(compare, success, failure)| Transaction { compare, success, failure })
}

/// Any operation.
pub(super) fn any() -> impl Strategy<Value = Operation> {
    use Operation::{
        Advance, Compact, Delete, Grant, KeepAlive, Leave, Progress, Read, Reopen, Revoke,
        Transact, Watch,
    };
    let lease_of_key = option::weighted(0.3, lease());
    prop_oneof![
        8 => (key(), bytes(1), guard(), lease_of_key)
            .prop_map(|(key, value, guard, lease)| Operation::Put { key, value, guard, lease }),
        3 => (key(), guard()).prop_map(|(key, guard)| Delete { key, guard }),
        6 => transaction(step().boxed()).prop_map(|transaction| Transact(Plan(transaction))),
        4 => question().prop_map(Operation::Range),
        1 => (0u64..20).prop_map(Compact),
        2 => (lease(), 1i64..60).prop_map(|(id, ttl_s)| Grant { id, ttl_s }),
        1 => lease().prop_map(KeepAlive),
        1 => lease().prop_map(Revoke),
        2 => (1u64..40).prop_map(Advance),
        2 => (range(), option::of(0u64..20)).prop_map(|(range, back)| Watch { range, back }),
        4 => (0usize..8, 1usize..6).prop_map(|(watcher, items)| Read { watcher, items }),
        1 => (0usize..8).prop_map(Leave),
        1 => Just(Progress),
        1 => Just(Reopen),
    ]
}

/// The guard of a write of a key that is at `present`.
pub(super) fn precondition(
    guard: Guard,
    newest: Revision,
    present: Option<Revision>,
) -> Precondition {
    match guard {
        Guard::None => Precondition::None,
        Guard::Absent => Precondition::Absent,
        Guard::Revision(back) => Precondition::ModRevision(revision(newest, back)),
        Guard::Right => Precondition::ModRevision(present.unwrap_or(0)),
    }
}
