//! What the standard controllers, the scheduler and the nodes make of workloads.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{Namespace, Pod},
};
use kube::{Api, ResourceExt, api::DeleteParams, runtime::wait::await_condition};
use orch::{
    Cluster,
    controllers::pod_autoscaler::metrics::{MetricName, Metrics, MetricsError, PodMeasurements},
    testing::conditions,
};
use serde_json::json;

use crate::world::{create, create_global, is_ready, node_of, seeded, template, until, workload};

/// Runs a Deployment of 100 replicas through nothing but a `kube::Client`.
async fn hundred_replicas(name: &str) {
    let cluster = Cluster::builder().simulated_nodes(3).start().await.expect("it starts");
    let client: kube::Client = cluster.client();
    create::<Deployment>(&cluster, workload(name, 100)).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    await_condition(deployments, name, conditions::is_available).await.expect("the watch works");
    let pods = Api::<Pod>::all(client).list(&Default::default()).await.expect("a list");
    assert_eq!(pods.items.len(), 100, "only the cluster's own pods");
    assert!(pods.iter().all(|pod| is_ready(pod) && pod.name_any().starts_with(name)));
    let nodes: BTreeSet<&str> = pods.iter().map(node_of).collect();
    assert_eq!(nodes, BTreeSet::from(["node-1", "node-2", "node-3"]));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_a_hundred_becomes_available() {
    hundred_replicas("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_run_side_by_side() {
    tokio::join!(hundred_replicas("left"), hundred_replicas("right"));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_keeps_names_across_deletions() {
    let cluster = seeded(1).simulated_nodes(2).start().await.expect("it starts");
    create::<StatefulSet>(&cluster, workload("db", 3)).await;
    let ordinals = |pods: &[Arc<Pod>]| -> Vec<String> {
        pods.iter().filter(|pod| is_ready(pod)).map(|pod| pod.name_any()).collect()
    };
    until::<Pod>(&cluster, |pods| ordinals(pods) == ["db-0", "db-1", "db-2"]).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let old = pods.get("db-1").await.expect("it runs").uid();
    pods.delete("db-1", &DeleteParams::default()).await.expect("it is deleted");
    until::<Pod>(&cluster, |pods| {
        ordinals(pods) == ["db-0", "db-1", "db-2"] && pods.iter().all(|pod| pod.uid() != old)
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_runs_once_on_every_node() {
    let cluster = seeded(2).simulated_nodes(4).start().await.expect("it starts");
    let mut set = workload("agent", 0);
    set["spec"].as_object_mut().expect("an object").remove("replicas");
    create::<DaemonSet>(&cluster, set).await;
    until::<Pod>(&cluster, |pods| {
        let ready: BTreeSet<&str> =
            pods.iter().filter(|pod| is_ready(pod)).map(|pod| node_of(pod)).collect();
        pods.len() == 4 && ready.len() == 4
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_completion() {
    let cluster = seeded(3).simulated_nodes(2).start().await.expect("it starts");
    let mut work = template("work");
    work["metadata"]["annotations"] = json!({"simulation.orch.io/run-for": "30s",
        "simulation.orch.io/exit-code": "0"});
    work["spec"]["restartPolicy"] = json!("Never");
    let spec = json!({"completions": 4, "parallelism": 2, "template": work});
    create::<Job>(&cluster, json!({"metadata": {"name": "work"}, "spec": spec})).await;
    let before = tokio::time::Instant::now();
    until::<Job>(&cluster, |jobs| {
        let work = jobs.first().map(|job| &**job);
        let succeeded = work.and_then(|job| job.status.as_ref()?.succeeded);
        succeeded == Some(4) && conditions::is_complete(work)
    })
    .await;
    let virtual_seconds = before.elapsed().as_secs();
    assert!(virtual_seconds >= 60, "two rounds of 30 s: {virtual_seconds} s");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_deployment_owns_goes_with_it() {
    let cluster = seeded(4).simulated_nodes(2).start().await.expect("it starts");
    create::<Deployment>(&cluster, workload("web", 5)).await;
    until::<Pod>(&cluster, |pods| pods.len() == 5 && pods.iter().all(|pod| is_ready(pod))).await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    deployments.delete("web", &DeleteParams::default()).await.expect("it is deleted");
    until::<ReplicaSet>(&cluster, <[_]>::is_empty).await;
    until::<Pod>(&cluster, <[_]>::is_empty).await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_is_emptied_first() {
    let cluster = seeded(5).simulated_nodes(1).start().await.expect("it starts");
    create_global::<Namespace>(&cluster, json!({"metadata": {"name": "team"}})).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "team");
    let web = serde_json::from_value(workload("web", 3)).expect("a Deployment");
    deployments.create(&Default::default(), &web).await.expect("it is created");
    until::<Pod>(&cluster, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 3).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete("team", &DeleteParams::default()).await.expect("it is deleted");
    until::<Namespace>(&cluster, |all| all.iter().all(|ns| ns.name_any() != "team")).await;
    let left = Api::<Pod>::all(cluster.client()).list(&Default::default()).await.expect("a list");
    assert_eq!(left.items.len(), 0);
    let left = deployments.list(&Default::default()).await.expect("a list");
    assert_eq!(left.items.len(), 0);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_that_somebody_holds_causes_no_work() {
    let cluster = seeded(6).simulated_nodes(1).start().await.expect("it starts");
    let mut pod = template("held");
    pod["metadata"]["name"] = json!("held");
    pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create::<Pod>(&cluster, pod).await;
    until::<Pod>(&cluster, |pods| pods.iter().all(|pod| is_ready(pod))).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("held", &DeleteParams::default()).await.expect("it is deleted");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let held = pods.get("held").await.expect("it is held").resource_version();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(pods.get("held").await.expect("it is held").resource_version(), held);
    cluster.shutdown().await;
}

/// Every pod uses so many thousandths of everything.
struct Busy(Arc<AtomicI64>);

#[async_trait::async_trait]
impl Metrics for Busy {
    async fn of_resource(
        &self,
        _namespace: &str,
        _resource: &str,
        _selector: &str,
        _container: Option<&str>,
    ) -> Result<PodMeasurements, MetricsError> {
        Err(MetricsError("only pods are measured".to_owned()))
    }

    async fn external(&self, _: &str, metric: MetricName<'_>) -> Result<Vec<i64>, MetricsError> {
        assert_eq!(metric.name, "requests");
        Ok(vec![self.0.load(Ordering::Relaxed)])
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_scaled_by_what_it_has_to_do() {
    let load = Arc::new(AtomicI64::new(100_000));
    let cluster = seeded(12).simulated_nodes(2).measurements(Busy(load.clone())).start().await;
    let cluster = cluster.expect("it starts");
    create::<Deployment>(&cluster, workload("web", 1)).await;
    let scaler = json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 8,
            "metrics": [{"type": "External", "external": {"metric": {"name": "requests"},
                "target": {"type": "AverageValue", "averageValue": "25"}}}],
        },
    });
    create::<HorizontalPodAutoscaler>(&cluster, scaler).await;
    until::<Pod>(&cluster, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 4).await;
    load.store(20_000, Ordering::Relaxed);
    until::<Pod>(&cluster, |pods| pods.len() == 1).await;
    cluster.shutdown().await;
}
