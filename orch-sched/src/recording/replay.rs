//! The decisions of a recording, made anew.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use orch_core::{
    Environment, Key,
    informer::Informers,
    random::SeededRandom,
    recording::{LineError, LineReader},
};

use super::{Line, VERSION, feed::Feed};
use crate::{
    cache::Cache,
    cycle_state::CycleState,
    devices::Devices,
    error::BuildError,
    framework::{Framework, Profiles},
    plugin::Plugin,
    plugins::ChosenNode,
    pod_info::PodInfo,
    profile::{Profile, Registry},
    snapshot::Snapshot,
};

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be read.
    #[error("the recording cannot be read")]
    Io(#[from] io::Error),
    /// It has no header, or one of another version.
    #[error("this is no recording of version {VERSION}")]
    Version,
    /// A line before the last one is damaged.
    #[error("line {line} of the recording: {message}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An object in it makes no sense.
    #[error("{0}")]
    Object(String),
    /// The profiles do not fit together.
    #[error("the profiles do not fit together")]
    Build(#[from] BuildError),
    /// It was made with other profiles.
    #[error("the recording was made with the plugins {recorded:?}, not {given:?}")]
    Profiles {
        /// The plugins of each profile that was recorded.
        recorded: BTreeMap<String, Vec<String>>,
        /// Those that were given.
        given: BTreeMap<String, Vec<String>>,
    },
}

impl From<LineError> for ReplayError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Io(error) => Self::Io(error),
            LineError::Line { line, message } => Self::Line { line, message },
            other => Self::Object(other.to_string()),
        }
    }
}

/// A pod that was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedPlacement {
    /// The pod.
    pub pod: Key,
    /// Its node.
    pub node: String,
}

/// A decision that came out otherwise than it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The pod.
    pub pod: Key,
    /// The node that it got then.
    pub recorded: String,
    /// The node that it gets now, or why it gets none.
    pub replayed: Result<String, String>,
}

/// What came out of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The places that were taken, in order. One that was given back may be followed by another.
    pub placements: Vec<ReplayedPlacement>,
    /// None, if nothing but the recording decides.
    pub differences: Vec<Difference>,
}

/// Makes the decisions of a recording anew, with the same profiles and plugins. The default has the
/// default profile.
#[derive(Debug, Default)]
pub struct Replay {
    profiles: Vec<Profile>,
    plugins: Vec<Arc<dyn Plugin>>,
}

impl Replay {
    /// Adds a profile, as [`SchedulerBuilder::profile`](crate::SchedulerBuilder::profile) does. A
    /// plugin that was added to every profile there is named here.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Makes a plugin known, for profiles that name it.
    #[must_use]
    pub fn register(mut self, plugin: impl Plugin) -> Self {
        self.plugins.push(Arc::new(plugin));
        self
    }

    /// Replays. Call it inside a tokio runtime. What follows the last whole line, as after a crash,
    /// is left out.
    ///
    /// # Errors
    /// [`ReplayError`] if this is no recording, is damaged, or was made with other profiles.
    pub async fn run(self, recording: impl BufRead) -> Result<Replayed, ReplayError> {
        let feed = Feed::default();
        let environment = Environment::seeded(Timestamp::UNIX_EPOCH, 0);
        let informers = Informers::new(Arc::new(feed.clone()), environment);
        feed.open(&informers);
        let mut registry = Registry::new(informers.clone());
        for plugin in self.plugins {
            registry.register(plugin)?;
        }
        let mut profiles = self.profiles;
        if profiles.is_empty() {
            profiles.push(Profile::default());
        }
        let profiles = registry.build(&profiles, &Arc::default())?;
        let mut world = World::new(profiles, registry.devices(), feed);
        let outcome = world.read(recording).await;
        informers.stop();
        outcome?;
        Ok(world.replayed)
    }
}

/// A cycle between its begin and the place that it took.
struct Cycle {
    pod: Arc<PodInfo>,
    framework: Option<Arc<Framework>>,
    state: CycleState,
    choice: Result<Arc<str>, String>,
}

struct World {
    profiles: Profiles,
    feed: Feed,
    cache: Cache,
    snapshot: Snapshot,
    /// By the pods' uids.
    cycles: HashMap<String, Cycle>,
    replayed: Replayed,
}

impl World {
    fn new(profiles: Profiles, devices: Option<Arc<Devices>>, feed: Feed) -> Self {
        Self {
            profiles,
            feed,
            cache: Cache::default().following(devices),
            snapshot: Snapshot::default(),
            cycles: HashMap::new(),
            replayed: Replayed::default(),
        }
    }

    async fn read(&mut self, recording: impl BufRead) -> Result<(), ReplayError> {
        let mut lines = LineReader::new(recording);
        match lines.next_line() {
            Ok(Some(Line::Recording { version, profiles })) => self.check(version, profiles)?,
            Err(LineError::Io(error)) => return Err(error.into()),
            _ => return Err(ReplayError::Version),
        }
        while let Some(line) = lines.next_line()? {
            self.apply(line).await?;
        }
        Ok(())
    }

    fn check(
        &self,
        version: u32,
        recorded: BTreeMap<String, Vec<String>>,
    ) -> Result<(), ReplayError> {
        if version != VERSION {
            return Err(ReplayError::Version);
        }
        let given = self.profiles.plugins();
        if recorded == given { Ok(()) } else { Err(ReplayError::Profiles { recorded, given }) }
    }

    async fn apply(&mut self, line: Line) -> Result<(), ReplayError> {
        match line {
            // Checked before; a second one is another scheduler's, which nothing is known of.
            Line::Recording { .. } => return Err(ReplayError::Version),
            Line::Node(node) => self.cache.set_node(node.0),
            Line::NodeGone(name) => self.cache.remove_node(&name),
            Line::Pod(pod) => self.cache.set_pod(Arc::new(PodInfo::new(pod.0))),
            Line::PodGone(uid) => drop(self.cache.remove_pod(&uid)),
            Line::Set { kind, object } => self.feed.set(&kind, object).await?,
            Line::Gone { kind, namespace, name } => {
                self.feed.gone(&kind, &Key { namespace, name }).await?;
            }
            Line::Cycle { seed, pod } => self.decide(seed, pod.0),
            Line::Took { uid, node } => self.take(&uid, &node),
            Line::Gave { uid } => {
                self.settle(&uid);
                self.cache.forget(&uid);
            }
            Line::Bound { uid } => self.settle(&uid),
            Line::Nominated { node, pod } => {
                let pod = Arc::new(PodInfo::new(pod.0));
                match node {
                    Some(node) => self.cache.nominations.set(&pod, &node),
                    None => self.cache.nominations.remove(pod.uid()),
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, seed: u64, pod: Arc<Pod>) {
        self.cache.refresh(&mut self.snapshot);
        let pod = Arc::new(PodInfo::new(pod));
        let framework = self.profiles.of(&pod).cloned();
        let mut state = CycleState::default();
        let choice = match &framework {
            None => Err(format!("there is no profile {:?}", pod.scheduler_name())),
            Some(framework) => {
                let random = SeededRandom::new(seed);
                let chosen = framework.choose(&mut state, &pod, &self.snapshot, &random);
                chosen.map_err(|failure| failure.to_string())
            }
        };
        let uid = pod.uid().to_string();
        self.cycles.insert(uid, Cycle { pod, framework, state, choice });
    }

    fn take(&mut self, uid: &str, recorded: &str) {
        let Some(cycle) = self.cycles.get_mut(uid) else { return };
        let pod = cycle.pod.key().clone();
        let node = cycle.choice.clone().unwrap_or_else(|_| recorded.into());
        if cycle.choice.as_deref() != Ok(recorded) {
            let replayed = cycle.choice.clone().map(|node| node.to_string());
            let recorded = recorded.to_owned();
            self.replayed.differences.push(Difference { pod: pod.clone(), recorded, replayed });
        }
        if let Some(info) = self.snapshot.node(&node) {
            cycle.state.insert(ChosenNode(info.clone()));
        }
        self.cache.assume(cycle.pod.clone(), &node);
        if let Some(framework) = &cycle.framework {
            // What was refused then is refused again, and given back by the next line.
            drop(framework.reserve(&mut cycle.state, &cycle.pod, &node));
        }
        self.replayed.placements.push(ReplayedPlacement { pod, node: node.to_string() });
    }

    /// What plugins keep for a pod is not needed any more: it has its place, or has lost it.
    fn settle(&mut self, uid: &str) {
        let Some(Cycle { pod, framework, state, choice }) = self.cycles.remove(uid) else { return };
        if let (Some(framework), Ok(node)) = (framework, choice) {
            framework.unreserve(&state, &pod, &node);
        }
    }
}
