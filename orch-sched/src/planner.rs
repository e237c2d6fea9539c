//! Decisions in process, without a queue, a binding or an API server.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Node;
use orch_core::{informer::Informers, random::Random};

use crate::{
    cache::Cache,
    cycle_state::CycleState,
    error::BuildError,
    extension_point::ExtensionPoint,
    framework::{Diagnosis, Explanation, Failure, Framework},
    plugin::Nomination,
    pod_info::PodInfo,
    profile::{Profile, Registry},
    snapshot::Snapshot,
};

/// Why a pod was not placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It fits nowhere.
    #[error("{0}")]
    Unschedulable(Box<Diagnosis>),
    /// A plugin failed, or the pod cannot be understood.
    #[error("{0}")]
    Fault(String),
}

impl From<Failure> for PlanError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unschedulable(diagnosis) => Self::Unschedulable(diagnosis),
            Failure::Fault(text) => Self::Fault(text),
        }
    }
}

/// Decides where pods go, on a cluster that the caller describes: the very decisions of a
/// [`Scheduler`](crate::Scheduler), with nothing written anywhere. For simulations, benchmarks and
/// tests of plugins.
///
/// Filter, Score and what prepares them run; Reserve, Permit and the binding do not, so two pods may
/// be promised the same unbound volume or the same device. Namespaces, volumes and claims are looked up in the
/// informers.
#[derive(Debug)]
pub struct Planner {
    framework: Framework,
    /// Of the other profiles of a scheduler, by their names.
    others: HashMap<String, Framework>,
    cache: Cache,
    snapshot: Snapshot,
    random: Arc<dyn Random>,
}

impl Planner {
    /// A planner of an empty cluster. Call it inside a tokio runtime: the informers start.
    ///
    /// # Errors
    /// [`BuildError`] if the profile does not fit together.
    pub fn new(informers: &Informers, profile: &Profile) -> Result<Self, BuildError> {
        let mut registry = Registry::new(informers.clone());
        Ok(Self {
            framework: registry.framework(profile)?,
            others: HashMap::new(),
            cache: Cache::default().following(registry.devices()),
            snapshot: Snapshot::default(),
            random: informers.environment().random.clone(),
        })
    }

    /// The state of a scheduler that runs.
    pub(crate) fn of_scheduler(
        frameworks: impl Iterator<Item = Framework>,
        cache: Cache,
        random: Arc<dyn Random>,
    ) -> Option<Self> {
        let mut others: HashMap<String, Framework> =
            frameworks.map(|framework| (framework.scheduler_name.clone(), framework)).collect();
        let first = others.keys().min().cloned()?;
        let framework = others.remove(&first)?;
        Some(Self { framework, others, cache, snapshot: Snapshot::default(), random })
    }

    /// The profile that a pod asks for; the planner's own if there is none of that name.
    fn of(&self, pod: &PodInfo) -> &Framework {
        self.others.get(pod.scheduler_name()).unwrap_or(&self.framework)
    }

    /// A planner of the same state: what happens to one does not happen to the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        let others = self.others.iter().map(|(name, other)| (name.clone(), other.fork()));
        Self {
            framework: self.framework.fork(),
            others: others.collect(),
            cache: self.cache.fork(),
            snapshot: Snapshot::default(),
            random: self.random.clone(),
        }
    }

    /// Takes a node and its pods away, and gives the pods.
    pub(crate) fn take_node(&mut self, name: &str) -> Vec<Arc<PodInfo>> {
        let pods = self.cache.pods_on(name);
        pods.iter().for_each(|pod| drop(self.cache.remove_pod(pod.uid())));
        self.cache.remove_node(name);
        pods
    }

    /// What every plugin says about every node and every score, with nothing decided.
    ///
    /// # Errors
    /// [`PlanError::Fault`] if a plugin fails, or the pod cannot be understood.
    pub fn explain(&mut self, pod: &PodInfo) -> Result<Explanation, PlanError> {
        self.cache.refresh(&mut self.snapshot);
        Ok(self.of(pod).explain(pod, &self.snapshot)?)
    }

    /// The plugins that run at an extension point with their weights, in their order.
    pub fn plugins(&self, point: ExtensionPoint) -> Vec<(Arc<str>, i64)> {
        self.framework.at(point).map(|enabled| (enabled.name.clone(), enabled.weight)).collect()
    }

    /// Adds a node, or changes it.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.cache.set_node(node);
    }

    /// Takes a node away. Pods that are on it stay there, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        self.cache.remove_node(name);
    }

    /// Adds a pod to the node that it names, or changes it. A pod that names none is ignored.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.cache.set_pod(pod);
    }

    /// Takes a pod away, by its uid.
    pub fn remove_pod(&mut self, uid: &str) {
        self.cache.nominations.remove(uid);
        self.cache.remove_pod(uid);
    }

    /// Every node that the pod fits with the weighted sum of its scores, in no particular order.
    ///
    /// # Errors
    /// [`PlanError`] if there is none.
    pub fn evaluate(&mut self, pod: &PodInfo) -> Result<Vec<(Arc<str>, i64)>, PlanError> {
        self.cache.refresh(&mut self.snapshot);
        Ok(self.of(pod).evaluate(&mut CycleState::default(), pod, &self.snapshot)?)
    }

    /// The nodes with the best score, of which [`Planner::place`] takes any.
    ///
    /// # Errors
    /// [`PlanError`] if there is none.
    pub fn best(&mut self, pod: &PodInfo) -> Result<Vec<Arc<str>>, PlanError> {
        self.cache.refresh(&mut self.snapshot);
        Ok(self.of(pod).best(&mut CycleState::default(), pod, &self.snapshot)?)
    }

    /// Where room can be made for a pod that fits nowhere, and which pods would have to go for it, the
    /// most important first. A pod that fits has its node, and nobody has to go.
    ///
    /// # Errors
    /// [`PlanError`] if there is no such node.
    pub async fn preempt(
        &mut self,
        pod: &PodInfo,
    ) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), PlanError> {
        self.cache.refresh(&mut self.snapshot);
        let mut state = CycleState::default();
        let chosen = self.of(pod).choose(&mut state, pod, &self.snapshot, &*self.random);
        let mut diagnosis = match chosen {
            Ok(node) => return Ok((node, Vec::new())),
            Err(Failure::Unschedulable(diagnosis)) => diagnosis,
            Err(fault) => return Err(fault.into()),
        };
        let room = self.of(pod).post_filter(&state, pod, &self.snapshot, &mut diagnosis).await?;
        match room.nomination {
            Nomination::Node(node) => Ok((node, room.victims)),
            _ => Err(PlanError::Unschedulable(diagnosis)),
        }
    }

    /// Room is being made for a pod on a node: others of its priority or a lower one leave it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.cache.nominations.set(pod, node);
    }

    /// Chooses a node as the scheduler does, and puts the pod there.
    ///
    /// # Errors
    /// [`PlanError`] if there is none.
    pub fn place(&mut self, pod: Arc<PodInfo>) -> Result<Arc<str>, PlanError> {
        self.cache.refresh(&mut self.snapshot);
        let (state, random) = (&mut CycleState::default(), &*self.random);
        let node = self.of(&pod).choose(state, &pod, &self.snapshot, random)?;
        self.cache.assume(pod, &node);
        Ok(node)
    }
}
