//! The judge of histories finds every kind of lie, and nothing in what is true.

use std::sync::Arc;

use futures::StreamExt as _;
use orch_store::{
    Compare, Entry, Event, KeyRange, MemoryStore, Operand, Operator, Precondition, Put, PutLease,
    RangeRequest, Step, StepResult, Store, StoreReader, Transaction, WatchRequest, Write,
    WriteOutcome,
    testing::history::{Call, History, Outcome, Recorded, Recorder, Seen, Violation, check},
};

fn everything() -> KeyRange {
    KeyRange::prefix("/h/")
}

fn put(key: &'static str, value: &'static str) -> Step {
    let lease = PutLease::Set(None);
    Step::Put(Put { key: key.into(), value: Some(value.into()), lease })
}

/// What the calls of [`course`] are, by their place in the history.
const CREATE: usize = 0;
const UPDATE: usize = 1;
const REFUSED: usize = 2;
const TRANSFER: usize = 3;
const READ: usize = 4;
const DELETE: usize = 5;
const PAST: usize = 6;
const NOTHING: usize = 7;

/// One call of every kind, one after the other, and a watch that has seen it all. The store is at
/// revision 2 before, and each change takes the next: 3 creation, 4 update, 5 transaction, 6
/// deletion.
async fn course() -> History {
    let store = Arc::new(MemoryStore::default());
    store.write(Write::create("/h/before", "0")).await.unwrap();
    let recorder = Recorder::start(store.clone(), store, "/h/").await.unwrap();
    let request = WatchRequest { range: everything(), from: Some(3) };
    let mut watch = recorder.watch(request).await.unwrap();
    recorder.write(Write::create("/h/a", "1")).await.unwrap();
    recorder.write(Write::update("/h/a", 3, "2")).await.unwrap();
    recorder.write(Write::update("/h/a", 3, "lost")).await.unwrap();
    let exists = Compare {
        range: KeyRange::key("/h/a"),
        operator: Operator::Equal,
        operand: Operand::ModRevision(4),
    };
    let transfer = Transaction {
        compare: vec![exists],
        success: vec![put("/h/a", "3"), put("/h/b", "3")],
        failure: vec![],
    };
    recorder.transact(transfer).await.unwrap();
    recorder.range(RangeRequest::new(everything())).await.unwrap();
    recorder.write(Write::delete("/h/b", Precondition::None)).await.unwrap();
    let past = RangeRequest { revision: Some(5), ..RangeRequest::new(everything()) };
    recorder.range(past).await.unwrap();
    recorder.write(Write::delete("/h/none", Precondition::None)).await.unwrap();
    recorder.request_progress().await.unwrap();
    recorder.mark().await.unwrap();
    while watch.next().await.unwrap().unwrap().is_before(&recorder.mark_key()) {}
    recorder.history().await.unwrap()
}

trait Before {
    fn is_before(&self, key: &[u8]) -> bool;
}

impl Before for orch_store::WatchItem {
    fn is_before(&self, key: &[u8]) -> bool {
        match self {
            Self::Events(events) => events.iter().all(|event| event.entry.key != key),
            Self::Progress(_) => true,
        }
    }
}

fn outcome(history: &mut History, call: usize) -> &mut Outcome {
    &mut history.calls[call].ended.as_mut().unwrap().1
}

fn entries(history: &mut History, call: usize) -> &mut Vec<Entry> {
    match outcome(history, call) {
        Outcome::Range(response) => &mut response.entries,
        other => panic!("{other:?}"),
    }
}

/// Drops the answer of a call, as if the connection had broken.
fn lose(history: &mut History, call: usize) {
    *outcome(history, call) = Outcome::Unknown("lost".into());
}

fn now_or_never(history: &mut History, call: usize) {
    history.calls[call].ended = None;
}

/// The history with something made of it that must be found, or must not.
async fn judge(change: impl FnOnce(&mut History)) -> Result<(), Violation> {
    let mut history = course().await;
    change(&mut history);
    check(&history)
}

#[tokio::test]
async fn the_truth_is_accepted() {
    let history = course().await;
    assert_eq!((history.calls.len(), history.log.len(), history.end), (8, 5, 6));
    check(&history).unwrap();
}

#[tokio::test]
async fn unknown_outcomes_are_found_in_the_log_or_not_at_all() {
    for call in [CREATE, UPDATE, REFUSED, TRANSFER, DELETE, NOTHING] {
        judge(|history| lose(history, call)).await.unwrap();
        judge(|history| now_or_never(history, call)).await.unwrap();
    }
    judge(|history| (0..8).for_each(|call| lose(history, call))).await.unwrap();
    // One that begins only after its change was seen did not make it.
    let late = judge(|history| {
        lose(history, DELETE);
        history.calls[DELETE].began = 1000;
    });
    assert!(matches!(late.await, Err(Violation::Unexplained { revision: 6, .. })));
}

#[tokio::test]
async fn a_stale_read_is_found() {
    // What was there before the transaction, told after it.
    let stale = judge(|history| {
        let Outcome::Range(response) = outcome(history, READ) else { panic!() };
        (response.revision, response.count) = (4, 2);
        response.entries.remove(1);
        response.entries[0].value = "2".into();
        (response.entries[0].mod_revision, response.entries[0].version) = (4, 2);
    });
    let stale = stale.await;
    assert!(matches!(stale, Err(Violation::Time { .. })), "{stale:?}");
    // The newest revision with an old value.
    let wrong = judge(|history| entries(history, READ)[0].value = "2".into()).await;
    assert!(matches!(wrong, Err(Violation::Answer { revision: 5, .. })), "{wrong:?}");
    let wrong = judge(|history| entries(history, PAST).truncate(1)).await;
    assert!(matches!(wrong, Err(Violation::Answer { revision: 6, .. })), "{wrong:?}");
    let future = judge(|history| {
        let Outcome::Range(response) = outcome(history, READ) else { panic!() };
        response.revision = 1000;
    });
    assert!(matches!(future.await, Err(Violation::Outside { newest: 6, .. })));
}

#[tokio::test]
async fn a_lost_update_is_found() {
    // The second update of the same revision is acknowledged over the first.
    let lost = judge(|history| {
        let previous = history.log[0].entry.clone();
        let committed = WriteOutcome::Committed { revision: 7, previous: Some(previous.clone()) };
        *outcome(history, REFUSED) = Outcome::Write(committed);
        let entry = Entry { mod_revision: 7, version: 2, value: "lost".into(), ..previous.clone() };
        let kind = orch_store::EventKind::Put;
        history.log.push(Event { kind, entry, previous: Some(previous) });
        history.end = 7;
    });
    let lost = lost.await;
    assert!(matches!(lost, Err(Violation::Answer { revision: 7, .. })), "{lost:?}");
    // A refusal that the state does not explain.
    let wrong = judge(|history| {
        let Outcome::Write(WriteOutcome::PreconditionFailed { current, .. }) =
            outcome(history, REFUSED)
        else {
            panic!()
        };
        *current = None;
    });
    assert!(matches!(wrong.await, Err(Violation::Answer { revision: 4, .. })));
}

#[tokio::test]
async fn a_doubled_write_is_found() {
    let doubled = |history: &mut History| {
        let again = history.log[1].clone();
        let entry = Entry { mod_revision: 7, version: 4, ..again.entry };
        let previous = Some(history.log[2].entry.clone());
        history.log.push(Event { entry, previous, ..again });
        history.end = 7;
    };
    let acknowledged = judge(doubled).await;
    let Err(Violation::Unexplained { revision: 7, hint, .. }) = acknowledged else {
        panic!("{acknowledged:?}")
    };
    assert!(hint.contains("value: b\"2\""), "the call is named: {hint}");
    // Of unknown outcome it is once in the log, or not at all.
    let unknown = judge(|history| {
        doubled(history);
        lose(history, UPDATE);
    });
    let unknown = unknown.await;
    assert!(matches!(unknown, Err(Violation::Unexplained { revision: 7, .. })), "{unknown:?}");
    // And never after an error that said that nothing was done.
    let denied = judge(|history| *outcome(history, UPDATE) = Outcome::Nothing("no".into())).await;
    assert!(matches!(denied, Err(Violation::Unexplained { revision: 4, .. })), "{denied:?}");
}

#[tokio::test]
async fn a_revision_given_twice_is_found() {
    let twice = judge(|history| {
        let call = Call::Write(Write::put("/h/c", "twice"));
        let committed = WriteOutcome::Committed { revision: 4, previous: None };
        let ended = Some((2000, Outcome::Write(committed)));
        history.calls.push(Recorded { call, began: 1, ended });
    });
    let twice = twice.await;
    assert!(matches!(twice, Err(Violation::GivenTwice { revision: 4, .. })), "{twice:?}");
    let back = judge(|history| history.log.swap(0, 1)).await;
    assert_eq!(back, Err(Violation::LogOrder { last: 4, next: 3 }));
}

#[tokio::test]
async fn a_half_of_a_transaction_is_found() {
    let in_the_log = judge(|history| drop(history.log.remove(3)));
    // The half is missed where it is replaced or read, or at the transaction itself.
    let in_the_log = in_the_log.await;
    assert!(matches!(in_the_log, Err(Violation::Effect { revision: 5, .. })), "{in_the_log:?}");
    let seen = judge(|history| {
        let Outcome::Range(response) = outcome(history, READ) else { panic!() };
        response.entries.pop();
        response.count -= 1;
    });
    assert!(matches!(seen.await, Err(Violation::Answer { revision: 5, .. })));
    let told = judge(|history| {
        let Outcome::Transact(transacted) = outcome(history, TRANSFER) else { panic!() };
        transacted.results[0] = StepResult::Put(None);
    });
    assert!(matches!(told.await, Err(Violation::Answer { revision: 5, .. })));
    let watched = judge(|history| {
        for seen in &mut history.watches[0].seen {
            if let Seen::Events(events) = seen
                && events[0].entry.mod_revision == 5
            {
                *events = events[..1].into();
            }
        }
    });
    let watched = watched.await;
    assert!(matches!(watched, Err(Violation::Watch { .. })), "{watched:?}");
}

#[tokio::test]
async fn an_acknowledged_write_that_is_missing_is_found() {
    let last = judge(|history| {
        history.log.pop();
        history.watches.clear();
        history.calls.truncate(DELETE + 1);
    });
    let last = last.await;
    assert!(matches!(last, Err(Violation::Lost { revision: 6, .. })), "{last:?}");
    let beyond = judge(|history| {
        history.log.pop();
        history.end = 5;
        history.calls.truncate(DELETE + 1);
    });
    assert!(matches!(beyond.await, Err(Violation::Lost { revision: 6, .. })));
    let foreign = judge(|history| drop(history.calls.remove(DELETE))).await;
    assert!(matches!(foreign, Err(Violation::Unexplained { revision: 6, .. })), "{foreign:?}");
}

#[tokio::test]
async fn a_contradiction_of_time_is_found() {
    // The update ended before the creation began, and yet is of the newer revision.
    let reversed = judge(|history| {
        let ended = history.calls[UPDATE].ended.as_mut().unwrap();
        ended.0 = 0;
    });
    let reversed = reversed.await;
    assert!(matches!(reversed, Err(Violation::Time { .. })), "{reversed:?}");
    // A future that had been reached.
    let future = judge(|history| *outcome(history, PAST) = Outcome::Future { requested: 6 }).await;
    assert!(matches!(future, Err(Violation::Time { .. })), "{future:?}");
    judge(|history| *outcome(history, PAST) = Outcome::Future { requested: 7 }).await.unwrap();
    let past = judge(|history| *outcome(history, PAST) = Outcome::Compacted { requested: 5 }).await;
    assert!(matches!(past, Err(Violation::Compaction { .. })), "{past:?}");
    let compacted = judge(|history| {
        let (call, ended) = (Call::Compact(6), Some((2, Outcome::Compact)));
        history.calls.push(Recorded { call, began: 1, ended });
    });
    assert!(matches!(compacted.await, Err(Violation::Compaction { .. })));
}

/// Every item of the watch, but one.
fn without(history: &mut History, revision: u64) {
    history.watches[0].seen.retain(|seen| match seen {
        Seen::Events(events) => events[0].entry.mod_revision != revision,
        _ => true,
    });
}

#[tokio::test]
async fn a_watch_that_lies_is_found() {
    let check = async |change: fn(&mut History), why: &str| {
        let violation = judge(change).await;
        let Err(Violation::Watch { why: told, .. }) = &violation else { panic!("{violation:?}") };
        assert!(told.contains(why), "{violation:?}");
    };
    check(|history| without(history, 4), "left out").await;
    // The last change before the mark: the tail.
    check(|history| without(history, 6), "progress to 6 came before").await;
    check(
        |history| {
            without(history, 6);
            history.watches[0].seen.retain(|seen| matches!(seen, Seen::Events(_)));
        },
        "left out",
    )
    .await;
    check(
        |history| {
            let again = history.watches[0].seen[0].clone();
            history.watches[0].seen.insert(1, again);
        },
        "repeated",
    )
    .await;
    check(|history| history.watches[0].seen.insert(0, Seen::Progress(3)), "came before").await;
    check(
        |history| {
            let Seen::Events(events) = &mut history.watches[0].seen[0] else { panic!() };
            let mut lie = events.to_vec();
            lie[0].entry.value = "lie".into();
            *events = lie.into();
        },
        "instead of",
    )
    .await;
    // A watch of what comes must have what was written when it was open, and nothing older.
    check(
        |history| {
            history.watches[0].from = None;
            without(history, 3);
        },
        "written when the watch was open",
    )
    .await;
    let old = |history: &mut History| {
        history.watches[0].from = None;
        (history.watches[0].began, history.watches[0].opened) = (1000, 1001);
    };
    check(old, "from before").await;
    let late = judge(|history| {
        old(history);
        for revision in 3..7 {
            without(history, revision);
        }
    });
    late.await.unwrap();
}
