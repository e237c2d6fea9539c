//! Events sent to a server.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/webhook`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orch_core::Environment;
use serde_json::json;

use super::{Event, Sink, SinkError};

/// How often a batch is sent before it is lost, and how long the first pause is.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Posts `EventList`s. Put it behind a [`super::Queued`].
pub struct Webhook {
    client: kube::Client,
    path: String,
    environment: Environment,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Webhook({})", self.path)
    }
}

impl Webhook {
    /// Posts to a path of the server that the client reaches, as upstream does with the server of
    /// its kubeconfig.
    pub fn new(client: kube::Client, path: impl Into<String>, environment: Environment) -> Self {
        Self { client, path: path.into(), environment }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let request = http::Request::post(&self.path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        self.client.request_text(request).await.map(drop).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn keep(&self, events: Vec<Arc<Event>>) -> Result<(), SinkError> {
        let items: Vec<&Event> = events.iter().map(|event| &**event).collect();
        let list = json!({
            "kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items,
        });
        let (mut pause, mut why) = (FIRST_PAUSE, String::new());
        for attempt in 0..TRIES {
            if attempt > 0 {
                self.environment.clock.sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
            match self.post(list.to_string().into_bytes()).await {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(SinkError { lost: events.len(), why })
    }
}
