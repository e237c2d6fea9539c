//! A pod goes where the devices are that it claims, and its claims get them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{AllocationResult, DeviceRequest, ResourceClaim},
};
use orch_core::{
    Environment, Key,
    device_claim::{FINALIZER, claim_name, is_allocated, is_for_pod},
    extended_resource::is_claim_of,
    informer::Informers,
};
use parking_lot::Mutex;

use self::{
    binding::Binder,
    extended::{Extended, Own, Variant},
};
use super::{DynamicResourcesArguments, default_normalize};
use crate::{
    cycle_state::CycleState,
    devices::{Allocator, Devices, Patience, Solution, Stop, selects, shown},
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    framework::{Diagnosis, Trial},
    node_info::NodeInfo,
    plugin::{
        Candidates, EventsToRegister, Filter, Grouping, Plugin, PostFilter, PostFiltered, PreBind,
        PreEnqueue, PreFilter, PreFiltered, PreScore, Reserve, Reuse, Score,
    },
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

mod binding;
mod extended;
mod grouping;

/// Source: `pkg/scheduler/framework/plugins/dynamicresources`.
/// Differs: of claims that could be deallocated the first is, where upstream takes any; a claim for
/// extended resources that is deleted wakes who waits for devices.
pub struct DynamicResources {
    devices: Arc<Devices>,
    binder: Binder,
    environment: Environment,
    arguments: DynamicResourcesArguments,
}

impl fmt::Debug for DynamicResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamicResources({:?})", self.devices)
    }
}

/// What Filter found out, node by node.
#[derive(Debug, Default)]
struct Found {
    solutions: HashMap<Arc<str>, Fit>,
    /// Claims that are allocated, but cannot be used on some node, by their places.
    unavailable: BTreeSet<usize>,
}

/// Devices on one node.
#[derive(Clone, Debug)]
struct Fit {
    solution: Arc<Solution>,
    /// For all claims that the solution is for.
    allocator: Arc<Allocator>,
    /// The claim for extended resources among them, which is the last.
    variant: Option<Arc<Variant>>,
}

/// The pod's claims in one cycle. Forks of the cycle share what is found out about nodes: it
/// depends on the devices alone.
#[derive(Clone)]
struct PodClaims {
    /// As they are, and once they were written, as they were written.
    claims: Arc<Mutex<Vec<Arc<ResourceClaim>>>>,
    /// The places of those without devices.
    open: Vec<usize>,
    /// For those. There is one with extended resources, too.
    allocator: Option<Arc<Allocator>>,
    extended: Option<Extended>,
    /// What Reserve chose for extended resources: its claim is the last.
    own: Option<Arc<Own>>,
    found: Arc<Mutex<Found>>,
    /// The same for claims that are the same to every node whose devices did not change.
    version: u64,
    /// What Reserve chose for each claim.
    allocations: Vec<Option<AllocationResult>>,
}

impl PodClaims {
    fn all(&self) -> Vec<Arc<ResourceClaim>> {
        self.claims.lock().clone()
    }

    /// For the claims on a node where extended resources are claimed so; `None` if nothing needs
    /// devices there.
    fn allocator_with(&self, variant: Option<&Arc<Variant>>) -> Option<Arc<Allocator>> {
        match variant {
            Some(variant) => Some(variant.allocator.clone()),
            None => self.allocator.clone().filter(|_| !self.open.is_empty()),
        }
    }

    /// The claim for extended resources is one of the pod's claims from now on.
    fn take_up(&mut self, own: Option<Arc<Own>>) {
        let Some(own) = own else { return };
        let mut claims = self.claims.lock();
        self.open.push(claims.len());
        self.allocations.push(None);
        claims.push(own.claim.clone());
        drop(claims);
        self.own = Some(own);
    }
}

/// Filter did not find devices on the node.
const NOT_FOUND: &str = "claim allocation not found for node";

const TIMED_OUT: &str = "timed out trying to allocate devices";

/// PreFilter ran in this cycle.
#[derive(Clone, Copy)]
struct Looked;

fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    let devices = claim.spec.devices.as_ref();
    devices.and_then(|devices| devices.requests.as_deref()).unwrap_or_default()
}

fn claims_anything(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.resource_claims.as_ref()).is_some_and(|claims| !claims.is_empty())
}

impl DynamicResources {
    /// Looks claims and devices up here, and writes through the informers' client.
    pub(crate) fn new(
        informers: &Informers,
        devices: Arc<Devices>,
        arguments: DynamicResourcesArguments,
    ) -> Self {
        let environment = informers.environment().clone();
        let (client, timeout) = (informers.client().clone(), arguments.binding_timeout);
        let binder = Binder::new(client, environment.clone(), devices.clone(), timeout);
        Self { devices, binder, environment, arguments }
    }

    /// The pod's claims; otherwise what is missing.
    fn claims_of(&self, pod: &PodInfo) -> Result<Vec<Arc<ResourceClaim>>, String> {
        let named = pod.spec().and_then(|spec| spec.resource_claims.as_deref());
        let mut claims = Vec::new();
        for one in named.unwrap_or_default() {
            let found = claim_name(pod.pod(), one).map_err(|error| error.to_string())?;
            let Some(found) = found else { continue };
            let claim = self.devices.claim(pod.namespace(), &found.name).ok_or_else(|| {
                let name = format!("{}/{}", pod.namespace(), found.name);
                format!("could not find ResourceClaim {name:?}")
            })?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim {:?} is being deleted", found.name));
            }
            if found.generated {
                is_for_pod(pod.pod(), &claim).map_err(|error| error.to_string())?;
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    /// Why a claim cannot be allocated anywhere yet.
    fn obstacle(&self, claim: &ResourceClaim) -> Option<String> {
        let name = shown(&claim.metadata);
        if self.devices.is_promised(claim) {
            return Some(format!("resource claim {name} is in the process of being allocated"));
        }
        let missing = |class: &str, request: &str| {
            let known = self.devices.class(class).is_some();
            let words = format!("request {request}: device class {class} does not exist");
            (!known).then_some(words)
        };
        requests(claim).iter().find_map(|request| {
            if let Some(exactly) = &request.exactly {
                return missing(&exactly.device_class_name, &request.name);
            }
            let alternatives = request.first_available.as_deref().unwrap_or_default();
            if alternatives.is_empty() {
                let words = "unknown request type";
                return Some(format!("resource claim {name}, request {}: {words}", request.name));
            }
            alternatives.iter().find_map(|one| {
                missing(&one.device_class_name, &format!("{}/{}", request.name, one.name))
            })
        })
    }

    /// Whether a claim that has its devices can be used on a node now.
    fn is_available(&self, claim: &ResourceClaim, node: &NodeInfo) -> bool {
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let Some(allocation) = allocation else { return true };
        let selector = allocation.node_selector.as_ref();
        selector.is_none_or(|selector| selects(selector, node))
            && match binding::is_ready(claim) {
                Ok(true) => true,
                Ok(false) => !self.binder.is_overdue(claim),
                Err(_) => false,
            }
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &str {
        "DynamicResources"
    }

    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        Some(self)
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        Some(self)
    }

    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn as_grouping(&self) -> Option<&dyn Grouping> {
        Some(self)
    }

    fn as_reserve(&self) -> Option<&dyn Reserve> {
        Some(self)
    }

    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        if !claims_anything(pod.pod()) {
            return Verdict::Success;
        }
        self.claims_of(pod).map_or_else(Verdict::unresolvable, |_| Verdict::Success)
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        state.insert(Looked);
        let backed = extended::backed(pod, &self.devices);
        if backed.is_none() && !claims_anything(pod.pod()) {
            return Ok(Verdict::Skip.into());
        }
        let claims = match self.claims_of(pod) {
            Ok(claims) if claims.is_empty() && backed.is_none() => {
                return Ok(Verdict::Skip.into());
            }
            Ok(claims) => claims,
            Err(words) => return Ok(Verdict::unresolvable(words).into()),
        };
        let open: Vec<usize> = (0..claims.len()).filter(|at| !is_allocated(&claims[*at])).collect();
        if let Some(words) = open.iter().find_map(|at| self.obstacle(&claims[*at])) {
            return Ok(Verdict::unresolvable(words).into());
        }
        let wanted: Vec<_> = open.iter().map(|at| claims[*at].clone()).collect();
        // What a node gives by itself counts for extended resources: they are looked for anew.
        let frozen = snapshot.take_devices();
        let version = self.version_of(&claims, frozen.as_ref().filter(|_| backed.is_none()));
        let allocator = (!open.is_empty() || backed.is_some()).then(|| {
            let (clock, timeout) = (self.environment.clock.clone(), self.arguments.filter_timeout);
            Arc::new(self.devices.allocator(&wanted, frozen, Patience { clock, timeout }))
        });
        let extended = backed.zip(allocator.clone()).map(|(backed, allocator)| {
            let left = self.devices.claim_of_pod(pod.uid());
            Extended::new(backed, left, allocator, wanted)
        });
        let allocations = vec![None; claims.len()];
        let (claims, found, own) = (Arc::new(Mutex::new(claims)), Arc::default(), None);
        state.insert(PodClaims {
            claims,
            open,
            allocator,
            extended,
            own,
            found,
            version,
            allocations,
        });
        Ok(Verdict::Success.into())
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let claims = state.get::<PodClaims>().ok_or("PreFilter did not run")?;
        let variant = match claims.extended.as_ref().map(|extended| extended.on(pod, node)) {
            None => None,
            Some(Ok(variant)) => variant,
            Some(Err(unfit)) => return Ok(Verdict::unresolvable(unfit.words())),
        };
        let solution = match claims.allocator_with(variant.as_ref()) {
            None => None,
            Some(allocator) => match allocator.allocate(node) {
                Ok(Some(solution)) => {
                    Some(Fit { solution: Arc::new(solution), allocator, variant })
                }
                Ok(None) => return Ok(Verdict::unresolvable("cannot allocate all claims")),
                Err(Stop::InvalidPools) => {
                    return Ok(Verdict::unresolvable("invalid resource pools were encountered"));
                }
                Err(Stop::TimedOut) => {
                    return Ok(Verdict::unresolvable(TIMED_OUT));
                }
                Err(Stop::Fault(words)) => return Err(words.into()),
            },
        };
        let all = claims.all();
        let unavailable = (0..all.len()).filter(|at| !self.is_available(&all[*at], node));
        let unavailable: Vec<usize> = unavailable.collect();
        let mut found = claims.found.lock();
        if !unavailable.is_empty() {
            found.unavailable.extend(unavailable);
            return Ok(Verdict::unresolvable("resourceclaim not available on the node"));
        }
        if let Some(fit) = solution {
            found.solutions.insert(node.name().clone(), fit);
        }
        Ok(Verdict::Success)
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

#[async_trait]
impl PostFilter for DynamicResources {
    /// A claim that nobody else uses gives its devices back, if they are where the pod cannot go.
    async fn post_filter(
        &self,
        _: &Trial<'_>,
        state: &CycleState,
        pod: &PodInfo,
        _: &Snapshot,
        _: &Diagnosis,
    ) -> Result<PostFiltered, Fault> {
        if state.get::<Looked>().is_none() {
            // What upstream says, and ends with, if another plugin refused the pod before.
            return Ok(Verdict::unresolvable("not found").into());
        }
        let Some(claims) = state.get::<PodClaims>() else {
            return Ok(Verdict::unschedulable("no new claims to deallocate").into());
        };
        let all = claims.all();
        let unavailable = claims.found.lock().unavailable.clone();
        let left = claims.extended.as_ref().and_then(|extended| extended.left.clone());
        let is_idle = |claim: &ResourceClaim| {
            let status = claim.status.as_ref();
            let users = status.and_then(|status| status.reserved_for.as_deref());
            users.unwrap_or_default().iter().all(|user| user.uid == **pod.uid())
        };
        let Some(idle) = unavailable.into_iter().map(|at| &all[at]).find(|one| is_idle(one)) else {
            let Some(left) = left else {
                return Ok(Verdict::unschedulable("still not schedulable").into());
            };
            let verdict = Verdict::unschedulable("deletion of ResourceClaim completed");
            return Ok(PostFiltered { deleted: vec![left], ..verdict.into() });
        };
        let mut freed = (**idle).clone();
        freed.status = Some(Default::default());
        let verdict = Verdict::unschedulable("deallocation of ResourceClaim completed");
        Ok(PostFiltered { freed: vec![Arc::new(freed)], ..verdict.into() })
    }
}

impl PreScore for DynamicResources {
    /// Only alternatives make one node better than another.
    fn pre_score(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        _: &Candidates<'_>,
        _: &Snapshot,
    ) -> Result<Verdict, Fault> {
        let Some(claims) = state.get::<PodClaims>() else { return Ok(Verdict::Skip) };
        let all = claims.all();
        let mut open = claims.open.iter().flat_map(|at| requests(&all[*at]));
        let matters = open.any(|request| request.exactly.is_none());
        Ok(if matters { Verdict::Success } else { Verdict::Skip })
    }
}

impl Score for DynamicResources {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Fault> {
        let Some(claims) = state.get::<PodClaims>() else { return Ok(0) };
        let found = claims.found.lock();
        Ok(found.solutions.get(node.name()).map_or(0, |fit| fit.solution.score(&fit.allocator)))
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }

    fn normalize(
        &self,
        _: &CycleState,
        _: &PodInfo,
        _: &[Arc<NodeInfo>],
        scores: &mut [i64],
    ) -> Result<(), Fault> {
        default_normalize(scores, false);
        Ok(())
    }
}

impl Reserve for DynamicResources {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<Verdict, Fault> {
        self.find_on_chosen(state, pod, node)?;
        let Some(claims) = state.get_mut::<PodClaims>() else { return Ok(Verdict::Success) };
        // Nobody needs it any more, and what it knows of the devices is about to change.
        if claims.allocator.take().is_none() {
            return Ok(Verdict::Success);
        }
        claims.extended = None;
        let fit = std::mem::take(&mut *claims.found.lock()).solutions.remove(node);
        let Some(Fit { solution, allocator, variant }) = fit else {
            // The node gives extended resources by itself.
            let open = claims.open.is_empty();
            return if open { Ok(Verdict::Success) } else { Err(NOT_FOUND.into()) };
        };
        let allocations = solution.allocations(&allocator, node, &*self.environment.random);
        let allocations = allocations.map_err(|stop| format!("{stop:?}"))?;
        let own = variant.as_ref().map(|variant| variant.own.clone());
        drop((allocator, variant));
        claims.take_up(own);
        let all = claims.all();
        for (at, allocation) in claims.open.iter().zip(allocations) {
            let mut claim = (*all[*at]).clone();
            let finalizers = claim.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|one| one == FINALIZER) {
                finalizers.push(FINALIZER.into());
            }
            claim.status.get_or_insert_default().allocation = Some(allocation.clone());
            self.devices.promise(&Arc::new(claim));
            claims.allocations[*at] = Some(allocation);
        }
        Ok(Verdict::Success)
    }

    fn unreserve(&self, state: &CycleState, pod: &PodInfo, _: &str) {
        let Some(claims) = state.get::<PodClaims>() else { return };
        let mut all = claims.all();
        if let Some(own) = &claims.own {
            self.binder.give_up_extended(&own.claim, all.pop());
        }
        for claim in all {
            self.binder.give_up(&claim, pod);
        }
    }
}

#[async_trait]
impl PreBind for DynamicResources {
    async fn pre_bind(&self, state: &CycleState, pod: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        let Some(claims) = state.get::<PodClaims>() else { return Ok(Verdict::Skip) };
        let mut all = claims.all();
        let unwritten = claims.own.as_ref().and_then(|_| all.pop());
        for (at, claim) in all.iter().enumerate() {
            let bound = self.binder.bind(claim, claims.allocations[at].as_ref(), pod).await?;
            // Should the pod not be bound after all, this is what is taken back.
            claims.claims.lock()[at] = bound;
        }
        if let (Some(own), Some(claim)) = (&claims.own, unwritten) {
            let set = |claim: Arc<ResourceClaim>| claims.claims.lock()[all.len()] = claim;
            let allocation = claims.allocations[all.len()].as_ref();
            self.binder.bind_extended((own, claim), allocation, pod, set).await?;
        }
        self.binder.ready(claims.all()).await?;
        Ok(Verdict::Success)
    }
}

impl EventsToRegister for DynamicResources {
    fn events(&self) -> Vec<ClusterEvent> {
        let changed = Actions::ADD.or(Actions::UPDATE);
        let node = Actions::ADD.or(Actions::UPDATE_LABEL).or(Actions::UPDATE_ALLOCATABLE);
        vec![
            ClusterEvent::new(EventResource::Node, node),
            ClusterEvent::new(EventResource::ResourceClaim, changed.or(Actions::DELETE)),
            ClusterEvent::new(EventResource::PodItself, Actions::UPDATE),
            ClusterEvent::new(EventResource::DeviceClass, changed),
            ClusterEvent::new(EventResource::ResourceSlice, changed),
        ]
    }

    /// Of claims, those matter that give devices back, and the pod's own.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange) -> Hint {
        let (old, new) = match &change.object {
            ChangedObject::ResourceClaim { old, new: Some(new) } => (old, new),
            ChangedObject::ResourceClaim { old: Some(old), new: None } => {
                let helps = is_allocated(old) || is_claim_of(old, pod.uid());
                return if helps { Hint::Queue } else { Hint::Skip };
            }
            _ => return Hint::Queue,
        };
        let Ok(claims) = self.claims_of(pod) else { return Hint::Skip };
        if gives_back(old.as_deref(), new) {
            return Hint::Queue;
        }
        let is_own = claims.iter().any(|claim| claim.metadata.uid == new.metadata.uid);
        let is_news = old.as_ref().is_none_or(|old| old.status != new.status);
        if is_own && is_news { Hint::Queue } else { Hint::Skip }
    }

    /// The claims that it is known to have.
    fn depends_on(&self, pod: &PodInfo) -> Vec<Key> {
        let named = pod.spec().and_then(|spec| spec.resource_claims.as_deref());
        let names = named.unwrap_or_default().iter();
        let names = names.filter_map(|one| claim_name(pod.pod(), one).ok()?);
        names.map(|found| Key::new(pod.namespace(), &found.name)).collect()
    }

    fn about(&self, change: &ClusterChange) -> Option<Key> {
        match &change.object {
            ChangedObject::ResourceClaim { old, new: Some(new) }
                if !gives_back(old.as_deref(), new) =>
            {
                Some(Key::of(&new.metadata))
            }
            _ => None,
        }
    }
}

fn gives_back(old: Option<&ResourceClaim>, new: &ResourceClaim) -> bool {
    old.is_some_and(is_allocated) && !is_allocated(new)
}
