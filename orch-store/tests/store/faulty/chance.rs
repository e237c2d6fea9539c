//! Faults by chance: each strikes, and the same seed gives the same course.

use std::time::Duration;

use futures::StreamExt as _;
use orch_store::{
    Compare, Faults, KeyRange, Leases, Operand, Operator, RangeRequest, Step, Store, StoreError,
    StoreReader, Struck, Transaction, WatchItem, WatchRequest, Write, WriteOutcome,
};
use tokio::time::{Instant, timeout};

use super::store;

/// So long a reader of a watch waits, in virtual time.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client that does a little of everything; gives what it was told, and when.
async fn course(faults: Faults, seed: u64) -> (Vec<String>, Struck) {
    let (store, memory) = store(faults, seed);
    let (start, mut told, mut known) = (Instant::now(), Vec::new(), 0);
    for round in 0..60 {
        let mut note = |what: String| told.push(format!("{:?} {what}", start.elapsed()));
        let outcome = store.write(Write::update("/k", known, round.to_string())).await;
        match &outcome {
            Ok(WriteOutcome::Committed { revision, .. }) => known = *revision,
            Ok(WriteOutcome::PreconditionFailed { current, .. }) => {
                known = current.as_ref().map_or(0, |entry| entry.mod_revision);
            }
            Err(_) => {}
        }
        note(format!("{outcome:?}"));
        let guard = Compare {
            range: KeyRange::key("/k"),
            operator: Operator::Greater,
            operand: Operand::Version(0),
        };
        let read = Step::Range(RangeRequest::new(KeyRange::prefix("/")));
        let transaction =
            Transaction { compare: vec![guard], success: vec![read], failure: vec![] };
        note(format!("{:?}", store.transact(transaction).await));
        let newest = memory.revision();
        let page = RangeRequest {
            revision: Some(newest.saturating_sub(1).max(1)),
            ..RangeRequest::new(KeyRange::prefix("/"))
        };
        note(format!("{:?}", store.range(page).await));
        let watch = WatchRequest { range: KeyRange::prefix("/"), from: Some(newest) };
        match store.watch(watch).await {
            Ok(mut items) => note(format!("{:?}", timeout(PATIENCE, items.next()).await)),
            Err(error) => note(format!("{error:?}")),
        }
        let lease = store.grant(None, 600).await;
        note(format!("{lease:?}"));
        if let Ok(lease) = lease {
            note(format!("{:?}", store.keep_alive(lease).await));
            note(format!("{:?}", store.revoke(lease).await));
        }
        if round % 10 == 0 {
            note(format!("{:?}", store.compact(newest).await));
        }
    }
    (told, store.control().struck())
}

/// How often a fault has struck.
type Count = fn(&Struck) -> u64;

#[tokio::test(start_paused = true)]
async fn every_fault_strikes_and_is_repeatable_from_its_seed() {
    let faults = Faults::default;
    let delay_max = Duration::from_millis(100);
    let cases: [(&str, Faults, Count); 9] = [
        ("unavailable", Faults { unavailable: 0.1, ..faults() }, |s| s.unavailable),
        ("conflict", Faults { conflict: 0.2, ..faults() }, |s| s.conflicts),
        ("unknown, done", Faults { unknown: 0.2, ..faults() }, |s| s.unknown_done),
        ("unknown, not done", Faults { unknown: 0.2, ..faults() }, |s| s.unknown_not_done),
        ("watch_drop", Faults { watch_drop: 0.2, ..faults() }, |s| s.watch_drops),
        (
            "watch_stall",
            Faults { watch_stall: 0.2, stall: Duration::from_secs(1), ..faults() },
            |s| s.watch_stalls,
        ),
        ("watch_repeat", Faults { watch_repeat: 0.2, ..faults() }, |s| s.watch_repeats),
        ("compaction", Faults { compaction: 0.1, ..faults() }, |s| s.compactions),
        ("crash", Faults { crash_after: Some(100), delay_max, ..faults() }, |s| s.crashes),
    ];
    for (name, faults, count) in cases {
        let (told, struck) = course(faults, 1).await;
        assert!(count(&struck) > 0, "{name} has not struck: {struck:?}");
        assert_eq!(course(faults, 1).await, (told.clone(), struck), "{name} is not repeatable");
        assert_ne!(course(faults, 2).await.0, told, "{name} strikes in the same way always");
    }
}

#[tokio::test(start_paused = true)]
async fn without_faults_nothing_strikes() {
    let (told, struck) = course(Faults::default(), 1).await;
    assert_eq!(struck, Struck::default());
    let failed: Vec<_> = told.iter().filter(|told| told.contains("Err(")).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(told.iter().all(|told| told.starts_with("0ns ")), "and nothing waits: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn delays_are_on_the_clock_and_no_longer_than_asked() {
    let delay_max = Duration::from_millis(100);
    let (store, _) = store(Faults { delay_max, ..Faults::default() }, 1);
    let watch = WatchRequest { range: KeyRange::prefix("/"), from: Some(2) };
    let mut items = store.watch(watch).await.unwrap();
    let mut waited = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        store.write(Write::put("/k", "x")).await.unwrap();
        let written = start.elapsed();
        assert!(matches!(items.next().await, Some(Ok(WatchItem::Events(_)))));
        let delivered = start.elapsed() - written;
        // The timer counts in whole milliseconds.
        let longest = delay_max + Duration::from_millis(1);
        assert!(written <= longest && delivered <= longest, "{written:?} {delivered:?}");
        waited += written.min(delivered);
    }
    assert!(waited > delay_max, "calls and items wait: {waited:?}");
}

/// A client that guards its writes survives every fault: retried increments are never lost and
/// never doubled.
#[tokio::test(start_paused = true)]
async fn guarded_writes_survive_faults() {
    let faults = Faults {
        unavailable: 0.1,
        conflict: 0.1,
        unknown: 0.2,
        watch_drop: 0.1,
        delay_max: Duration::from_millis(10),
        ..Faults::default()
    };
    let (faulty, memory) = store(faults, 42);
    let (mut done, mut unknown) = (0u64, 0);
    while done < 100 {
        let Ok(found) = faulty.range(RangeRequest::new(KeyRange::key("/n"))).await else {
            continue;
        };
        let current = found.entries.first();
        done = current.map_or(0, |e| String::from_utf8_lossy(&e.value).parse().unwrap());
        let revision = current.map_or(0, |entry| entry.mod_revision);
        let next = (done + 1).to_string();
        if let Err(StoreError::Unknown(_)) = faulty.write(Write::update("/n", revision, next)).await
        {
            unknown += 1;
        }
    }
    assert!(unknown > 5, "{unknown}");
    let current = memory.range(RangeRequest::new(KeyRange::key("/n"))).await.unwrap();
    let entry = &current.entries[0];
    let value: u64 = String::from_utf8_lossy(&entry.value).parse().unwrap();
    assert_eq!(entry.version, value, "one write per increment");
}
