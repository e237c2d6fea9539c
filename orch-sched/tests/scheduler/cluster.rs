//! A cluster in memory with a scheduler on it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use orch_core::{
    Client, Environment, Resources,
    client::{ListOptions, WatchOptions},
    informer::Informers,
    resource::ResourceType,
    testing::{FaultRates, FaultyClient, MemoryClient},
};
use orch_sched::{Scheduler, SchedulerBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What a test talks to. The scheduler stops when it is dropped.
pub(crate) struct Cluster {
    pub(crate) memory: Arc<MemoryClient>,
    pub(crate) pods: Resources<Pod>,
    cancel: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub(crate) fn environment(seed: u64) -> Environment {
    Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), seed)
}

/// Lets calls and watches fail, from a seed.
pub(crate) fn faulty(
    seed: u64,
    rates: FaultRates,
) -> impl FnOnce(Arc<dyn Client>) -> Arc<dyn Client> {
    move |client| Arc::new(FaultyClient::seeded(client, environment(seed), rates))
}

impl Cluster {
    /// A cluster whose scheduler sees it through `wrap`.
    pub(crate) fn start(
        seed: u64,
        wrap: impl FnOnce(Arc<dyn Client>) -> Arc<dyn Client>,
        configure: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder,
    ) -> Self {
        let environment = environment(seed);
        let memory = Arc::new(MemoryClient::new(environment.clone()));
        let informers = Informers::new(wrap(memory.clone()), environment);
        let scheduler = configure(Scheduler::builder(&informers)).build().unwrap();
        let cancel = CancellationToken::new();
        let running = Some(tokio::spawn(scheduler.run(cancel.clone())));
        let pods = Resources::namespaced(memory.clone(), "default");
        Self { memory, pods, cancel, running }
    }

    pub(crate) fn plain() -> Self {
        Self::start(1, |client| client, |builder| builder)
    }

    pub(crate) fn node(&self, name: &str, patch: Value) {
        self.memory.seed(&ResourceType::of::<Node>(), node(name, patch)).unwrap();
    }

    pub(crate) async fn pod(&self, name: &str, spec: Value) {
        let pod = serde_json::from_value(pod(name, spec)).unwrap();
        self.pods.create(&pod).await.unwrap();
    }

    /// The node that the pod gets, however long that takes in virtual time.
    pub(crate) async fn placed(&self, name: &str) -> String {
        let options = WatchOptions {
            field_selector: Some(format!("metadata.name={name}")),
            ..WatchOptions::default()
        };
        let stream = self.pods.watch(options).await.unwrap();
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let placed = Resources::first_match(stream, move |pod| node(pod).is_some());
        let placed = tokio::time::timeout(Duration::from_secs(3600), placed).await;
        let placed = placed.unwrap_or_else(|_| panic!("pod {name} is not placed"));
        placed.unwrap().unwrap().spec.as_ref().unwrap().node_name.clone().unwrap()
    }

    /// The reason and the message of the pod's PodScheduled=False condition, once it has one.
    pub(crate) async fn refused(&self, name: &str) -> (String, String) {
        let options = WatchOptions {
            field_selector: Some(format!("metadata.name={name}")),
            ..WatchOptions::default()
        };
        let stream = self.pods.watch(options).await.unwrap();
        let refused = Resources::first_match(stream, |pod| condition(pod).is_some());
        let refused = tokio::time::timeout(Duration::from_secs(60), refused).await;
        let refused = refused.unwrap_or_else(|_| panic!("pod {name} is not refused"));
        condition(&refused.unwrap().unwrap()).unwrap()
    }

    /// Stops the scheduler, as a cancellation does.
    pub(crate) async fn stop(&mut self) {
        self.cancel.cancel();
        self.running.take().expect("it runs").await.expect("it stops in order");
    }

    pub(crate) async fn events(&self) -> Vec<(String, String)> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let events: Resources<Event> = Resources::namespaced(self.memory.clone(), "default");
        let events = events.list(ListOptions::default()).await.unwrap();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        events.iter().map(|e| (text(&e.reason), text(&e.message))).collect()
    }
}

fn condition(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some((scheduled.reason.clone()?, scheduled.message.clone()?))
}

/// A node with 4 CPUs, 8 GiB and room for 10 pods, with `patch` merged in at the top level.
pub(crate) fn node(name: &str, patch: Value) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut node, patch);
    node
}

/// A pod of one container, with `spec` merged into its spec.
pub(crate) fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    merge(&mut pod, spec);
    pod
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// A spec whose one container requests this much CPU.
pub(crate) fn cpu(amount: &str) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": amount}}});
    json!({"spec": {"containers": [container]}})
}
