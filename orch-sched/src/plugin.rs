//! The extension points of the scheduling framework, one small trait each.
//!
//! Source: `k8s.io/kube-scheduler/framework/interface.go`.

use std::{cmp::Ordering, collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::Key;
use smallvec::SmallVec;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{ClusterChange, ClusterEvent, Hint},
    framework::{Diagnosis, Trial},
    node_info::NodeInfo,
    pod_info::PodInfo,
    queue::QueuedPod,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// The best score that a plugin may give after normalization. The worst is zero.
pub const SCORE_MAX: i64 = 100;

/// A rule of the scheduler: a value that says which extension points it implements.
///
/// ```
/// use orch_sched::{CycleState, Fault, Filter, NodeInfo, Plugin, PodInfo, Verdict};
/// #[derive(Debug)]
/// struct NotOnFridays;
/// impl Plugin for NotOnFridays {
///     fn name(&self) -> &str { "NotOnFridays" }
///     fn as_filter(&self) -> Option<&dyn Filter> { Some(self) }
/// }
/// impl Filter for NotOnFridays {
///     fn filter(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
///         let closed = node.label("closed") == Some("friday");
///         Ok(Verdict::success_if(!closed, "node(s) are closed on Fridays"))
///     }
/// }
/// ```
///
/// Called from one scheduling cycle at a time, and from binding cycles at the same time. A plugin
/// that panics takes its pod's cycle down, not the scheduler.
pub trait Plugin: fmt::Debug + Send + Sync + 'static {
    /// The name that profiles, diagnoses and metrics use. Unique in a scheduler.
    fn name(&self) -> &str;

    /// Keeps pods out of the queue.
    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        None
    }

    /// Orders the queue. A profile has exactly one.
    fn as_queue_sort(&self) -> Option<&dyn QueueSort> {
        None
    }

    /// Looks at a pod before any node.
    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        None
    }

    /// Rules out nodes.
    fn as_filter(&self) -> Option<&dyn Filter> {
        None
    }

    /// Makes room when no node fits.
    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        None
    }

    /// Prepares scoring.
    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        None
    }

    /// Ranks the nodes that fit.
    fn as_score(&self) -> Option<&dyn Score> {
        None
    }

    /// Says which nodes it cannot tell apart. Needed for [`Reuse::Grouped`] alone.
    fn as_grouping(&self) -> Option<&dyn Grouping> {
        None
    }

    /// Keeps account of what is promised to a pod.
    fn as_reserve(&self) -> Option<&dyn Reserve> {
        None
    }

    /// Holds a placed pod back.
    fn as_permit(&self) -> Option<&dyn Permit> {
        None
    }

    /// Does what must be done before a pod is bound.
    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        None
    }

    /// Binds. A profile needs at least one.
    fn as_bind(&self) -> Option<&dyn Bind> {
        None
    }

    /// Is told about bound pods.
    fn as_post_bind(&self) -> Option<&dyn PostBind> {
        None
    }

    /// Says what could make a pod schedulable that this plugin rejected. A plugin without this is
    /// asked again after every change of the cluster.
    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        None
    }
}

impl<P: Plugin + ?Sized> Plugin for Arc<P> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        (**self).as_pre_enqueue()
    }
    fn as_queue_sort(&self) -> Option<&dyn QueueSort> {
        (**self).as_queue_sort()
    }
    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        (**self).as_pre_filter()
    }
    fn as_filter(&self) -> Option<&dyn Filter> {
        (**self).as_filter()
    }
    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        (**self).as_post_filter()
    }
    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        (**self).as_pre_score()
    }
    fn as_score(&self) -> Option<&dyn Score> {
        (**self).as_score()
    }
    fn as_grouping(&self) -> Option<&dyn Grouping> {
        (**self).as_grouping()
    }
    fn as_reserve(&self) -> Option<&dyn Reserve> {
        (**self).as_reserve()
    }
    fn as_permit(&self) -> Option<&dyn Permit> {
        (**self).as_permit()
    }
    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        (**self).as_pre_bind()
    }
    fn as_bind(&self) -> Option<&dyn Bind> {
        (**self).as_bind()
    }
    fn as_post_bind(&self) -> Option<&dyn PostBind> {
        (**self).as_post_bind()
    }
    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        (**self).as_events_to_register()
    }
}

/// Decides whether a pod may enter the queue. Called when the pod appears or changes, and when it
/// would move to the active queue. Must be quick: it runs under the queue's lock.
pub trait PreEnqueue: Send + Sync {
    /// A rejection keeps the pod gated until it changes, or something else does that the plugin
    /// [wants to hear of](Plugin::as_events_to_register).
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict;
}

/// Orders pods that wait. Must be a total order that does not change while a pod waits.
pub trait QueueSort: Send + Sync {
    /// `Less` goes first.
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering;
}

/// What PreFilter found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreFiltered {
    /// A rejection ends the cycle for all nodes.
    pub verdict: Verdict,
    /// Only these nodes need to be looked at; `None` is all of them.
    pub nodes: Option<BTreeSet<String>>,
}

impl From<Verdict> for PreFiltered {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, nodes: None }
    }
}

/// Looks at a pod once per cycle, before any node: rejects it outright, narrows the nodes, or
/// prepares state for Filter.
pub trait PreFilter: Send + Sync {
    /// [`Verdict::Skip`] turns the plugin's Filter off for this pod.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault>;

    /// Updates the prepared state as if `added` ran on `node` too, which shows it already.
    ///
    /// # Errors
    /// As for [`PreFilter::pre_filter`].
    fn add_pod(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _added: &PodInfo,
        _node: &NodeInfo,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Updates the prepared state as if `removed` did not run on `node`, which no longer shows it.
    ///
    /// # Errors
    /// As for [`PreFilter::pre_filter`].
    fn remove_pod(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _removed: &PodInfo,
        _node: &NodeInfo,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

/// How long what a plugin says about a node holds for pods that are alike: those of the same
/// namespace and labels whose specs have the same node name, node selector, affinity, tolerations,
/// spreading constraints, overhead, resources and host namespaces, and containers of the same
/// images, resources, ports and rules of restarting.
///
/// The default is always right. A plugin whose answer depends on nothing but such a pod, the
/// [`NodeInfo`] and what the plugin was built with may say more, and then most pods cost it
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// The plugin is asked for every pod.
    #[default]
    Never,
    /// Until the node or the pods on it change. A Score with this has no normalization.
    UntilNodeChanges,
    /// For Score: as [`Reuse::UntilNodeChanges`], and then [`Score::normalize`] is called. It must
    /// depend on which scores there are alone: nodes of the same scores may be given as one.
    BeforeNormalization,
    /// Within one cycle, for all nodes of a group: the plugin is asked about one of them. Groups
    /// are the plugin's [`Grouping`]. Score's normalization must depend on which scores there are
    /// alone.
    Grouped,
}

/// What a plugin's answers about a node depend on, apart from the pod and what the plugin found out
/// before any node: nodes of the same key are one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupKey(SmallVec<[KeyPart; 4]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeyPart {
    Number(i64),
    Label(Option<Arc<str>>),
}

impl GroupKey {
    /// Tells nodes apart by a number.
    pub fn number(&mut self, number: i64) {
        self.0.push(KeyPart::Number(number));
    }

    /// Tells nodes apart by the value of a label, and those without it from all others.
    pub fn label(&mut self, value: Option<&str>) {
        self.0.push(KeyPart::Label(value.map(Into::into)));
    }
}

/// Puts nodes into groups that the plugin cannot tell apart. With a domain of a topology as a group
/// a pod costs as much as there are domains, however many nodes they have.
pub trait Grouping: Send + Sync {
    /// Adds to a node's key. Called after PreFilter (whether that had to say something or not), and
    /// again when the node, its CSINode, what is attached to it or the pods on it changed.
    fn group(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, key: &mut GroupKey);

    /// Keys hold from cycle to cycle, for pods that are alike, as long as this is the same.
    fn version(&self, _state: &CycleState) -> u64 {
        0
    }
}

/// The nodes that fit a pod, in groups that no plugin whose answers are reused can tell apart.
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    nodes: &'a [Arc<NodeInfo>],
    /// `None` is all nodes, each by itself.
    groups: Option<Vec<&'a [usize]>>,
}

impl<'a> Candidates<'a> {
    /// These nodes, each by itself.
    pub fn each(nodes: &'a [Arc<NodeInfo>]) -> Self {
        Self { nodes, groups: None }
    }

    /// The nodes at these positions, group by group.
    pub(crate) fn grouped(nodes: &'a [Arc<NodeInfo>], groups: Vec<&'a [usize]>) -> Self {
        Self { nodes, groups: Some(groups) }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.groups().map(|(_, len)| len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups().next().is_none()
    }

    /// All of them, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Arc<NodeInfo>> + '_ {
        let each = self.groups.is_none().then_some(self.nodes).into_iter().flatten();
        let grouped = self.groups.iter().flatten().flat_map(|group| group.iter());
        each.chain(grouped.map(|at| &self.nodes[*at]))
    }

    /// One node of each group, and how many the group has. A plugin without a [`Grouping`] must not
    /// conclude from one to the others.
    pub fn groups(&self) -> impl Iterator<Item = (&'a Arc<NodeInfo>, usize)> + '_ {
        let each = self.groups.is_none().then_some(self.nodes).into_iter().flatten();
        let groups = self.groups.iter().flatten();
        let grouped = groups.filter_map(|group| Some((&self.nodes[*group.first()?], group.len())));
        each.map(|node| (node, 1)).chain(grouped)
    }
}

/// Decides whether a pod fits a node. Pure: looks at its arguments only.
pub trait Filter: Send + Sync {
    /// A rejection rules the node out, with the reason that users read.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault>;

    /// How long an answer holds. The same at every call.
    fn reuse(&self) -> Reuse {
        Reuse::Never
    }
}

/// What is known about the node on which room is made for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nomination {
    /// What it was before.
    #[default]
    Keep,
    /// No node any more.
    Clear,
    /// This node.
    Node(Arc<str>),
}

/// What PostFilter achieved.
#[derive(Clone, Debug)]
pub struct PostFiltered {
    /// [`Verdict::Success`] if room can be made; a rejection's words are added to the diagnosis.
    pub verdict: Verdict,
    /// The node on which room is to be made for the pod.
    pub nomination: Nomination,
    /// The pods that must go for that, the most important first. The scheduler evicts them, beside
    /// other cycles, and does not try the pod again before that is done.
    pub victims: Vec<Arc<PodInfo>>,
    /// Claims for devices as they are to be, without their devices: the scheduler writes their
    /// status before it reports the pod. Counts whatever the verdict is.
    pub freed: Vec<Arc<ResourceClaim>>,
    /// Claims that an earlier attempt left behind: the scheduler deletes them before it reports the
    /// pod. Counts whatever the verdict is.
    pub deleted: Vec<Arc<ResourceClaim>>,
}

impl From<Verdict> for PostFiltered {
    fn from(verdict: Verdict) -> Self {
        let (victims, freed, deleted) = (Vec::new(), Vec::new(), Vec::new());
        Self { verdict, nomination: Nomination::Keep, victims, freed, deleted }
    }
}

/// Is called when no node fits, to find out how room can be made: the place of preemption. The
/// first plugin that succeeds ends the search. It decides, and changes nothing itself.
#[async_trait]
pub trait PostFilter: Send + Sync {
    /// Looks for a way to make the pod schedulable. `trial` asks the filters about nodes as they
    /// would be without some pods.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    async fn post_filter(
        &self,
        trial: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Result<PostFiltered, Fault>;
}

/// Prepares scoring, once per cycle.
pub trait PreScore: Send + Sync {
    /// `nodes` are those that fit. [`Verdict::Skip`] turns the plugin's Score off for this pod.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &Candidates<'_>,
        snapshot: &Snapshot,
    ) -> Result<Verdict, Fault>;
}

/// Ranks the nodes that fit.
pub trait Score: Send + Sync {
    /// How good a node is; any number if [`Score::normalize`] brings it between 0 and
    /// [`SCORE_MAX`].
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Fault>;

    /// How long a score holds. The same at every call.
    fn reuse(&self) -> Reuse {
        Reuse::Never
    }

    /// Brings all scores (`scores[i]` is of `nodes[i]`) between 0 and [`SCORE_MAX`]. Scores
    /// outside are a fault.
    ///
    /// # Errors
    /// As for [`Score::score`].
    fn normalize(
        &self,
        _state: &CycleState,
        _pod: &PodInfo,
        _nodes: &[Arc<NodeInfo>],
        _scores: &mut [i64],
    ) -> Result<(), Fault> {
        Ok(())
    }
}

/// Keeps account of what is promised to a pod between the choice of its node and its binding.
pub trait Reserve: Send + Sync {
    /// Takes what the pod needs on the node. After a rejection or a fault, every plugin of the
    /// profile is told to unreserve.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<Verdict, Fault>;

    /// Gives back what was taken. Idempotent, and may be called without a reservation before.
    fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str);
}

/// Holds back, or lets go, a pod that has a node.
pub trait Permit: Send + Sync {
    /// [`Verdict::Wait`] holds the pod back until it is allowed through [`crate::WaitingPods`].
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    fn permit(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<Verdict, Fault>;
}

/// Does what must be done before a pod is bound, such as binding its volumes. Runs beside other
/// cycles and may wait. Must be repeatable: a cycle that fails later starts over.
#[async_trait]
pub trait PreBind: Send + Sync {
    /// A rejection sends the pod back to the queue.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    async fn pre_bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Verdict, Fault>;
}

/// Binds a pod to its node. Runs beside other cycles.
#[async_trait]
pub trait Bind: Send + Sync {
    /// [`Verdict::Skip`] leaves it to the next plugin; the first other answer counts.
    ///
    /// # Errors
    /// A fault ends the cycle; the pod is tried again after a pause.
    async fn bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<Verdict, Fault>;
}

/// Is told about pods that were bound.
pub trait PostBind: Send + Sync {
    /// The pod is bound; what was kept for it may be dropped.
    fn post_bind(&self, state: &CycleState, pod: &PodInfo, node: &str);
}

/// Says which changes of the cluster may make a pod schedulable that this plugin rejected.
pub trait EventsToRegister: Send + Sync {
    /// The kinds of changes to be asked about.
    fn events(&self) -> Vec<ClusterEvent>;

    /// Whether this change may help this pod. Quick: it runs under the queue's lock. The default
    /// says that it may.
    fn hint(&self, _pod: &PodInfo, _change: &ClusterChange) -> Hint {
        Hint::Queue
    }

    /// What a pod that was rejected depends on, so that [`EventsToRegister::about`] can spare it.
    /// Depends on nothing but the pod.
    fn depends_on(&self, _pod: &PodInfo) -> Vec<Key> {
        Vec::new()
    }

    /// What a change is about: only pods that [depend on it](EventsToRegister::depends_on) are asked
    /// about, however many others wait. `None`, the default, is for a change that may help any pod.
    fn about(&self, _change: &ClusterChange) -> Option<Key> {
        None
    }
}
