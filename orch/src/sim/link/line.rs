//! What is wrong with a component's connection at the moment.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use orch_core::{
    ApiError,
    awaited::Awaited,
    random::Random,
    testing::{Call, Fault, FaultRates, Verb},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Calls, Held, held::Gate};

/// How long a call hangs before a connection that is cut off counts as broken, at most.
const BREAKS_AFTER_MAX: Duration = Duration::from_secs(10);
/// How long a server takes that does not get to a request in time. Upstream's own limit is a
/// minute; what stands in front of servers is often less patient.
const TIMES_OUT_AFTER: Duration = Duration::from_secs(10);

/// How long calls take at most once nothing goes wrong any more, where they took any time before.
const LATENCY_AFTER: Duration = Duration::from_millis(1);

/// By how many revisions a list is behind that is so by chance, at most.
const STALE_REVISIONS_MAX: u64 = 200;

/// How slow a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Each call takes up to so long on its way, and as long on its way back.
    pub(crate) latency_max: Duration,
    /// Of a thousand events, so many are followed by a pause.
    pub(crate) stall_permille: u32,
    /// How long that is at most.
    pub(crate) stall_max: Duration,
    /// Each watch is behind by a time of its own, at most so long.
    pub(crate) lag_max: Duration,
    /// Of a thousand lists that accept any revision, so many are told as they were.
    pub(crate) stale_list_permille: u32,
}

/// What is wrong with a component's connection at the moment. Shared by all lives of a component.
pub(crate) struct Line {
    random: Arc<dyn Random>,
    state: Mutex<State>,
    /// Counts what open watches have to look at.
    turn: Awaited<u64>,
    injected: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    rates: FaultRates,
    cut: bool,
    crash: Option<(u64, bool)>,
    rules: Vec<Rule>,
    interruptions: Vec<(Calls, Fault)>,
    stalls: Vec<(Calls, Option<Instant>)>,
    lags: Vec<(Calls, Duration)>,
    stale: Vec<(Calls, u64)>,
}

#[derive(Debug)]
struct Rule {
    calls: Calls,
    /// How many more calls; `None` is without an end.
    left: Option<u32>,
    effect: Effect,
}

#[derive(Clone, Debug)]
enum Effect {
    Fails(Fault),
    Waits(Arc<Gate>),
}

/// What is to become of a call.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// What goes wrong, and what the server answers then, if it does.
    pub(super) fault: Option<(Fault, Option<ApiError>)>,
    /// Where it waits first.
    pub(super) gate: Option<Arc<Gate>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("state", &*self.state.lock()).finish_non_exhaustive()
    }
}

impl Line {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        let turn = Awaited::new(0);
        Self { random, state: Mutex::default(), turn, injected: AtomicU64::new(0) }
    }

    /// How many faults were injected into calls and watches so far.
    pub(crate) fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.turn.update(|turn| {
            *turn += 1;
            true
        });
    }

    /// How slow calls and watches are from now on, and how often they fail.
    pub(crate) fn set_chances(&self, pace: Pace, rates: FaultRates) {
        let mut state = self.state.lock();
        (state.pace, state.rates) = (pace, rates);
    }

    /// The pace and the rates as they are.
    pub(crate) fn chances(&self) -> (Pace, FaultRates) {
        let state = self.state.lock();
        (state.pace, state.rates)
    }

    /// Cuts the connection, or mends it.
    pub(crate) fn cut(&self, cut: bool) {
        self.change(|state| state.cut = cut);
    }

    /// Lets the component crash at its n-th call from now on.
    pub(crate) fn crash_at(&self, call: u64, carried_out: bool) {
        self.state.lock().crash = Some((call, carried_out));
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&self) {
        self.change(|state| {
            let rules = std::mem::take(&mut state.rules);
            // Whoever holds calls back still does, and lets go of them by itself.
            let held = rules.into_iter().filter(|rule| matches!(rule.effect, Effect::Waits(_)));
            // What open watches were told lies behind them by its number.
            let interruptions = std::mem::take(&mut state.interruptions);
            // Events that are late are on their way still: where calls took no time, what goes on
            // until those come would go on for ever.
            let latency_max = state.pace.latency_max.min(LATENCY_AFTER);
            let pace = Pace { latency_max, ..Pace::default() };
            *state = State { rules: held.collect(), interruptions, pace, ..State::default() };
        });
    }

    /// The next calls of those that are meant fail; all of them without a number.
    pub(crate) fn fail(&self, calls: Calls, count: Option<u32>, fault: Fault) {
        self.state.lock().rules.push(Rule { calls, left: count, effect: Effect::Fails(fault) });
    }

    /// The next call of those that are meant waits.
    pub(crate) fn hold(&self, calls: Calls) -> Held {
        let gate = Gate::new();
        let effect = Effect::Waits(gate.clone());
        self.state.lock().rules.push(Rule { calls, left: Some(1), effect });
        Held(gate)
    }

    /// Ends the open watches that are meant.
    pub(crate) fn interrupt(&self, calls: Calls, fault: Fault) {
        self.change(|state| state.interruptions.push((calls, fault)));
    }

    /// The watches that are meant stand still, for some time or until they are resumed.
    pub(crate) fn stall(&self, calls: Calls, length: Option<Duration>) {
        let until = length.and_then(|length| Instant::now().checked_add(length));
        self.change(|state| state.stalls.push((calls, until)));
    }

    /// No watch stands still any more.
    pub(crate) fn resume(&self) {
        self.change(|state| state.stalls.clear());
    }

    /// The watches that are meant are behind by so much, from the next event on.
    pub(crate) fn delay(&self, calls: Calls, lag: Duration) {
        self.change(|state| {
            state.lags.retain(|(of, _)| *of != calls);
            state.lags.push((calls, lag));
        });
    }

    /// These lists are told as of so many revisions ago, where that is accepted.
    pub(crate) fn be_stale(&self, calls: Calls, revisions: u64) {
        let mut state = self.state.lock();
        state.stale.retain(|(of, _)| *of != calls);
        state.stale.push((calls, revisions));
    }

    /// By how many revisions a list is behind, if it is and if that is accepted.
    pub(super) fn behind(&self, call: &Call<'_>) -> Option<u64> {
        if call.verb != Verb::List {
            return None;
        }
        let state = self.state.lock();
        let told = state.stale.iter().find(|(calls, _)| calls.includes(call));
        let permille = u64::from(state.pace.stale_list_permille);
        told.map(|(_, revisions)| *revisions).filter(|revisions| *revisions > 0).or_else(|| {
            let stale = permille > 0 && self.random.below(1000) < permille;
            stale.then(|| 1 + self.random.below(STALE_REVISIONS_MAX))
        })
    }

    /// What is to become of a call.
    pub(super) fn fate(&self, call: &Call<'_>) -> Fate {
        let mut state = self.state.lock();
        let gate = match state.rule(call, |effect| matches!(effect, Effect::Waits(_))) {
            Some(Effect::Waits(gate)) => Some(gate),
            _ => None,
        };
        let fault = match state.rule(call, |effect| matches!(effect, Effect::Fails(_))) {
            Some(Effect::Fails(fault)) => Some(fault),
            _ => state.rates.draw(call, &*self.random),
        };
        drop(state);
        Fate { fault: fault.map(|fault| (fault, self.answer(fault, call))), gate }
    }

    fn answer(&self, fault: Fault, call: &Call<'_>) -> Option<ApiError> {
        self.injected.fetch_add(1, Ordering::Relaxed);
        fault.answer(call)
    }

    /// Counts a call. Gives whether the component crashes at it, and if so, after it.
    pub(super) fn count(&self) -> Option<bool> {
        let mut state = self.state.lock();
        let (left, carried_out) = state.crash.as_mut().map(|(left, after)| {
            *left = left.saturating_sub(1);
            (*left, *after)
        })?;
        if left > 0 {
            return None;
        }
        state.crash = None;
        Some(carried_out)
    }

    fn below(&self, most: Duration) -> Duration {
        if most.is_zero() { most } else { most.mul_f64(self.random.unit()) }
    }

    pub(super) async fn travel(&self) {
        let most = self.state.lock().pace.latency_max;
        if !most.is_zero() {
            tokio::time::sleep(self.below(most)).await;
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state.lock().cut
    }

    /// A call on a connection that is cut hangs for some time.
    pub(super) async fn breaks(&self) {
        tokio::time::sleep(self.below(BREAKS_AFTER_MAX)).await;
    }

    pub(super) async fn times_out(&self) {
        tokio::time::sleep(TIMES_OUT_AFTER).await;
    }

    /// The number of the turn, and how many interruptions there were.
    pub(super) fn turn(&self) -> (u64, usize) {
        (self.turn.get(), self.state.lock().interruptions.len())
    }

    /// Waits until there is something new for open watches.
    pub(super) async fn after_turn(&self, known: u64) {
        self.turn.wait_for(|turn| turn != known).await;
    }

    /// What ends an open watch that has seen so many interruptions, and what its client is told.
    pub(super) fn interruption(&self, call: &Call<'_>, seen: usize) -> Option<Option<ApiError>> {
        let state = self.state.lock();
        if state.cut {
            return Some(None);
        }
        let new = state.interruptions.get(seen..).unwrap_or_default();
        let (_, fault) = new.iter().find(|(calls, _)| calls.includes_watch(call))?;
        let fault = *fault;
        drop(state);
        Some(self.told(fault, call))
    }

    /// What ends a watch instead of its next event, by chance.
    pub(super) fn instead_of(&self, call: &Call<'_>) -> Option<Option<ApiError>> {
        let rates = self.state.lock().rates;
        let fault = rates.draw(call, &*self.random)?;
        Some(self.told(fault, call))
    }

    fn told(&self, fault: Fault, call: &Call<'_>) -> Option<ApiError> {
        let answer = self.answer(fault, call);
        answer.filter(|_| fault == Fault::Expired)
    }

    /// By how much a watch is behind, as far as that is drawn when it begins.
    pub(super) fn draw_lag(&self) -> Duration {
        let most = self.state.lock().pace.lag_max;
        self.below(most)
    }

    /// How long an event that has just come is kept back.
    pub(super) fn keep_back(&self, call: &Call<'_>, drawn: Duration) -> Duration {
        let state = self.state.lock();
        let lags = state.lags.iter().filter(|(calls, _)| calls.includes_watch(call));
        let lag = lags.map(|(_, lag)| *lag).max().unwrap_or_default();
        let pace = state.pace;
        drop(state);
        let stalls =
            pace.stall_permille > 0 && self.random.below(1000) < u64::from(pace.stall_permille);
        let pause = if stalls { self.below(pace.stall_max) } else { Duration::ZERO };
        lag.max(drawn.min(pace.lag_max)) + pause
    }

    /// Whether a watch stands still, and until when: `Some(None)` is until it is resumed.
    pub(super) fn stalled(&self, call: &Call<'_>) -> Option<Option<Instant>> {
        let mut state = self.state.lock();
        if state.stalls.is_empty() {
            return None;
        }
        let now = Instant::now();
        state.stalls.retain(|(_, until)| until.is_none_or(|until| until > now));
        let stalls = state.stalls.iter().filter(|(calls, _)| calls.includes_watch(call));
        // Without an end is longer than any.
        stalls.map(|(_, until)| *until).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
    }
}

impl State {
    /// The first rule with such an effect that is about a call; it is used up by one.
    fn rule(&mut self, call: &Call<'_>, is: fn(&Effect) -> bool) -> Option<Effect> {
        let found =
            self.rules.iter().position(|rule| is(&rule.effect) && rule.calls.includes(call))?;
        let rule = &mut self.rules[found];
        let effect = rule.effect.clone();
        if let Some(left) = &mut rule.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.rules.remove(found);
            }
        }
        Some(effect)
    }
}
