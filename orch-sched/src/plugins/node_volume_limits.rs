//! A node can attach so many volumes of each driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Volume},
    storage::v1::{CSINode, StorageClass, VolumeAttachment},
};
use orch_core::{
    Key,
    claim::{PodClaim, claims_of},
    informer::{Informer, Informers},
};

use self::{
    in_tree::{InTree, of_class, of_pod, of_volume},
    moved::Moved,
};
use super::version_of;
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, GroupKey, Grouping, Plugin, PreFilter, PreFiltered, Reuse},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

mod in_tree;
mod moved;

const REASON: &str = "node(s) exceed max volume count";
const BY_NODE: &str = "node";
const BY_VOLUME: &str = "volume";
const BY_HANDLE: &str = "handle";

/// Source: `pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`.
#[derive(Clone, Debug)]
pub struct NodeVolumeLimits {
    lookup: Arc<Lookup>,
    moved: Arc<Moved>,
}

/// Finds what pods attach.
#[derive(Debug)]
struct Lookup {
    nodes: Informer<CSINode>,
    attachments: Informer<VolumeAttachment>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

/// A volume of a pod that a driver attaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attached {
    driver: String,
    handle: String,
    /// Where it is not the driver's own: it counts only on nodes where the driver serves it.
    in_tree: Option<InTree>,
}

/// What the pod at hand attaches.
#[derive(Clone, Debug)]
struct Wanted {
    volumes: Arc<BTreeSet<Attached>>,
    /// What its answers depend on, apart from the node.
    version: u64,
}

fn volumes_of(pod: &PodInfo) -> &[Volume] {
    pod.spec().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

fn may_count(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || of_pod(volume).is_some()
}

impl NodeVolumeLimits {
    /// Looks everything up in these informers.
    pub fn new(informers: &Informers) -> Self {
        let attachments: Informer<VolumeAttachment> = informers.of();
        attachments.add_index(BY_NODE, |attachment| vec![attachment.spec.node_name.clone()]);
        attachments.add_index(BY_VOLUME, |attachment| {
            attachment.spec.source.persistent_volume_name.iter().cloned().collect()
        });
        let volumes: Informer<PersistentVolume> = informers.of();
        volumes.add_index(BY_HANDLE, |volume| {
            of_persistent(volume).map(|v| v.handle).into_iter().collect()
        });
        let (claims, classes, nodes) = (informers.of(), informers.of(), informers.of());
        let lookup = Arc::new(Lookup { nodes, attachments, claims, volumes, classes });
        Self { moved: Moved::follow(&lookup), lookup }
    }

    /// What the answers about these volumes depend on: on each of them where one may be attached
    /// already, else on how many there are of each driver.
    fn version(&self, pod: &PodInfo, wanted: &BTreeSet<Attached>, snapshot: &Snapshot) -> u64 {
        let moved = self.moved.version(snapshot);
        if self.lookup.may_be_attached(pod, snapshot) {
            return version_of(&(moved, wanted));
        }
        let mut counts = BTreeMap::new();
        for one in wanted {
            *counts.entry((&one.driver, one.in_tree)).or_insert(0) += 1;
        }
        version_of(&(moved, counts))
    }
}

impl Lookup {
    /// The volumes of a pod; otherwise the name of a claim that does not exist. With `strict` unset
    /// such claims are left out.
    fn of_pod(&self, pod: &PodInfo, strict: bool) -> Result<BTreeSet<Attached>, String> {
        let inline = volumes_of(pod).iter().filter_map(of_pod);
        let inline = inline.map(|(in_tree, handle)| Attached {
            driver: in_tree.driver().to_owned(),
            handle,
            in_tree: Some(in_tree),
        });
        let mut found: BTreeSet<Attached> = inline.collect();
        for PodClaim { name, .. } in claims_of(pod.pod()) {
            match self.claims.get(&Key::new(pod.namespace(), name.as_str())) {
                Some(claim) => found.extend(self.of_claim(&claim)),
                None if strict => return Err(name),
                None => {}
            }
        }
        Ok(found)
    }

    fn of_claim(&self, claim: &PersistentVolumeClaim) -> Option<Attached> {
        let name = claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty());
        match name.and_then(|name| self.volumes.get(&Key::cluster(name))) {
            Some(volume) => of_persistent(&volume),
            None => self.of_class(claim),
        }
    }

    /// A volume that is still to be made.
    fn of_class(&self, claim: &PersistentVolumeClaim) -> Option<Attached> {
        let class = claim.spec.as_ref()?.storage_class_name.as_deref()?;
        let class = self.classes.get(&Key::cluster(class))?;
        // No volume has a handle that begins like this: it stands for one that does not exist yet.
        let handle = format!("unbound {}", Key::of(&claim.metadata));
        let in_tree = of_class(&class.provisioner);
        let driver = match in_tree {
            Some(in_tree) => in_tree.driver().to_owned(),
            None => class.provisioner.clone(),
        };
        Some(Attached { driver, handle, in_tree })
    }

    /// Whether something of the pod's may be attached to some node already.
    fn may_be_attached(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        let claim = |one: PodClaim| {
            let Some(claim) = self.claims.get(&Key::new(pod.namespace(), one.name.as_str())) else {
                return false;
            };
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            let volume = volume.unwrap_or_default();
            snapshot.is_claim_used(pod.namespace(), &one.name)
                || self.attachments.count_by_index(BY_VOLUME, volume) > 0
                || self.of_claim(&claim).is_some_and(|own| self.is_shared(&own.handle))
        };
        volumes_of(pod).iter().any(|volume| of_pod(volume).is_some())
            || claims_of(pod.pod()).any(claim)
    }

    /// Whether several volumes are one to their driver.
    fn is_shared(&self, handle: &str) -> bool {
        self.volumes.count_by_index(BY_HANDLE, handle) > 1
    }

    fn attached_to(&self, node: &NodeInfo, csi_node: &CSINode) -> BTreeSet<(String, String)> {
        let pods = node.pods().iter().filter(|pod| volumes_of(pod).iter().any(may_count));
        let of_pods = pods.flat_map(|pod| self.of_pod(pod, false).unwrap_or_default());
        let of_pods = of_pods.filter(|one| counts_on(one, csi_node));
        let mut all: BTreeSet<(String, String)> =
            of_pods.map(|one| (one.driver, one.handle)).collect();
        // Volumes of pods that are gone are attached until they are detached.
        for attachment in self.attachments.by_index(BY_NODE, node.name()) {
            let name = attachment.spec.source.persistent_volume_name.as_deref();
            let volume = name.and_then(|name| self.volumes.get(&Key::cluster(name)));
            let own = volume.and_then(|volume| of_persistent(&volume));
            all.extend(own.map(|own| (attachment.spec.attacher.clone(), own.handle)));
        }
        all
    }

    /// Whether a node has room for these.
    fn fits(&self, wanted: &BTreeSet<Attached>, node: &NodeInfo) -> bool {
        let Some(csi_node) = self.nodes.get(&Key::cluster(&**node.name())) else { return true };
        let limits = limits(&csi_node);
        let counted = wanted
            .iter()
            .filter(|one| limits.contains_key(&*one.driver) && counts_on(one, &csi_node));
        let mut counted = counted.peekable();
        if counted.peek().is_none() {
            return true;
        }
        let mut attached = self.attached_to(node, &csi_node);
        let before = attached.len();
        attached.extend(counted.map(|one| (one.driver.clone(), one.handle.clone())));
        if attached.len() == before {
            // All of them are there already.
            return true;
        }
        wanted.iter().all(|one| {
            let count = attached.iter().filter(|(driver, _)| *driver == one.driver).count() as i64;
            limits.get(&*one.driver).is_none_or(|limit| count <= *limit)
        })
    }
}

fn of_persistent(volume: &PersistentVolume) -> Option<Attached> {
    let spec = volume.spec.as_ref()?;
    if let Some(csi) = &spec.csi {
        let (driver, handle) = (csi.driver.clone(), csi.volume_handle.clone());
        return Some(Attached { driver, handle, in_tree: None });
    }
    let (in_tree, handle) = of_volume(spec)?;
    Some(Attached { driver: in_tree.driver().to_owned(), handle, in_tree: Some(in_tree) })
}

fn counts_on(volume: &Attached, csi_node: &CSINode) -> bool {
    volume.in_tree.is_none_or(|in_tree| in_tree.is_migrated_on(csi_node))
}

/// How many volumes of each driver a node can attach, where that is known.
fn limits(node: &CSINode) -> BTreeMap<&str, i64> {
    let limit = |driver: &'_ k8s_openapi::api::storage::v1::CSINodeDriver| {
        driver.allocatable.as_ref().and_then(|allocatable| allocatable.count)
    };
    let drivers = node.spec.drivers.iter();
    drivers.filter_map(|driver| Some((driver.name.as_str(), limit(driver)?.into()))).collect()
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &str {
        "NodeVolumeLimits"
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

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if !volumes_of(pod).iter().any(may_count) {
            return Ok(Verdict::Skip.into());
        }
        Ok(match self.lookup.of_pod(pod, true) {
            Ok(wanted) if wanted.is_empty() => Verdict::Skip.into(),
            Ok(wanted) => {
                let version = self.version(pod, &wanted, snapshot);
                state.insert(Wanted { volumes: Arc::new(wanted), version });
                Verdict::Success.into()
            }
            Err(name) => Verdict::unresolvable(format!(
                "looking up PVC {}/{name}: persistentvolumeclaim \"{name}\" not found",
                pod.namespace()
            ))
            .into(),
        })
    }
}

impl Filter for NodeVolumeLimits {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let wanted = state.get::<Wanted>().ok_or("PreFilter did not run")?;
        Ok(Verdict::success_if(self.lookup.fits(&wanted.volumes, node), REASON))
    }

    fn reuse(&self) -> Reuse {
        Reuse::Grouped
    }
}

/// The nodes that have room, and the others.
impl Grouping for NodeVolumeLimits {
    fn group(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo, key: &mut GroupKey) {
        if let Some(wanted) = state.get::<Wanted>() {
            key.number(self.lookup.fits(&wanted.volumes, node).into());
        }
    }

    fn version(&self, state: &CycleState) -> u64 {
        state.get::<Wanted>().map_or(0, |wanted| wanted.version)
    }
}

impl EventsToRegister for NodeVolumeLimits {
    fn events(&self) -> Vec<ClusterEvent> {
        vec![
            ClusterEvent::new(EventResource::CsiNode, Actions::ADD.or(Actions::UPDATE)),
            ClusterEvent::new(EventResource::AssignedPod, Actions::DELETE),
            ClusterEvent::new(EventResource::PersistentVolumeClaim, Actions::ADD),
            ClusterEvent::new(EventResource::VolumeAttachment, Actions::DELETE),
        ]
    }

    /// A pod that went helps if it had volumes that count.
    fn hint(&self, _: &PodInfo, change: &ClusterChange) -> Hint {
        match &change.object {
            ChangedObject::AssignedPod { old: Some(gone), .. }
                if !volumes_of(gone).iter().any(may_count) =>
            {
                Hint::Skip
            }
            _ => Hint::Queue,
        }
    }
}
