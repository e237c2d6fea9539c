//! One client of the workload.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use orch_core::random::{Random, SeededRandom};

use super::{PREFIX, Workload, key};
use crate::{
    StoreError,
    store::{
        Compare, Entry, KeyRange, Operand, Operator, Precondition, Put, PutLease, RangeRequest,
        RangeResponse, Revision, Step, StepResult, Store, StoreReader, Transaction,
        TransactionOutcome, Write, WriteOutcome,
    },
    testing::history::Recorder,
};

/// Knows what it was told last, and acts on it: guards that hold often, but not always.
pub(super) struct Client {
    recorder: Recorder<dyn Store>,
    number: u32,
    random: SeededRandom,
    workload: Workload,
    /// The revision of each key, as it was last told; 0 is none.
    known: BTreeMap<Bytes, Revision>,
    /// Revisions that it was told of.
    revisions: Vec<Revision>,
    written: u32,
}

impl Client {
    pub(super) fn new(
        recorder: Recorder<dyn Store>,
        number: u32,
        random: SeededRandom,
        workload: Workload,
    ) -> Self {
        let (known, revisions) = (BTreeMap::new(), vec![recorder.started_at()]);
        Self { recorder, number, random, workload, known, revisions, written: 0 }
    }

    pub(super) async fn run(mut self) {
        for _ in 0..self.workload.calls {
            match self.random.below(10) {
                0..5 => self.write().await,
                5..7 => self.transact().await,
                _ => self.range().await,
            }
            // On one thread others have their turn, too, where the store never waits.
            tokio::task::yield_now().await;
        }
    }

    fn key(&self) -> Bytes {
        key(self.random.below(u64::from(self.workload.keys)))
    }

    fn chance(&self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    /// No two writes write the same value, so that each can be told from all others.
    fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("{}-{}", self.number, self.written).into()
    }

    fn guard(&self, key: &Bytes) -> Precondition {
        match self.random.below(4) {
            0 => Precondition::None,
            1 => Precondition::Absent,
            _ => Precondition::ModRevision(self.known.get(key).copied().unwrap_or(0)),
        }
    }

    /// The answer of a call, unless it is abandoned.
    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Option<T> {
        if self.workload.abandon && self.chance(16) {
            return call.now_or_never()?.ok();
        }
        call.await.ok()
    }

    fn told(&mut self, entries: &[Entry], revision: Revision) {
        for entry in entries {
            self.known.insert(entry.key.clone(), entry.mod_revision);
        }
        self.revisions.push(revision);
    }

    async fn write(&mut self) {
        let key = self.key();
        let precondition = self.guard(&key);
        let write = match self.chance(4) {
            true => Write::delete(key.clone(), precondition),
            false => Write { precondition, ..Write::put(key.clone(), self.value()) },
        };
        let recorder = self.recorder.clone();
        match self.answer(recorder.write(write)).await {
            Some(WriteOutcome::Committed { revision, .. }) => {
                self.known.insert(key, revision);
                self.revisions.push(revision);
            }
            Some(WriteOutcome::PreconditionFailed { current, revision }) => {
                self.known.insert(key, 0);
                self.told(current.as_slice(), revision);
            }
            None => {}
        }
    }

    async fn transact(&mut self) {
        let keys = [self.key(), self.key()];
        let everything = KeyRange::prefix(PREFIX);
        let read = || Step::Range(RangeRequest::new(everything.clone()));
        let compare = keys[..1].iter().map(|key| Compare {
            range: KeyRange::key(key.clone()),
            operator: if self.chance(4) { Operator::Less } else { Operator::Equal },
            operand: Operand::ModRevision(self.known.get(key).copied().unwrap_or(0)),
        });
        let compare = compare.collect();
        let success = match self.random.below(4) {
            0 => vec![Step::Delete(KeyRange { start: keys[0].clone(), ..everything.clone() })],
            1 => vec![read(), Step::Delete(KeyRange::key(keys[0].clone())), read()],
            _ if keys[0] == keys[1] => vec![self.put(&keys[0]), read()],
            _ => vec![self.put(&keys[0]), self.put(&keys[1]), read()],
        };
        let failure = if self.chance(2) { vec![read()] } else { vec![self.put(&keys[1])] };
        let transaction = Transaction { compare, success, failure };
        let recorder = self.recorder.clone();
        if let Some(outcome) = self.answer(recorder.transact(transaction)).await {
            self.told_by_transaction(&outcome);
        }
    }

    fn put(&mut self, key: &Bytes) -> Step {
        let value = Some(self.value());
        Step::Put(Put { key: key.clone(), value, lease: PutLease::Set(None) })
    }

    fn told_by_transaction(&mut self, outcome: &TransactionOutcome) {
        for result in &outcome.results {
            if let StepResult::Range(RangeResponse { entries, .. }) = result {
                self.told(entries, outcome.revision);
            }
        }
        self.revisions.push(outcome.revision);
    }

    async fn range(&mut self) {
        let everything = KeyRange::prefix(PREFIX);
        let range = match self.random.below(3) {
            0 => KeyRange::key(self.key()),
            1 => KeyRange { start: self.key(), ..everything },
            _ => everything,
        };
        let revision = self.chance(3).then(|| {
            let index = self.random.below(self.revisions.len() as u64);
            // Now and then of the future, too.
            self.revisions[index as usize] + if self.chance(8) { 3 } else { 0 }
        });
        let limit = self.chance(4).then(|| self.random.below(3) as usize);
        let (count_only, keys_only) = (self.chance(8), self.chance(8));
        let request = RangeRequest { range, revision, limit, count_only, keys_only };
        let recorder = self.recorder.clone();
        let Some(found) = self.answer(recorder.range(request)).await else { return };
        self.told(if revision.is_none() { &found.entries } else { &[] }, found.revision);
    }
}
