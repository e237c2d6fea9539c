//! What transactions do.

use crate::{
    store::{
        EventKind, KeyRange, Operand, Operator, Put, PutLease, RangeRequest, Step, StepResult,
        Store, Transaction,
    },
    testing::{
        space::{
            Space, all, always, compare, everything, found, key, names, put_step, removed, replaced,
        },
        watcher::revisions,
    },
};

/// Steps in order, at one revision, with their results; what an inner transaction gives; and how
/// watchers see all that.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn transactions(store: &dyn Store) {
    let space = Space::cleared(store).await;
    nothing(space).await;
    steps(space).await;
    reads(space).await;
    keeping(space).await;
    nesting(space).await;
    watched(space).await;
}

/// What changes nothing takes no revision.
async fn nothing(space: Space<'_>) {
    let before = space.put("n", "1").await;
    for steps in [
        vec![],
        vec![Step::Range(everything(None))],
        vec![Step::Delete(KeyRange::prefix(key("nobody/")))],
        vec![Step::Transaction(Transaction::default())],
    ] {
        let outcome = space.transact(always(steps.clone())).await;
        assert!(outcome.succeeded, "no comparisons always hold");
        assert_eq!(outcome.revision, before, "what changes nothing takes no revision: {steps:?}");
        assert_eq!(outcome.results.len(), steps.len(), "every step has a result");
    }
    assert_eq!(space.revision().await, before, "what changes nothing takes no revision");
}

/// Puts and deletions, all at one revision.
async fn steps(space: Space<'_>) {
    for name in ["s/b", "s/a", "s/c", "t"] {
        space.put(name, "old").await;
    }
    let before = space.range(everything(None)).await;
    let outcome = space
        .transact(always(vec![
            put_step("t", "new"),
            Step::Delete(KeyRange::prefix(key("s/"))),
            Step::Delete(KeyRange::key(key("absent"))),
            put_step("u", "new"),
        ]))
        .await;
    assert_eq!(outcome.revision, before.revision + 1, "a transaction takes one revision");
    let [t, s, absent, u] = &outcome.results[..] else {
        panic!("every step has a result: {outcome:?}")
    };
    assert_eq!(replaced(t), before.entries.last(), "a put tells what it replaced");
    assert_eq!(names(removed(s)), ["s/a", "s/b", "s/c"], "what was removed, in order");
    let of_s = before.entries.iter().filter(|entry| entry.key.starts_with(&key("s/")));
    assert!(removed(s).iter().eq(of_s), "what was removed, whole: {s:?}");
    assert_eq!((removed(absent), replaced(u)), (&[][..], None), "of what was not there");

    let after = space.range(everything(None)).await;
    assert_eq!(names(&after.entries), ["n", "t", "u"], "all steps were done");
    let history: Vec<_> =
        after.entries[1..].iter().map(|entry| (entry.mod_revision, entry.version)).collect();
    assert_eq!(history, [(outcome.revision, 2), (outcome.revision, 1)], "at one revision");
    let past = space.range(everything(Some(before.revision))).await;
    assert_eq!(past.entries, before.entries, "nothing of it is seen at the revision before");
}

/// A range sees the steps before it, and not those behind it.
async fn reads(space: Space<'_>) {
    let old = space.put("v/a", "1").await;
    let before = space.put("v/b", "1").await;
    let range = KeyRange::prefix(key("v/"));
    let read = RangeRequest::new(range.clone());
    let one = RangeRequest { limit: Some(1), ..read.clone() };
    let past = RangeRequest { revision: Some(old), ..read.clone() };
    let count = RangeRequest { count_only: true, ..read.clone() };
    let outcome = space
        .transact(always(vec![
            Step::Range(read.clone()),
            put_step("v/c", "new"),
            Step::Range(read.clone()),
            Step::Delete(KeyRange::key(key("v/a"))),
            Step::Range(one),
            Step::Range(past),
            Step::Range(count),
            put_step("v/d", "late"),
        ]))
        .await;
    let ranges = outcome.results.iter().filter(|result| matches!(result, StepResult::Range(_)));
    let ranges: Vec<_> = ranges.map(found).collect();
    let seen: Vec<_> = ranges.iter().map(|range| names(&range.entries)).collect();
    let expected =
        [vec!["v/a", "v/b"], vec!["v/a", "v/b", "v/c"], vec!["v/b"], vec!["v/a"], vec![]];
    assert_eq!(seen, expected, "a range sees the steps before it, at its revision and limit");
    let counts: Vec<_> = ranges.iter().map(|range| (range.count, range.more)).collect();
    let expected = [(2, false), (3, false), (2, true), (1, false), (2, false)];
    assert_eq!(counts, expected, "counts of ranges within a transaction");
    assert_eq!(ranges[0].revision, before, "nothing was changed before the first range");
    let mine = &ranges[1].entries[2];
    let history = (mine.create_revision, mine.mod_revision, mine.version);
    assert_eq!(history, (outcome.revision, outcome.revision, 1), "a range sees a whole entry");
}

/// Puts that keep the value or the lease of what is there.
async fn keeping(space: Space<'_>) {
    let created = space.put("k", "kept").await;
    let put = |value: Option<&str>, lease| {
        let value = value.map(|value| value.to_owned().into());
        always(vec![Step::Put(Put { key: key("k"), value, lease })])
    };
    let outcome = space.transact(put(None, PutLease::Set(None))).await;
    assert_eq!(outcome.revision, created + 1, "keeping the value is a change");
    let entry = space.get("k").await.expect("what was put is there");
    let kept = (&entry.value[..], entry.create_revision, entry.mod_revision, entry.version);
    assert_eq!(kept, (&b"kept"[..], created, created + 1, 2), "the value is kept");
    space.transact(put(Some("changed"), PutLease::Keep)).await;
    let outcome = space.transact(put(None, PutLease::Keep)).await;
    let replaced = replaced(&outcome.results[0]).expect("something was replaced");
    assert_eq!((&replaced.value[..], replaced.version), (&b"changed"[..], 3));
    let entry = space.get("k").await.expect("what was put is there");
    assert_eq!((&entry.value[..], entry.lease, entry.version), (&b"changed"[..], None, 4));
}

/// Inner transactions, some of them not taken, are part of the same revision.
async fn nesting(space: Space<'_>) {
    space.delete("k").await;
    let before = space.put("present", "1").await;
    let exists = |name| compare(name, Operator::Greater, Operand::Version(0));
    let either = |name, put: &str| {
        Step::Transaction(Transaction {
            compare: vec![exists(name)],
            success: vec![put_step(put, "yes")],
            failure: vec![put_step(put, "no"), Step::Range(everything(None))],
        })
    };
    let deep = always(vec![either("present", "n/1"), Step::Delete(KeyRange::key(key("present")))]);
    let outer = vec![put_step("n/0", "x"), Step::Transaction(deep), either("nothing", "n/2")];
    let outcome = space.transact(always(outer)).await;
    assert_eq!(outcome.revision, before + 1, "inner transactions are of the same revision");
    let [_, StepResult::Transaction(deep), StepResult::Transaction(last)] = &outcome.results[..]
    else {
        panic!("inner transactions have results: {outcome:?}")
    };
    let [StepResult::Transaction(first), StepResult::Delete(removed)] = &deep.results[..] else {
        panic!("inner transactions have results: {deep:?}")
    };
    let taken = (deep.succeeded, first.succeeded, last.succeeded);
    assert_eq!(taken, (true, true, false), "which branches were taken");
    assert_eq!((first.revision, last.revision), (before + 1, before + 1), "an inner revision");
    assert_eq!(names(removed), ["present"]);
    assert_eq!((first.results.len(), last.results.len()), (1, 2), "the results of one branch");
    let seen = names(&found(&last.results[1]).entries);
    assert_eq!(seen, ["n", "n/0", "n/1", "n/2", "t", "u", "v/b", "v/c", "v/d"]);
    let value = |name| async move { space.get(name).await.map(|entry| entry.value) };
    assert_eq!(value("n/1").await, Some("yes".into()), "the success branch was done");
    assert_eq!(value("n/2").await, Some("no".into()), "the failure branch was done");
}

/// Watchers get a transaction's changes in one item, in the order of its steps.
async fn watched(space: Space<'_>) {
    for name in ["w/1", "w/2", "w/3"] {
        space.put(name, "old").await;
    }
    let mut everything = space.watch(all(), None).await;
    let mut part = space.watch(KeyRange::key(key("w/2")), None).await;
    let steps = vec![Step::Delete(KeyRange::prefix(key("w/"))), put_step("x", "new")];
    let outcome = space.transact(always(steps)).await;
    let batch = everything.batch().await;
    assert_eq!(revisions(&batch), [outcome.revision; 4], "one revision is one item: {batch:?}");
    let told: Vec<_> = batch.iter().map(|event| (event.kind, event.entry.key.clone())).collect();
    let deleted = ["w/1", "w/2", "w/3"].map(|name| (EventKind::Delete, key(name)));
    assert_eq!(told[..3], deleted, "the deletions of a range, in the order of keys");
    assert_eq!(told[3], (EventKind::Put, key("x")), "changes are in the order of steps");
    let previous = batch.iter().map(|event| event.previous.as_ref().map(|p| &p.value[..]));
    assert!(previous.eq([Some(&b"old"[..]), Some(b"old"), Some(b"old"), None]), "{batch:?}");
    assert_eq!(part.batch().await, batch[1..2], "a watcher gets its part of a transaction");
}
