//! The durable store, killed at any moment: a process that writes, and one that ends it with
//! `kill -9`, opens the folder and compares what is there with what was acknowledged.

use std::{collections::BTreeMap, io::Write as _, path::Path, process::Stdio, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future};
use orch_core::random::{Random as _, SeededRandom};
use orch_core::testing::rounds;
use orch_store::{
    DurableOptions, DurableStore, Entry, Event, EventKind, KeyRange, LeaseReader as _,
    RangeRequest, Revision, StoreError, StoreReader as _, WatchItem, WatchRequest,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::model::{Change, Model, Op, ROOT, WRITERS, decisions};

/// Set for the process that writes until it is killed: the folder, the seed and the round.
const WRITER: &str = "ORCH_STORE_TEST_WRITER";
/// Fixes the seed.
const SEED: &str = "ORCH_STORE_TEST_SEED";
const KILLS: u32 = 5;

fn options() -> DurableOptions {
    DurableOptions {
        segment_bytes: 64 << 10,
        snapshot_bytes_min: 64 << 10,
        ..DurableOptions::default()
    }
}

/// If this is the process that writes: does so until it is killed.
pub(crate) async fn write_if_asked_to() -> bool {
    let Ok(text) = std::env::var(WRITER) else { return false };
    let mut words = text.splitn(3, ' ');
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (seed, round) = (number(), number() as u32);
    write_until_killed(Path::new(words.next().unwrap()), seed, round).await;
    true
}

/// One write call for a line, so that a killed process leaves no half of one inside.
fn say(line: std::fmt::Arguments<'_>) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

async fn write_until_killed(folder: &Path, seed: u64, round: u32) {
    let store = DurableStore::open(folder, options()).unwrap();
    let request = WatchRequest { range: KeyRange::prefix(ROOT), from: None };
    let mut seen = store.watch(request).await.unwrap();
    let watcher = async {
        while let Some(item) = seen.next().await {
            let WatchItem::Events(events) = item.unwrap() else { continue };
            for events in events.chunk_by(same_revision) {
                say(format_args!("seen {} {}", events[0].entry.mod_revision, digest(events)));
            }
        }
    };
    // All of them before the first write: what they decide depends on where the store stood.
    let mut models = Vec::new();
    for writer in 0..WRITERS {
        models.push(Model::read(&store, writer).await);
    }
    let writer = async |(writer, mut model): (usize, Model)| {
        let random = decisions(seed, round, writer as u32);
        loop {
            let op = model.next(&random, round);
            let revision = model.perform(&store, &op).await;
            say(format_args!("done {writer} {revision}"));
            model.apply(&op, revision);
        }
    };
    future::join(watcher, future::join_all(models.into_iter().enumerate().map(writer))).await;
}

fn same_revision(one: &Event, next: &Event) -> bool {
    one.entry.mod_revision == next.entry.mod_revision
}

fn digest(events: &[Event]) -> u32 {
    crc32c::crc32c(format!("{events:?}").as_bytes())
}

/// What a process said before it was killed.
#[derive(Default)]
struct Said {
    /// For each writer the revisions of the steps that were acknowledged.
    done: [Vec<Revision>; WRITERS as usize],
    /// What its watcher saw: revisions and digests.
    seen: Vec<(Revision, u32)>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match kind {
            Some("done") => self.done[number() as usize].push(number()),
            Some("seen") => self.seen.push((number(), number() as u32)),
            _ => panic!("the writing process said {line:?}"),
        }
    }
}

/// Starts a process and kills it, at a moment that is decided by `random`.
async fn write_and_kill(folder: &Path, seed: u64, round: u32, random: &SeededRandom) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(WRITER, format!("{seed} {round} {}", folder.display()))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said::default();
    // Now and then while it still opens the folder, otherwise after so many lines.
    let count = if random.below(8) == 0 { 0 } else { 1 + random.below(2000) };
    for _ in 0..count {
        let line = lines.next_line().await.unwrap();
        said.hear(&line.expect("the writing process ended by itself"));
    }
    let later = if count == 0 { 40_000 } else { 4_000 };
    tokio::time::sleep(Duration::from_micros(random.below(later))).await;
    child.start_kill().unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.hear(&line);
    }
    let status = child.wait().await.unwrap();
    assert!(status.code().is_none(), "the writing process failed by itself: {status}");
    said
}

/// All that is known to have been there, for as far back as it can be read.
#[derive(Default)]
struct History {
    /// The keys at the revision `at`.
    keys: BTreeMap<Bytes, Entry>,
    at: Revision,
    /// The changes after it.
    events: Vec<Event>,
    /// The oldest revision that was surely compacted, and the one that may have been.
    compacted: Revision,
    perhaps_compacted: Revision,
}

impl History {
    fn apply(keys: &mut BTreeMap<Bytes, Entry>, event: &Event) {
        let Event { kind, entry, previous } = event;
        let before = keys.remove(&entry.key);
        assert_eq!(*previous, before, "what was there before {entry:?}");
        if *kind == EventKind::Delete {
            assert!(before.is_some(), "a deletion of nothing: {entry:?}");
            return;
        }
        let born = before.map_or((entry.mod_revision, 1), |b| (b.create_revision, b.version + 1));
        assert_eq!((entry.create_revision, entry.version), born, "{entry:?}");
        keys.insert(entry.key.clone(), entry.clone());
    }

    fn keys_at(&self, revision: Revision) -> Vec<Entry> {
        let mut keys = self.keys.clone();
        let past = self.events.iter().take_while(|event| event.entry.mod_revision <= revision);
        past.for_each(|event| Self::apply(&mut keys, event));
        keys.into_values().collect()
    }

    /// Drops what cannot be read any more.
    fn forget(&mut self, revision: Revision) {
        let past = self.events.partition_point(|event| event.entry.mod_revision <= revision);
        for event in self.events.drain(..past) {
            Self::apply(&mut self.keys, &event);
        }
        self.at = self.at.max(revision);
    }

    /// Reads the newest state and some of the past.
    async fn compare(&self, store: &DurableStore, random: &SeededRandom) {
        let newest = store.revision();
        let oldest = self.at.max(self.perhaps_compacted).max(1);
        let past = (0..4).map(|_| oldest + random.below(newest - oldest + 1));
        for revision in past.chain([newest]) {
            let found = self.range(store, revision).await.unwrap();
            assert_eq!(found, self.keys_at(revision), "the keys at revision {revision}");
        }
        if self.compacted > 1 {
            let behind = self.range(store, self.compacted - 1).await;
            assert!(matches!(behind, Err(StoreError::Compacted { .. })), "{behind:?}");
        }
    }

    async fn range(
        &self,
        store: &DurableStore,
        revision: Revision,
    ) -> Result<Vec<Entry>, StoreError> {
        let range = RangeRequest::new(KeyRange::prefix(""));
        Ok(store.range(RangeRequest { revision: Some(revision), ..range }).await?.entries)
    }
}

/// What a watch tells from a revision on; whole revisions, in order, without a gap.
async fn watched(store: &DurableStore, from: Revision) -> Vec<Event> {
    let newest = store.revision();
    let request = WatchRequest { range: KeyRange::prefix(""), from: Some(from) };
    let mut items = store.watch(request).await.unwrap();
    let (mut events, mut next) = (Vec::new(), from);
    while next <= newest {
        let WatchItem::Events(batch) = items.next().await.unwrap().unwrap() else { continue };
        for events in batch.chunk_by(same_revision) {
            assert_eq!(events[0].entry.mod_revision, next, "a revision is missing or repeated");
            next += 1;
        }
        events.extend(batch.iter().cloned());
    }
    events
}

fn change(event: &Event) -> Change {
    let Entry { key, value, lease, .. } = event.entry.clone();
    (key, (event.kind == EventKind::Put).then_some((value, lease)))
}

/// Compares what one writer did with what is there: every step that was acknowledged, wholly and
/// at its revision, and of the next one all or nothing.
async fn examine_writer(
    store: &DurableStore,
    mut model: Model,
    random: &SeededRandom,
    round: u32,
    (writer, done, events): (u32, &[Revision], &[Event]),
    history: &mut History,
) {
    let prefix = format!("{ROOT}{writer}/");
    let own = |events: &&[Event]| events[0].entry.key.starts_with(prefix.as_bytes());
    let mut own = events.chunk_by(same_revision).filter(own).peekable();
    for acknowledged in done {
        let op = model.next(random, round);
        let changes = model.changes(&op);
        let mut revision = 0;
        if !changes.is_empty() {
            let found = own.next().unwrap_or_else(|| panic!("{op:?} at {acknowledged} is lost"));
            revision = found[0].entry.mod_revision;
            let expected = if *acknowledged == 0 { revision } else { *acknowledged };
            assert_eq!(sorted(found), (expected, changes), "{op:?}");
        }
        if let Op::Compact(compacted) = op {
            history.compacted = history.compacted.max(compacted);
        }
        model.apply(&op, revision);
    }
    let under_way = model.next(random, round);
    if let Op::Compact(compacted) = under_way {
        history.perhaps_compacted = history.perhaps_compacted.max(compacted);
    }
    let mut after = model.clone();
    let mut revision = 0;
    if let Some(found) = own.next() {
        revision = found[0].entry.mod_revision;
        let changes = model.changes(&under_way);
        assert_eq!(sorted(found), (revision, changes), "of {under_way:?} a part is there");
    }
    after.apply(&under_way, revision);
    assert_eq!(own.next(), None, "something is there that nobody wrote");
    let leases = Model::read(store, writer).await.leases;
    let expected = [&model.leases, &after.leases];
    // Ending a lease and deleting its keys are one thing.
    let possible = if revision > 0 { &expected[1..] } else { &expected[..] };
    assert!(possible.contains(&&leases), "leases {leases:?}, not {expected:?}; {under_way:?}");
}

fn sorted(events: &[Event]) -> (Revision, Vec<Change>) {
    let mut changes: Vec<_> = events.iter().map(change).collect();
    changes.sort();
    (events[0].entry.mod_revision, changes)
}

async fn round(folder: &Path, seed: u64, round: u32, history: &mut History) {
    let random = SeededRandom::new(seed.wrapping_add(u64::from(round)));
    let store = DurableStore::open(folder, options()).unwrap();
    let floor = store.revision();
    let mut models = Vec::new();
    for writer in 0..WRITERS {
        models.push(Model::read(&store, writer).await);
    }
    drop(store);
    let said = write_and_kill(folder, seed, round, &random).await;

    let store = DurableStore::open(folder, options()).unwrap();
    let events = watched(&store, floor + 1).await;
    let by_revision: Vec<&[Event]> = events.chunk_by(same_revision).collect();
    let seen = by_revision.iter().map(|events| (events[0].entry.mod_revision, digest(events)));
    let seen: Vec<_> = seen.take(said.seen.len()).collect();
    assert_eq!(said.seen, seen, "a watcher saw what is not there");
    let resume = floor + said.seen.len() as u64 + 1;
    let resumed = watched(&store, resume).await;
    assert_eq!(resumed, by_revision[said.seen.len()..].concat(), "resumed at {resume}");
    history.events.extend(events.iter().cloned());
    for (writer, model) in models.into_iter().enumerate() {
        let done = (writer as u32, &*said.done[writer], &*events);
        let random = decisions(seed, round, writer as u32);
        examine_writer(&store, model, &random, round, done, history).await;
    }
    history.perhaps_compacted = history.perhaps_compacted.max(history.compacted);
    history.compare(&store, &random).await;
    history.forget(history.compacted);
    let ids = store.leases().await.unwrap();
    assert!(ids.is_sorted(), "{ids:?}");
}

pub(crate) async fn survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SeededRandom::from_os().next_u64(),
    };
    let mut history = History::default();
    for number in 0..rounds(KILLS) {
        let kill = round(folder.path(), seed, number, &mut history);
        let outcome = future::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(kill)).await;
        if let Err(panic) = outcome {
            eprintln!("kill {number} of the run with {SEED}={seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}
