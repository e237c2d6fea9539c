//! The Kubernetes scheduling framework as a library.
//!
//! A [`Scheduler`] runs [`Profile`]s of [`Plugin`]s against any cluster that a
//! [`Client`](orch_core::Client) reaches. A plugin is a value that says which extension points it
//! implements; each is a trait of its own:
//!
//! | extension point | trait | when |
//! |---|---|---|
//! | PreEnqueue | [`PreEnqueue`] | before a pod enters the queue |
//! | QueueSort | [`QueueSort`] | orders the queue |
//! | PreFilter, Filter, PostFilter | [`PreFilter`], [`Filter`], [`PostFilter`] | which nodes fit |
//! | PreScore, Score | [`PreScore`], [`Score`] | which of them is best |
//! | Reserve, Permit | [`Reserve`], [`Permit`] | the pod takes its place |
//! | PreBind, Bind, PostBind | [`PreBind`], [`Bind`], [`PostBind`] | it is bound |
//! | queueing hints | [`EventsToRegister`] | what makes a rejected pod worth another try |
//!
//! | module | what it does |
//! |---|---|
//! | `plugin` | the traits |
//! | [`configuration`] | upstream's configuration files |
//! | `framework`, `profile` | runs a profile's plugins; profiles as data |
//! | [`plugins`] | the built-in plugins |
//! | `cache`, `snapshot`, `node_info`, `pod_info` | the cluster, kept up to date event by event |
//! | `devices` | what drivers offer, what is taken, and which devices satisfy a claim |
//! | `standing` | what pods that are alike share: which nodes fit, in the order of their scores |
//! | `metrics` | numbers under upstream's names |
//! | `pod_groups` | which pods belong together |
//! | `queue` | pods that wait: active, backing off, unschedulable, gated |
//! | `scheduler` | scheduling cycles, binding cycles, failures |
//! | `recording` | what a scheduler saw and decided, and the same decisions again |
//! | `extender` | services outside that take part |
//! | `planner`, `what_if` | the decisions alone, in process; what would happen if |

mod cache;
pub mod configuration;
mod cycle_state;
mod devices;
mod error;
mod event;
mod extender;
mod extension_point;
mod framework;
mod metrics;
mod node_info;
mod nominations;
mod planner;
mod plugin;
pub mod plugins;
mod pod_groups;
mod pod_info;
mod profile;
mod queue;
mod recording;
mod resources;
mod scheduler;
mod snapshot;
mod standing;
mod unique;
mod verdict;
mod waiting;
mod what_if;

pub use cycle_state::CycleState;
pub use devices::DeviceAllocator;
pub use error::{BuildError, Fault};
pub use event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint};
pub use extender::ExtenderTransport;
pub use extension_point::ExtensionPoint;
pub use framework::{
    Diagnosis, Explanation, NodeExplanation, Objection, Rejection, ScoreDetail, Trial,
};
pub use node_info::{NodeInfo, NodePods};
pub use planner::{PlanError, Planner};
pub use plugin::{
    Bind, Candidates, EventsToRegister, Filter, GroupKey, Grouping, Nomination, Permit, Plugin,
    PostBind, PostFilter, PostFiltered, PreBind, PreEnqueue, PreFilter, PreFiltered, PreScore,
    QueueSort, Reserve, Reuse, SCORE_MAX, Score,
};
pub use pod_info::{AffinityTerm, AffinityTerms, HostPort, PodInfo};
pub use profile::{
    DEFAULT_PLUGINS, DEFAULT_SCHEDULER_NAME, OPTIONAL_PLUGINS, PluginEntry, PluginSet, Profile,
};
pub use queue::{QueueLengths, QueuedPod};
pub use recording::{Difference, Recorder, Replay, ReplayError, Replayed, ReplayedPlacement};
pub use resources::{NonZero, Resources};
pub use scheduler::{Insight, Scheduler, SchedulerBuilder};
pub use snapshot::{Placed, Snapshot};
pub use verdict::{Reasons, Verdict};
pub use waiting::WaitingPods;
pub use what_if::{Changes, Outcome, PlacedPod, UnplacedPod};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
