//! Upstream's conformance behaviours of `kubectl` that need pods to run, on simulated nodes.
//!
//! Source: `test/e2e/kubectl/kubectl.go`. The list that holds the names together is in
//! `tests/conformance/complete.rs`. What upstream's container serves, nobody asks for here.

use libtest_mimic::Trial;
use orch_core::testing::require::Requirement::Kubectl;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, eventually},
    trial,
};

/// The tests of this module.
#[rustfmt::skip]
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("behaviours::kubectl_describe_should_check_if_kubectl_describe_prints_relevant_information_for_rc_and_pods", &[Kubectl], kubectl_describe_should_check_if_kubectl_describe_prints_relevant_information_for_rc_and_pods),
        trial("behaviours::kubectl_label_should_update_the_label_on_a_resource", &[Kubectl], kubectl_label_should_update_the_label_on_a_resource),
        trial("behaviours::kubectl_patch_should_add_annotations_for_pods_in_rc", &[Kubectl], kubectl_patch_should_add_annotations_for_pods_in_rc),
        trial("behaviours::kubectl_replace_should_update_a_single_container_pods_image", &[Kubectl], kubectl_replace_should_update_a_single_container_pods_image),
    ]
}

const NAMESPACE: &str = "e2e-kubectl";
const AGNHOST: &str = "registry.example/agnhost:v2";

/// A cluster whose current namespace is one of the test's own.
fn up() -> Cluster {
    let cluster = Cluster::up(&["--runtime", "simulated", "--store", "memory", "--nodes", "2"]);
    cluster.kubectl(&["create", "namespace", NAMESPACE]);
    cluster.kubectl(&["config", "set-context", "--current", "--namespace", NAMESPACE]);
    cluster
}

/// What kubectl gets, as JSON.
fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    let said = cluster.kubectl(&[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&said).expect("JSON")
}

/// The controller of upstream's test data, and its Service.
fn controller_and_service() -> [Value; 2] {
    let labels = json!({"app": "agnhost", "role": "primary"});
    let metadata = json!({"name": "agnhost-primary", "labels": labels});
    let container = json!({
        "name": "agnhost-primary", "image": AGNHOST,
        "ports": [{"name": "agnhost-server", "containerPort": 6379}],
    });
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": metadata,
        "spec": {"replicas": 1, "selector": labels, "template": template},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "ports": [{"port": 6379, "targetPort": "agnhost-server"}], "selector": labels,
        },
    });
    [controller, service]
}

fn create(cluster: &Cluster, object: &Value) {
    cluster.kubectl_with(&["create", "-f", "-"], &object.to_string()).ok();
}

/// Waits until the controller's one pod runs; its name.
fn running_pod(cluster: &Cluster) -> String {
    eventually("the pod runs", || {
        let pods = get(cluster, &["pods", "-l", "app=agnhost"]);
        let pods = pods["items"].as_array().expect("a list");
        let runs = pods.len() == 1 && pods[0]["status"]["phase"] == "Running";
        runs.then(|| pods[0]["metadata"]["name"].as_str().expect("a name").to_owned())
    })
}

/// Whether each of these groups of words stands on one line, each line after the one before.
fn prints(said: &str, wanted: &[&[&str]]) -> Result<(), String> {
    let mut lines = said.lines();
    for words in wanted {
        if !lines.any(|line| words.iter().all(|word| line.contains(word))) {
            return Err(format!("no line with {words:?} in its place in:\n{said}"));
        }
    }
    Ok(())
}

fn check_described(cluster: &Cluster, of: &[&str], wanted: &[&[&str]]) {
    let said = cluster.kubectl(&[&["describe"], of].concat());
    prints(&said, wanted).unwrap_or_else(|error| panic!("{error}"));
}

fn kubectl_describe_should_check_if_kubectl_describe_prints_relevant_information_for_rc_and_pods() {
    let cluster = up();
    for object in controller_and_service() {
        create(&cluster, &object);
    }
    let pod = running_pod(&cluster);
    let wanted: &[&[&str]] = &[
        &["Name:", "agnhost-primary-"],
        &["Namespace:", NAMESPACE],
        &["Node:"],
        &["Labels:", "app=agnhost"],
        &["role=primary"],
        &["Annotations:"],
        &["Status:", "Running"],
        &["IP:"],
        &["Controlled By:", "ReplicationController/agnhost-primary"],
        &["Image:", AGNHOST],
        &["State:", "Running"],
        &["QoS Class:", "BestEffort"],
    ];
    check_described(&cluster, &["pod", &pod], wanted);
    let wanted: &[&[&str]] = &[
        &["Name:", "agnhost-primary"],
        &["Namespace:", NAMESPACE],
        &["Selector:", "app=agnhost,role=primary"],
        &["Labels:", "app=agnhost"],
        &["role=primary"],
        &["Annotations:"],
        &["Replicas:", "1 current", "1 desired"],
        &["Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"],
        &["Pod Template:"],
        &["Image:", AGNHOST],
        &["Events:"],
    ];
    eventually("the controller is described", || {
        prints(&cluster.kubectl(&["describe", "rc", "agnhost-primary"]), wanted).ok()
    });
    let wanted: &[&[&str]] = &[
        &["Name:", "agnhost-primary"],
        &["Namespace:", NAMESPACE],
        &["Labels:", "app=agnhost"],
        &["role=primary"],
        &["Annotations:"],
        &["Selector:", "app=agnhost", "role=primary"],
        &["Type:", "ClusterIP"],
        &["IP:"],
        &["Port:", "<unset>", "6379/TCP"],
        &["Endpoints:"],
        &["Session Affinity:", "None"],
    ];
    check_described(&cluster, &["service", "agnhost-primary"], wanted);
    check_node_and_namespace(&cluster);
}

fn check_node_and_namespace(cluster: &Cluster) {
    let nodes = get(cluster, &["nodes"]);
    let node = nodes["items"][0]["metadata"]["name"].as_str().expect("a name");
    let wanted: &[&[&str]] = &[
        &["Name:", node],
        &["Labels:"],
        &["Annotations:"],
        &["CreationTimestamp:"],
        &["Conditions:"],
        &["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"],
        &["Addresses:"],
        &["Capacity:"],
        &["System Info:"],
        &["Kernel Version:"],
        &["OS Image:"],
        &["Container Runtime Version:"],
        &["Kubelet Version:"],
        &["Pods:"],
    ];
    check_described(cluster, &["node", node], wanted);
    let wanted: &[&[&str]] =
        &[&["Name:", NAMESPACE], &["Labels:"], &["Annotations:"], &["Status:", "Active"]];
    check_described(cluster, &["namespace", NAMESPACE], wanted);
}

fn kubectl_label_should_update_the_label_on_a_resource() {
    let (cluster, label, value) = (up(), "testing-label", "testing-label-value");
    let container = json!({"name": "pause", "image": "registry.example/pause:v1"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pause", "labels": {"name": "pause"}},
        "spec": {"containers": [container]},
    });
    create(&cluster, &pod);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/pause", "--timeout=60s"]);
    cluster.kubectl(&["label", "pods", "pause", &format!("{label}={value}")]);
    assert!(cluster.kubectl(&["get", "pod", "pause", "-L", label]).contains(value));
    cluster.kubectl(&["label", "pods", "pause", &format!("{label}-")]);
    assert!(!cluster.kubectl(&["get", "pod", "pause", "-L", label]).contains(value));
}

fn kubectl_patch_should_add_annotations_for_pods_in_rc() {
    let cluster = up();
    let [controller, _] = controller_and_service();
    create(&cluster, &controller);
    let pod = running_pod(&cluster);
    cluster.kubectl(&["patch", "pod", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
    assert_eq!(get(&cluster, &["pod", &pod])["metadata"]["annotations"]["x"], "y");
}

fn kubectl_replace_should_update_a_single_container_pods_image() {
    let (cluster, name) = (up(), "e2e-test-httpd-pod");
    let (httpd, busybox) = ("registry.example/httpd:v2", "registry.example/busybox:v1");
    cluster.kubectl(&["run", name, &format!("--image={httpd}"), &format!("--labels=run={name}")]);
    let mut pod = eventually("the pod runs", || {
        let pods = get(&cluster, &["pods", "-l", &format!("run={name}")]);
        let pod = &pods["items"][0];
        (pod["status"]["phase"] == "Running").then(|| pod.clone())
    });
    assert_eq!(pod["spec"]["containers"][0]["image"], httpd);
    pod["spec"]["containers"][0]["image"] = json!(busybox);
    // The node may have told more of the pod since.
    pod["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    cluster.kubectl_with(&["replace", "-f", "-"], &pod.to_string()).ok();
    let replaced = get(&cluster, &["pod", name]);
    assert_eq!(replaced["spec"]["containers"][0]["image"], busybox);
}
