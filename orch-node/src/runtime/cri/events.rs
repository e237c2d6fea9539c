//! What happens in the runtime: its own event stream, or the difference between two lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use tonic::Code;

use super::{CriRuntime, proto, quick};
use crate::runtime::{RuntimeEvent, RuntimeEvents, labels};

/// How often a runtime without events is listed, as upstream's pod lifecycle event generator
/// lists it.
const RELIST_PERIOD: Duration = Duration::from_secs(1);

/// What is compared from list to list: a container's or sandbox's id to its pod and state.
type Seen = BTreeMap<String, (String, i32)>;

/// Events from now on.
pub(super) fn subscribe(cri: CriRuntime) -> RuntimeEvents {
    let opening = async move {
        let request = tonic::Request::new(proto::GetEventsRequest::default());
        match cri.runtime.clone().get_container_events(request).await {
            Ok(stream) => told(stream.into_inner()),
            Err(status) if status.code() == Code::Unimplemented => compared(cri),
            // The subscriber subscribes again after this.
            Err(status) => {
                tracing::debug!(%status, "the runtime's events cannot be had");
                futures::stream::once(async { RuntimeEvent::Lost }).boxed()
            }
        }
    };
    futures::stream::once(opening).flatten().boxed()
}

fn told(
    stream: tonic::Streaming<proto::ContainerEventResponse>,
) -> BoxStream<'static, RuntimeEvent> {
    stream
        .map(|event| match event {
            Ok(event) => {
                let metadata = event.pod_sandbox_status.and_then(|s| s.metadata);
                let pod = metadata.map(|m| m.uid).filter(|uid| !uid.is_empty());
                pod.map_or(RuntimeEvent::Lost, |pod_uid| RuntimeEvent::PodChanged { pod_uid })
            }
            Err(_) => RuntimeEvent::Lost,
        })
        .boxed()
}

fn compared(cri: CriRuntime) -> BoxStream<'static, RuntimeEvent> {
    let start = (cri, None::<Seen>, Vec::new());
    futures::stream::unfold(start, |(cri, mut before, mut pending)| async move {
        loop {
            if let Some(event) = pending.pop() {
                return Some((event, (cri, before, pending)));
            }
            if before.is_some() {
                tokio::time::sleep(RELIST_PERIOD).await;
            }
            // A runtime that cannot be reached is looked at again in a second.
            let Ok(now) = look(&cri).await else {
                before.get_or_insert_default();
                continue;
            };
            if let Some(before) = &before {
                pending = difference(before, &now);
            }
            before = Some(now);
        }
    })
    .boxed()
}

async fn look(cri: &CriRuntime) -> Result<Seen, tonic::Status> {
    let mut client = cri.runtime.clone();
    let containers = client.list_containers(quick(proto::ListContainersRequest::default())).await?;
    let sandboxes = client.list_pod_sandbox(quick(proto::ListPodSandboxRequest::default())).await?;
    let pod = |labels: &std::collections::HashMap<String, String>| {
        labels.get(labels::POD_UID).cloned().unwrap_or_default()
    };
    let containers = containers.into_inner().containers.into_iter();
    let sandboxes = sandboxes.into_inner().items.into_iter();
    Ok(containers
        .map(|c| (c.id, (pod(&c.labels), c.state)))
        .chain(sandboxes.map(|s| (s.id, (pod(&s.labels), s.state))))
        .collect())
}

fn difference(before: &Seen, now: &Seen) -> Vec<RuntimeEvent> {
    let left = before.iter().filter(|(id, seen)| now.get(*id) != Some(*seen));
    let came = now.iter().filter(|(id, _)| !before.contains_key(*id));
    let pods: BTreeSet<&String> = left.chain(came).map(|(_, (pod, _))| pod).collect();
    let pods = pods.into_iter().filter(|uid| !uid.is_empty());
    pods.map(|uid| RuntimeEvent::PodChanged { pod_uid: uid.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_with_a_difference_are_told() {
        let seen = |rows: &[(&str, &str, i32)]| -> Seen {
            rows.iter().map(|(id, pod, state)| ((*id).into(), ((*pod).into(), *state))).collect()
        };
        let before = seen(&[("1", "a", 1), ("2", "b", 1), ("3", "c", 1)]);
        let now = seen(&[("1", "a", 1), ("2", "b", 2), ("4", "d", 0), ("5", "", 1)]);
        let told = difference(&before, &now);
        let expected = ["b", "c", "d"].map(|p| RuntimeEvent::PodChanged { pod_uid: p.into() });
        assert_eq!(told, expected);
    }
}
