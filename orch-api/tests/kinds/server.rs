//! Services, bindings and evictions through a whole server.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    policy::v1::PodDisruptionBudget,
    resource::v1::ResourceSlice,
};
use orch_api::{ApiServer, auth::UserInfo};
use orch_core::{
    Client, ResourceType, Target,
    client::{DeleteOptions, Read, ReadReply, Write, WriteOptions},
};
use orch_store::MemoryStore;
use serde_json::{Value, json};

use super::yaml;

struct Cluster(Arc<dyn Client>);

impl Cluster {
    async fn new() -> Self {
        let server = ApiServer::new(Arc::new(MemoryStore::default()));
        let cluster = Self(server.client(UserInfo::master("test")));
        let namespaces = Target::collection(ResourceType::of::<Namespace>(), None);
        cluster.create(namespaces, "metadata: {name: default}").await.unwrap();
        cluster
    }

    async fn write(&self, write: Write) -> Result<Value, String> {
        self.0.write(write).await.map(|object| object.to_value()).map_err(|e| e.to_string())
    }

    async fn create(&self, target: Target, text: &str) -> Result<Value, String> {
        self.write(Write::Create(target, yaml(text), WriteOptions::default())).await
    }
}

fn all(resource: ResourceType) -> Target {
    Target::collection(resource, Some("default"))
}

fn one(resource: ResourceType, name: &str) -> Target {
    Target::object(resource, Some("default"), name)
}

#[tokio::test]
async fn taints_of_devices_say_since_when_they_are() {
    let cluster = Cluster::new().await;
    let slices = ResourceType::of::<ResourceSlice>;
    let text = "{metadata: {name: a}, spec: {driver: d.example.com, nodeName: node, \
                pool: {name: p, resourceSliceCount: 1}, devices: [{name: x, taints: [\
                {key: a, effect: NoExecute}, \
                {key: b, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}]}]}}";
    let made = cluster.create(Target::collection(slices(), None), text).await.unwrap();
    let added = |slice: &Value, n: usize| {
        let taint = &slice["spec"]["devices"][0]["taints"][n];
        taint["timeAdded"].as_str().map(str::to_owned)
    };
    assert_eq!(added(&made, 1).as_deref(), Some("2026-01-01T00:00:00Z"));
    let first = added(&made, 0).expect("it is filled in");
    assert!(first.parse::<jiff::Timestamp>().is_ok(), "{first}");

    let mut more = made;
    let new = json!({"key": "c", "effect": "NoSchedule"});
    more["spec"]["devices"][0]["taints"].as_array_mut().unwrap().push(new);
    let update = Write::Update(Target::object(slices(), None, "a"), more, WriteOptions::default());
    let updated = cluster.write(update).await.unwrap();
    assert_eq!(added(&updated, 0), Some(first), "it stays");
    assert!(added(&updated, 2).is_some());
}

#[tokio::test]
async fn addresses_are_free_again_when_a_service_gives_them_up() {
    let cluster = Cluster::new().await;
    let services = ResourceType::of::<Service>;
    let text = |name: &str| {
        format!(
            "{{metadata: {{name: {name}}}, spec: {{clusterIP: 10.96.7.7, ports: [{{port: 80}}]}}}}"
        )
    };
    let taken = "provided IP is already allocated";
    let made = cluster.create(all(services()), &text("a")).await.unwrap();
    assert_eq!(made["spec"]["ipFamilyPolicy"], "SingleStack");
    assert!(cluster.create(all(services()), &text("b")).await.unwrap_err().contains(taken));
    let mut renamed = made;
    renamed["spec"]["type"] = json!("ExternalName");
    renamed["spec"]["externalName"] = json!("example.com");
    let update = Write::Update(one(services(), "a"), renamed, WriteOptions::default());
    assert_eq!(cluster.write(update).await.unwrap()["spec"]["clusterIP"], Value::Null);
    cluster.create(all(services()), &text("b")).await.unwrap();
    assert!(cluster.create(all(services()), &text("c")).await.unwrap_err().contains(taken));
    let delete = Write::Delete(one(services(), "b"), DeleteOptions::default());
    cluster.write(delete).await.unwrap();
    cluster.create(all(services()), &text("c")).await.unwrap();
}

#[tokio::test]
async fn pods_are_bound_once_and_evicted_within_the_budget() {
    let cluster = Cluster::new().await;
    let pods = ResourceType::of::<Pod>;
    let budgets = ResourceType::of::<PodDisruptionBudget>;
    let pod = "{metadata: {name: p, labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    let mut made = cluster.create(all(pods()), pod).await.unwrap();
    let bind = || one(pods(), "p").subresource("binding");
    let body = "{metadata: {name: p}, target: {kind: Node, name: n1}}";
    assert_eq!(cluster.create(bind(), body).await.unwrap()["status"], "Success");
    let again = cluster.create(bind(), body).await.unwrap_err();
    assert!(again.ends_with("pod p is already assigned to node \"n1\""), "{again}");
    let bound = match cluster.0.read(Read::Get(one(pods(), "p"))).await.unwrap() {
        ReadReply::Object(object) => object.to_value(),
        other => panic!("{other:?}"),
    };
    let managers = &bound["metadata"]["managedFields"];
    assert_eq!(managers.as_array().unwrap().len(), 1, "only who made it: {managers}");
    assert_eq!(*managers, made["metadata"]["managedFields"]);

    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    made["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let status = one(pods(), "p").subresource("status");
    let status = cluster.write(Write::Update(status, made, WriteOptions::default())).await.unwrap();
    assert_eq!(status["spec"]["nodeName"], "n1");
    let budget = "{metadata: {name: d}, spec: {minAvailable: 1, selector: {matchLabels: {a: b}}}}";
    let mut budget = cluster.create(all(budgets()), budget).await.unwrap();
    let evict = || one(pods(), "p").subresource("eviction");
    let body = "metadata: {name: p}";
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(cluster.create(evict(), body).await.unwrap_err(), refusal);
    budget["status"] = json!({"observedGeneration": 1, "disruptionsAllowed": 1,
        "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    let target = one(budgets(), "d").subresource("status");
    cluster.write(Write::Update(target, budget, WriteOptions::default())).await.unwrap();
    assert_eq!(cluster.create(evict(), body).await.unwrap()["status"], "Success");
}
