//! The judge of histories agrees with a checker that knows nothing of revisions, about short
//! histories of one key.

use std::sync::Arc;

use orch_core::{
    Environment,
    random::{Random, SeededRandom},
    testing::rounds,
};
use orch_store::{
    EventKind, Faults, FaultyStore, KeyRange, MemoryOptions, MemoryStore, Operation, Precondition,
    RangeRequest, Store, StoreReader, Write, WriteOutcome,
    testing::history::{Call, History, Outcome, Recorded, Recorder, check},
};
use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History as Actions},
    },
    specifications::Specification,
};

const KEY: &str = "/x/key";

/// What a call did to the one key, or saw of it, as values; 0 is no value. Every write has a value
/// of its own.
#[derive(Clone, Debug)]
enum Step {
    /// A write, and the value that it was told to have found.
    Changed { from: u64, to: u64 },
    /// A write of which nobody knows whether it was done; `guard` is the value that it asked for.
    Perhaps { guard: Option<u64>, to: u64 },
    /// A read, or a write that was refused.
    Saw(u64),
}

#[derive(Debug)]
struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Step;

    fn init() -> u64 {
        0
    }

    fn apply(step: &Step, state: &u64) -> (bool, u64) {
        match *step {
            Step::Changed { from, to } => (from == *state, to),
            // Done last, behind everything, it is as if it had never been done.
            Step::Perhaps { guard, to } if guard.is_none_or(|guard| guard == *state) => (true, to),
            Step::Perhaps { .. } => (true, *state),
            Step::Saw(value) => (value == *state, *state),
        }
    }
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap()
}

/// What a call is without revisions; `None` for one that tells nothing.
fn step(history: &History, recorded: &Recorded) -> Option<Step> {
    let value_at = |revision: u64| {
        let event = history.log.iter().find(|event| event.entry.mod_revision == revision);
        // No key has the revision of a deletion.
        let put = event.filter(|event| event.kind == EventKind::Put);
        put.map_or(u64::MAX, |event| number(&event.entry.value))
    };
    let found = |entry: Option<&orch_store::Entry>| entry.map_or(0, |entry| number(&entry.value));
    let Call::Write(write) = &recorded.call else {
        let Some((_, Outcome::Range(response))) = &recorded.ended else { return None };
        return Some(Step::Saw(found(response.entries.first())));
    };
    let to = match &write.operation {
        Operation::Put { value, .. } => number(value),
        Operation::Delete => 0,
    };
    let guard = match write.precondition {
        Precondition::None => None,
        Precondition::Absent | Precondition::ModRevision(0) => Some(0),
        Precondition::ModRevision(revision) => Some(value_at(revision)),
    };
    match &recorded.ended {
        None | Some((_, Outcome::Unknown(_))) => Some(Step::Perhaps { guard, to }),
        Some((_, Outcome::Write(WriteOutcome::Committed { previous, .. }))) => {
            Some(Step::Changed { from: found(previous.as_ref()), to })
        }
        Some((_, Outcome::Write(WriteOutcome::PreconditionFailed { current, .. }))) => {
            Some(Step::Saw(found(current.as_ref())))
        }
        _ => None,
    }
}

/// Whether an order exists, says the checker that searches for one.
fn is_linearizable(history: &History) -> bool {
    let mut ticks: Vec<(u64, usize, Action<Step>)> = Vec::new();
    for (process, recorded) in history.calls.iter().enumerate() {
        let Some(step) = step(history, recorded) else { continue };
        let ended = match &recorded.ended {
            Some((ended, outcome)) if !matches!(outcome, Outcome::Unknown(_)) => *ended,
            // It may take effect at any time, so its end is behind everything.
            _ => u64::MAX,
        };
        ticks.push((recorded.began, process, Action::Call(step.clone())));
        ticks.push((ended, process, Action::Response(step)));
    }
    ticks.sort_by_key(|(tick, ..)| *tick);
    let actions = ticks.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions))
}

/// A client of one key.
async fn client(recorder: Recorder<FaultyStore<MemoryStore>>, number: u64, random: SeededRandom) {
    let mut known = 0;
    for call in 1..=6 {
        let value = (number * 100 + call).to_string();
        let write = match random.below(5) {
            0 => Write::put(KEY, value),
            1 => Write::create(KEY, value),
            2 => Write::update(KEY, known, value),
            3 => Write::delete(KEY, Precondition::ModRevision(known)),
            _ => {
                let range = RangeRequest::new(KeyRange::key(KEY));
                let Ok(found) = recorder.range(range).await else { continue };
                known = found.entries.first().map_or(0, |entry| entry.mod_revision);
                continue;
            }
        };
        match recorder.write(write).await {
            Ok(WriteOutcome::Committed { revision, .. }) => known = revision,
            Ok(WriteOutcome::PreconditionFailed { current, .. }) => {
                known = current.map_or(0, |entry| entry.mod_revision);
            }
            Err(_) => {}
        }
    }
}

async fn course(seed: u64) -> History {
    let environment = Environment::seeded(Default::default(), seed);
    let truth = Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default()));
    let faults = Faults {
        unavailable: 0.1,
        unknown: 0.1,
        delay_max: std::time::Duration::from_millis(10),
        ..Faults::default()
    };
    let store = Arc::new(FaultyStore::new(truth.clone(), environment, faults));
    let recorder = Recorder::start(store, truth, "/x/").await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for number in 1..=4 {
        let random = SeededRandom::new(seed * 10 + number);
        clients.spawn(client(recorder.clone(), number, random));
    }
    clients.join_all().await;
    recorder.mark().await.unwrap();
    recorder.history().await.unwrap()
}

/// Gives one call's answer to another, as a store does that mixes them up.
fn mix_up(history: &mut History, random: &SeededRandom) {
    let answered = |call: &Recorded, range: bool| {
        matches!(&call.ended, Some((_, Outcome::Range(_)))) && range
            || matches!(&call.ended, Some((_, Outcome::Write(_)))) && !range
    };
    let ranges = random.below(2) == 0;
    let calls = history.calls.iter().enumerate().filter(|(_, call)| answered(call, ranges));
    let calls: Vec<usize> = calls.map(|(index, _)| index).collect();
    if calls.len() < 2 {
        return;
    }
    let pick = || calls[random.below(calls.len() as u64) as usize];
    let (from, to) = (pick(), pick());
    let outcome = history.calls[from].ended.as_ref().unwrap().1.clone();
    history.calls[to].ended.as_mut().unwrap().1 = outcome;
}

#[tokio::test(start_paused = true)]
async fn the_judge_agrees_with_a_search() {
    let (mut lies, mut unknown) = (0, 0);
    for seed in 0..u64::from(rounds(60)) {
        let mut history = course(seed).await;
        unknown += history.unknown();
        check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        assert!(is_linearizable(&history), "seed {seed}: only the search finds something wrong");
        let random = SeededRandom::new(seed);
        for _ in 0..4 {
            mix_up(&mut history, &random);
            if !is_linearizable(&history) {
                lies += 1;
                let found = check(&history);
                assert!(found.is_err(), "seed {seed}: only the search finds something wrong");
                break;
            }
        }
    }
    assert!(lies > 20 && unknown > 20, "{lies} lies, {unknown} unknown outcomes");
}
