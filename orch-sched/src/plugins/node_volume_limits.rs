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

use self::in_tree::{InTree, of_class, of_pod, of_volume};
use crate::{
    cycle_state::CycleState,
    error::Fault,
    event::{Actions, ChangedObject, ClusterChange, ClusterEvent, EventResource, Hint},
    node_info::NodeInfo,
    plugin::{EventsToRegister, Filter, Plugin, PreFilter, PreFiltered},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

mod in_tree;

const REASON: &str = "node(s) exceed max volume count";
const BY_NODE: &str = "node";

/// Source: `pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`.
#[derive(Clone, Debug)]
pub struct NodeVolumeLimits {
    nodes: Informer<CSINode>,
    attachments: Informer<VolumeAttachment>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

/// A volume of a pod that a driver attaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attached {
    driver: String,
    handle: String,
    /// Where it is not the driver's own: it counts only on nodes where the driver serves it.
    in_tree: Option<InTree>,
}

/// What the pod at hand attaches.
#[derive(Clone, Debug)]
struct Wanted(Arc<BTreeSet<Attached>>);

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
        Self {
            nodes: informers.of(),
            attachments,
            claims: informers.of(),
            volumes: informers.of(),
            classes: informers.of(),
        }
    }

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

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFiltered, Fault> {
        if !volumes_of(pod).iter().any(may_count) {
            return Ok(Verdict::Skip.into());
        }
        Ok(match self.of_pod(pod, true) {
            Ok(wanted) if wanted.is_empty() => Verdict::Skip.into(),
            Ok(wanted) => {
                state.insert(Wanted(Arc::new(wanted)));
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
        let Wanted(wanted) = state.get().ok_or("PreFilter did not run")?;
        let Some(csi_node) = self.nodes.get(&Key::cluster(&**node.name())) else {
            return Ok(Verdict::Success);
        };
        let limits = limits(&csi_node);
        let counted = wanted
            .iter()
            .filter(|one| limits.contains_key(&*one.driver) && counts_on(one, &csi_node));
        let mut counted = counted.peekable();
        if counted.peek().is_none() {
            return Ok(Verdict::Success);
        }
        let mut attached = self.attached_to(node, &csi_node);
        let before = attached.len();
        attached.extend(counted.map(|one| (one.driver.clone(), one.handle.clone())));
        if attached.len() == before {
            // All of them are there already.
            return Ok(Verdict::Success);
        }
        let over = wanted.iter().any(|one| {
            let count = attached.iter().filter(|(driver, _)| *driver == one.driver).count() as i64;
            limits.get(&*one.driver).is_some_and(|limit| count > *limit)
        });
        Ok(Verdict::success_if(!over, REASON))
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
