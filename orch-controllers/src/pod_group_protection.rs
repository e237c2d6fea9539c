//! Groups of pods do not go while pods that are not over name them.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/scheduling/podgroupprotection`.

use k8s_openapi::api::{core::v1::Pod, scheduling::v1alpha2::PodGroup};
use orch_core::{
    Key,
    informer::{Change, Informers},
};

use crate::{Action, Controller, context::Context, pods, volumes::set_finalizer};

const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";
/// Pods by the group that they name.
const BY_GROUP: &str = "pod-group";

/// The controller that keeps groups of pods while there are pods that name them and are not over.
/// The cluster must serve `podgroups` of `scheduling.k8s.io/v1alpha2`.
pub fn pod_group_protection(informers: &Informers) -> Controller {
    let context = Context::new(informers, "podgroup-protection-controller");
    let (groups, members) = (context.informer::<PodGroup>(), context.informer::<Pod>());
    members.add_index(BY_GROUP, |pod| group_of(pod).iter().map(Key::to_string).collect());
    context.builder().watches_own::<PodGroup>().watches::<Pod>(concerned).build(move |key: Key| {
        let (context, group) = (context.clone(), groups.get(&key));
        let members = members.by_index(BY_GROUP, &key.to_string());
        async move {
            let Some(group) = group else { return Ok(Action::Done) };
            let going = group.metadata.deletion_timestamp.is_some();
            let is_used = members.iter().any(|pod| !pods::is_terminal(pod));
            // A finalizer is added when a group is used, and taken away only when it goes.
            if is_used != going {
                set_finalizer::<PodGroup>(&context, &group.metadata, FINALIZER, !going).await?;
            }
            Ok(Action::Done)
        }
    })
}

fn group_of(pod: &Pod) -> Option<Key> {
    let name = pod.spec.as_ref()?.scheduling_group.as_ref()?.pod_group_name.as_deref()?;
    Some(Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// The groups whose number of members that are not over may have changed.
fn concerned(change: &Change<Pod>) -> Vec<Key> {
    let is_new = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_none_or(str::is_empty)
    };
    let counts = |pod: &Pod| is_new(pod) || pods::is_terminal(pod);
    let of = |pod: &Pod| group_of(pod).into_iter().collect::<Vec<_>>();
    match change {
        Change::Deleted(pod) => of(pod),
        Change::Updated { old, new } if old.metadata.uid != new.metadata.uid => {
            [of(old), of(new)].concat()
        }
        Change::Added(pod) | Change::Updated { new: pod, .. } if counts(pod) => of(pod),
        _ => Vec::new(),
    }
}
