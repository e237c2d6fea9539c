//! Binds through the API.

use std::{fmt, sync::Arc, time::Duration};

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

/// Between two questions about an unknown outcome; doubled with every question.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// An API that has not answered for so long is given up.
const ASKED_MAX: Duration = Duration::from_secs(120);

/// Posts a `Binding`. When no answer comes, it asks whether the pod is bound until it knows: a pod
/// that is bound after all must not be taken for one that is not, for its place would be given away.
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
        let (mut pause, since) = (PAUSE_MIN, tokio::time::Instant::now());
        let now = loop {
            match pods.get_opt(name).await {
                Ok(now) => break now,
                Err(fault) if fault.is_retryable() && since.elapsed() < ASKED_MAX => {
                    tokio::time::sleep(pause).await;
                }
                Err(_) => return Err(error.into()),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        };
        let same = now.filter(|now| now.metadata.uid == pod.pod().metadata.uid);
        let bound = same.is_some_and(|now| {
            now.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        });
        if bound {
            return Ok(Verdict::Success);
        }
        Err(error.into())
    }
}

impl EventsToRegister for DefaultBinder {
    fn events(&self) -> Vec<crate::event::ClusterEvent> {
        Vec::new()
    }
}
