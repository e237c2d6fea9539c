//! What the scheduler learns from the cluster.

use std::sync::{Arc, Weak};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    scheduling::v1alpha2::PodGroup,
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use orch_core::informer::{Change, Informers, Watchable};

use super::Shared;
use crate::{
    event::{Actions, ChangedObject, ClusterChange, EventResource, node_actions},
    plugins::GangScheduling,
    pod_groups::group_of,
    pod_info::PodInfo,
};

/// Follows everything that decides where pods can go. The informers outlive the scheduler: their
/// handlers must not keep it alive.
pub(super) fn follow(informers: &Informers, shared: &Arc<Shared>) {
    let weak = || Arc::downgrade(shared);
    let nodes = weak();
    informers.of::<Node>().on_change(move |change| with(&nodes, |s| node_changed(s, change)));
    let pods = weak();
    informers.of::<Pod>().on_change(move |change| with(&pods, |s| pod_changed(s, change)));
    notice::<PersistentVolume>(informers, weak(), EventResource::PersistentVolume);
    notice::<PersistentVolumeClaim>(informers, weak(), EventResource::PersistentVolumeClaim);
    notice::<StorageClass>(informers, weak(), EventResource::StorageClass);
    touch::<CSINode>(informers, weak(), |node| node.metadata.name.as_deref());
    notice::<CSINode>(informers, weak(), EventResource::CsiNode);
    notice::<CSIDriver>(informers, weak(), EventResource::CsiDriver);
    notice::<CSIStorageCapacity>(informers, weak(), EventResource::CsiStorageCapacity);
    touch::<VolumeAttachment>(informers, weak(), |of| Some(&of.spec.node_name));
    notice::<VolumeAttachment>(informers, weak(), EventResource::VolumeAttachment);
    if shared.profiles.have(GangScheduling::NAME) {
        let groups = weak();
        let added = move |change: &Change<PodGroup>| with(&groups, |s| group_changed(s, change));
        informers.of::<PodGroup>().on_change(added);
    }
    notice::<ResourceSlice>(informers, weak(), EventResource::ResourceSlice);
    let classes = weak();
    informers.of::<DeviceClass>().on_change(move |change| {
        let told = |old, new| ChangedObject::DeviceClass { old, new };
        with(&classes, |shared| tell(shared, EventResource::DeviceClass, change, told));
    });
    let claims = weak();
    informers.of::<ResourceClaim>().on_change(move |change| {
        let told = |old, new| ChangedObject::ResourceClaim { old, new };
        with(&claims, |shared| tell(shared, EventResource::ResourceClaim, change, told));
    });
    // Started here so that affinity terms find namespaces from the first cycle on.
    drop(informers.of::<Namespace>());
}

fn with(shared: &Weak<Shared>, run: impl FnOnce(&Shared)) {
    if let Some(shared) = shared.upgrade() {
        run(&shared);
    }
}

fn notice<K: Watchable>(informers: &Informers, shared: Weak<Shared>, resource: EventResource) {
    informers.of::<K>().on_change(move |change| {
        let actions = match change {
            Change::Added(_) => Actions::ADD,
            Change::Updated { .. } => Actions::UPDATE,
            Change::Deleted(_) => Actions::DELETE,
        };
        with(&shared, |shared| shared.queue.changed(&ClusterChange::of(resource, actions)));
    });
}

/// What is kept about a node holds no more when an object about it came, went or changed.
fn touch<K: Watchable>(
    informers: &Informers,
    shared: Weak<Shared>,
    node: impl Fn(&K) -> Option<&str> + Send + Sync + 'static,
) {
    informers.of::<K>().on_change(move |change| {
        if let Some(name) = node(change.object()) {
            with(&shared, |shared| shared.cache.lock().touch(name));
        }
    });
}

/// Tells of a change with what there was before and after.
fn tell<K>(
    shared: &Shared,
    resource: EventResource,
    change: &Change<K>,
    object: impl FnOnce(Option<Arc<K>>, Option<Arc<K>>) -> ChangedObject,
) {
    let (old, new, actions) = match change {
        Change::Added(new) => (None, Some(new), Actions::ADD),
        Change::Updated { old, new } => (Some(old), Some(new), Actions::UPDATE),
        Change::Deleted(old) => (Some(old), None, Actions::DELETE),
    };
    let object = object(old.cloned(), new.cloned());
    shared.queue.changed(&ClusterChange { resource, actions, object });
}

fn node_changed(shared: &Shared, change: &Change<Node>) {
    let (old, new, actions) = match change {
        Change::Added(node) => (None, Some(node), Actions::ADD),
        Change::Updated { old, new } => {
            let actions = node_actions(old, new);
            if actions.is_empty() {
                return;
            }
            (Some(old), Some(new), actions)
        }
        Change::Deleted(node) => (Some(node), None, Actions::DELETE),
    };
    match new {
        Some(node) => shared.cache.lock().set_node(node.clone()),
        None => {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            shared.cache.lock().remove_node(&name);
        }
    }
    let object = ChangedObject::Node { old: old.cloned(), new: new.cloned() };
    shared.queue.changed(&ClusterChange { resource: EventResource::Node, actions, object });
}

fn group_changed(shared: &Shared, change: &Change<PodGroup>) {
    if let Change::Added(group) = change {
        let object = ChangedObject::PodGroup(group.clone());
        let (resource, actions) = (EventResource::PodGroup, Actions::ADD);
        shared.queue.changed(&ClusterChange { resource, actions, object });
    }
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty())
}

/// A pod that has come to its end counts as gone: it takes no place.
fn pod_changed(shared: &Shared, change: &Change<Pod>) {
    let (old, new) = match change {
        Change::Added(new) => (None, Some(new)),
        Change::Updated { old, new } => (Some(old), Some(new)),
        Change::Deleted(old) => (Some(old), None),
    };
    let old = old.filter(|pod| !is_finished(pod));
    let new = new.filter(|pod| !is_finished(pod));
    // After a gap, a pod and its namesake may look like one pod that changed.
    let replaced = matches!((old, new), (Some(a), Some(b)) if a.metadata.uid != b.metadata.uid);
    if let Some(old) = old.filter(|_| new.is_none() || replaced) {
        pod_gone(shared, old);
    }
    let Some(new) = new else { return };
    let old = old.filter(|_| !replaced);
    if has_node(new) {
        assigned(shared, old, new);
    } else {
        waiting(shared, old, new);
    }
}

fn pod_gone(shared: &Shared, pod: &Arc<Pod>) {
    let info = Arc::new(PodInfo::new(pod.clone()));
    shared.queue.delete(info.uid());
    shared.waiting.reject(info.uid(), "", "the pod was deleted");
    let removed = {
        let mut cache = shared.cache.lock();
        cache.nominations.remove(info.uid());
        cache.remove_pod(info.uid())
    };
    shared.groups.gone(&info);
    if removed.is_some() {
        let object = ChangedObject::AssignedPod { old: Some(info), new: None };
        let (resource, actions) = (EventResource::AssignedPod, Actions::DELETE);
        shared.queue.changed(&ClusterChange { resource, actions, object });
    }
}

fn assigned(shared: &Shared, old: Option<&Arc<Pod>>, new: &Arc<Pod>) {
    let was_assigned = old.filter(|pod| has_node(pod));
    if let Some(old) = was_assigned
        && old.metadata.labels == new.metadata.labels
        && old.spec == new.spec
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
    {
        // Its status: nothing that takes or gives a place.
        return;
    }
    let info = Arc::new(PodInfo::new(new.clone()));
    let before = was_assigned.map(|old| Arc::new(PodInfo::new(old.clone())));
    shared.queue.delete(info.uid());
    shared.cache.lock().set_pod(info.clone());
    let actions = match &before {
        None => Actions::ADD,
        Some(before) => update_actions(before, &info),
    };
    let object = ChangedObject::AssignedPod { old: before, new: Some(info) };
    let resource = EventResource::AssignedPod;
    shared.queue.changed(&ClusterChange { resource, actions, object });
}

fn update_actions(old: &PodInfo, new: &PodInfo) -> Actions {
    let mut actions = Actions::UPDATE_OTHER;
    if old.labels() != new.labels() {
        actions = actions.or(Actions::UPDATE_LABEL);
    }
    if old.requests() != new.requests() {
        actions = actions.or(Actions::UPDATE_SCALE_DOWN);
    }
    actions
}

fn waiting(shared: &Shared, old: Option<&Arc<Pod>>, new: &Arc<Pod>) {
    let info = Arc::new(PodInfo::new(new.clone()));
    if shared.profiles.of(&info).is_none() {
        return;
    }
    if new.metadata.deletion_timestamp.is_some() {
        shared.queue.delete(info.uid());
        shared.cache.lock().nominations.remove(info.uid());
        shared.waiting.reject(info.uid(), "", "the pod is being deleted");
        shared.groups.gone(&info);
        return;
    }
    let before = old.and_then(|pod| pod.status.as_ref()?.nominated_node_name.as_deref());
    if before.is_some() || info.nominated_node().is_some() {
        let mut cache = shared.cache.lock();
        if !cache.has_pod(info.uid()) {
            cache.nominations.follow(before.filter(|node| !node.is_empty()), &info);
        }
    }
    shared.groups.exists(&info);
    shared.queue.set(info.clone());
    if old.is_none() && group_of(&info).is_some() {
        let (resource, actions) = (EventResource::UnscheduledPod, Actions::ADD);
        let object = ChangedObject::UnscheduledPod(info);
        shared.queue.changed(&ClusterChange { resource, actions, object });
    }
}
