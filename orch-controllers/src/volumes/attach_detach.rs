//! Attaches volumes of CSI drivers to the nodes whose pods need them, and detaches them again.
//!
//! Attaching is asked for with a `VolumeAttachment`; the driver's own controller does it (upstream's
//! external attacher, or an [`Attacher`](super::Attacher) of this process) and answers in the
//! object's status. What is attached is told to the node in `status.volumesAttached`.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/attachdetach`.
//! Differs: everything is found again in the cluster's objects after a restart, except since when
//! an attachment is not needed any more. Nothing polls. In-tree volumes that upstream translates to
//! their CSI drivers are not attached.

mod attaching;
mod detaching;
mod identity;
mod node_status;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;

use self::identity::Identity;
use super::{BY_CLAIM_REF, StorageMetrics, annotation, claim_key, claims_of, index_by_claim};
use crate::{
    Action, Controller, Reconciler,
    context::Context,
    node_lifecycle::{BY_NODE, index_by_node},
    pods,
    reconciler::Reconciled,
};

/// Attachments by the volume that they are of, and by their node.
const BY_VOLUME: &str = "volume";
const BY_ATTACHED_NODE: &str = "node";
/// Nodes by the volumes that their status has attached, and volumes by that name.
const BY_UNIQUE_NAME: &str = "unique-volume-name";
/// Volumes by their driver.
const BY_DRIVER: &str = "csi-driver";

/// How volumes are detached from nodes that do not let them go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachDetachOptions {
    /// How long a node that is not ready may keep a volume that it says it uses. Default 6 min.
    pub wait_for_unmount: Duration,
    /// Never takes a volume from a node that uses it, unless the node is marked out of service.
    /// Default false.
    pub never_forces: bool,
}

impl Default for AttachDetachOptions {
    fn default() -> Self {
        Self { wait_for_unmount: Duration::from_secs(360), never_forces: false }
    }
}

/// What is known beyond the cluster's objects. Times are lost with a restart, and begin anew.
#[derive(Default)]
struct State {
    /// Since when an attachment is not needed, by its name.
    unwanted_since: BTreeMap<String, Timestamp>,
    /// Since when a driver is asked to attach, by the attachment's name.
    asked_since: BTreeMap<String, Timestamp>,
    /// The failure that users were told of last, by the attachment's name.
    told: BTreeMap<String, String>,
    /// Nodes that may not have a volume while another has it, which their pods were told.
    refused: BTreeSet<(String, String)>,
    /// What nodes said last that they use; kept when they go, for then nobody knows.
    in_use: BTreeMap<String, BTreeSet<String>>,
}

struct AttachDetach {
    context: Context,
    options: AttachDetachOptions,
    metrics: StorageMetrics,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    state: Arc<Mutex<State>>,
}

/// The controller that attaches volumes to nodes. Its keys are volumes, so that two nodes never
/// compete for one.
pub fn attach_detach(
    informers: &Informers,
    options: AttachDetachOptions,
    metrics: StorageMetrics,
) -> Controller {
    let name = "persistentvolume-attach-detach-controller";
    let context = Context::reporting(informers, name, "attachdetach-controller");
    let this = AttachDetach {
        volumes: context.informer(),
        claims: context.informer(),
        pods: context.informer(),
        nodes: context.informer(),
        drivers: context.informer(),
        attachments: context.informer(),
        state: Arc::default(),
        context,
        options,
        metrics,
    };
    this.index();
    let sources = Sources {
        volumes: this.volumes.clone(),
        claims: this.claims.clone(),
        pods: this.pods.clone(),
        attachments: this.attachments.clone(),
        state: this.state.clone(),
    };
    let (for_pods, for_drivers) = (sources.clone(), this.volumes.clone());
    this.context
        .builder()
        .watches_own::<PersistentVolume>()
        .watches::<PersistentVolumeClaim>(|change| volume_of(change.object()))
        .watches::<Pod>(move |change| for_pods.of_pod(change))
        .watches::<Node>(move |change| sources.of_node(change))
        .watches::<VolumeAttachment>(|change| {
            let source = &change.object().spec.source;
            source.persistent_volume_name.clone().map(Key::cluster).into_iter().collect()
        })
        .watches::<CSIDriver>(move |change| {
            let driver = change.object().metadata.name.clone().unwrap_or_default();
            let volumes = for_drivers.by_index(BY_DRIVER, &driver);
            volumes.iter().map(|volume| Key::of(&volume.metadata)).collect()
        })
        .build(this)
}

fn volume_of(claim: &PersistentVolumeClaim) -> Vec<Key> {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    name.filter(|name| !name.is_empty()).map(Key::cluster).into_iter().collect()
}

/// From changes to the volumes that they concern.
#[derive(Clone)]
struct Sources {
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    attachments: Informer<VolumeAttachment>,
    state: Arc<Mutex<State>>,
}

impl Sources {
    fn of_pod(&self, change: &Change<Pod>) -> Vec<Key> {
        if let Change::Updated { old, new } = change {
            let place = |pod: &Pod| (super::node_of(pod).map(str::to_owned), pods::is_over(pod));
            if place(old) == place(new) {
                return Vec::new();
            }
        }
        self.of_claims(change.object())
    }

    fn of_claims(&self, pod: &Pod) -> Vec<Key> {
        let claims = claims_of(pod).into_iter().filter_map(|key| self.claims.get(&key));
        claims.flat_map(|claim| volume_of(&claim)).collect()
    }

    /// Heartbeats concern no volume.
    fn of_node(&self, change: &Change<Node>) -> Vec<Key> {
        let node = change.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        let used: BTreeSet<String> = node_status::in_use(node).iter().cloned().collect();
        if used.is_empty() {
            self.state.lock().in_use.remove(&name);
        } else {
            self.state.lock().in_use.insert(name.clone(), used);
        }
        if let Change::Updated { old, new } = change {
            let matters = |node: &Node| {
                let attached = node_status::attached(node).to_vec();
                let used = node_status::in_use(node).to_vec();
                let state = (node_status::is_ready(node), node_status::is_out_of_service(node));
                (attached, used, state, wanted::is_managed(node))
            };
            if matters(old) == matters(new) {
                return Vec::new();
            }
        }
        let mut keys = BTreeSet::new();
        let attachments = self.attachments.by_index(BY_ATTACHED_NODE, &name);
        keys.extend(attachments.iter().filter_map(|attachment| {
            attachment.spec.source.persistent_volume_name.clone().map(Key::cluster)
        }));
        for attached in node_status::attached(node) {
            let volumes = self.volumes.by_index(BY_UNIQUE_NAME, &attached.name);
            keys.extend(volumes.iter().map(|volume| Key::of(&volume.metadata)));
        }
        for pod in self.pods.by_index(BY_NODE, &name) {
            keys.extend(self.of_claims(&pod));
        }
        keys.into_iter().collect()
    }
}

impl AttachDetach {
    fn index(&self) {
        index_by_claim(&self.pods);
        index_by_node(&self.pods);
        self.volumes.add_index(BY_CLAIM_REF, |volume| {
            claim_key(volume).map(|key| key.to_string()).into_iter().collect()
        });
        self.volumes.add_index(BY_UNIQUE_NAME, |volume| {
            Identity::of(volume).map(|identity| identity.unique_name()).into_iter().collect()
        });
        self.volumes.add_index(BY_DRIVER, |volume| {
            Identity::of(volume).map(|identity| identity.driver).into_iter().collect()
        });
        self.nodes.add_index(BY_UNIQUE_NAME, |node| {
            node_status::attached(node).iter().map(|volume| volume.name.clone()).collect()
        });
        self.attachments.add_index(BY_VOLUME, |attachment| {
            attachment.spec.source.persistent_volume_name.clone().into_iter().collect()
        });
        self.attachments
            .add_index(BY_ATTACHED_NODE, |attachment| vec![attachment.spec.node_name.clone()]);
    }

    fn needs_attaching(&self, identity: &Identity) -> bool {
        let driver = self.drivers.get(&Key::cluster(identity.driver.as_str()));
        identity::needs_attaching(driver.as_deref())
    }

    /// What is remembered of attachments that there are not, and of nodes that ask no more, goes.
    fn forget(&self, volume: &str, wanted: &wanted::Wanted, is_left: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        state.unwanted_since.retain(|name, _| is_left(name));
        state.asked_since.retain(|name, _| is_left(name));
        state.told.retain(|name, _| is_left(name));
        state.refused.retain(|(of, node)| of != volume || wanted.contains_key(node));
    }

    /// Nodes whose status has the volume attached while there is no attachment to them.
    async fn correct_nodes(
        &self,
        identity: &Identity,
        attachments: &[Arc<VolumeAttachment>],
    ) -> Result<(), orch_core::ClientError> {
        let unique_name = identity.unique_name();
        for node in self.nodes.by_index(BY_UNIQUE_NAME, &unique_name) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            if !attachments.iter().any(|attachment| attachment.spec.node_name == name) {
                self.report(name, &unique_name, false).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Reconciler for AttachDetach {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let volume = self.volumes.get(&key);
        let identity = volume.as_deref().and_then(Identity::of);
        let mut attachments = self.attachments.by_index(BY_VOLUME, &key.name);
        attachments.retain(|attachment| identity::is_ours(attachment, identity.as_ref()));
        let to = |node: &str| attachments.iter().any(|one| one.spec.node_name == node);
        let wanted = match (&volume, &identity) {
            (Some(volume), Some(identity)) if self.needs_attaching(identity) => {
                self.wanted(volume, to)
            }
            _ => wanted::Wanted::new(),
        };
        self.forget(&key.name, &wanted, |name| self.attachments.get(&Key::cluster(name)).is_some());
        let unique_name = identity.as_ref().map(Identity::unique_name);
        let mut next: Option<Duration> = None;
        // Detaching comes first: what moves to another node must leave the one before.
        for attachment in &attachments {
            if !wanted.contains_key(&attachment.spec.node_name) {
                next = soonest(next, self.detach(attachment, unique_name.as_deref()).await?);
            }
        }
        if let Some(identity) = &identity {
            self.correct_nodes(identity, &attachments).await?;
            for node in wanted.keys() {
                next = soonest(next, self.attach(identity, node, &wanted, &attachments).await?);
            }
        }
        Ok(next.map_or(Action::Done, Action::RequeueAfter))
    }
}

fn soonest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
