//! Several clients that get in each other's way, judged by what they were told.

mod client;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future};
use orch_core::random::{Random, SeededRandom};
use tokio::{sync::oneshot, task::JoinSet};

use self::client::Client;
use super::history::{self, History, Recorder};
use crate::store::{KeyRange, Store, StoreReader, WatchItem, WatchRequest};

const PREFIX: &str = "/linearizability/";

/// Watchers that have not seen the end after so long will not see it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What [`linearizability`] does to a store.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How many clients call at once. Default: 4.
    pub clients: u32,
    /// How many calls each of them makes. Default: 50.
    pub calls: u32,
    /// How many keys they share. Default: 4.
    pub keys: u32,
    /// How many watch meanwhile, each a range of its own; one whose watch ends opens another from
    /// where it was. Default: 3.
    pub watchers: u32,
    /// Whether calls are abandoned now and then, at the first point at which they wait.
    /// Default: yes.
    pub abandon: bool,
}

impl Default for Workload {
    fn default() -> Self {
        Self { clients: 4, calls: 50, keys: 4, watchers: 3, abandon: true }
    }
}

/// Drives several clients with random calls over few keys (creations, guarded updates, deletions,
/// transactions over several keys, ranges of now and of the past), each in a task of its own, and
/// [checks](history::check) what they and some watchers were told. Gives the history.
///
/// `store` is asked; `truth` is what tells what really happened: the same store, or the one that
/// is beneath it, if it misbehaves. What the clients do is decided by the seed. When they do it,
/// is so only on a paused runtime of one thread.
///
/// Works under the prefix `/linearizability/`, and leaves behind what the clients wrote.
///
/// # Panics
/// If the history breaks the contract, with the seed and the violation.
pub async fn linearizability(
    store: Arc<dyn Store>,
    truth: Arc<dyn Store>,
    seed: u64,
    workload: Workload,
) -> History {
    let recorder = Recorder::start(store, truth, PREFIX).await.expect("the truth can be read");
    let random = SeededRandom::new(seed);
    let (mut watchers, mut open) = (JoinSet::new(), Vec::new());
    for number in 0..workload.watchers {
        let (begun, has_begun) = oneshot::channel();
        let range = range(number, &random, workload.keys);
        watchers.spawn(follow(recorder.clone(), range, begun));
        open.push(has_begun);
    }
    let mut clients = JoinSet::new();
    for number in 0..workload.clients {
        let random = SeededRandom::new(random.next_u64());
        clients.spawn(Client::new(recorder.clone(), number, random, workload).run());
    }
    clients.join_all().await;
    // Watchers begin whenever it is their turn, but one that began behind the mark would wait for
    // it for ever.
    future::join_all(open).await;
    recorder.mark().await.expect("the truth can be written");
    let ended = tokio::time::timeout(PATIENCE, watchers.join_all()).await;
    assert!(ended.is_ok(), "seed {seed}: a watcher has not been told of the end: {recorder:?}");
    let history = recorder.history().await.expect("the log can be read");
    if let Err(violation) = history::check(&history) {
        panic!("seed {seed}: {violation}");
    }
    history
}

fn key(number: u64) -> Bytes {
    format!("{PREFIX}{number}").into()
}

/// A range in which the mark is, which is the last key.
fn range(number: u32, random: &SeededRandom, keys: u32) -> KeyRange {
    let everything = KeyRange::prefix(PREFIX);
    match number {
        0 => everything,
        _ => KeyRange { start: key(random.below(u64::from(keys))), ..everything },
    }
}

/// Follows a range until the mark, over as many watches as it takes; tells when it has begun.
async fn follow(recorder: Recorder<dyn Store>, range: KeyRange, begun: oneshot::Sender<()>) {
    let mark = recorder.mark_key();
    let (mut from, mut begun) = (None, Some(begun));
    loop {
        let request = WatchRequest { range: range.clone(), from };
        let watch = recorder.watch(request).await;
        // What was missed is judged only of one who knows where to begin.
        from = from.or(Some(recorder.started_at() + 1));
        if let Some(begun) = begun.take() {
            let _somebody_waits = begun.send(());
        }
        let Ok(mut items) = watch else {
            tokio::task::yield_now().await;
            continue;
        };
        while let Some(Ok(item)) = items.next().await {
            match item {
                WatchItem::Progress(revision) => from = from.max(Some(revision + 1)),
                WatchItem::Events(events) => {
                    if events.iter().any(|event| event.entry.key == mark) {
                        return;
                    }
                    from = events.last().map(|event| event.entry.mod_revision + 1);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}
