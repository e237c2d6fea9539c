//! A cluster in memory with one simulated node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use orch_core::{
    Client, Environment, Resources,
    client::{DeleteOptions, ListOptions},
    testing::MemoryClient,
};
use orch_node::{
    AgentOptions, NodeAgent, Runtime,
    addresses::AddressRange,
    machine::Machine,
    runtime::simulated::{AnnotationScript, Script, SimulatedRuntime},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const NODE: &str = "node-1";

pub(crate) struct Cluster {
    pub(crate) client: Arc<MemoryClient>,
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) environment: Environment,
    pub(crate) pods: Resources<Pod>,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

pub(crate) fn options() -> AgentOptions {
    let address = |text: &str| {
        serde_json::from_value(json!({ "type": "InternalIP", "address": text })).unwrap()
    };
    AgentOptions {
        machine: Machine::simulated(4, 8),
        addresses: vec![address("192.0.2.1")],
        pod_addresses: Some(Arc::new(AddressRange::new("10.1.0.0/16").unwrap())),
        ..AgentOptions::default()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::scripted(AnnotationScript).await
    }

    pub(crate) async fn scripted(script: impl Script) -> Self {
        let epoch = Timestamp::from_second(1_700_000_000).unwrap();
        let environment = Environment::seeded(epoch, 1);
        let client = Arc::new(MemoryClient::new(environment.clone()));
        let runtime = SimulatedRuntime::scripted(environment.clone(), script);
        let pods = Resources::namespaced(client.clone() as Arc<dyn Client>, "default");
        let mut cluster = Self { client, runtime, environment, pods, agent: None };
        cluster.start_agent();
        cluster
    }

    pub(crate) fn start_agent(&mut self) {
        self.start_agent_on(Arc::new(self.runtime.clone()));
    }

    pub(crate) fn start_agent_on(&mut self, runtime: Arc<dyn Runtime>) {
        let client: Arc<dyn Client> = self.client.clone();
        let agent = NodeAgent::builder(client, self.environment.clone(), NODE, runtime);
        let cancel = CancellationToken::new();
        let run = agent.options(options()).build().run(cancel.clone());
        self.agent = Some((cancel, tokio::spawn(run)));
    }

    pub(crate) async fn stop_agent(&mut self) {
        let (cancel, task) = self.agent.take().unwrap();
        cancel.cancel();
        task.await.unwrap();
    }

    pub(crate) async fn create(&self, name: &str, annotations: Value, spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        spec["nodeName"] = NODE.into();
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "default", "annotations": annotations },
            "spec": spec
        }));
        self.pods.create(&pod.unwrap()).await.unwrap()
    }

    /// Waits until the pod's status is as wanted; tells what it was instead.
    pub(crate) async fn until(
        &self,
        name: &str,
        wanted: impl Fn(&PodStatus) -> bool + Send + Sync,
    ) -> Arc<Pod> {
        let stream = self.pods.watch(Default::default()).await.unwrap();
        let found = Resources::<Pod>::first_match(stream, |pod| {
            pod.metadata.name.as_deref() == Some(name) && pod.status.as_ref().is_some_and(&wanted)
        });
        match timeout(Duration::from_secs(3600), found).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let pod = self.pods.get_opt(name).await.unwrap();
                panic!("{name} is {:#?}\n{:#?}", pod, self.events().await);
            }
        }
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        for _ in 0..3600 {
            if self.pods.get_opt(name).await.unwrap().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{name} is still there: {:#?}", self.pods.get(name).await);
    }

    pub(crate) async fn delete(&self, name: &str, grace_s: i64) {
        let options = DeleteOptions { grace_period_s: Some(grace_s), ..DeleteOptions::default() };
        self.pods.delete(name, options).await.unwrap();
    }

    /// Reasons of events with how often each was told.
    pub(crate) async fn events(&self) -> BTreeMap<String, i32> {
        let events: Resources<Event> = Resources::all(self.client.clone() as Arc<dyn Client>);
        let mut reasons = BTreeMap::new();
        for event in events.list(ListOptions::default()).await.unwrap() {
            *reasons.entry(event.reason.clone().unwrap_or_default()).or_default() +=
                event.count.unwrap_or(1);
        }
        reasons
    }
}

pub(crate) fn phase(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap_or_default()
}

pub(crate) fn is(status: &PodStatus, condition: &str) -> bool {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == condition);
    found.is_some_and(|c| c.status == "True")
}

/// The reason that the first container waits for.
pub(crate) fn waits(status: &PodStatus) -> &str {
    let first = status.container_statuses.as_ref().and_then(|s| s.first());
    let waiting = first.and_then(|s| s.state.as_ref()).and_then(|s| s.waiting.as_ref());
    waiting.and_then(|w| w.reason.as_deref()).unwrap_or_default()
}
