//! A pod goes where its volumes are, and unbound claims are bound where the pod goes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Client, ClientError, Key, Resources,
    claim::{PodClaim, check_made_for, claims_of},
    client::{PatchKind, WatchOptions},
    informer::{Informer, Informers},
    quantity::Amount,
    selector::Selector,
};
use parking_lot::Mutex;
use serde_json::json;

use self::capacity::{Provision, StorageCapacity};
use super::VolumeBindingArguments;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ClusterEvent, EventResource},
    node_info::NodeInfo,
    plugin::{
        EventsToRegister, Filter, Grouping, Plugin, PreBind, PreFilter, PreFiltered, Reserve, Reuse,
    },
    pod_info::{NO_LABELS, PodInfo, term_matches},
    snapshot::Snapshot,
    verdict::Verdict,
};

mod capacity;
mod grouping;

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

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let completed = claim.metadata.annotations.as_ref();
    let completed = completed.is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"));
    volume.is_some_and(|name| !name.is_empty()) && (completed || phase == Some("Bound"))
}

fn fits_node(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|required| {
        let terms = required.node_selector_terms.iter();
        terms.into_iter().any(|term| term_matches(term, node.labels(), node.name()))
    })
}

fn storage(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Amount {
    let quantity = list.and_then(|list| list.get("storage"));
    quantity.and_then(|quantity| quantity.0.parse().ok()).unwrap_or_default()
}

fn for_claim(claim: &ObjectMeta) -> String {
    format!("claim {}", Key::of(claim))
}

fn for_class(class: Option<&str>) -> String {
    format!("class {}", class.unwrap_or_default())
}

fn for_whom(volume: &PersistentVolume) -> String {
    let spec = volume.spec.as_ref();
    match spec.and_then(|spec| spec.claim_ref.as_ref()) {
        Some(claim) => for_claim(&ObjectMeta {
            name: claim.name.clone(),
            namespace: claim.namespace.clone(),
            ..ObjectMeta::default()
        }),
        None => for_class(spec.and_then(|spec| spec.storage_class_name.as_deref())),
    }
}

/// Whether a volume could be bound to a claim, wherever it is.
fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mode = |value: &Option<String>| value.clone().unwrap_or_else(|| "Filesystem".into());
    if let Some(reference) = &has.claim_ref {
        let same = reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (reference.uid.is_none() || reference.uid == claim.metadata.uid);
        if !same {
            return false;
        }
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let available = phase == Some("Available") || has.claim_ref.is_some();
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let selector = wants.selector.as_ref().map(|s| Selector::from_label_selector(Some(s)));
    let labels = volume.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
    available
        && volume.metadata.deletion_timestamp.is_none()
        && text(&has.storage_class_name) == text(&wants.storage_class_name)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && storage(has.capacity.as_ref())
            >= storage(wants.resources.as_ref().and_then(|r| r.requests.as_ref()))
        && selector.is_none_or(|s| s.is_ok_and(|s| s.matches(labels)))
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

    async fn bind(&self, plan: &Bindings, node: &str) -> Result<(), ClientError> {
        let volumes: Resources<PersistentVolume> = Resources::all(self.client.clone());
        for (volume, claim) in &plan.existing {
            let meta = &claim.metadata;
            let patch = json!({
                // Guarded: a volume that was given away meanwhile is not taken over.
                "metadata": {
                    "resourceVersion": volume.metadata.resource_version,
                    "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta.namespace,
                    "name": meta.name,
                    "uid": meta.uid,
                    "resourceVersion": meta.resource_version,
                }},
            });
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            volumes.patch(name, PatchKind::Merge, patch).await?;
        }
        for claim in &plan.provisioned {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            self.claims_in(claim).patch(name, PatchKind::Merge, patch).await?;
        }
        Ok(())
    }

    fn claims_in(&self, claim: &PersistentVolumeClaim) -> Resources<PersistentVolumeClaim> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        Resources::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a claim is bound, or its provisioner has given the node up.
    async fn wait_until_bound(
        &self,
        claim: &PersistentVolumeClaim,
        provisioned: bool,
    ) -> Result<(), Fault> {
        let claims = self.claims_in(claim);
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let given_up = |claim: &PersistentVolumeClaim| {
            let annotations = claim.metadata.annotations.as_ref();
            provisioned && !annotations.is_some_and(|a| a.contains_key(SELECTED_NODE))
        };
        let options = WatchOptions {
            field_selector: Some(format!("metadata.name={name}")),
            ..WatchOptions::default()
        };
        loop {
            let stream = claims.watch(options.clone()).await?;
            let done = move |claim: &PersistentVolumeClaim| is_bound(claim) || given_up(claim);
            match Resources::first_match(stream, done).await? {
                Some(claim) if is_bound(&claim) => return Ok(()),
                Some(_) => return Err(format!("provisioning for claim {name:?} failed").into()),
                // The server ended the watch: ask again.
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
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

#[async_trait]
impl PreBind for VolumeBinding {
    async fn pre_bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Verdict, Fault> {
        let Some(plan) = state.get::<Bindings>().cloned() else { return Ok(Verdict::Skip) };
        let work = async {
            self.bind(&plan, node).await?;
            for (_, claim) in &plan.existing {
                self.wait_until_bound(claim, false).await?;
            }
            for claim in &plan.provisioned {
                self.wait_until_bound(claim, true).await?;
            }
            Ok::<(), Fault>(())
        };
        let outcome = tokio::time::timeout(self.arguments.bind_timeout, work).await;
        outcome.map_err(|_| "timed out waiting for the pod's claims to be bound")??;
        self.promised.lock().retain(|_, owner| owner != pod.uid());
        Ok(Verdict::Success)
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
