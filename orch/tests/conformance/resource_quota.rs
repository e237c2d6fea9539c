//! Source: `test/e2e/apimachinery/resource_quota.go`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{ConfigMap, Pod, ReplicationController, ResourceQuota, Secret, Service},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use orch::core::quantity::Amount;
use serde_json::{Value, json};

use crate::world::{Kind, MINUTE, World, code, eventually, object, patch, replication_controller};

/// More than these tests need of everything they count.
fn test_quota(more: &Value) -> Value {
    let mut hard = json!({
        "pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "cpu": "1", "memory": "500Mi",
        "configmaps": "10", "secrets": "10", "persistentvolumeclaims": "10",
        "requests.storage": "10Gi", "ephemeral-storage": "50Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi",
        "count/replicasets.apps": "5", "requests.example.com/dongle": "3",
    });
    for (name, amount) in more.as_object().expect("amounts") {
        hard[name] = amount.clone();
    }
    json!({"metadata": {"name": "test-quota"}, "spec": {"hard": hard}})
}

fn pod(name: &str, requests: &Value, limits: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            // Nothing is meant to run.
            "nodeSelector": {"x-test.k8s.io/unsatisfiable": "not-schedulable"},
            "containers": [{"name": "pause", "image": "registry.example/pause:v1",
                "resources": {"requests": requests, "limits": limits}}],
        },
    })
}

fn amount(quantities: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<Amount> {
    quantities?.get(name)?.0.parse().ok()
}

/// Waits until a quota's status has what its spec has, and this much used.
async fn used(world: &World, name: &str, wanted: Value) {
    let quotas: Api<ResourceQuota> = world.api();
    eventually(&format!("{name} says that {wanted} is used"), MINUTE, async || {
        let quota = quotas.get(name).await.expect("there");
        let (spec, status) = (quota.spec?, quota.status?);
        let hard = spec.hard?;
        let same = |name: &String| amount(Some(&hard), name) == amount(status.hard.as_ref(), name);
        let taken = hard.keys().all(same);
        let found = wanted.as_object()?.iter().all(|(name, wanted)| {
            let wanted: Amount = wanted.as_str().and_then(|w| w.parse().ok()).expect("an amount");
            amount(status.used.as_ref(), name) == Some(wanted)
        });
        (taken && found).then_some(())
    })
    .await;
}

/// Creates the quota of a test, and waits until it is calculated.
async fn calculated(world: &World, more: Value, also: Value) {
    assert_eq!(world.count::<ResourceQuota>().await, 0);
    world.create::<ResourceQuota>(test_quota(&more)).await;
    used(world, "test-quota", json!({"resourcequotas": "1"})).await;
    used(world, "test-quota", also).await;
}

/// How many objects a new namespace comes with, once that does not change any more.
async fn settled<K>(world: &World) -> usize
where
    K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.count::<K>().await
}

async fn refused<K>(world: &World, value: Value)
where
    K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let refused = world.api::<K>().create(&PostParams::default(), &object(value)).await;
    assert_eq!(code(refused), 403, "it exceeds the quota");
}

async fn delete<K>(world: &World, name: &str, params: DeleteParams)
where
    K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    world.api::<K>().delete(name, &params).await.expect("it is deleted");
}

fn at_once() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_ensure_its_status_is_promptly_calculated() {
    let world = World::start(0).await;
    calculated(&world, json!({}), json!({})).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_service() {
    let world = World::start(0).await;
    calculated(&world, json!({}), json!({"services": "0", "services.nodeports": "0"})).await;
    let service = |name: &str, kind: &str, node_ports: bool| {
        let mut spec = json!({"type": kind, "ports": [{"port": 80, "targetPort": 80}]});
        if kind == "LoadBalancer" {
            spec["allocateLoadBalancerNodePorts"] = json!(node_ports);
        }
        json!({"metadata": {"name": name}, "spec": spec})
    };
    world.create::<Service>(service("test-service", "ClusterIP", false)).await;
    world.create::<Service>(service("test-service-np", "NodePort", false)).await;
    refused::<Service>(&world, service("test-service-lb", "LoadBalancer", true)).await;
    let wanted = json!({"resourcequotas": "1", "services": "2", "services.nodeports": "1"});
    used(&world, "test-quota", wanted).await;
    delete::<Service>(&world, "test-service", DeleteParams::default()).await;
    delete::<Service>(&world, "test-service-np", DeleteParams::default()).await;
    let wanted = json!({"resourcequotas": "1", "services": "0", "services.nodeports": "0"});
    used(&world, "test-quota", wanted).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_secret() {
    let world = World::start(0).await;
    let there = settled::<Secret>(&world).await;
    let (before, one_more) = (there.to_string(), (there + 1).to_string());
    calculated(&world, json!({"secrets": one_more}), json!({"secrets": before})).await;
    let secret = json!({"metadata": {"name": "test-secret"},
        "data": {"data-1": "dmFsdWUtMQo=", "data-2": "dmFsdWUtMgo="}});
    world.create::<Secret>(secret).await;
    used(&world, "test-quota", json!({"secrets": one_more})).await;
    delete::<Secret>(&world, "test-secret", DeleteParams::default()).await;
    used(&world, "test-quota", json!({"secrets": before})).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_pod() {
    let world = World::start(0).await;
    calculated(&world, json!({}), json!({"pods": "0", "cpu": "0"})).await;
    let requests = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
        "example.com/dongle": "2"});
    let dongles = json!({"example.com/dongle": "2"});
    world.create::<Pod>(pod("test-pod", &requests, &dongles)).await;
    let wanted = json!({"resourcequotas": "1", "pods": "1", "cpu": "500m", "memory": "252Mi",
        "ephemeral-storage": "30Gi", "requests.example.com/dongle": "2"});
    used(&world, "test-quota", wanted.clone()).await;

    refused::<Pod>(&world, pod("fail-pod", &json!({"cpu": "600m", "memory": "100Mi"}), &json!({})))
        .await;
    let requests = json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "30Gi",
        "example.com/dongle": "2"});
    refused::<Pod>(&world, pod("fail-pod-for-extended-resource", &requests, &dongles)).await;

    // The scheduler has told meanwhile that the pod fits nowhere.
    let mut created = world.api::<Pod>().get("test-pod").await.expect("there");
    let container = &mut created.spec.as_mut().expect("a spec").containers[0];
    let resources = container.resources.as_mut().expect("resources");
    resources.requests =
        object(json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "10Gi"}));
    let changed = world.api::<Pod>().replace("test-pod", &PostParams::default(), &created).await;
    assert_eq!(code(changed), 422, "what a pod asks for does not change");
    used(&world, "test-quota", wanted).await;

    delete::<Pod>(&world, "test-pod", at_once()).await;
    let wanted = json!({"resourcequotas": "1", "pods": "0", "cpu": "0", "memory": "0",
        "ephemeral-storage": "0", "requests.example.com/dongle": "0"});
    used(&world, "test-quota", wanted).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_configmap() {
    let world = World::start(0).await;
    let there = settled::<ConfigMap>(&world).await;
    let (before, one_more) = (there.to_string(), (there + 1).to_string());
    calculated(&world, json!({"configmaps": one_more}), json!({"configmaps": before})).await;
    let map = json!({"metadata": {"name": "test-configmap"}, "data": {"a": "b"}});
    world.create::<ConfigMap>(map).await;
    used(&world, "test-quota", json!({"resourcequotas": "1", "configmaps": one_more})).await;
    delete::<ConfigMap>(&world, "test-configmap", DeleteParams::default()).await;
    used(&world, "test-quota", json!({"resourcequotas": "1", "configmaps": before})).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_replication_controller() {
    let world = World::start(0).await;
    calculated(&world, json!({}), json!({"replicationcontrollers": "0"})).await;
    let rc = replication_controller("test-rc", 0, &json!({"name": "nginx"}));
    world.create::<ReplicationController>(rc).await;
    used(&world, "test-quota", json!({"replicationcontrollers": "1"})).await;
    // Without it they are orphaned first, which is upstream's default for this kind.
    delete::<ReplicationController>(&world, "test-rc", DeleteParams::background()).await;
    used(&world, "test-quota", json!({"replicationcontrollers": "0"})).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_resourcequota_and_capture_the_life_of_a_replica_set() {
    let world = World::start(0).await;
    calculated(&world, json!({}), json!({"count/replicasets.apps": "0"})).await;
    let labels = json!({"name": "nginx"});
    let mut set = replication_controller("test-rs", 0, &labels);
    set["spec"]["selector"] = json!({"matchLabels": labels});
    world.create::<ReplicaSet>(set).await;
    used(&world, "test-quota", json!({"count/replicasets.apps": "1"})).await;
    delete::<ReplicaSet>(&world, "test-rs", DeleteParams::default()).await;
    used(&world, "test-quota", json!({"count/replicasets.apps": "0"})).await;
    world.shutdown().await;
}

/// Two quotas with opposite scopes; `first` and then `second` is counted by one of them only.
async fn scoped(scopes: [&str; 2], hard: Value, pods: [(Value, usize); 2], counted: [Value; 2]) {
    let world = World::start(0).await;
    for scope in scopes {
        let quota = json!({"metadata": {"name": scope.to_lowercase()},
            "spec": {"hard": hard, "scopes": [scope]}});
        world.create::<ResourceQuota>(quota).await;
        used(&world, &scope.to_lowercase(), json!({"pods": "0"})).await;
    }
    let nothing = |counted: &Value| {
        let names = counted.as_object().expect("amounts").keys();
        Value::Object(names.map(|name| (name.clone(), json!("0"))).collect())
    };
    for ((pod, by), counted) in pods.into_iter().zip(&counted) {
        let (own, other) = (scopes[by].to_lowercase(), scopes[1 - by].to_lowercase());
        let created: Pod = world.create(pod).await;
        used(&world, &own, counted.clone()).await;
        used(&world, &other, nothing(counted)).await;
        delete::<Pod>(&world, &created.name_any(), at_once()).await;
        used(&world, &own, nothing(counted)).await;
    }
    world.shutdown().await;
}

fn burstable(name: &str) -> Value {
    let (requests, limits) =
        (json!({"cpu": "500m", "memory": "200Mi"}), json!({"cpu": "1", "memory": "400Mi"}));
    pod(name, &requests, &limits)
}

#[tokio::test(start_paused = true)]
async fn should_verify_resourcequota_with_terminating_scopes() {
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi",
        "limits.cpu": "2", "limits.memory": "1Gi"});
    let counted = json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi",
        "limits.cpu": "1", "limits.memory": "400Mi"});
    let mut terminating = burstable("terminating-pod");
    terminating["spec"]["activeDeadlineSeconds"] = json!(3600);
    let pods = [(burstable("test-pod"), 1), (terminating, 0)];
    scoped(["Terminating", "NotTerminating"], hard, pods, [counted.clone(), counted]).await;
}

#[tokio::test(start_paused = true)]
async fn should_verify_resourcequota_with_best_effort_scope() {
    let counted = json!({"pods": "1"});
    let pods = [(pod("pfpod", &json!({}), &json!({})), 0), (burstable("burstable-pod"), 1)];
    let hard = json!({"pods": "5"});
    scoped(["BestEffort", "NotBestEffort"], hard, pods, [counted.clone(), counted]).await;
}

fn has_hard(quota: &ResourceQuota, cpu: &str, memory: &str) -> bool {
    let hard = quota.status.as_ref().and_then(|status| status.hard.as_ref());
    let is = |name: &str, wanted: &str| amount(hard, name) == wanted.parse().ok();
    is("cpu", cpu) && is("memory", memory)
}

#[tokio::test(start_paused = true)]
async fn should_apply_changes_to_a_resourcequota_status() {
    let world = World::start(0).await;
    let quotas: Api<ResourceQuota> = world.api();
    let name = "e2e-rq-status";
    let created: ResourceQuota = world
        .create(json!({
            "metadata": {"name": name, "labels": {"e2e-rq-label": name}},
            "spec": {"hard": {"cpu": "500m", "memory": "500Mi"}},
        }))
        .await;
    let hard = |quota: &ResourceQuota| quota.spec.as_ref().and_then(|spec| spec.hard.clone());
    assert_eq!(amount(hard(&created).as_ref(), "cpu"), "500m".parse().ok());
    assert_eq!(amount(hard(&created).as_ref(), "memory"), "500Mi".parse().ok());

    loop {
        let mut quota = quotas.get(name).await.expect("there");
        quota.status = object(json!({"hard": hard(&quota)}));
        match quotas.replace_status(name, &PostParams::default(), &quota).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            updated => break assert!(has_hard(&updated.expect("updated"), "500m", "500Mi")),
        }
    }
    patch(&quotas, name, json!({"spec": {"hard": {"cpu": "1", "memory": "1Gi"}}})).await;
    let status = |cpu: &str, memory: &str| {
        Patch::Strategic(json!({"status": {"hard": {"cpu": cpu, "memory": memory}}}))
    };
    let params = PatchParams::default();
    let patched = quotas.patch_status(name, &params, &status("1", "1Gi")).await.expect("patched");
    assert!(has_hard(&patched, "1", "1Gi"));
    assert!(has_hard(&quotas.get_status(name).await.expect("a status"), "1", "1Gi"));

    let labelled = ListParams::default().labels(&format!("e2e-rq-label={name}"));
    let listed = quotas.list(&labelled).await.expect("a list");
    assert_eq!(listed.items.len(), 1);
    let patched = quotas.patch_status(name, &params, &status("2", "2Gi")).await.expect("patched");
    assert!(has_hard(&patched, "2", "2Gi"));
    assert_eq!(amount(hard(&patched).as_ref(), "cpu"), "1".parse().ok(), "the spec is as it was");
    // The controller does not look at changes of the status, but at everything now and then.
    eventually("the status is as the spec again", 6 * MINUTE, async || {
        has_hard(&quotas.get(name).await.expect("there"), "1", "1Gi").then_some(())
    })
    .await;
    world.shutdown().await;
}
