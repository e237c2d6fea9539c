//! Transactions that no store takes, and those that fail on what is there.

use crate::{
    StoreError,
    store::{
        KeyRange, LeaseId, Operand, Operator, Put, PutLease, RangeRequest, Step, Store, Transaction,
    },
    testing::space::{Space, always, compare, everything, key, put_step},
};

/// No store that the suite examines has this lease.
const NO_LEASE: LeaseId = 0x5e1d_0a7e_4f00_9c3b;

/// What is refused before anything is changed, and that a transaction that fails on the way has
/// changed nothing.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn refusals(store: &dyn Store) {
    let space = Space::cleared(store).await;
    space.put("a", "1").await;
    for (steps, why) in changed_twice() {
        // The other branch is judged too, whether or not it would be taken.
        for transaction in [
            always(steps.clone()),
            Transaction { failure: steps.clone(), ..Transaction::default() },
        ] {
            let error = space.fails(transaction, why).await;
            assert!(matches!(error, StoreError::Invalid(_)), "{why} is invalid: {error:?}");
        }
    }
    for (transaction, why) in empty_keys() {
        let error = space.fails(transaction, why).await;
        assert!(matches!(error, StoreError::Invalid(_)), "{why} is invalid: {error:?}");
    }
    for (steps, why) in changed_once() {
        let taken = space.transact(always(steps)).await;
        assert!(taken.succeeded, "{why} is taken");
    }
    failures(space).await;
}

fn delete(name: &str) -> Step {
    Step::Delete(KeyRange::key(key(name)))
}

fn delete_prefix(prefix: &str) -> Step {
    Step::Delete(KeyRange::prefix(key(prefix)))
}

fn inner(success: Vec<Step>, failure: Vec<Step>) -> Step {
    Step::Transaction(Transaction { compare: Vec::new(), success, failure })
}

fn changed_twice() -> Vec<(Vec<Step>, &'static str)> {
    let put = || put_step("d/x", "1");
    vec![
        (vec![put(), put()], "a key put twice"),
        (vec![put(), delete("d/x")], "a key put and deleted"),
        (vec![delete("d/x"), put()], "a key deleted and put"),
        (vec![put(), delete_prefix("d/")], "a key put that is in a deleted range"),
        (vec![put(), inner(vec![put()], vec![])], "a key put outside and inside"),
        (vec![put(), inner(vec![], vec![put()])], "a key put outside and in the other branch"),
        (vec![inner(vec![put()], vec![]), put()], "a key put inside and outside"),
        (vec![inner(vec![put()], vec![]), inner(vec![put()], vec![])], "a key put by two inside"),
        (vec![inner(vec![put()], vec![]), delete("d/x")], "a key put inside, deleted outside"),
        (
            vec![inner(vec![delete_prefix("d/")], vec![]), put()],
            "a key deleted inside, put outside",
        ),
        (vec![inner(vec![put(), put()], vec![])], "a key put twice inside"),
        (vec![inner(vec![], vec![put(), put()])], "a key put twice in the other branch inside"),
        (vec![inner(vec![inner(vec![put()], vec![])], vec![]), put()], "a key put deep inside"),
    ]
}

fn empty_keys() -> Vec<(Transaction, &'static str)> {
    let empty = || KeyRange::key("");
    let put = Put { key: "".into(), value: Some("x".into()), lease: PutLease::Set(None) };
    let mut of_nothing = compare("x", Operator::Equal, Operand::Version(0));
    of_nothing.range = empty();
    let compares = Transaction { compare: vec![of_nothing], ..Transaction::default() };
    vec![
        (always(vec![put_step("b", "1"), Step::Put(put.clone())]), "a put of the empty key"),
        (always(vec![put_step("b", "1"), Step::Delete(empty())]), "a deletion of the empty key"),
        (always(vec![Step::Range(RangeRequest::new(empty()))]), "a range of the empty key"),
        (compares.clone(), "a comparison of the empty key"),
        (always(vec![inner(vec![], vec![Step::Put(put)])]), "a put of the empty key inside"),
        (
            always(vec![put_step("b", "1"), Step::Transaction(compares)]),
            "a comparison of the empty key inside",
        ),
    ]
}

fn changed_once() -> Vec<(Vec<Step>, &'static str)> {
    let put = || put_step("o/x", "1");
    let neighbour = KeyRange { start: key("o/a"), end: Some(key("o/x")) };
    vec![
        (vec![inner(vec![put()], vec![put()])], "a key that either branch puts"),
        (vec![delete_prefix("o/"), delete("o/x")], "a key that is deleted twice"),
        (vec![put(), Step::Delete(neighbour)], "a key behind a deleted range"),
        (vec![inner(vec![delete("o/x")], vec![]), delete_prefix("o/")], "deletions in both"),
    ]
}

/// What depends on the state: after an error nothing was changed, and what is not done does not
/// fail.
async fn failures(space: Space<'_>) {
    let keeps = |name: &str, value: Option<&str>, lease| {
        let value = value.map(|value| value.to_owned().into());
        Step::Put(Put { key: key(name), value, lease })
    };
    let value = keeps("absent", None, PutLease::Set(None));
    let lease = keeps("absent", Some("x"), PutLease::Keep);
    for step in [value.clone(), lease, inner(vec![value.clone()], vec![])] {
        let error = space.fails(always(vec![put_step("a", "2"), step]), "nothing to keep").await;
        assert!(matches!(error, StoreError::NothingToKeep), "nothing to keep: {error:?}");
    }
    let orphan = keeps("orphan", Some("x"), PutLease::Set(Some(NO_LEASE)));
    let error = space.fails(always(vec![put_step("a", "2"), orphan.clone()]), "no lease").await;
    assert!(matches!(error, StoreError::LeaseNotFound(NO_LEASE)), "no such lease: {error:?}");

    let newest = space.revision().await;
    let future = Step::Range(everything(Some(newest + 100)));
    let error = space.fails(always(vec![put_step("a", "2"), future.clone()]), "the future").await;
    assert!(matches!(error, StoreError::Future { .. }), "a range of the future: {error:?}");
    // Puts are looked at before anything is read.
    let both = always(vec![future.clone(), value.clone()]);
    let error = space.fails(both, "nothing to keep behind the future").await;
    assert!(matches!(error, StoreError::NothingToKeep), "puts come first: {error:?}");

    let failure = vec![value, orphan, future];
    let success = vec![put_step("a", "3")];
    let taken = space.transact(Transaction { compare: vec![], success, failure }).await;
    assert!(taken.succeeded, "steps that are not taken do not fail");
    assert_eq!(taken.revision, newest + 1);
}
