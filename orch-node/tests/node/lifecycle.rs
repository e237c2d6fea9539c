//! Pods from their binding to their end.

use std::time::Duration;

use orch_node::runtime::{
    Inventory,
    simulated::{Behaviour, behaves},
};
use serde_json::json;

use crate::cluster::{Cluster, is, phase, waits};

fn one() -> serde_json::Value {
    json!({ "containers": [{ "name": "app", "image": "web:1" }] })
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_deleted_and_leaves_nothing() {
    let cluster = Cluster::start().await;
    cluster.create("web", json!({}), one()).await;
    let pod = cluster.until("web", |s| phase(s) == "Running" && is(s, "Ready")).await;
    let status = pod.status.as_ref().unwrap();
    for condition in
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    {
        assert!(is(status, condition), "{condition}");
    }
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert!(container.container_id.as_ref().unwrap().starts_with("simulated://"));
    assert_eq!((container.ready, container.started), (true, Some(true)));
    cluster.delete("web", 30).await;
    cluster.until_gone("web").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.runtime.sandboxes(None).await.unwrap().is_empty());
    let events = cluster.events().await;
    for reason in ["Pulling", "Pulled", "Created", "Started", "Killing"] {
        assert_eq!(events.get(reason), Some(&1), "{reason} in {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_like_pod_succeeds_or_fails() {
    let cluster = Cluster::start().await;
    for (name, code, expected) in [("good", "0", "Succeeded"), ("bad", "3", "Failed")] {
        let annotations = json!({
            "simulation.orch.io/run-for": "5s", "simulation.orch.io/exit-code": code });
        let mut spec = one();
        spec["restartPolicy"] = "Never".into();
        cluster.create(name, annotations, spec).await;
        let pod = cluster.until(name, |s| phase(s) == expected).await;
        let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!(ended.exit_code.to_string(), code);
        let age = ended.finished_at.as_ref().unwrap().0.as_second()
            - ended.started_at.as_ref().unwrap().0.as_second();
        assert_eq!(age, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_longer_and_longer() {
    let cluster = Cluster::start().await;
    let annotations = json!({ "simulation.orch.io/exit-code": "1" });
    cluster.create("crash", annotations, one()).await;
    let pod = cluster.until("crash", |s| waits(s) == "CrashLoopBackOff").await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!(phase(pod.status.as_ref().unwrap()), "Running");
    assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    let started = tokio::time::Instant::now();
    let restarts = |n: i32| {
        move |s: &k8s_openapi::api::core::v1::PodStatus| {
            s.container_statuses.as_ref().is_some_and(|c| c[0].restart_count >= n)
        }
    };
    cluster.until("crash", restarts(5)).await;
    // 10 + 20 + 40 + 80 seconds between the restarts 1 to 5.
    let took = started.elapsed().as_secs();
    assert!((150..=160).contains(&took), "{took}");
    assert!(cluster.events().await["BackOff"] >= 4);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_tried_again() {
    let cluster = Cluster::start().await;
    let spec = json!({ "containers": [{ "name": "app", "image": "unpullable:1" }] });
    cluster.create("pull", json!({}), spec).await;
    cluster.until("pull", |s| waits(s) == "ErrImagePull").await;
    cluster.until("pull", |s| waits(s) == "ImagePullBackOff").await;
    cluster.until("pull", |s| waits(s) == "ErrImagePull").await;
    let spec = json!({ "containers": [{ "name": "app", "image": "Not Valid" }] });
    cluster.create("invalid", json!({}), spec).await;
    cluster.until("invalid", |s| waits(s) == "InvalidImageName").await;
    let never = json!({ "containers": [
        { "name": "app", "image": "x", "imagePullPolicy": "Never" }] });
    cluster.create("never", json!({}), never).await;
    cluster.until("never", |s| waits(s) == "ErrImageNeverPull").await;
}

#[tokio::test(start_paused = true)]
async fn memory_kills_show_as_such() {
    let cluster = Cluster::start().await;
    let mut spec = one();
    spec["restartPolicy"] = "Never".into();
    cluster.create("oom", json!({ "simulation.orch.io/oom-after": "2s" }), spec).await;
    let pod = cluster.until("oom", |s| phase(s) == "Failed").await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("OOMKilled")));
}

#[tokio::test(start_paused = true)]
async fn init_containers_and_sidecars_come_first() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "initContainers": [
            { "name": "side", "image": "s:1", "restartPolicy": "Always" },
            { "name": "setup", "image": "i:1" }
        ],
        "containers": [{ "name": "app", "image": "web:1" }]
    });
    cluster.create("web", json!({ "simulation.orch.io/setup.run-for": "3s" }), spec).await;
    let pod = cluster.until("web", |s| waits(s) == "PodInitializing").await;
    assert_eq!(phase(pod.status.as_ref().unwrap()), "Pending");
    let pod = cluster.until("web", |s| phase(s) == "Running").await;
    let inits = pod.status.as_ref().unwrap().init_container_statuses.clone().unwrap();
    assert!(inits[0].state.as_ref().unwrap().running.is_some());
    assert_eq!(inits[1].state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
}

#[tokio::test(start_paused = true)]
async fn probes_decide_about_readiness_and_restarts() {
    let cluster = Cluster::start().await;
    let probe = json!({ "httpGet": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 2 });
    let mut spec = one();
    spec["containers"][0]["readinessProbe"] = probe.clone();
    cluster.create("slow", json!({ "simulation.orch.io/ready-after": "8s" }), spec).await;
    let running = cluster.until("slow", |s| phase(s) == "Running").await;
    assert!(!is(running.status.as_ref().unwrap(), "Ready"));
    cluster.until("slow", |s| is(s, "Ready")).await;

    let mut spec = one();
    spec["containers"][0]["livenessProbe"] = probe.clone();
    cluster.create("stuck", json!({ "simulation.orch.io/ready-after": "never" }), spec).await;
    let restarted = |s: &k8s_openapi::api::core::v1::PodStatus| {
        s.container_statuses.as_ref().is_some_and(|c| c[0].restart_count >= 1)
    };
    cluster.until("stuck", restarted).await;

    let mut spec = one();
    spec["containers"][0]["livenessProbe"] = probe;
    spec["containers"][0]["startupProbe"] =
        json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 60 });
    cluster.create("starts", json!({ "simulation.orch.io/ready-after": "30s" }), spec).await;
    let pod = cluster.until("starts", |s| is(s, "Ready")).await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!(status.restart_count, 0);
    assert!(cluster.events().await["Unhealthy"] > 0);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_adopts_what_runs() {
    let mut cluster = Cluster::start().await;
    cluster.create("web", json!({}), one()).await;
    cluster.create("goes", json!({}), one()).await;
    cluster.until("web", |s| is(s, "Ready")).await;
    cluster.until("goes", |s| is(s, "Ready")).await;
    let ids = async |c: &Cluster| -> Vec<_> {
        let all = c.runtime.containers(None).await.unwrap();
        all.into_iter().map(|c| c.id).collect()
    };
    let before = ids(&cluster).await;
    cluster.stop_agent().await;
    assert_eq!(ids(&cluster).await, before);
    cluster.delete("goes", 0).await;
    cluster.start_agent();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = ids(&cluster).await;
    assert_eq!(after.len(), 1);
    assert!(before.contains(&after[0]));
    let pod = cluster.pods.get("web").await.unwrap();
    let status = pod.status.as_ref().unwrap();
    assert!(is(status, "Ready"));
    // What runs keeps its address, and nobody else gets it.
    cluster.create("new", json!({}), one()).await;
    let new = cluster.until("new", |s| is(s, "Ready")).await;
    assert!(status.pod_ip.is_some());
    assert_ne!(new.status.as_ref().unwrap().pod_ip, status.pod_ip);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_rejected() {
    let cluster = Cluster::start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut spec = one();
    spec["containers"][0]["resources"] = json!({ "requests": { "cpu": "5" } });
    cluster.create("big", json!({}), spec).await;
    let pod = cluster.until("big", |s| phase(s) == "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("OutOfcpu"));
    // It never was on the node, so nothing else is told of it.
    let status = pod.status.as_ref().unwrap();
    assert_eq!((&status.conditions, &status.container_statuses), (&None, &None));
    assert!(status.start_time.is_some() && status.qos_class.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod() {
    let cluster = Cluster::start().await;
    let mut spec = one();
    spec["activeDeadlineSeconds"] = 20.into();
    cluster.create("late", json!({}), spec).await;
    cluster.until("late", |s| phase(s) == "Running").await;
    let pod = cluster.until("late", |s| phase(s) == "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert!(cluster.runtime.containers(None).await.unwrap().iter().all(|c| !c.is_running()));
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_container_is_killed_after_its_grace_period() {
    let slow = Behaviour { stop_delay: Duration::from_secs(600), ..Behaviour::runs() };
    let cluster = Cluster::scripted(behaves(move |_| slow.clone())).await;
    cluster.create("slow", json!({}), one()).await;
    cluster.until("slow", |s| phase(s) == "Running").await;
    let started = tokio::time::Instant::now();
    cluster.delete("slow", 100).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.delete("slow", 20).await;
    cluster.until_gone("slow").await;
    let took = started.elapsed().as_secs();
    assert!((25..40).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_refers_to_must_be_there() {
    let cluster = Cluster::start().await;
    let mut spec = one();
    spec["containers"][0]["env"] = json!([{ "name": "A", "valueFrom": {
        "configMapKeyRef": { "name": "settings", "key": "a" } } }]);
    cluster.create("env", json!({}), spec).await;
    cluster.until("env", |s| waits(s) == "CreateContainerConfigError").await;
    let map = serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(json!({
        "metadata": { "name": "settings", "namespace": "default" }, "data": { "a": "1" } }));
    cluster.client.seed_typed(&map.unwrap()).unwrap();
    cluster.until("env", |s| is(s, "Ready")).await;
    let mut spec = one();
    spec["volumes"] = json!([{ "name": "v", "secret": { "secretName": "none" } }]);
    cluster.create("vol", json!({}), spec).await;
    cluster.until("vol", |s| waits(s) == "ContainerCreating").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.events().await.contains_key("FailedMount"));
}
