//! Faults on demand.

use futures::{FutureExt as _, StreamExt as _};
use orch_store::{
    Compare, Event, Failure, Faults, KeyRange, LeaseReader as _, Leases, Operand, Operator, Put,
    PutLease, RangeRequest, Revision, Step, Store, StoreError, StoreReader, Transaction, WatchItem,
    WatchRequest, WatchStream, Write, WriteOutcome,
};

use super::store;

fn everything() -> KeyRange {
    KeyRange::prefix("/")
}

fn at(revision: Revision) -> RangeRequest {
    RangeRequest { revision: Some(revision), ..RangeRequest::new(everything()) }
}

fn watch(from: Option<Revision>) -> WatchRequest {
    WatchRequest { range: everything(), from }
}

/// The events that are there.
fn read(items: &mut WatchStream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(Some(Ok(WatchItem::Events(batch)))) = items.next().now_or_never() {
        events.extend(batch.iter().cloned());
    }
    events
}

/// A watch that has just been broken, and is at its end.
async fn broken(items: &mut WatchStream) -> bool {
    matches!(items.next().await, Some(Err(StoreError::Unavailable(_))))
        && items.next().await.is_none()
}

#[tokio::test(start_paused = true)]
async fn the_next_change_fails_as_told() {
    let (store, memory) = store(Faults::default(), 1);
    let control = store.control();
    for (failure, done) in [
        (Failure::Unavailable, false),
        (Failure::UnknownDone, true),
        (Failure::UnknownNotDone, false),
    ] {
        let before = memory.revision();
        control.fail_next(failure);
        let outcome = store.write(Write::put("/k", "x")).await;
        let as_told = match failure {
            Failure::Unavailable => matches!(outcome, Err(StoreError::Unavailable(_))),
            _ => matches!(outcome, Err(StoreError::Unknown(_))),
        };
        assert!(as_told, "{failure:?}: {outcome:?}");
        assert_eq!(memory.revision(), before + u64::from(done), "{failure:?}");
        store.write(Write::put("/k", "x")).await.unwrap();
    }
    // Several wait for their turn.
    control.fail_next(Failure::Unavailable);
    control.fail_next(Failure::UnknownDone);
    assert!(matches!(store.compact(2).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.compact(2).await, Err(StoreError::Unknown(_))));
    assert!(matches!(store.compact(2).await, Err(StoreError::Compacted { .. })), "it was done");
    let struck = control.struck();
    assert_eq!((struck.unavailable, struck.unknown_done, struck.unknown_not_done), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn leases_fail_as_told() {
    let (store, memory) = store(Faults::default(), 1);
    let control = store.control();
    control.fail_next(Failure::UnknownDone);
    assert!(matches!(store.grant(Some(7), 60).await, Err(StoreError::Unknown(_))));
    assert_eq!(memory.leases().await.unwrap(), [7]);
    control.fail_next(Failure::UnknownNotDone);
    assert!(matches!(store.revoke(7).await, Err(StoreError::Unknown(_))));
    control.fail_next(Failure::Unavailable);
    assert!(matches!(store.keep_alive(7).await, Err(StoreError::Unavailable(_))));
    assert_eq!(memory.leases().await.unwrap(), [7]);
    assert!(store.revoke(7).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_tells_the_truth_about_the_key() {
    let (store, memory) = store(Faults::default(), 1);
    let control = store.control();
    store.write(Write::create("/k", "1")).await.unwrap();
    let entry = memory.range(at(2)).await.unwrap().entries.remove(0);
    control.fail_next(Failure::Conflict);
    // What has no guard is not meant.
    store.write(Write::put("/other", "x")).await.unwrap();
    let refused = store.write(Write::update("/k", 2, "2")).await.unwrap();
    let current = Some(entry);
    assert_eq!(refused, WriteOutcome::PreconditionFailed { current, revision: 3 });

    let put = |key: &'static str| {
        let lease = PutLease::Set(None);
        vec![Step::Put(Put { key: key.into(), value: Some("x".into()), lease })]
    };
    let guard = Compare {
        range: KeyRange::key("/k"),
        operator: Operator::Equal,
        operand: Operand::ModRevision(2),
    };
    let (success, failure) = (put("/success"), put("/failure"));
    let transaction = Transaction { compare: vec![guard], success, failure };
    control.fail_next(Failure::Conflict);
    let other = store.transact(transaction.clone()).await.unwrap();
    assert_eq!((other.succeeded, other.revision), (false, 4), "the other branch was taken");
    assert_eq!(memory.range(RangeRequest::new(KeyRange::key("/failure"))).await.unwrap().count, 1);
    assert!(store.transact(transaction).await.unwrap().succeeded);
    assert_eq!(control.struck().conflicts, 2);
}

#[tokio::test(start_paused = true)]
async fn watches_break_when_told_to() {
    let (store, _) = store(Faults::default(), 1);
    let (mut unread, mut idle) =
        (store.watch(watch(None)).await.unwrap(), store.watch(watch(Some(100))).await.unwrap());
    store.write(Write::put("/k", "1")).await.unwrap();
    store.control().drop_watches();
    assert!(broken(&mut unread).await && broken(&mut idle).await);
    // Watching again after the last revision seen loses nothing.
    let mut again = store.watch(watch(Some(2))).await.unwrap();
    store.write(Write::put("/k", "2")).await.unwrap();
    assert_eq!(read(&mut again).len(), 2);
    assert_eq!(store.control().struck().watch_drops, 2);
    // One that waits is woken.
    let waiting = tokio::spawn(async move { again.next().await });
    tokio::task::yield_now().await;
    store.control().drop_watches();
    assert!(matches!(waiting.await.unwrap(), Some(Err(StoreError::Unavailable(_)))));
}

#[tokio::test(start_paused = true)]
async fn watches_stall_until_they_are_released() {
    let (store, _) = store(Faults::default(), 1);
    let control = store.control();
    let mut early = store.watch(watch(None)).await.unwrap();
    control.stall_watches();
    let mut late = store.watch(watch(None)).await.unwrap();
    for value in ["1", "2", "3"] {
        store.write(Write::put("/k", value)).await.unwrap();
    }
    assert!(read(&mut early).is_empty() && read(&mut late).is_empty());
    control.release_watches();
    let events = read(&mut early);
    assert_eq!((events.len(), read(&mut late)), (3, events));
    // A stalled watch can break, too.
    control.stall_watches();
    control.drop_watches();
    assert!(broken(&mut early).await && broken(&mut late).await);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_comes_at_the_worst_moment() {
    let (store, memory) = store(Faults::default(), 1);
    let control = store.control();
    for value in ["1", "2", "3"] {
        store.write(Write::put("/k", value)).await.unwrap();
    }
    control.compact_at_worst_moment();
    // The newest is no old revision, and a watch of what comes needs no past.
    assert_eq!(store.range(RangeRequest::new(everything())).await.unwrap().count, 1);
    drop(store.watch(watch(None)).await.unwrap());
    let page = store.range(at(3)).await;
    assert!(matches!(page, Err(StoreError::Compacted { compacted: 4, .. })), "{page:?}");
    assert!(store.range(at(4)).await.is_ok(), "one compaction was ordered");
    store.write(Write::put("/k", "4")).await.unwrap();
    control.compact_at_worst_moment();
    let resumed = store.watch(watch(Some(5))).await.map(drop);
    assert!(matches!(resumed, Err(StoreError::Compacted { .. })), "{resumed:?}");
    assert_eq!((control.struck().compactions, memory.revision()), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_watch_repeats_itself_when_told_to() {
    let (store, _) = store(Faults::default(), 1);
    for value in ["1", "2", "3", "4"] {
        store.write(Write::put("/k", value)).await.unwrap();
    }
    store.control().repeat_in_next_watch(2);
    let mut told_again = store.watch(watch(Some(5))).await.unwrap();
    let revisions: Vec<_> = read(&mut told_again).iter().map(|e| e.entry.mod_revision).collect();
    assert_eq!(revisions, [3, 4, 5]);
    let mut honest = store.watch(watch(Some(5))).await.unwrap();
    assert_eq!(read(&mut honest).len(), 1);
    // What has been compacted away cannot be told again.
    store.compact(4).await.unwrap();
    store.control().repeat_in_next_watch(2);
    let mut honest = store.watch(watch(Some(5))).await.unwrap();
    assert_eq!(read(&mut honest).len(), 1);
    assert_eq!(store.control().struck().watch_repeats, 1);
}

#[tokio::test(start_paused = true)]
async fn everything_is_refused_until_told_otherwise() {
    let (store, memory) = store(Faults::default(), 1);
    let mut items = store.watch(watch(None)).await.unwrap();
    store.control().refuse();
    let refused = |error: Option<StoreError>| matches!(error, Some(StoreError::Unavailable(_)));
    assert!(refused(store.write(Write::put("/k", "x")).await.err()));
    assert!(refused(store.transact(Transaction::default()).await.err()));
    assert!(refused(store.range(RangeRequest::new(everything())).await.err()));
    assert!(refused(store.watch(watch(None)).await.err()));
    assert!(refused(store.compact(1).await.err()));
    assert!(refused(store.request_progress().await.err()));
    assert!(refused(store.grant(None, 60).await.err()));
    assert!(refused(store.leases().await.err()));
    memory.write(Write::put("/k", "x")).await.unwrap();
    assert_eq!(read(&mut items).len(), 1, "open watches go on");
    store.control().accept();
    store.write(Write::put("/k", "x")).await.unwrap();
    assert_eq!(store.control().struck().unavailable, 8);
}

#[tokio::test(start_paused = true)]
async fn a_crash_comes_between_two_steps_and_lasts_until_the_restart() {
    let (store, memory) = store(Faults::default(), 1);
    let control = store.control();
    let mut items = store.watch(watch(None)).await.unwrap();
    control.crash_after(2);
    for value in ["1", "2"] {
        store.write(Write::put("/k", value)).await.unwrap();
    }
    assert!(!control.has_crashed());
    for _ in 0..3 {
        let third = store.write(Write::put("/k", "3")).await;
        assert!(matches!(third, Err(StoreError::Unavailable(_))), "{third:?}");
    }
    assert!(control.has_crashed() && broken(&mut items).await);
    assert!(store.clone().range(RangeRequest::new(everything())).await.is_err(), "for every clone");
    control.restart();
    assert_eq!(memory.revision(), 3, "nothing was done during the crash");
    let mut again = store.watch(watch(Some(2))).await.unwrap();
    store.write(Write::put("/k", "3")).await.unwrap();
    assert_eq!(read(&mut again).len(), 3, "and nothing was lost");
    assert_eq!(control.struck().crashes, 1);
}
