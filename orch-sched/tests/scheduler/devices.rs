//! Pods with claims for devices.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use orch_core::{
    Resources,
    client::{DeleteOptions, PatchKind, WatchOptions},
    resource::ResourceType,
};
use orch_sched::{CycleState, Fault, Plugin, PodInfo, PreBind, Verdict};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const DRIVER: &str = "dra.example.com";

pub(crate) fn class(cluster: &Cluster, name: &str, spec: Value) {
    let class = json!({"metadata": {"name": name}, "spec": spec});
    cluster.memory.seed(&ResourceType::of::<DeviceClass>(), class).unwrap();
}

/// A slice that is a pool of its own, with `spec` on top.
fn slice(cluster: &Cluster, name: &str, spec: Value) {
    let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let mut slice = json!({"metadata": {"name": name}, "spec": {"driver": DRIVER, "pool": pool}});
    for (key, value) in spec.as_object().unwrap() {
        slice["spec"][key] = value.clone();
    }
    cluster.memory.seed(&ResourceType::of::<ResourceSlice>(), slice).unwrap();
}

/// Plain devices of a node.
pub(crate) fn devices(cluster: &Cluster, node: &str, count: usize) {
    let devices: Vec<Value> = (0..count).map(|n| json!({"name": format!("{node}-{n}")})).collect();
    slice(cluster, node, json!({"nodeName": node, "devices": devices}));
}

pub(crate) fn claim(cluster: &Cluster, name: &str, devices: Value) {
    let claim = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"devices": devices},
    });
    cluster.memory.seed(&ResourceType::of::<ResourceClaim>(), claim).unwrap();
}

/// One request of the class `gpu`, with `more` on top.
pub(crate) fn one(more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    for (key, value) in more.as_object().into_iter().flatten() {
        exactly[key] = value.clone();
    }
    json!({"requests": [{"name": "r", "exactly": exactly}]})
}

pub(crate) fn using(claims: &[&str]) -> Value {
    let claims = claims.iter().map(|name| json!({"name": name, "resourceClaimName": name}));
    json!({"spec": {"resourceClaims": claims.collect::<Vec<_>>()}})
}

pub(crate) fn claims(cluster: &Cluster) -> Resources<ResourceClaim> {
    Resources::namespaced(cluster.memory.clone(), "default")
}

pub(crate) async fn read(cluster: &Cluster, name: &str) -> Value {
    serde_json::to_value(&*claims(cluster).get(name).await.unwrap()).unwrap()
}

/// The devices of a claim, as `request=device`.
pub(crate) fn allocated(claim: &Value) -> Vec<String> {
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    let shown = |result: &Value| {
        let text = |field: &str| result[field].as_str().unwrap().to_owned();
        format!("{}={}", text("request"), text("device"))
    };
    results.into_iter().flatten().map(shown).collect()
}

/// A cluster of two nodes with one class.
pub(crate) fn cluster() -> Cluster {
    let cluster = Cluster::plain();
    with_nodes(&cluster);
    cluster
}

pub(crate) fn with_nodes(cluster: &Cluster) {
    for name in ["n1", "n2"] {
        cluster.node(name, json!({}));
    }
    let selectors = json!([{"cel": {"expression": "device.driver == 'dra.example.com'"}}]);
    class(cluster, "gpu", json!({"selectors": selectors}));
}

/// What a claim gets; the pod goes to a node.
async fn check(cluster: &Cluster, wanted: Value, expected: &[&str]) -> Value {
    claim(cluster, "c", wanted);
    cluster.pod("p", using(&["c"])).await;
    cluster.placed("p").await;
    let claim = read(cluster, "c").await;
    assert_eq!(allocated(&claim), expected);
    claim
}

/// Why a claim gets nothing.
async fn check_refused(cluster: &Cluster, wanted: Value, expected: &str) {
    claim(cluster, "c", wanted);
    cluster.pod("p", using(&["c"])).await;
    assert_eq!(cluster.refused("p").await.1, expected);
}

pub(crate) const NOTHING: &str = "0/2 nodes are available: 2 cannot allocate all claims. still not \
                       schedulable, preemption: 0/2 nodes are available: 2 Preemption is not \
                       helpful for scheduling.";

#[tokio::test(start_paused = true)]
async fn a_claim_gets_its_device_before_the_pod_gets_its_node() {
    let cluster = cluster();
    devices(&cluster, "n2", 1);
    let claim = check(&cluster, one(json!({})), &["r=n2-0"]).await;
    assert_eq!(cluster.placed("p").await, "n2");
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["resource.kubernetes.io/delete-protection"])
    );
    let uid = cluster.pods.get("p").await.unwrap().metadata.uid.clone();
    let user = json!([{"name": "p", "resource": "pods", "uid": uid}]);
    assert_eq!(claim["status"]["reservedFor"], user);
    let allocation = &claim["status"]["allocation"];
    assert_eq!(allocation["devices"]["results"][0]["pool"], "n2");
    assert_eq!(allocation["devices"]["results"][0]["driver"], DRIVER);
    assert!(allocation["allocationTimestamp"].is_string());
    let only = json!([{"matchFields":
        [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
    assert_eq!(allocation["nodeSelector"]["nodeSelectorTerms"], only);
}

#[tokio::test(start_paused = true)]
async fn devices_are_given_once_and_given_back() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    claim(&cluster, "a", one(json!({})));
    claim(&cluster, "b", one(json!({})));
    cluster.pod("first", using(&["a"])).await;
    cluster.placed("first").await;
    cluster.pod("second", using(&["b"])).await;
    assert_eq!(cluster.refused("second").await.1, NOTHING);
    let mut freed = (*claims(&cluster).get("a").await.unwrap()).clone();
    freed.status = Some(Default::default());
    claims(&cluster).update_status(&freed).await.unwrap();
    assert_eq!(cluster.placed("second").await, "n1");
}

/// What is known of nodes is kept for pods whose claims are the same: it ends where devices are taken
/// or given back, on the node that has them or on all that share them.
#[tokio::test(start_paused = true)]
async fn nodes_are_looked_at_again_when_their_devices_come_back() {
    let check = async |place: Value, expected: &[&str]| {
        let cluster = cluster();
        let mut place = place;
        place["devices"] = json!([{"name": "d"}]);
        slice(&cluster, "s", place);
        for (n, expected) in expected.iter().enumerate() {
            let names = [format!("c{n}"), format!("p{n}"), format!("q{n}")];
            let [own, pod, refused] = names.each_ref().map(String::as_str);
            claim(&cluster, own, one(json!({})));
            cluster.pod(pod, using(&[own])).await;
            assert!(expected.contains(&*cluster.placed(pod).await));
            claim(&cluster, refused, one(json!({})));
            cluster.pod(refused, using(&[refused])).await;
            assert_eq!(cluster.refused(refused).await.1, NOTHING);
            cluster.pods.delete(refused, DeleteOptions::default()).await.unwrap();
            // The pod stays: nothing but its claim changes.
            let mut freed = (*claims(&cluster).get(own).await.unwrap()).clone();
            freed.status = Some(Default::default());
            claims(&cluster).update_status(&freed).await.unwrap();
        }
    };
    check(json!({"nodeName": "n2"}), &["n2", "n2", "n2"]).await;
    check(json!({"allNodes": true}), &["n1 n2", "n1 n2", "n1 n2"]).await;
}

#[tokio::test(start_paused = true)]
async fn pods_share_a_claim() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    claim(&cluster, "c", one(json!({})));
    for name in ["p", "q", "r"] {
        cluster.pod(name, using(&["c"])).await;
    }
    for name in ["p", "q", "r"] {
        assert_eq!(cluster.placed(name).await, "n1");
    }
    let claim = read(&cluster, "c").await;
    assert_eq!(claim["status"]["reservedFor"].as_array().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim_and_for_the_class() {
    let cluster = Cluster::plain();
    cluster.node("n1", json!({}));
    devices(&cluster, "n1", 1);
    cluster.pod("p", using(&["c"])).await;
    let start = tokio::time::Instant::now();
    claim(&cluster, "c", one(json!({})));
    let (_, message) = cluster.refused("p").await;
    let words = "0/1 nodes are available: request r: device class gpu does not exist. no new \
                 claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not \
                 helpful for scheduling.";
    assert_eq!(message, words);
    class(&cluster, "gpu", json!({}));
    cluster.placed("p").await;
    assert!(start.elapsed().as_secs() < 60, "woken by events, not by the flush");
}

#[tokio::test(start_paused = true)]
async fn a_claim_from_a_template_must_be_the_pods_own() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    let spec = json!({"spec": {"resourceClaims":
        [{"name": "c", "resourceClaimTemplateName": "t"}]}});
    cluster.pod("p", spec).await;
    let uid = cluster.pods.get("p").await.unwrap().metadata.uid.clone();
    let made = |name: &str, uid: Option<String>| {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid,
                           "controller": true});
        let meta = json!({"name": name, "namespace": "default", "ownerReferences": [owner]});
        let claim = json!({"metadata": meta, "spec": {"devices": one(json!({}))}});
        cluster.memory.seed(&ResourceType::of::<ResourceClaim>(), claim).unwrap();
    };
    let name = |name: &str| {
        let named = json!({"status": {"resourceClaimStatuses":
            [{"name": "c", "resourceClaimName": name}]}});
        cluster.pods.patch_status("p", PatchKind::Merge, named)
    };
    made("other", Some("another".into()));
    name("other").await.unwrap();
    made("own", uid);
    name("own").await.unwrap();
    assert_eq!(cluster.placed("p").await, "n1");
    assert!(allocated(&read(&cluster, "other").await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_users_gives_up_devices_that_are_out_of_reach() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    devices(&cluster, "n2", 1);
    claim(&cluster, "c", one(json!({})));
    cluster.pod("p", using(&["c"])).await;
    let first = cluster.placed("p").await;
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("p", now).await.unwrap();
    let unused = json!({"status": {"reservedFor": null}});
    claims(&cluster).patch_status("c", PatchKind::Merge, unused).await.unwrap();
    let other = if first == "n1" { "n2" } else { "n1" };
    let mut pod = using(&["c"]);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": other});
    cluster.pod("q", pod).await;
    assert_eq!(cluster.placed("q").await, other);
    assert_eq!(allocated(&read(&cluster, "c").await), [format!("r={other}-0")]);
}

#[tokio::test(start_paused = true)]
async fn selectors_choose_devices() {
    let cluster = cluster();
    let memory = |size: &str| json!({"memory": {"value": size}});
    let version = json!({"version": {"version": "1.2.0"}});
    slice(
        &cluster,
        "s",
        json!({"allNodes": true, "devices": [
            {"name": "small", "capacity": memory("10Gi"), "attributes": version},
            {"name": "old", "capacity": memory("80Gi"),
             "attributes": {"version": {"version": "1.0.0"}}},
            {"name": "right", "capacity": memory("80Gi"), "attributes": version},
        ]}),
    );
    let expression = "cel.bind(d, 'dra.example.com', \
                      device.capacity[d].memory.compareTo(quantity('40Gi')) >= 0 \
                      && device.attributes[d].version.isGreaterThan(semver('1.1.0')))";
    let wanted = one(json!({"selectors": [{"cel": {"expression": expression}}]}));
    let claim = check(&cluster, wanted, &["r=right"]).await;
    // Devices that every node reaches do not tie the claim to one.
    assert!(claim["status"]["allocation"]["nodeSelector"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_selector_that_fails_fails_the_pod() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    let expression = "device.attributes['dra.example.com'].healthy";
    let wanted = one(json!({"selectors": [{"cel": {"expression": expression}}]}));
    let words = "running Filter plugin \"DynamicResources\": claim default/c: selector #0: CEL \
                 runtime error: no such key: healthy";
    check_refused(&cluster, wanted, words).await;
}

#[tokio::test(start_paused = true)]
async fn all_devices_of_a_node_are_given_together() {
    let cluster = cluster();
    devices(&cluster, "n1", 3);
    let all = one(json!({"allocationMode": "All", "count": null}));
    check(&cluster, all.clone(), &["r=n1-0", "r=n1-1", "r=n1-2"]).await;
    claim(&cluster, "again", all);
    cluster.pod("q", using(&["again"])).await;
    assert_eq!(cluster.refused("q").await.1, NOTHING);
}

#[tokio::test(start_paused = true)]
async fn the_search_goes_back_where_constraints_demand_it() {
    let cluster = cluster();
    let device =
        |name: &str, board: i64| json!({"name": name, "attributes": {"board": {"int": board}}});
    slice(
        &cluster,
        "s",
        json!({"nodeName": "n1", "devices":
        [device("a", 1), device("b", 2), device("c", 3), device("d", 2)]}),
    );
    let request = |name: &str| {
        json!({"name": name, "exactly":
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}})
    };
    let requests = json!([request("x"), request("y")]);
    let same = json!([{"matchAttribute": "dra.example.com/board", "requests": []}]);
    let wanted = json!({"requests": requests, "constraints": same});
    check(&cluster, wanted, &["x=b", "y=d"]).await;
    let distinct = json!([{"distinctAttribute": "dra.example.com/board"}]);
    claim(&cluster, "apart", json!({"requests": requests, "constraints": distinct}));
    cluster.pod("q", using(&["apart"])).await;
    cluster.placed("q").await;
    assert_eq!(allocated(&read(&cluster, "apart").await), ["x=a", "y=c"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_a_better_alternative_is_better() {
    let cluster = cluster();
    class(
        &cluster,
        "large",
        json!({"config": [{"opaque":
        {"driver": DRIVER, "parameters": {"mode": "fast"}}}],
        "selectors": [{"cel": {"expression": "'large' in device.attributes['dra.example.com']"}}]}),
    );
    devices(&cluster, "n1", 2);
    let large = json!({"large": {"bool": true}});
    slice(
        &cluster,
        "n2",
        json!({"nodeName": "n2", "devices": [{"name": "l", "attributes": large}]}),
    );
    let alternative = |name: &str, class: &str, count: u32| {
        json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount",
               "count": count})
    };
    let wanted = json!({
        "requests": [{"name": "r", "firstAvailable":
            [alternative("one", "large", 1), alternative("two", "gpu", 2)]}],
        "config": [
            {"requests": ["r/two"], "opaque": {"driver": DRIVER, "parameters": {"two": 1}}},
            {"requests": ["r"], "opaque": {"driver": DRIVER, "parameters": {"any": 1}}},
        ],
    });
    let claim = check(&cluster, wanted.clone(), &["r/one=l"]).await;
    assert_eq!(cluster.placed("p").await, "n2");
    let config = json!([
        {"source": "FromClass", "requests": ["r/one"],
         "opaque": {"driver": DRIVER, "parameters": {"mode": "fast"}}},
        {"source": "FromClaim", "requests": ["r"],
         "opaque": {"driver": DRIVER, "parameters": {"any": 1}}},
    ]);
    assert_eq!(claim["status"]["allocation"]["devices"]["config"], config);
    // What is second best is good enough when the best is taken.
    super::devices::claim(&cluster, "next", wanted);
    cluster.pod("q", using(&["next"])).await;
    assert_eq!(cluster.placed("q").await, "n1");
    assert_eq!(allocated(&read(&cluster, "next").await), ["r/two=n1-0", "r/two=n1-1"]);
}

#[tokio::test(start_paused = true)]
async fn administrators_look_at_devices_that_others_have() {
    let cluster = cluster();
    devices(&cluster, "n1", 1);
    check(&cluster, one(json!({})), &["r=n1-0"]).await;
    claim(&cluster, "admin", one(json!({"adminAccess": true})));
    cluster.pod("q", using(&["admin"])).await;
    cluster.placed("q").await;
    let claim = read(&cluster, "admin").await;
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["adminAccess"], true);
}

#[tokio::test(start_paused = true)]
async fn tainted_devices_are_for_who_tolerates_them() {
    let cluster = cluster();
    let taint = json!([{"key": "broken", "value": "yes", "effect": "NoSchedule"}]);
    slice(&cluster, "s", json!({"nodeName": "n1", "devices": [{"name": "d", "taints": taint}]}));
    check_refused(&cluster, one(json!({})), NOTHING).await;
    let tolerations = json!([{"key": "broken", "operator": "Exists"}]);
    claim(&cluster, "brave", one(json!({"tolerations": tolerations})));
    cluster.pod("q", using(&["brave"])).await;
    assert_eq!(cluster.placed("q").await, "n1");
    let claim = read(&cluster, "brave").await;
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!(result["tolerations"], tolerations);
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_device_exclude_each_other() {
    let cluster = cluster();
    let counters = |value: &str| json!({"slices": {"value": value}});
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    slice(
        &cluster,
        "counters",
        json!({"pool": pool, "nodeName": "n1", "devices": null,
        "sharedCounters": [{"name": "card", "counters": counters("2")}]}),
    );
    let part = |name: &str, size: &str| {
        let consumed = json!([{"counterSet": "card", "counters": counters(size)}]);
        json!({"name": name, "consumesCounters": consumed})
    };
    slice(
        &cluster,
        "parts",
        json!({"pool": pool, "nodeName": "n1",
        "devices": [part("half-1", "1"), part("whole", "2"), part("half-2", "1")]}),
    );
    check(&cluster, one(json!({})), &["r=half-1"]).await;
    claim(&cluster, "two", one(json!({"count": 2})));
    cluster.pod("q", using(&["two"])).await;
    assert_eq!(cluster.refused("q").await.1, NOTHING);
    claim(&cluster, "one", one(json!({})));
    cluster.pod("r", using(&["one"])).await;
    cluster.placed("r").await;
    assert_eq!(allocated(&read(&cluster, "one").await), ["r=half-2"]);
}

#[tokio::test(start_paused = true)]
async fn claims_share_the_capacity_of_a_device() {
    let cluster = cluster();
    let memory = json!({"memory": {"value": "80Gi", "requestPolicy":
        {"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}}}});
    slice(
        &cluster,
        "s",
        json!({"nodeName": "n1", "devices":
        [{"name": "d", "allowMultipleAllocations": true, "capacity": memory}]}),
    );
    let wanted = |size: &str| one(json!({"capacity": {"requests": {"memory": size}}}));
    let first = check(&cluster, wanted("40500Mi"), &["r=d"]).await;
    let result = &first["status"]["allocation"]["devices"]["results"][0];
    assert_eq!(result["consumedCapacity"], json!({"memory": "40Gi"}));
    let id = result["shareID"].as_str().unwrap().to_owned();
    claim(&cluster, "too-much", wanted("41Gi"));
    cluster.pod("q", using(&["too-much"])).await;
    assert_eq!(cluster.refused("q").await.1, NOTHING);
    claim(&cluster, "rest", wanted("40Gi"));
    cluster.pod("r", using(&["rest"])).await;
    cluster.placed("r").await;
    let second = read(&cluster, "rest").await;
    let result = &second["status"]["allocation"]["devices"]["results"][0];
    assert_ne!(result["shareID"], id.as_str());
}

#[tokio::test(start_paused = true)]
async fn only_whole_pools_of_the_newest_generation_are_used() {
    let cluster = cluster();
    let of = |(generation, slices): (u32, u32), name: &str| {
        let pool = json!({"name": "p", "generation": generation, "resourceSliceCount": slices});
        json!({"pool": pool, "nodeName": "n1", "devices": [{"name": name}]})
    };
    slice(&cluster, "old", of((1, 1), "gone"));
    slice(&cluster, "new-1", of((2, 2), "here"));
    check_refused(&cluster, one(json!({})), NOTHING).await;
    slice(&cluster, "new-2", of((2, 2), "there"));
    cluster.placed("p").await;
    assert_eq!(allocated(&read(&cluster, "c").await), ["r=here"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_contradicts_itself_is_not_used() {
    let cluster = cluster();
    let twice = json!([{"name": "d"}, {"name": "d"}]);
    slice(&cluster, "s", json!({"allNodes": true, "devices": twice}));
    let words = "0/2 nodes are available: 2 invalid resource pools were encountered. still not \
                 schedulable, preemption: 0/2 nodes are available: 2 Preemption is not helpful \
                 for scheduling.";
    check_refused(&cluster, one(json!({})), words).await;
}

#[tokio::test(start_paused = true)]
async fn devices_may_say_one_by_one_which_nodes_reach_them() {
    let cluster = cluster();
    slice(
        &cluster,
        "s",
        json!({"perDeviceNodeSelection": true, "devices": [
            {"name": "far", "nodeName": "elsewhere"},
            {"name": "near", "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}},
        ]}),
    );
    let claim = check(&cluster, one(json!({})), &["r=near"]).await;
    assert_eq!(cluster.placed("p").await, "n2");
    let terms = &claim["status"]["allocation"]["nodeSelector"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["n2"]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once_its_device_is_ready() {
    let cluster = cluster();
    slice(
        &cluster,
        "s",
        json!({"nodeName": "n1", "devices":
        [{"name": "d", "bindingConditions": ["attached"], "bindingFailureConditions": ["lost"]}]}),
    );
    claim(&cluster, "c", one(json!({})));
    cluster.pod("p", using(&["c"])).await;
    let written =
        |claim: &ResourceClaim| claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
    let stream = claims(&cluster).watch(WatchOptions::default()).await.unwrap();
    Resources::first_match(stream, written).await.unwrap().unwrap();
    let pod = cluster.pods.get("p").await.unwrap();
    assert!(pod.spec.as_ref().unwrap().node_name.is_none());
    let ready = json!({"status": {"devices": [{
        "driver": DRIVER, "pool": "s", "device": "d",
        "conditions": [{"type": "attached", "status": "True", "reason": "Done", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }]}});
    claims(&cluster).patch_status("c", PatchKind::Merge, ready).await.unwrap();
    assert_eq!(cluster.placed("p").await, "n1");
}

/// Fails once, after claims were written.
#[derive(Debug, Default)]
pub(crate) struct Stumbles(AtomicBool);

impl Plugin for Stumbles {
    fn name(&self) -> &str {
        "Stumbles"
    }

    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        Some(self)
    }
}

#[async_trait]
impl PreBind for Stumbles {
    async fn pre_bind(&self, _: &CycleState, _: &PodInfo, _: &str) -> Result<Verdict, Fault> {
        match self.0.swap(true, Ordering::Relaxed) {
            false => Err("stumbled".into()),
            true => Ok(Verdict::Success),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_bound_after_all_lets_go_of_its_claim() {
    let cluster = Cluster::start(1, |client| client, |builder| builder.plugin(Stumbles::default()));
    with_nodes(&cluster);
    devices(&cluster, "n1", 1);
    claim(&cluster, "c", one(json!({})));
    cluster.pod("p", using(&["c"])).await;
    let users = |claim: &ResourceClaim| {
        let status = claim.status.as_ref();
        status.and_then(|status| status.reserved_for.as_ref()).map_or(0, Vec::len)
    };
    let stream = claims(&cluster).watch(WatchOptions::default()).await.unwrap();
    Resources::first_match(stream, move |claim| users(claim) == 1).await.unwrap().unwrap();
    let stream = claims(&cluster).watch(WatchOptions::default()).await.unwrap();
    Resources::first_match(stream, move |claim| users(claim) == 0).await.unwrap().unwrap();
    assert_eq!(cluster.placed("p").await, "n1");
    assert_eq!(users(&claims(&cluster).get("c").await.unwrap()), 1);
    let pods: Resources<Pod> = cluster.pods.clone();
    assert!(pods.get("p").await.unwrap().spec.is_some());
}
