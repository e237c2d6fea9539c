//! Pods whose extended resources devices stand behind.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{DeviceClass, ResourceClaim},
};
use orch_core::{
    Resources,
    client::{DeleteOptions, ListOptions, PatchKind, WatchOptions},
    resource::ResourceType,
    testing::{FaultRates, rounds},
};
use orch_sched::{
    Profile, SchedulerBuilder,
    plugins::{ScoringStrategy, WeightedResource},
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, faulty, pod},
    devices::{
        NOTHING, Stumbles, allocated, claim, claims, class, devices, one, read, using, with_nodes,
    },
};

const GPU: &str = "example.com/gpu";

/// A pod of one container that requests so much of each resource.
fn requesting(requests: Value) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": requests}});
    json!({"spec": {"containers": [container]}})
}

fn gpus(count: u32) -> Value {
    requesting(json!({"cpu": "1", GPU: count.to_string()}))
}

/// A pod for one node.
fn at(node: &str, mut pod: Value) -> Value {
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    pod
}

/// Gives the class `gpu` to an extended resource.
async fn name_class(cluster: &Cluster, resource: &str) {
    let classes: Resources<DeviceClass> = Resources::all(cluster.memory.clone());
    let patch = json!({"spec": {"extendedResourceName": resource}});
    classes.patch("gpu", PatchKind::Merge, patch).await.unwrap();
}

/// Two nodes, and the class `gpu` for `example.com/gpu`.
async fn cluster() -> Cluster {
    named(Cluster::plain()).await
}

async fn named(cluster: Cluster) -> Cluster {
    with_nodes(&cluster);
    name_class(&cluster, GPU).await;
    cluster
}

async fn all_claims(cluster: &Cluster) -> Vec<Arc<ResourceClaim>> {
    claims(cluster).list(ListOptions::default()).await.unwrap()
}

/// The one claim that there is.
async fn the_claim(cluster: &Cluster) -> Value {
    let all = all_claims(cluster).await;
    assert_eq!(all.len(), 1, "{all:?}");
    serde_json::to_value(&*all[0]).unwrap()
}

async fn status_of(cluster: &Cluster, pod: &str) -> Value {
    let pod = serde_json::to_value(&*cluster.pods.get(pod).await.unwrap()).unwrap();
    pod["status"]["extendedResourceClaimStatus"].clone()
}

async fn delete_pod(cluster: &Cluster, name: &str) {
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete(name, now).await.unwrap();
}

/// Deletes a claim as it goes after its pod.
async fn delete_claim(cluster: &Cluster, claim: &ResourceClaim) {
    let mut claim = claim.clone();
    claim.metadata.finalizers = None;
    claims(cluster).update(&claim).await.unwrap();
    let name = claim.metadata.name.unwrap();
    claims(cluster).delete(&name, DeleteOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_where_devices_are_and_its_claim_tells_of_them() {
    let cluster = cluster().await;
    devices(&cluster, "n1", 1);
    devices(&cluster, "n2", 2);
    cluster.pod("p", gpus(2)).await;
    assert_eq!(cluster.placed("p").await, "n2");
    let claim = the_claim(&cluster).await;
    let (meta, uid) = (&claim["metadata"], cluster.pods.get("p").await.unwrap());
    let uid = uid.metadata.uid.clone();
    assert_eq!(meta["generateName"], "p-extended-resources-");
    assert!(meta["name"].as_str().unwrap().starts_with("p-extended-resources-"));
    assert_eq!(
        meta["annotations"],
        json!({"resource.kubernetes.io/extended-resource-claim": "true"})
    );
    let owner =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
    assert_eq!(meta["ownerReferences"], owner);
    assert_eq!(meta["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2});
    let requests = json!([{"name": "container-0-request-1", "exactly": exactly}]);
    assert_eq!(claim["spec"]["devices"], json!({"requests": requests}));
    assert_eq!(allocated(&claim), ["container-0-request-1=n2-0", "container-0-request-1=n2-1"]);
    let user = json!([{"name": "p", "resource": "pods", "uid": uid}]);
    assert_eq!(claim["status"]["reservedFor"], user);
    let mapping = json!({"containerName": "c", "resourceName": GPU,
                         "requestName": "container-0-request-1"});
    let expected = json!({"resourceClaimName": meta["name"], "requestMappings": [mapping]});
    assert_eq!(status_of(&cluster, "p").await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_class_stands_behind_a_resource_of_its_own_name() {
    let cluster = Cluster::plain();
    with_nodes(&cluster);
    devices(&cluster, "n1", 1);
    cluster.pod("p", requesting(json!({"deviceclass.resource.kubernetes.io/gpu": "1"}))).await;
    assert_eq!(cluster.placed("p").await, "n1");
    assert_eq!(allocated(&the_claim(&cluster).await), ["container-0-request-0=n1-0"]);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_device_waits_until_one_is_free() {
    let cluster = cluster().await;
    devices(&cluster, "n1", 1);
    cluster.pod("p", gpus(1)).await;
    cluster.placed("p").await;
    cluster.pod("q", gpus(1)).await;
    assert_eq!(cluster.refused("q").await, ("Unschedulable".to_owned(), NOTHING.to_owned()));
    assert!(status_of(&cluster, "q").await.is_null());
    let start = tokio::time::Instant::now();
    let first = all_claims(&cluster).await.remove(0);
    delete_pod(&cluster, "p").await;
    delete_claim(&cluster, &first).await;
    assert_eq!(cluster.placed("q").await, "n1");
    assert!(start.elapsed().as_secs() < 60, "woken by events, not by the flush");
    assert_eq!(allocated(&the_claim(&cluster).await), ["container-0-request-1=n1-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_the_resource_gives_it_without_a_claim() {
    let cluster = cluster().await;
    let own = json!({"status": {"allocatable": {GPU: "2"}}});
    cluster.node("plugin", own);
    devices(&cluster, "plugin", 8);
    devices(&cluster, "n1", 2);
    cluster.pod("p", at("plugin", gpus(2))).await;
    cluster.placed("p").await;
    assert!(all_claims(&cluster).await.is_empty());
    assert!(status_of(&cluster, "p").await.is_null());
    // Its devices are not for those who ask for the resource, however many there are.
    cluster.pod("q", at("plugin", gpus(1))).await;
    let words = "0/3 nodes are available: 1 Insufficient example.com/gpu, 2 node(s) didn't match \
                 Pod's node affinity/selector. still not schedulable, preemption: 0/3 nodes are \
                 available: 1 No preemption victims found for incoming pod, 2 Preemption is not \
                 helpful for scheduling.";
    assert_eq!(cluster.refused("q").await.1, words);
    cluster.pod("r", gpus(2)).await;
    assert_eq!(cluster.placed("r").await, "n1");
    assert_eq!(all_claims(&cluster).await.len(), 1);
    // Another claim of the pod does not make one for what the node gives.
    cluster.node("both", json!({"status": {"allocatable": {GPU: "2"}}}));
    devices(&cluster, "both", 1);
    claim(&cluster, "own", one(json!({})));
    let mut pod = at("both", gpus(1));
    pod["spec"]["resourceClaims"] = using(&["own"])["spec"]["resourceClaims"].clone();
    cluster.pod("s", pod).await;
    cluster.placed("s").await;
    assert_eq!(allocated(&read(&cluster, "own").await), ["r=both-0"]);
    assert_eq!(all_claims(&cluster).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn claims_and_resources_share_the_devices_of_a_node() {
    let cluster = cluster().await;
    devices(&cluster, "n1", 2);
    devices(&cluster, "n2", 3);
    claim(&cluster, "own", one(json!({})));
    let mut pod = gpus(2);
    pod["spec"]["resourceClaims"] = using(&["own"])["spec"]["resourceClaims"].clone();
    cluster.pod("p", pod).await;
    assert_eq!(cluster.placed("p").await, "n2");
    assert_eq!(allocated(&read(&cluster, "own").await), ["r=n2-0"]);
    let named = status_of(&cluster, "p").await["resourceClaimName"].clone();
    let made = read(&cluster, named.as_str().unwrap()).await;
    assert_eq!(allocated(&made), ["container-0-request-1=n2-1", "container-0-request-1=n2-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_class_that_comes_or_is_named_helps_who_waits_for_it() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    devices(&cluster, "n1", 2);
    cluster.pod("p", gpus(1)).await;
    cluster.pod("q", requesting(json!({"deviceclass.resource.kubernetes.io/gpu": "1"}))).await;
    let words = |resource: &str| {
        format!(
            "0/1 nodes are available: 1 Insufficient {resource}. no new claims to deallocate, \
             preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
    };
    assert_eq!(cluster.refused("p").await.1, words(GPU));
    let implicit = "deviceclass.resource.kubernetes.io/gpu";
    assert_eq!(cluster.refused("q").await.1, words(implicit));
    let start = tokio::time::Instant::now();
    class(&cluster, "gpu", json!({}));
    cluster.placed("q").await;
    assert!(cluster.pods.get("p").await.unwrap().spec.as_ref().unwrap().node_name.is_none());
    name_class(&cluster, GPU).await;
    cluster.placed("p").await;
    assert!(start.elapsed().as_secs() < 60, "woken by events, not by the flush");
}

#[tokio::test(start_paused = true)]
async fn the_youngest_class_gives_the_devices() {
    let cluster = cluster().await;
    let younger = json!({
        "metadata": {"name": "younger", "creationTimestamp": "2099-01-01T00:00:00Z"},
        "spec": {"extendedResourceName": GPU},
    });
    cluster.memory.seed(&ResourceType::of::<DeviceClass>(), younger).unwrap();
    devices(&cluster, "n1", 1);
    cluster.pod("p", gpus(1)).await;
    cluster.placed("p").await;
    let claim = the_claim(&cluster).await;
    let request = &claim["spec"]["devices"]["requests"][0];
    assert_eq!(request["exactly"]["deviceClassName"], "younger");
}

#[tokio::test(start_paused = true)]
async fn more_devices_than_a_claim_can_have_fail_the_pod() {
    let cluster = cluster().await;
    devices(&cluster, "n1", 40);
    cluster.pod("p", gpus(33)).await;
    let words = "running Filter plugin \"DynamicResources\": claim default/<extended-resources>: \
                 number of requested devices 33 exceeds the claim limit of 32";
    assert_eq!(cluster.refused("p").await.1, words);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_bound_after_all_leaves_no_claim() {
    let start = |builder: SchedulerBuilder| builder.plugin(Stumbles::default());
    let cluster = named(Cluster::start(1, |client| client, start)).await;
    devices(&cluster, "n1", 1);
    cluster.pod("p", gpus(1)).await;
    let stream = claims(&cluster).watch(WatchOptions::default()).await.unwrap();
    let written =
        |claim: &ResourceClaim| claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
    let first = Resources::first_match(stream, written).await.unwrap().unwrap();
    assert_eq!(cluster.placed("p").await, "n1");
    let claim = the_claim(&cluster).await;
    assert_ne!(claim["metadata"]["uid"], json!(first.metadata.uid));
    assert_eq!(status_of(&cluster, "p").await["resourceClaimName"], claim["metadata"]["name"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_an_earlier_scheduler_left_behind_is_deleted() {
    let cluster = cluster().await;
    devices(&cluster, "n1", 1);
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p",
                       "controller": true});
    let mut left = json!({
        "metadata": {"name": "left", "namespace": "default",
                     "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
                     "finalizers": ["resource.kubernetes.io/delete-protection"],
                     "ownerReferences": [owner]},
        "spec": {"devices": one(json!({}))},
    });
    let result = json!({"driver": "dra.example.com", "pool": "n1", "device": "n1-0",
                        "request": "r"});
    left["status"] = json!({"allocation": {"devices": {"results": [result]}}});
    cluster.memory.seed(&ResourceType::of::<ResourceClaim>(), left).unwrap();
    // The claim is known before the pod is looked at.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let pod = pod("p", gpus(1));
    cluster.memory.seed(&ResourceType::of::<Pod>(), pod).unwrap();
    let words = "0/2 nodes are available: 2 cannot schedule extended resource claim. deletion of \
                 ResourceClaim completed, preemption: 0/2 nodes are available: 2 Preemption is \
                 not helpful for scheduling.";
    let start = tokio::time::Instant::now();
    assert_eq!(cluster.refused("p").await.1, words);
    cluster.placed("p").await;
    assert!(start.elapsed().as_secs() < 60, "woken by events, not by the flush");
    assert_eq!(allocated(&the_claim(&cluster).await), ["container-0-request-1=n1-0"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_are_ranked_by_their_devices_if_the_strategy_says_so() {
    let resources = vec![WeightedResource { name: GPU.into(), weight: 1 }];
    let mut profile = Profile::default();
    profile.arguments.node_resources_fit.strategy = ScoringStrategy::MostAllocated(resources);
    let start = |builder: SchedulerBuilder| builder.profile(profile);
    let cluster = named(Cluster::start(1, |client| client, start)).await;
    devices(&cluster, "n1", 8);
    devices(&cluster, "n2", 4);
    for (name, expected) in [("a", "n2"), ("b", "n2"), ("c", "n2"), ("d", "n2"), ("e", "n1")] {
        cluster.pod(name, gpus(1)).await;
        assert_eq!(cluster.placed(name).await, expected, "{name}");
    }
}

/// Checks that no device is given twice, and gives how many are.
async fn check_devices(cluster: &Cluster, seed: u64) -> usize {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in all_claims(cluster).await {
        let name = claim.metadata.name.clone().unwrap();
        let claim = serde_json::to_value(&*claim).unwrap();
        for device in allocated(&claim) {
            let device = device.split_once('=').unwrap().1.to_owned();
            users.entry(device).or_default().push(name.clone());
        }
    }
    assert!(users.values().all(|users| users.len() == 1), "seed {seed}: {users:?}");
    users.len()
}

fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

#[tokio::test(start_paused = true)]
async fn with_faults_devices_are_given_once_and_to_all() {
    for seed in 0..u64::from(rounds(8)) {
        let rates = FaultRates {
            conflict_permille: 50,
            server_error_permille: 100,
            transport_permille: 150,
            watch_drop_permille: 50,
            expired_permille: 20,
            ..FaultRates::default()
        };
        let wrap = faulty(seed, rates);
        let cluster = named(Cluster::start(seed, wrap, |builder| builder)).await;
        devices(&cluster, "n1", 3);
        devices(&cluster, "n2", 3);
        // One pod fits on each node; five want to.
        for n in 0..5 {
            cluster.pod(&format!("p{n}"), gpus(2)).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            check_devices(&cluster, seed).await;
        }
        for round in 0..2 {
            tokio::time::sleep(Duration::from_secs(1800)).await;
            assert_eq!(check_devices(&cluster, seed).await, 4, "seed {seed}, round {round}");
            let pods = cluster.pods.list(ListOptions::default()).await.unwrap();
            let placed: Vec<_> = pods.iter().filter(|pod| is_placed(pod)).collect();
            assert_eq!(placed.len(), 2, "seed {seed}, round {round}");
            for pod in placed {
                let name = pod.metadata.name.as_deref().unwrap();
                let named = status_of(&cluster, name).await["resourceClaimName"].clone();
                let claim = claims(&cluster).get(named.as_str().unwrap()).await.unwrap();
                let status = claim.status.as_ref().unwrap();
                let users = status.reserved_for.as_ref().unwrap();
                assert_eq!(Some(&users[0].uid), pod.metadata.uid.as_ref(), "seed {seed}");
                delete_pod(&cluster, name).await;
                delete_claim(&cluster, &claim).await;
            }
        }
    }
}
