//! What goes wrong, as data that a seed draws.

use std::{fmt, time::Duration};

use orch_core::{random::Random, testing::FaultRates};

use super::link::Pace;

mod code;

/// A part of a cluster that runs as a process of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The controllers of workloads: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and
    /// so on.
    Workloads,
    /// All other controllers.
    Housekeeping,
    /// The scheduler.
    Scheduler,
    /// The agent of the node with this number, from 1 on.
    Node(usize),
    /// A component of yours ([`Simulation::component`](super::Simulation::component)).
    Named(String),
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads => f.write_str("workloads"),
            Self::Housekeeping => f.write_str("housekeeping"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Node(number) => write!(f, "node-{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// What befalls a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It crashes at its n-th call to the API from then on, right before the call or when the
    /// server has carried it out, and is started again some time later. A node's containers go on.
    Crash {
        /// At which call.
        calls: u64,
        /// Whether that call was carried out.
        carried_out: bool,
        /// How long until it is started again.
        restart: Duration,
    },
    /// It reaches the API no more: calls end in broken connections, watches too.
    CutOff {
        /// For how long.
        length: Duration,
    },
    /// The machine loses its power: its containers are gone, and what is started later has none.
    /// A component that is not a node crashes.
    PowerLoss {
        /// How long until it is started again.
        restart: Duration,
    },
    /// The container runtime refuses two of three calls. Nothing happens to other components.
    RuntimeFails {
        /// For how long.
        length: Duration,
    },
}

/// One trouble of one component at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// When, from the start of the scenario.
    pub at: Duration,
    /// Whom it befalls.
    pub component: Component,
    /// What it is.
    pub trouble: Trouble,
}

/// A clock that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// Whose.
    pub component: Component,
    /// By how many milliseconds it is ahead of the others; behind them if that is negative.
    pub ahead_ms: i64,
}

/// What goes wrong at the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFaults {
    /// In thousandths of its calls: it is not available. The API server says 5xx.
    pub unavailable_permille: u32,
    /// In thousandths of the writes: the outcome is not known; half of them were carried out.
    pub unknown_permille: u32,
    /// It forgets everything older than the newest revision, so often. Whoever comes back with an
    /// older one is told 410. `None` is never.
    pub compacts_every: Option<Duration>,
}

/// Everything that goes wrong in a run.
///
/// It can be written down: `FaultPlan { latency_max: Duration::from_millis(20),
/// ..FaultPlan::none() }`, and [`to_code`](FaultPlan::to_code) writes it so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// How often calls and watches fail, for every component.
    pub rates: FaultRates,
    /// Each call takes up to so long on its way, and as long on its way back.
    pub latency_max: Duration,
    /// In thousandths of the delivered events: a watch that stands still for up to
    /// [`stall_max`](Self::stall_max).
    pub stall_permille: u32,
    /// How long a watch stands still at most.
    pub stall_max: Duration,
    /// Each watch is behind by a time of its own, at most so long: changes of different resources
    /// arrive in another order than that in which they took place.
    pub lag_max: Duration,
    /// In thousandths of the lists that accept any revision (`resourceVersion=0`): they are told as
    /// they were up to 200 revisions ago, as by a server whose cache is behind. Components of this
    /// project make no such lists.
    pub stale_list_permille: u32,
    /// What goes wrong at the store.
    pub store: StoreFaults,
    /// Clocks that are wrong.
    pub skews: Vec<Skew>,
    /// Single troubles, in the order of their times.
    pub disturbances: Vec<Disturbance>,
}

/// What a plan is drawn for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The components that there are.
    pub components: Vec<Component>,
    /// How long things may fail.
    pub length: Duration,
}

impl FaultPlan {
    /// Nothing goes wrong, and calls take no time.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a seed's generator draws. Some seeds have only a little of everything, some much of one
    /// kind.
    pub fn drawn(random: &dyn Random, scene: &Scene) -> Self {
        let some = |most: u64| u32::try_from(random.below(most + 1)).unwrap_or(0);
        // Half of the runs have calls that fail, half have watches that do, independently.
        let (calls, watches) = (random.below(2) == 1, random.below(2) == 1);
        let rates = FaultRates {
            conflict_permille: if calls { some(80) } else { 0 },
            server_error_permille: if calls { some(60) } else { 0 },
            transport_permille: if calls { some(60) } else { 0 },
            timeout_permille: if calls { some(20) } else { 0 },
            watch_drop_permille: if watches { some(20) } else { 0 },
            expired_permille: if watches { some(20) } else { 0 },
        };
        let mut disturbances: Vec<Disturbance> =
            (0..random.below(7)).map(|_| Disturbance::drawn(random, scene)).collect();
        disturbances.sort_by_key(|disturbance| disturbance.at);
        let (store, skewed) = (random.below(4) == 0, random.below(4) == 0);
        let skews = scene.components.iter().filter(|component| component.has_clock() && skewed);
        Self {
            rates,
            // Never none: where nothing takes time, what goes on until a late watch tells goes on
            // for ever.
            latency_max: Duration::from_millis((random.below(4) * 10).max(1)),
            stall_permille: if watches { some(10) } else { 0 },
            stall_max: Duration::from_millis(random.below(20_000)),
            lag_max: Duration::from_millis(random.below(4) * 500),
            stale_list_permille: some(2) * 250,
            store: if store { StoreFaults::drawn(random) } else { StoreFaults::default() },
            skews: skews.map(|component| Skew::drawn(random, component)).collect(),
            disturbances,
        }
    }

    pub(super) fn pace(&self) -> Pace {
        Pace {
            latency_max: self.latency_max,
            stall_permille: self.stall_permille,
            stall_max: self.stall_max,
            lag_max: self.lag_max,
            stale_list_permille: self.stale_list_permille,
        }
    }

    /// How much older than the cluster a component's copy of it may be, by its watches and their
    /// reconnections. What a component was right about so long ago it may still act on.
    pub fn staleness(&self) -> Duration {
        let FaultRates { watch_drop_permille, expired_permille, .. } = self.rates;
        let cut = |disturbance: &Disturbance| match disturbance.trouble {
            Trouble::CutOff { length } if !matches!(disturbance.component, Component::Node(_)) => {
                length
            }
            _ => Duration::ZERO,
        };
        let cut_off = self.disturbances.iter().map(cut).max().unwrap_or_default();
        let store = self.store != StoreFaults::default();
        let broken = watch_drop_permille > 0 || expired_permille > 0 || !cut_off.is_zero() || store;
        // Reconnections wait for up to a minute after several failures in a row.
        let reconnecting = if broken { Duration::from_secs(60) } else { Duration::ZERO };
        let late = Duration::from_secs(10) * u32::from(self.rates.timeout_permille > 0);
        let usual = Duration::from_secs(5) + self.latency_max * 20 + self.stall_max * 2;
        usual + self.lag_max * 2 + cut_off + reconnecting + late + self.skew()
    }

    /// By how much two clocks differ at most.
    fn skew(&self) -> Duration {
        let ahead = self.skews.iter().map(|skew| skew.ahead_ms);
        let (most, least) = (ahead.clone().max().unwrap_or(0), ahead.min().unwrap_or(0));
        Duration::from_millis((most.max(0) - least.min(0)).unsigned_abs())
    }
}

impl Component {
    /// Whether it goes by a clock that the simulation gives it.
    fn has_clock(&self) -> bool {
        !matches!(self, Self::Named(_))
    }
}

impl Skew {
    /// Machines that keep their time by the network are off by seconds at most.
    fn drawn(random: &dyn Random, component: &Component) -> Self {
        let ahead_ms = i64::try_from(random.below(4001)).unwrap_or(0) - 2000;
        Self { component: component.clone(), ahead_ms }
    }
}

impl StoreFaults {
    fn drawn(random: &dyn Random) -> Self {
        let some = |most: u64| u32::try_from(random.below(most + 1)).unwrap_or(0);
        Self {
            unavailable_permille: some(20),
            unknown_permille: some(20),
            compacts_every: (random.below(2) == 0)
                .then(|| Duration::from_secs(1 + random.below(60))),
        }
    }
}

impl Disturbance {
    fn drawn(random: &dyn Random, scene: &Scene) -> Self {
        let seconds = |most: u64| Duration::from_secs(1 + random.below(most));
        let at = scene.length.mul_f64(random.unit());
        let component = Component::drawn(random, &scene.components);
        let on_node = matches!(component, Component::Node(_));
        let crash = |random: &dyn Random| Trouble::Crash {
            calls: 1 + random.below(30),
            carried_out: random.below(2) == 0,
            restart: seconds(20),
        };
        let trouble = match (random.below(4), on_node) {
            (0, true) => Trouble::PowerLoss { restart: seconds(400) },
            (1, true) => Trouble::CutOff { length: seconds(400) },
            (2, true) => Trouble::RuntimeFails { length: seconds(60) },
            (0, false) => Trouble::CutOff { length: seconds(30) },
            _ => crash(random),
        };
        Self { at, component, trouble }
    }
}

impl Component {
    /// Components that decide are drawn more often than nodes, however many of these there are.
    fn drawn(random: &dyn Random, all: &[Self]) -> Self {
        let weight = |component: &Self| match component {
            Self::Workloads | Self::Named(_) => 4,
            Self::Housekeeping | Self::Scheduler => 2,
            Self::Node(_) => 1,
        };
        let mut at = random.below(all.iter().map(weight).sum::<u64>().max(1));
        for component in all {
            if at < weight(component) {
                return component.clone();
            }
            at -= weight(component);
        }
        Self::Workloads
    }
}
