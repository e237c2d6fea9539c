//! Writers that know what became of each of their writes, watchers that keep all they saw, and
//! the comparison of the two.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt as _;
use orch_store::{
    Compare, Entry, EtcdStore, Event, KeyRange, Operand, Operator, Precondition, Put, PutLease,
    RangeRequest, Revision, Step, Store as _, StoreError, StoreReader as _, Transaction, WatchItem,
    WatchRequest, Write, WriteOutcome,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

const ROOT: &str = "/load/";
const COUNTER: &str = "/load/counter";
const PAIRS: &str = "/load/pair/";
/// Everybody's last change, as a pair's.
const END: &str = "/load/pair/end";

const WRITERS: usize = 4;
/// Two of everything, and one of the pairs alone.
const WATCHED: [&str; 3] = [ROOT, ROOT, PAIRS];

/// Everybody must get on within this, whatever is broken.
const BOUND: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(20);

/// What became of the values that a writer wrote; each is written once.
#[derive(Default)]
struct Record {
    done: BTreeMap<String, Revision>,
    unknown: BTreeSet<String>,
    never: BTreeSet<String>,
}

/// One revision's changes: keys and values.
type Changes = (Revision, Vec<(String, String)>);

/// Load on a store.
pub(crate) struct Load {
    store: EtcdStore,
    start: Revision,
    /// How often each writer and each watcher got on.
    moves: watch::Sender<Vec<u64>>,
    stop: watch::Sender<bool>,
    writers: JoinSet<Record>,
    watchers: Vec<JoinHandle<Vec<Changes>>>,
}

impl Load {
    pub(crate) async fn start(store: EtcdStore) -> Self {
        let start = current(&store, COUNTER).await.0;
        let moves = watch::Sender::new(vec![0; WRITERS + WATCHED.len()]);
        let stop = watch::Sender::new(false);
        let mut watchers = Vec::new();
        for (number, prefix) in WATCHED.into_iter().enumerate() {
            let request = WatchRequest { range: KeyRange::prefix(prefix), from: Some(start + 1) };
            let moves = moves.clone();
            let moved = move || moves.send_modify(|moves| moves[WRITERS + number] += 1);
            watchers.push(tokio::spawn(see(store.clone(), request, moved)));
        }
        let mut writers = JoinSet::new();
        for id in 0..WRITERS {
            let (store, record) = (store.clone(), Record::default());
            let writer = Writer { id, store, record, attempts: 0 };
            writers.spawn(writer.run(moves.clone(), stop.subscribe()));
        }
        Self { store, start, moves, stop, writers, watchers }
    }

    /// Waits until every writer has had writes acknowledged, and every watcher has seen some, from
    /// now on.
    pub(crate) async fn everybody_moves(&self, while_what: &str) {
        let before = self.moves.borrow().clone();
        let mut moves = self.moves.subscribe();
        let moved =
            moves.wait_for(|now| now.iter().zip(&before).all(|(now, then)| *now > then + 3));
        let in_time = tokio::time::timeout(BOUND, moved).await.is_ok();
        let now = self.moves.borrow().clone();
        assert!(in_time, "{while_what}: not everybody got on in {BOUND:?}: {before:?}, {now:?}");
    }

    /// Stops the load and compares what was acknowledged with what was seen and what is there.
    pub(crate) async fn finish(mut self) {
        self.stop.send_replace(true);
        let records = std::mem::take(&mut self.writers).join_all().await;
        let end = loop {
            match self.store.write(Write::create(END, "end")).await {
                Ok(WriteOutcome::Committed { revision, .. }) => break revision,
                Ok(WriteOutcome::PreconditionFailed { current, .. }) => {
                    break current.unwrap().mod_revision;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let mut seen = Vec::new();
        for watcher in std::mem::take(&mut self.watchers) {
            let rest = tokio::time::timeout(BOUND, watcher).await;
            seen.push(rest.expect("a watcher does not see the end").unwrap());
        }
        let request = WatchRequest { range: KeyRange::prefix(ROOT), from: Some(self.start + 1) };
        let again = see(self.store.clone(), request, || ()).await;
        assert_eq!(again, seen[0], "a watch of the past and one of the present differ");
        assert_eq!(seen[1], seen[0], "two watches differ");
        let all = std::mem::take(&mut seen[0]);
        let revisions: Vec<_> = all.iter().map(|(revision, _)| *revision).collect();
        let expected: Vec<_> = (self.start + 1..=end).collect();
        assert_eq!(revisions, expected, "a revision is missing or repeated");
        let pair = |(revision, changes): &Changes| {
            let changes = changes.iter().filter(|(key, _)| key.starts_with(PAIRS)).cloned();
            (*revision, changes.collect::<Vec<_>>())
        };
        let pairs: Vec<_> = all.iter().map(pair).filter(|(_, pair)| !pair.is_empty()).collect();
        assert_eq!(seen[2], pairs, "a watch of a part differs");
        compare(&records, &all);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

/// Nothing acknowledged is lost, nothing refused is there, and counters go by ones.
fn compare(records: &[Record], all: &[Changes]) {
    let mut where_found = BTreeMap::new();
    let mut counter = 0;
    for (revision, changes) in all {
        let values: BTreeSet<_> = changes.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(values.len(), 1, "half of a transaction, or two at once: {changes:?}");
        let value = values.into_iter().next().unwrap();
        let (key, pairs) = (&changes[0].0, changes.len());
        assert_eq!(pairs, if key.starts_with(PAIRS) && key != END { 2 } else { 1 }, "{changes:?}");
        if key == COUNTER {
            counter += 1;
            assert_eq!(count_of(&value), counter, "the counter at {revision}");
        }
        assert_eq!(where_found.insert(value.clone(), *revision), None, "{value} was done twice");
    }
    where_found.remove("end");
    let (mut acknowledged, mut uncertain) = (0, 0);
    for record in records {
        for (value, revision) in &record.done {
            let found = where_found.remove(value);
            assert_eq!(found, Some(*revision), "{value} was acknowledged at {revision}");
            acknowledged += 1;
        }
        for value in &record.never {
            let found = where_found.get(value);
            assert_eq!(found, None, "{value} was said not to have been written");
        }
        for value in &record.unknown {
            uncertain += usize::from(where_found.remove(value).is_some());
        }
    }
    assert!(where_found.is_empty(), "nobody wrote these: {where_found:?}");
    assert!(acknowledged > 0);
    let unknown: usize = records.iter().map(|record| record.unknown.len()).sum();
    eprintln!("{acknowledged} writes acknowledged; {unknown} unknown, of which {uncertain} done");
}

fn count_of(value: &str) -> u64 {
    value.split(' ').next().unwrap().parse().unwrap()
}

/// Watches until the end; gives all, revision by revision.
async fn see(store: EtcdStore, request: WatchRequest, moved: impl Fn()) -> Vec<Changes> {
    let mut items = loop {
        match store.watch(request.clone()).await {
            Ok(items) => break items,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    let mut seen: Vec<Changes> = Vec::new();
    loop {
        let WatchItem::Events(events) = items.next().await.unwrap().unwrap() else { continue };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let change = |event: &Event| (text(&event.entry.key), text(&event.entry.value));
        for events in events.chunk_by(|a, b| a.entry.mod_revision == b.entry.mod_revision) {
            let (revision, last) = (events[0].entry.mod_revision, seen.last().map(|seen| seen.0));
            assert!(Some(revision) > last, "{revision} after {last:?}: split or repeated");
            seen.push((revision, events.iter().map(change).collect()));
        }
        moved();
        if seen.last().is_some_and(|(_, changes)| changes[0].0 == END) {
            return seen;
        }
    }
}

/// A key as it is, and the store's revision.
async fn current(store: &EtcdStore, key: &str) -> (Revision, Option<Entry>) {
    loop {
        match store.range(RangeRequest::new(KeyRange::key(key.to_owned()))).await {
            Ok(found) => return (found.revision, found.entries.into_iter().next()),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Writer {
    id: usize,
    store: EtcdStore,
    record: Record,
    attempts: u64,
}

/// How one attempt ended.
enum Attempt {
    Done,
    Refused,
    Unknown,
    /// Surely not done.
    Unavailable,
}

impl Writer {
    async fn run(mut self, moves: watch::Sender<Vec<u64>>, stop: watch::Receiver<bool>) -> Record {
        for number in 0u64.. {
            if *stop.borrow() {
                break;
            }
            match number % 3 {
                0 => self.create(number).await,
                1 => self.count().await,
                _ => self.pair().await,
            }
            moves.send_modify(|moves| moves[self.id] += 1);
        }
        self.record
    }

    fn value(&mut self) -> String {
        self.attempts += 1;
        format!("{}.{}", self.id, self.attempts)
    }

    /// Puts down what became of a value.
    async fn note(
        &mut self,
        value: &str,
        outcome: Result<Option<Revision>, StoreError>,
    ) -> Attempt {
        match outcome {
            Ok(Some(revision)) => {
                self.record.done.insert(value.to_owned(), revision);
                return Attempt::Done;
            }
            Err(StoreError::Unknown(_)) => {
                self.record.unknown.insert(value.to_owned());
                return Attempt::Unknown;
            }
            _ => drop(self.record.never.insert(value.to_owned())),
        }
        match outcome {
            Err(StoreError::Unavailable(_)) => {
                tokio::time::sleep(PAUSE).await;
                Attempt::Unavailable
            }
            Err(error) => panic!("{value}: {error}"),
            Ok(_) => Attempt::Refused,
        }
    }

    async fn write(&mut self, value: &str, write: Write) -> Attempt {
        let outcome = self.store.write(write).await.map(|outcome| match outcome {
            WriteOutcome::Committed { revision, .. } => Some(revision),
            WriteOutcome::PreconditionFailed { .. } => None,
        });
        self.note(value, outcome).await
    }

    /// Creates a key of its own; who does not know whether it did tries again.
    async fn create(&mut self, number: u64) {
        let key = format!("{ROOT}unique/{}/{number}", self.id);
        loop {
            let value = self.value();
            match self.write(&value, Write::create(key.clone(), value.clone())).await {
                Attempt::Done => return,
                Attempt::Unknown | Attempt::Unavailable => {}
                Attempt::Refused => {
                    // It must have been an attempt that nobody knew about.
                    let found = current(&self.store, &key).await.1.expect("a key that exists");
                    let found = String::from_utf8(found.value.to_vec()).unwrap();
                    assert!(self.record.unknown.contains(&found), "{key} is {found}");
                    return;
                }
            }
        }
    }

    /// Adds one to what everybody counts.
    async fn count(&mut self) {
        loop {
            let before = current(&self.store, COUNTER).await.1;
            let text =
                before.as_ref().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
            let next = text.map_or(0, |text| count_of(&text)) + 1;
            let value = format!("{next} {}", self.value());
            let guard = before.map_or(0, |entry| entry.mod_revision);
            let precondition = Precondition::ModRevision(guard);
            let write = Write { precondition, ..Write::put(COUNTER, value.clone()) };
            match self.write(&value, write).await {
                Attempt::Done => return,
                Attempt::Refused | Attempt::Unavailable => {}
                Attempt::Unknown => {
                    let now = current(&self.store, COUNTER).await.1;
                    if now.is_some_and(|entry| entry.value == value) {
                        return;
                    }
                }
            }
        }
    }

    /// Changes two keys at once.
    async fn pair(&mut self) {
        let keys = ["a", "b"].map(|name| format!("{PAIRS}{}/{name}", self.id));
        loop {
            let before = current(&self.store, &keys[0]).await.1;
            let value = self.value();
            let put = |key: &String| {
                let value = Some(value.clone().into());
                Step::Put(Put { key: key.clone().into(), value, lease: PutLease::Set(None) })
            };
            let compare = Compare {
                range: KeyRange::key(keys[0].clone()),
                operator: Operator::Equal,
                operand: Operand::Version(before.map_or(0, |entry| entry.version)),
            };
            let success = keys.iter().map(put).collect();
            let transaction = Transaction { compare: vec![compare], success, failure: vec![] };
            let outcome = self.store.transact(transaction).await;
            let outcome = outcome.map(|outcome| outcome.succeeded.then_some(outcome.revision));
            // Nobody else changes them: who is refused was done before.
            if let Attempt::Done | Attempt::Refused = self.note(&value, outcome).await {
                return;
            }
        }
    }
}
