//! Changes of the cluster, as far as they can make a pod schedulable.
//!
//! Source: `k8s.io/kube-scheduler/framework/events.go`.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::{DeviceClass, ResourceClaim},
    scheduling::v1alpha2::PodGroup,
};

use crate::pod_info::PodInfo;

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventResource {
    /// A node.
    Node,
    /// A pod that has a node.
    AssignedPod,
    /// A pod of a pod group that has none.
    UnscheduledPod,
    /// A PodGroup.
    PodGroup,
    /// The waiting pod itself.
    PodItself,
    /// A PersistentVolume.
    PersistentVolume,
    /// A PersistentVolumeClaim.
    PersistentVolumeClaim,
    /// A StorageClass.
    StorageClass,
    /// A CSINode.
    CsiNode,
    /// A CSIDriver.
    CsiDriver,
    /// A CSIStorageCapacity.
    CsiStorageCapacity,
    /// A VolumeAttachment.
    VolumeAttachment,
    /// A ResourceClaim.
    ResourceClaim,
    /// A ResourceSlice.
    ResourceSlice,
    /// A DeviceClass.
    DeviceClass,
    /// Anything else; nothing rules it out.
    Any,
}

/// What happened to it, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions(u16);

impl Actions {
    /// It came into being.
    pub const ADD: Self = Self(1);
    /// It went away.
    pub const DELETE: Self = Self(1 << 1);
    /// Its labels changed.
    pub const UPDATE_LABEL: Self = Self(1 << 2);
    /// A node's taints, or whether it is unschedulable.
    pub const UPDATE_TAINT: Self = Self(1 << 3);
    /// What a node can give.
    pub const UPDATE_ALLOCATABLE: Self = Self(1 << 4);
    /// A pod needs less than before.
    pub const UPDATE_SCALE_DOWN: Self = Self(1 << 5);
    /// Any other part.
    pub const UPDATE_OTHER: Self = Self(1 << 6);
    /// The features that a node declares.
    pub const UPDATE_DECLARED_FEATURES: Self = Self(1 << 7);
    /// Any change of what exists.
    pub const UPDATE: Self = Self(0b1111_1100);
    /// Everything.
    pub const ALL: Self = Self(0b1111_1111);

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have something in common.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A kind of change that a plugin wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterEvent {
    /// What it is about.
    pub resource: EventResource,
    /// What happened.
    pub actions: Actions,
}

impl ClusterEvent {
    /// A kind of change.
    pub const fn new(resource: EventResource, actions: Actions) -> Self {
        Self { resource, actions }
    }

    /// Whether a change is of this kind.
    pub fn includes(&self, change: &ClusterChange) -> bool {
        let same = self.resource == change.resource
            || self.resource == EventResource::Any
            || change.resource == EventResource::Any;
        same && self.actions.intersects(change.actions)
    }
}

/// Before and after, where a hint can make use of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChangedObject {
    /// A node; `old` is absent for a new one, `new` for one that is gone.
    Node {
        /// Before.
        old: Option<Arc<Node>>,
        /// After.
        new: Option<Arc<Node>>,
    },
    /// A pod with a node.
    AssignedPod {
        /// Before.
        old: Option<Arc<PodInfo>>,
        /// After.
        new: Option<Arc<PodInfo>>,
    },
    /// A new pod of a pod group, without a node.
    UnscheduledPod(Arc<PodInfo>),
    /// A new pod group.
    PodGroup(Arc<PodGroup>),
    /// A pod that waits.
    Pod {
        /// Before.
        old: Arc<Pod>,
        /// After.
        new: Arc<Pod>,
    },
    /// A claim for devices; `old` is absent for a new one, `new` for one that is gone.
    ResourceClaim {
        /// Before.
        old: Option<Arc<ResourceClaim>>,
        /// After.
        new: Option<Arc<ResourceClaim>>,
    },
    /// A class of devices; `old` is absent for a new one, `new` for one that is gone.
    DeviceClass {
        /// Before.
        old: Option<Arc<DeviceClass>>,
        /// After.
        new: Option<Arc<DeviceClass>>,
    },
    /// Not told.
    Other,
}

/// A change of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterChange {
    /// What it is about.
    pub resource: EventResource,
    /// What happened.
    pub actions: Actions,
    /// Before and after.
    pub object: ChangedObject,
}

impl ClusterChange {
    /// A change of which only the kind matters.
    pub fn of(resource: EventResource, actions: Actions) -> Self {
        Self { resource, actions, object: ChangedObject::Other }
    }

    /// The node after the change, if the change is about a node that is still there.
    pub fn node(&self) -> Option<&Node> {
        match &self.object {
            ChangedObject::Node { new, .. } => new.as_deref(),
            _ => None,
        }
    }
}

/// A plugin's opinion on whether a change helps a pod that it rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It may.
    Queue,
    /// It does not.
    Skip,
}

/// What changed between two states of a node, as far as scheduling is concerned: a heartbeat is
/// nothing.
pub(crate) fn node_actions(old: &Node, new: &Node) -> Actions {
    let mut actions = Actions::default();
    let spec = |node: &Node| {
        let spec = node.spec.as_ref();
        (
            spec.and_then(|s| s.unschedulable).unwrap_or(false),
            spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
        )
    };
    if old.metadata.labels != new.metadata.labels {
        actions = actions.or(Actions::UPDATE_LABEL);
    }
    if spec(old) != spec(new) {
        actions = actions.or(Actions::UPDATE_TAINT);
    }
    let status = |node: &Node| node.status.clone().unwrap_or_default();
    let (before, after) = (status(old), status(new));
    if before.allocatable != after.allocatable {
        actions = actions.or(Actions::UPDATE_ALLOCATABLE);
    }
    if before.declared_features != after.declared_features {
        actions = actions.or(Actions::UPDATE_DECLARED_FEATURES);
    }
    if before.images != after.images {
        actions = actions.or(Actions::UPDATE_OTHER);
    }
    actions
}
