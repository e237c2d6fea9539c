//! The fake cluster keeps the contract that components rely on.

#[path = "testing/http.rs"]
mod http;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use orch_core::{
    Client, Environment, Resources,
    client::{DeleteOptions, ListOptions, WatchEvent, WatchOptions},
    resource::ResourceType,
    testing::{Fault, FaultRates, FaultyClient, MemoryClient, client_conformance},
};
use serde_json::{Value, json};

fn cluster() -> Arc<MemoryClient> {
    let epoch = Timestamp::from_second(1_700_000_000).unwrap();
    Arc::new(MemoryClient::new(Environment::seeded(epoch, 1)))
}

#[tokio::test(start_paused = true)]
async fn the_fake_conforms() {
    client_conformance(cluster()).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_without_faults_conforms() {
    let epoch = Timestamp::from_second(1_700_000_000).unwrap();
    let environment = Environment::seeded(epoch, 1);
    let faulty = FaultyClient::seeded(cluster(), environment, FaultRates::default());
    client_conformance(Arc::new(faulty)).await;
}

#[tokio::test(start_paused = true)]
async fn kube_clients_conform() {
    client_conformance(Arc::new(http::over_http(cluster()))).await;
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"},
           "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 5}})
}

async fn bind(pods: &Resources<Pod>, name: &str, node: &str) -> Result<(), orch_core::ClientError> {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
    pods.create_sub(name, "binding", &binding).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_once_and_go_gracefully() {
    let cluster = cluster();
    let pods: Resources<Pod> = Resources::namespaced(cluster.clone(), "default");
    for name in ["a", "b"] {
        pods.create(&serde_json::from_value(pod(name)).unwrap()).await.unwrap();
    }
    bind(&pods, "a", "n1").await.unwrap();
    let twice = bind(&pods, "a", "n2").await.unwrap_err();
    assert_eq!(
        twice.to_string(),
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
    let on_node =
        ListOptions { field_selector: Some("spec.nodeName=n1".into()), ..ListOptions::default() };
    assert_eq!(pods.list(on_node).await.unwrap().len(), 1);

    pods.delete("b", DeleteOptions::default()).await.unwrap();
    assert!(pods.get_opt("b").await.unwrap().is_none(), "an unbound pod goes at once");
    let eviction = json!({"metadata": {"name": "a"}});
    pods.create_sub("a", "eviction", &eviction).await.unwrap();
    let going = pods.get("a").await.unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(5));
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    pods.delete("a", now).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_compaction_expires_old_watches() {
    let cluster = cluster();
    let resource = ResourceType::of::<ConfigMap>();
    for name in ["a", "b"] {
        cluster.seed(&resource, json!({"metadata": {"name": name, "namespace": "d"}})).unwrap();
    }
    cluster.compact();
    let maps: Resources<ConfigMap> = Resources::all(cluster.clone());
    let options = WatchOptions { resource_version: Some("1".into()), ..WatchOptions::default() };
    assert!(maps.watch(options).await.err().expect("too old").is_expired());
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks() {
    let cluster = cluster();
    let pods: Resources<Pod> = Resources::all(cluster.clone());
    let options = WatchOptions { bookmarks: true, ..WatchOptions::default() };
    let mut stream = pods.watch(options).await.unwrap();
    let maps = ResourceType::of::<ConfigMap>();
    cluster.seed(&maps, json!({"metadata": {"name": "a", "namespace": "d"}})).unwrap();
    let event = stream.next().await.unwrap().unwrap();
    assert!(
        matches!(&event, WatchEvent::Bookmark { resource_version, .. } if resource_version == "1"),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn faults_happen_as_the_rule_says() {
    let cluster = cluster();
    let faulty = FaultyClient::by_rule(cluster.clone(), |call| {
        call.verb.writes().then_some(Fault::TransportAfter)
    });
    let maps: Resources<ConfigMap> = Resources::namespaced(Arc::new(faulty.clone()), "d");
    let mut map = ConfigMap::default();
    map.metadata.name = Some("a".into());
    let error = maps.create(&map).await.unwrap_err();
    assert!(error.is_retryable() && faulty.injected() == 1);
    assert!(maps.get("a").await.is_ok(), "the write took place, only the answer was lost");
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_what_happens() {
    let run = async |seed| {
        let epoch = Timestamp::from_second(1_700_000_000).unwrap();
        let environment = Environment::seeded(epoch, seed);
        let cluster: Arc<dyn Client> = Arc::new(MemoryClient::new(environment.clone()));
        let rates = FaultRates { transport_permille: 300, ..FaultRates::default() };
        let faulty = FaultyClient::seeded(cluster.clone(), environment, rates);
        let maps: Resources<ConfigMap> = Resources::namespaced(Arc::new(faulty), "d");
        let mut outcome = Vec::new();
        for _ in 0..20 {
            let mut map = ConfigMap::default();
            map.metadata.generate_name = Some("x-".into());
            outcome.push(maps.create(&map).await.ok().and_then(|map| map.metadata.name.clone()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        outcome
    };
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}
