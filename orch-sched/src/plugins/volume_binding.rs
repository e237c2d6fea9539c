//! A pod goes where its volumes are, and unbound claims are bound where the pod goes.

use std::{collections::HashMap, fmt, sync::Arc};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use orch_core::{
    Client, Key,
    claim::{PodClaim, check_made_for, claims_of},
    informer::{Informer, Informers},
};
use parking_lot::Mutex;

use self::{
    capacity::{Provision, StorageCapacity},
    matching::{fits_node, for_claim, for_class, for_whom, is_bound, storage, suits},
};
use super::VolumeBindingArguments;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    node_info::NodeInfo,
    plugin::{
        EventsToRegister, Filter, Grouping, Plugin, PreBind, PreFilter, PreFiltered, Reserve, Reuse,
    },
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

mod capacity;
mod grouping;
mod matching;
mod pre_bind;

const UNBOUND_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Volumes by the claim that they are kept for, or else by their class.
const FOR_WHOM: &str = "for whom";
const NO_SPACE: &str = "node(s) did not have enough free storage";

/// Volumes that are promised to a pod's claims: volume, then pod. Shared by all profiles.
pub(crate) type Promised = Arc<Mutex<HashMap<String, Arc<str>>>>;

/// Source: `pkg/scheduler/framework/plugins/volumebinding`.
/// Differs: nodes are not ranked by storage capacity, which upstream does only on demand.
pub struct VolumeBinding {
    client: Arc<dyn Client>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    capacity: StorageCapacity,
    arguments: VolumeBindingArguments,
    promised: Promised,
}

/// Where a claim's volume can come from: those that exist, smallest first, and new ones.
type Sources = (Vec<Arc<PersistentVolume>>, Option<Provision>);

/// The pod's claims, looked up once per cycle.
#[derive(Clone)]
struct Claims {
    bound: Vec<Option<Arc<PersistentVolume>>>,
    unbound: Vec<Arc<PersistentVolumeClaim>>,
    /// Volumes that could be bound to each unbound claim, smallest first; and whether new ones can
    /// be made for it.
    candidates: Arc<Vec<Sources>>,
    /// What the answers depend on, apart from the node.
    version: u64,
}

/// What is to be done once the node is certain.
#[derive(Clone, Default)]
struct Bindings {
    existing: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    provisioned: Vec<Arc<PersistentVolumeClaim>>,
}

impl fmt::Debug for VolumeBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeBinding({} volumes promised)", self.promised.lock().len())
    }
}

impl VolumeBinding {
    /// Looks claims, volumes and classes up in these informers, and writes through their client.
    pub(crate) fn new(
        informers: &Informers,
        arguments: VolumeBindingArguments,
        promised: Promised,
    ) -> Self {
        let volumes: Informer<PersistentVolume> = informers.of();
        volumes.add_index(FOR_WHOM, |volume| vec![for_whom(volume)]);
        Self {
            client: informers.client().clone(),
            claims: informers.of(),
            volumes,
            classes: informers.of(),
            capacity: StorageCapacity::new(informers),
            arguments,
            promised,
        }
    }

    fn class(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let name = claim.spec.as_ref()?.storage_class_name.clone()?;
        self.classes.get(&Key::cluster(name))
    }

    /// A claim of the pod's that a volume may be looked for, or why the pod must wait for it.
    fn usable(&self, pod: &PodInfo, one: PodClaim) -> Result<Arc<PersistentVolumeClaim>, Verdict> {
        let PodClaim { name, is_ephemeral } = one;
        let Some(claim) = self.claims.get(&Key::new(pod.namespace(), name.as_str())) else {
            return Err(Verdict::unresolvable(if is_ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the \
                     persistentvolumeclaim \"{name}\""
                )
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            }));
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            return Err(Verdict::unresolvable(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                volume.unwrap_or_default()
            )));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            let words = format!("persistentvolumeclaim \"{name}\" is being deleted");
            return Err(Verdict::unresolvable(words));
        }
        if is_ephemeral && let Err(error) = check_made_for(pod.pod(), &claim) {
            return Err(Verdict::unresolvable(error.to_string()));
        }
        Ok(claim)
    }

    /// Sorts the pod's claims, or says why the pod cannot run anywhere yet.
    fn claims_of(&self, pod: &PodInfo) -> Result<Claims, Verdict> {
        let (mut bound, mut unbound) = (Vec::new(), Vec::new());
        let mut immediate = false;
        for one in claims_of(pod.pod()) {
            let claim = self.usable(pod, one)?;
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            let volume = volume.filter(|volume| !volume.is_empty());
            let delayed = self.class(&claim).is_some_and(|class| {
                class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            });
            match volume {
                Some(volume) if is_bound(&claim) => {
                    bound.push(self.volumes.get(&Key::cluster(volume)));
                }
                None if delayed => unbound.push(claim),
                _ => immediate = true,
            }
        }
        if immediate {
            return Err(Verdict::unresolvable(UNBOUND_IMMEDIATE));
        }
        let candidates: Vec<Sources> = unbound.iter().map(|claim| self.candidates(claim)).collect();
        let version = grouping::version(&bound, &candidates);
        Ok(Claims { bound, unbound, candidates: Arc::new(candidates), version })
    }

    fn candidates(&self, claim: &PersistentVolumeClaim) -> Sources {
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        let mut volumes = self.volumes.by_index(FOR_WHOM, &for_claim(&claim.metadata));
        volumes.extend(self.volumes.by_index(FOR_WHOM, &for_class(class)));
        volumes.retain(|volume| suits(volume, claim));
        volumes.sort_by_key(|volume| {
            let spec = volume.spec.as_ref();
            let reserved_for_it = spec.is_some_and(|spec| spec.claim_ref.is_some());
            (!reserved_for_it, storage(spec.and_then(|spec| spec.capacity.as_ref())))
        });
        let class = self
            .class(claim)
            .filter(|class| !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER);
        (volumes, class.map(|class| self.capacity.provision(&class, claim)))
    }

    /// Whether all of the pod's volumes can be had on a node, or why not.
    fn serves(&self, claims: &Claims, pod: &PodInfo, node: &NodeInfo) -> Result<(), &'static str> {
        for volume in &claims.bound {
            match volume {
                None => return Err(NO_VOLUME),
                Some(volume) if !fits_node(volume, node) => return Err(NODE_CONFLICT),
                Some(_) => {}
            }
        }
        self.plan(claims, pod, node).map(|_| ())
    }

    /// How the pod's unbound claims would be bound on a node, or why they cannot be.
    fn plan(
        &self,
        claims: &Claims,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Bindings, &'static str> {
        let promised = self.promised.lock();
        let mut plan = Bindings::default();
        let mut space = true;
        for (claim, (volumes, provision)) in claims.unbound.iter().zip(&*claims.candidates) {
            let taken = |volume: &PersistentVolume| {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                promised.get(name).is_some_and(|owner| owner != pod.uid())
                    || plan.existing.iter().any(|(v, _)| v.metadata.name == volume.metadata.name)
            };
            let volume = volumes.iter().find(|v| !taken(v) && fits_node(v, node));
            match (volume, provision) {
                (Some(volume), _) => plan.existing.push((volume.clone(), claim.clone())),
                (None, Some(provision)) if provision.reaches(node) => {
                    space &= provision.has_space(node);
                    plan.provisioned.push(claim.clone());
                }
                (None, _) => return Err(BIND_CONFLICT),
            }
        }
        if space { Ok(plan) } else { Err(NO_SPACE) }
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &str {
        "VolumeBinding"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
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

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if claims_of(pod.pod()).next().is_none() {
            return Ok(Verdict::Skip.into());
        }
        Ok(match self.claims_of(pod) {
            Err(verdict) => verdict.into(),
            Ok(claims) => {
                state.insert(claims);
                Verdict::Success.into()
            }
        })
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let claims = state.get::<Claims>().ok_or("PreFilter did not run")?;
        Ok(match self.serves(claims, pod, node) {
            Ok(()) => Verdict::Success,
            Err(reason) => Verdict::unresolvable(reason),
        })
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

/// The node that Reserve is about, kept by the scheduler for plugins that need more than its name.
#[derive(Clone)]
pub(crate) struct ChosenNode(pub(crate) Arc<NodeInfo>);

impl Reserve for VolumeBinding {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        let Some(claims) = state.get::<Claims>() else { return Ok(Verdict::Success) };
        let ChosenNode(node) = state.get().ok_or("no node was chosen")?;
        let plan = match self.plan(claims, pod, node) {
            Ok(plan) => plan,
            Err(reason) => return Ok(Verdict::unschedulable(reason)),
        };
        let mut promised = self.promised.lock();
        for (volume, _) in &plan.existing {
            let name = volume.metadata.name.clone().unwrap_or_default();
            promised.insert(name, pod.uid().clone());
        }
        drop(promised);
        state.insert(plan);
        Ok(Verdict::Success)
    }

    fn unreserve(&self, _: &CycleState, pod: &PodInfo, _: &str) {
        self.promised.lock().retain(|_, owner| owner != pod.uid());
    }
}

impl EventsToRegister for VolumeBinding {
    fn events(&self) -> Vec<ClusterEvent> {
        let changed = Actions::ADD.or(Actions::UPDATE);
        vec![
            ClusterEvent::new(EventResource::StorageClass, changed),
            ClusterEvent::new(EventResource::PersistentVolumeClaim, changed),
            ClusterEvent::new(EventResource::PersistentVolume, changed),
            ClusterEvent::new(EventResource::CsiNode, changed),
            ClusterEvent::new(EventResource::CsiDriver, Actions::UPDATE),
            ClusterEvent::new(EventResource::CsiStorageCapacity, changed),
            ClusterEvent::new(EventResource::Node, Actions::ADD.or(Actions::UPDATE_LABEL)),
        ]
    }
}
