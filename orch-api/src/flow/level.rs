//! One priority level: its seats, and the queues before them.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset`.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{Refused, borrow::Demand, config::LevelSpec, matching};

/// What a request is taken to need until it is known, in seat-seconds per seat.
const ESTIMATE_S: f64 = 0.003;

/// A priority level.
pub(super) struct Level {
    name: String,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) spec: LevelSpec,
    pub(super) nominal: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    /// How many seats the level has now.
    pub(super) limit: u32,
    pub(super) demand: Demand,
    taken: u32,
    queues: Vec<Queue>,
    /// The start tag of what was dispatched last: where flows that come anew begin.
    virtual_time: f64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    executing: u32,
    /// The start tag of the next request, in seat-seconds.
    next_start: f64,
}

struct Waiting {
    width: u32,
    gone: Arc<AtomicBool>,
    seat: oneshot::Sender<()>,
}

/// Seats that a request has; free again when this is dropped.
pub(crate) struct Seats {
    level: Arc<Level>,
    width: u32,
    queue: Option<usize>,
    since: Instant,
}

impl Level {
    pub(super) fn new(name: &str) -> Self {
        let spec = LevelSpec {
            name: name.to_owned(),
            uid: String::new(),
            exempt: true,
            shares: 0,
            lendable_percent: 0,
            borrowing_percent: None,
            queuing: None,
        };
        let state = State {
            spec,
            nominal: 0.0,
            least: 0.0,
            most: 0.0,
            limit: 0,
            demand: Demand::new(),
            taken: 0,
            queues: Vec::new(),
            virtual_time: 0.0,
        };
        Self { name: name.to_owned(), state: Mutex::new(state) }
    }

    pub(super) fn uid(&self) -> String {
        self.state.lock().spec.uid.clone()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes in what the level is to be like.
    pub(super) fn configure(&self, spec: &LevelSpec, seats: f64, all_shares: f64) {
        let mut state = self.state.lock();
        let nominal = (seats * f64::from(spec.shares) / all_shares.max(1.0)).ceil();
        let share = |percent: i32| (nominal * f64::from(percent) / 100.0).round();
        let least = nominal - share(spec.lendable_percent);
        let most = spec.borrowing_percent.map_or(seats, |percent| nominal + share(percent));
        let changed = (state.nominal, state.least, state.most) != (nominal, least, most);
        (state.nominal, state.least, state.most) = (nominal, least, most);
        if changed {
            state.limit = nominal as u32;
        }
        let queues = spec.queuing.map_or(0, |(queues, ..)| queues);
        // Queues that are one too many go when they are empty: who waits keeps its place.
        let kept = state.queues.iter().rposition(|queue| !queue.is_idle()).map_or(0, |at| at + 1);
        state.queues.resize_with(queues.max(kept), Queue::default);
        state.spec = spec.clone();
        state.dispatch();
    }

    /// What the level needs and may have.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock())
    }
}

/// Waits for seats of a level until `given_up` is done.
pub(super) async fn seat(
    level: &Arc<Level>,
    hash: u64,
    width: u32,
    given_up: impl Future<Output = ()>,
) -> Result<Seats, Refused> {
    let entered = level.with(|state| state.enter(hash, width));
    let seats = |width, queue| Seats { level: level.clone(), width, queue, since: Instant::now() };
    let (queue, seat, gone) = match entered {
        Entered::Seated(queue, width) => return Ok(seats(width, queue)),
        Entered::Refused => return Err(Refused),
        Entered::Queued { queue, seat, gone } => (queue, seat, gone),
    };
    let mut leaving = Leaving { level: level.clone(), queue, width, seat, gone, done: false };
    tokio::select! {
        biased;
        _granted = &mut leaving.seat => {
            leaving.done = true;
            Ok(seats(width, Some(queue)))
        }
        () = given_up => Err(Refused),
    }
}

/// A request that waits. Dropped before it has its seat, it leaves its queue.
struct Leaving {
    level: Arc<Level>,
    queue: usize,
    width: u32,
    seat: oneshot::Receiver<()>,
    gone: Arc<AtomicBool>,
    done: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.level.state.lock();
        self.gone.store(true, Ordering::Relaxed);
        // The seat may have been given in the very moment.
        if self.seat.try_recv().is_ok() {
            state.leave(Some(self.queue), self.width, 0.0);
            return;
        }
        state.demand.add(-i64::from(self.width));
        state.queues[self.queue].waiting.retain(|one| !one.gone.load(Ordering::Relaxed));
        state.dispatch();
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        self.level.state.lock().leave(self.queue, self.width, took);
    }
}

enum Entered {
    Seated(Option<usize>, u32),
    Refused,
    Queued { queue: usize, seat: oneshot::Receiver<()>, gone: Arc<AtomicBool> },
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    fn load(&self) -> u32 {
        self.executing + self.waiting.iter().map(|one| one.width).sum::<u32>()
    }
}

impl State {
    fn enter(&mut self, hash: u64, width: u32) -> Entered {
        if self.spec.exempt {
            self.demand.add(i64::from(width));
            self.taken += width;
            return Entered::Seated(None, width);
        }
        let Some((queues, hand, length)) = self.spec.queuing else {
            if !self.has_room(width) {
                return Entered::Refused;
            }
            self.demand.add(i64::from(width));
            self.taken += width;
            return Entered::Seated(None, width);
        };
        let hand = matching::deal(hash, queues, hand).into_iter();
        let Some(queue) = hand.min_by_key(|at| self.queues[*at].load()) else {
            return Entered::Refused;
        };
        let all_empty = self.queues.iter().all(|queue| queue.waiting.is_empty());
        if self.queues[queue].waiting.len() >= length {
            return Entered::Refused;
        }
        self.demand.add(i64::from(width));
        if self.queues[queue].is_idle() {
            let now = self.virtual_time;
            self.queues[queue].next_start = self.queues[queue].next_start.max(now);
        }
        if all_empty && self.has_room(width) {
            self.start(queue, width);
            return Entered::Seated(Some(queue), width);
        }
        let (sender, seat) = oneshot::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let waiting = Waiting { width, gone: gone.clone(), seat: sender };
        self.queues[queue].waiting.push_back(waiting);
        Entered::Queued { queue, seat, gone }
    }

    /// A request that is wider than the level is served alone.
    fn has_room(&self, width: u32) -> bool {
        self.taken + width <= self.limit || self.taken == 0 && self.limit > 0
    }

    fn start(&mut self, queue: usize, width: u32) {
        self.taken += width;
        let queue = &mut self.queues[queue];
        queue.executing += width;
        self.virtual_time = queue.next_start;
        queue.next_start += ESTIMATE_S * f64::from(width);
    }

    fn leave(&mut self, queue: Option<usize>, width: u32, took_s: f64) {
        self.demand.add(-i64::from(width));
        self.taken -= width;
        if let Some(queue) = queue.and_then(|at| self.queues.get_mut(at)) {
            queue.executing -= width;
            // What it really took counts for the flow's next request.
            queue.next_start += (took_s - ESTIMATE_S) * f64::from(width);
        }
        self.dispatch();
    }

    /// Gives free seats to those who wait, the queue with the least start tag first.
    pub(super) fn dispatch(&mut self) {
        loop {
            let next = self
                .queues
                .iter()
                .enumerate()
                .filter(|(_, queue)| !queue.waiting.is_empty())
                .min_by(|a, b| a.1.next_start.total_cmp(&b.1.next_start))
                .map(|(at, queue)| (at, queue.waiting[0].width));
            let Some((at, width)) = next.filter(|(_, width)| self.has_room(*width)) else { return };
            let Some(waiting) = self.queues[at].waiting.pop_front() else { return };
            if waiting.seat.send(()).is_ok() {
                self.start(at, width);
            } else {
                self.demand.add(-i64::from(width));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn level(queuing: Option<(usize, usize, usize)>, limit: u32) -> Arc<Level> {
        let level = Arc::new(Level::new("test"));
        let spec = LevelSpec {
            exempt: false,
            shares: 1,
            queuing,
            ..level.with(|state| state.spec.clone())
        };
        level.configure(&spec, f64::from(limit), 1.0);
        level
    }

    async fn try_seat(level: &Arc<Level>, hash: u64, width: u32) -> Option<Seats> {
        seat(level, hash, width, std::future::ready(())).await.ok()
    }

    #[tokio::test]
    async fn what_finds_no_seat_is_refused_or_waits() {
        let rejects = level(None, 2);
        let (a, b) = (try_seat(&rejects, 0, 1).await, try_seat(&rejects, 0, 1).await);
        assert!(a.is_some() && b.is_some() && try_seat(&rejects, 0, 1).await.is_none());
        drop(a);
        assert!(try_seat(&rejects, 0, 1).await.is_some());
        drop(b);
        assert!(try_seat(&rejects, 0, 9).await.is_some(), "the widest is served alone");

        let queues = level(Some((1, 1, 2)), 1);
        let first = try_seat(&queues, 0, 1).await.unwrap();
        let never = std::future::pending::<()>;
        let mut second = Box::pin(seat(&queues, 0, 1, never()));
        let mut third = Box::pin(seat(&queues, 0, 1, never()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert!(seat(&queues, 0, 1, never()).await.is_err(), "the queue is full");
        drop(second);
        drop(first);
        let third = third.await.unwrap();
        drop(third);
        assert_eq!(queues.with(|state| (state.taken, state.demand.now())), (0, 0));
    }

    #[tokio::test]
    async fn a_flow_with_many_requests_does_not_starve_another() {
        let level = level(Some((64, 1, 1000)), 1);
        let running = try_seat(&level, 1, 1).await.unwrap();
        let never = std::future::pending::<()>;
        let mut elephants: Vec<_> =
            (0..100).map(|_| Box::pin(seat(&level, 1, 1, never()))).collect();
        for waiting in &mut elephants {
            assert!(waiting.now_or_never().is_none());
        }
        let mut mouse = Box::pin(seat(&level, 2, 1, never()));
        assert!((&mut mouse).now_or_never().is_none());
        drop(running);
        // At most one of the others is before it.
        let served = elephants.iter_mut().find_map(|waiting| waiting.now_or_never());
        drop(served);
        assert!(mouse.now_or_never().is_some());
    }
}
