//! Binds through the API.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use orch_core::{Client, Resources};
use serde_json::json;

use crate::{
    cycle_state::CycleState,
    error::Fault,
    plugin::{Bind, EventsToRegister, Plugin},
    pod_info::PodInfo,
    verdict::Verdict,
};

/// How often an unknown outcome is asked about before the pod goes back to the queue.
const QUESTIONS_MAX: usize = 3;

/// Posts a `Binding`. When no answer comes, it asks whether the pod is bound: a pod that is bound
/// after all must not be taken for one that is not.
///
/// Source: `pkg/scheduler/framework/plugins/defaultbinder`.
pub struct DefaultBinder {
    client: Arc<dyn Client>,
}

impl DefaultBinder {
    /// Binds through this client.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

impl fmt::Debug for DefaultBinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultBinder")
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &str {
        "DefaultBinder"
    }

    fn as_bind(&self) -> Option<&dyn Bind> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, _: &CycleState, pod: &PodInfo, node: &str) -> Result<Verdict, Fault> {
        let name = &pod.key().name;
        let pods: Resources<Pod> = Resources::namespaced(self.client.clone(), pod.namespace());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": name,
                "namespace": pod.namespace(),
                "uid": pod.pod().metadata.uid,
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let error = match pods.create_sub(name, "binding", &binding).await {
            Ok(_) => return Ok(Verdict::Success),
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error.into()),
        };
        for _ in 0..QUESTIONS_MAX {
            let Ok(now) = pods.get(name).await else { continue };
            let bound = now.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let same = now.metadata.uid == pod.pod().metadata.uid;
            if same && bound == Some(node) {
                return Ok(Verdict::Success);
            }
            break;
        }
        Err(error.into())
    }
}

impl EventsToRegister for DefaultBinder {
    fn events(&self) -> Vec<crate::event::ClusterEvent> {
        Vec::new()
    }
}
