//! What transactions compare.

use crate::{
    store::{Compare, KeyRange, Operand, Operator, Revision, Step, Store, Transaction},
    testing::space::{Space, compare, key, put_step},
};

const OPERATORS: [Operator; 4] =
    [Operator::Equal, Operator::NotEqual, Operator::Greater, Operator::Less];

/// Every side of a key by every operator, of keys that exist and that do not, and of ranges.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn comparisons(store: &dyn Store) {
    let space = Space::cleared(store).await;
    let created = space.put("k", "l").await;
    space.put("k", "m").await;
    let modified = space.put("k", "m").await;
    for (side, [less, equal, greater]) in [
        ("version", [2, 3, 4].map(Operand::Version)),
        ("create", [created - 1, created, created + 1].map(Operand::CreateRevision)),
        ("mod", [modified - 1, modified, modified + 1].map(Operand::ModRevision)),
        ("value", ["lz", "m", "m\0"].map(|value| Operand::Value(value.into()))),
        ("lease", [-1, 0, 1].map(Operand::Lease)),
    ] {
        // What is less than the key's makes the key's greater.
        check(space, side, "k", less, [false, true, true, false]).await;
        check(space, side, "k", equal, [true, false, false, false]).await;
        check(space, side, "k", greater, [false, true, false, true]).await;
    }
    for (side, zero, one) in [
        ("version", Operand::Version(0), Operand::Version(1)),
        ("create", Operand::CreateRevision(0), Operand::CreateRevision(1)),
        ("mod", Operand::ModRevision(0), Operand::ModRevision(1)),
        ("lease", Operand::Lease(0), Operand::Lease(1)),
    ] {
        check(space, side, "absent", zero, [true, false, false, false]).await;
        check(space, side, "absent", one, [false, true, false, true]).await;
    }
    for value in ["", "x"] {
        let value = Operand::Value(value.into());
        check(space, "value", "absent", value, [false; 4]).await;
    }
    ranges(space, modified).await;
    several(space).await;
}

/// One comparison by every operator, in the order of `OPERATORS`.
async fn check(space: Space<'_>, side: &str, name: &str, operand: Operand, expected: [bool; 4]) {
    let before = space.revision().await;
    for (operator, expected) in OPERATORS.into_iter().zip(expected) {
        let compare = vec![compare(name, operator, operand.clone())];
        let outcome = space.transact(Transaction { compare, ..<_>::default() }).await;
        let what = format!("the {side} of {name:?}, {operator:?} {operand:?}");
        assert_eq!(outcome.succeeded, expected, "whether a comparison holds: {what}");
        assert_eq!(outcome.revision, before, "comparing changes nothing: {what}");
        assert_eq!(outcome.results, [], "no steps give no results: {what}");
    }
}

/// A comparison of a range must hold for every key of it.
async fn ranges(space: Space<'_>, before: Revision) {
    for name in ["r/a", "r/b", "r/c"] {
        space.put(name, name).await;
    }
    let newer = |range| Compare {
        range,
        operator: Operator::Greater,
        operand: Operand::ModRevision(before),
    };
    let bounded = |start, end| KeyRange { start: key(start), end: Some(key(end)) };
    for (range, expected, why) in [
        (KeyRange::prefix(key("r/")), true, "all keys of a range are newer"),
        (bounded("k", "r/b"), false, "one key of a range is not newer"),
        (bounded("r/b", "r/z"), true, "all keys of a range are newer"),
        (bounded("s", "t"), false, "a range without keys is like a key that does not exist"),
    ] {
        let compare = vec![newer(range)];
        let outcome = space.transact(Transaction { compare, ..<_>::default() }).await;
        assert_eq!(outcome.succeeded, expected, "{why}");
    }
    let absent = Compare {
        range: bounded("s", "t"),
        operator: Operator::Equal,
        operand: Operand::Version(0),
    };
    let outcome = space.transact(Transaction { compare: vec![absent], ..<_>::default() }).await;
    assert!(outcome.succeeded, "a range without keys is like a key that does not exist");
    let value = Compare {
        range: bounded("s", "t"),
        operator: Operator::NotEqual,
        operand: Operand::Value("x".into()),
    };
    let outcome = space.transact(Transaction { compare: vec![value], ..<_>::default() }).await;
    assert!(!outcome.succeeded, "no comparison of values holds where there is none");
}

/// All comparisons must hold; which steps are done depends on it; inner transactions compare
/// with what was there before the whole.
async fn several(space: Space<'_>) {
    let exists = |name| compare(name, Operator::Greater, Operand::Version(0));
    let branches = |compare| Transaction {
        compare,
        success: vec![put_step("branch", "success")],
        failure: vec![put_step("branch", "failure")],
    };
    for (compares, expected) in [
        (vec![], true),
        (vec![exists("k"), exists("r/a")], true),
        (vec![exists("k"), exists("nothing")], false),
        (vec![exists("nothing"), exists("k")], false),
    ] {
        let outcome = space.transact(branches(compares.clone())).await;
        assert_eq!(outcome.succeeded, expected, "all must hold of {compares:?}");
        let branch = space.get("branch").await.expect("either branch puts it");
        let taken = if expected { "success" } else { "failure" };
        assert_eq!((&branch.value[..], branch.mod_revision), (taken.as_bytes(), outcome.revision));
    }
    let inner = branches(vec![exists("new")]);
    let whole = vec![put_step("new", "1"), Step::Transaction(inner)];
    space.transact(Transaction { success: whole, ..<_>::default() }).await;
    let branch = space.get("branch").await.expect("either branch puts it");
    assert_eq!(
        branch.value, "failure",
        "an inner transaction compares with what was there before the whole transaction"
    );
}
