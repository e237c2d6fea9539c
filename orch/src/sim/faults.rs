//! What goes wrong, as data that a seed draws.

use std::{fmt, time::Duration};

use orch_core::{random::Random, testing::FaultRates};

use super::link::Pace;

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
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads => f.write_str("workloads"),
            Self::Housekeeping => f.write_str("housekeeping"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Node(number) => write!(f, "node-{number}"),
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

/// Everything that goes wrong in a run.
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
    /// Single troubles, in the order of their times.
    pub disturbances: Vec<Disturbance>,
}

impl FaultPlan {
    /// Nothing goes wrong, and calls take no time.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a seed's generator draws for a cluster of so many nodes and a scenario of this length.
    /// Some seeds have only a little of everything, some much of one kind.
    pub fn drawn(random: &dyn Random, nodes: usize, length: Duration) -> Self {
        let some = |most: u64| u32::try_from(random.below(most + 1)).unwrap_or(0);
        // Half of the runs have calls that fail, half have watches that do, independently.
        let (calls, watches) = (random.below(2) == 1, random.below(2) == 1);
        let rates = FaultRates {
            conflict_permille: if calls { some(80) } else { 0 },
            server_error_permille: if calls { some(60) } else { 0 },
            transport_permille: if calls { some(60) } else { 0 },
            watch_drop_permille: if watches { some(20) } else { 0 },
            expired_permille: if watches { some(20) } else { 0 },
            ..FaultRates::default()
        };
        let mut disturbances: Vec<Disturbance> =
            (0..random.below(7)).map(|_| Disturbance::drawn(random, nodes, length)).collect();
        disturbances.sort_by_key(|disturbance| disturbance.at);
        Self {
            rates,
            latency_max: Duration::from_millis(random.below(4) * 10),
            stall_permille: if watches { some(10) } else { 0 },
            stall_max: Duration::from_millis(random.below(20_000)),
            disturbances,
        }
    }

    pub(super) fn pace(&self) -> Pace {
        let Self { latency_max, stall_permille, stall_max, .. } = *self;
        Pace { latency_max, stall_permille, stall_max, lag_max: Duration::ZERO }
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
        let broken = watch_drop_permille > 0 || expired_permille > 0 || !cut_off.is_zero();
        // Reconnections wait for up to a minute after several failures in a row.
        let reconnecting = if broken { Duration::from_secs(60) } else { Duration::ZERO };
        Duration::from_secs(5) + self.latency_max * 20 + self.stall_max * 2 + cut_off + reconnecting
    }
}

impl Disturbance {
    fn drawn(random: &dyn Random, nodes: usize, length: Duration) -> Self {
        let seconds = |most: u64| Duration::from_secs(1 + random.below(most));
        let at = length.mul_f64(random.unit());
        let node = || {
            let count = u64::try_from(nodes.max(1)).unwrap_or(1);
            Component::Node(1 + usize::try_from(random.below(count)).unwrap_or(0))
        };
        let component = match random.below(6) {
            0 | 1 => Component::Workloads,
            2 => Component::Housekeeping,
            3 => Component::Scheduler,
            _ => node(),
        };
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
