//! HorizontalPodAutoscalers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Event, Pod},
};
use orch_controllers::{
    pod_autoscaler::{
        horizontal_pod_autoscaler,
        metrics::{
            MetricName, Metrics, MetricsError, PodMeasurement, PodMeasurements, ResourceMetricsApi,
        },
    },
    replicas::replica_set,
};
use orch_core::{
    Client, Environment, ResourceType, Resources, client::ListOptions, selector::Selector,
};
use serde_json::{Value, json};

use crate::world::{World, template};

/// What each pod uses, and something outside of the cluster, in thousandths.
struct Load {
    client: Arc<dyn Client>,
    environment: Environment,
    each: Arc<Mutex<Option<i64>>>,
    queue: Arc<Mutex<i64>>,
}

#[async_trait]
impl Metrics for Load {
    async fn of_resource(
        &self,
        namespace: &str,
        _resource: &str,
        selector: &str,
        _container: Option<&str>,
    ) -> Result<PodMeasurements, MetricsError> {
        let each = *self.each.lock().unwrap();
        let milli = each.ok_or_else(|| MetricsError("the meter is broken".to_owned()))?;
        let pods: Resources<Pod> = Resources::namespaced(self.client.clone(), namespace);
        let pods = pods.list(ListOptions::default()).await.unwrap();
        let selector: Selector = selector.parse().unwrap();
        let at = self.environment.clock.now();
        let selected = pods.iter().filter(|pod| {
            selector.matches(pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
        });
        let measured = selected.map(|pod| {
            let name = pod.metadata.name.clone().unwrap();
            (name, PodMeasurement { at, window: Duration::from_secs(30), milli })
        });
        Ok(measured.collect())
    }

    async fn external(&self, _: &str, metric: MetricName<'_>) -> Result<Vec<i64>, MetricsError> {
        assert_eq!(metric.name, "queue_length");
        Ok(vec![*self.queue.lock().unwrap()])
    }
}

struct Scene {
    world: World,
    each: Arc<Mutex<Option<i64>>>,
    queue: Arc<Mutex<i64>>,
}

/// A set of three whose pods request 100m each, and an autoscaler of it.
async fn scene(spec: Value) -> Scene {
    let (each, queue) = (Arc::new(Mutex::new(Some(50))), Arc::new(Mutex::new(0)));
    let load = (each.clone(), queue.clone());
    let world = World::start(|informers| {
        let (each, queue) = load;
        let environment = informers.environment().clone();
        let load = Load { client: informers.client().clone(), environment, each, queue };
        let types = Arc::new(vec![ResourceType::of::<ReplicaSet>()]);
        vec![replica_set(informers), horizontal_pod_autoscaler(informers, types, Arc::new(load))]
    });
    let mut wanted = template("web", "v1");
    wanted["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    world
        .create::<ReplicaSet>(json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": wanted},
        }))
        .await;
    let mut scaler = json!({
        "metadata": {"name": "scaler"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
            "minReplicas": 2, "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    });
    json_patch::merge(&mut scaler, &spec);
    world.create::<HorizontalPodAutoscaler>(scaler).await;
    Scene { world, each, queue }
}

impl Scene {
    async fn replicas(&self) -> i32 {
        self.world.get::<ReplicaSet>("web").await.unwrap().spec.as_ref().unwrap().replicas.unwrap()
    }

    /// Status, reason and message of a condition.
    async fn condition(&self, type_: &str) -> (String, String, String) {
        let scaler = self.world.get::<HorizontalPodAutoscaler>("scaler").await.unwrap();
        let status = scaler.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == type_).expect("the condition");
        (found.status, found.reason.unwrap(), found.message.unwrap())
    }

    async fn says(&self, reason: &str, message: &str) {
        let all = self.world.list::<Event>().await;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let all: Vec<_> = all.iter().map(|e| (text(&e.reason), text(&e.message))).collect();
        assert!(all.contains(&(reason.to_owned(), message.to_owned())), "{all:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_grows_with_its_load_and_shrinks_after_it() {
    let scene = scene(json!({})).await;
    // Pods that have just started say little about processors.
    scene.world.pass(400).await;
    assert_eq!(scene.replicas().await, 3);
    let (status, reason, message) = scene.condition("ScalingActive").await;
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ValidMetricFound"));
    let name = "cpu resource utilization (percentage of request)";
    assert_eq!(
        message,
        format!("the HPA was able to successfully calculate a replica count from {name}")
    );
    let writes = scene.world.writes();
    scene.world.pass(600).await;
    assert_eq!(scene.world.writes(), writes, "as long as nothing changes nothing is written");

    *scene.each.lock().unwrap() = Some(90);
    scene.world.pass(20).await;
    assert_eq!(scene.replicas().await, 6);
    scene.says("SuccessfulRescale", &format!("New size: 6; reason: {name} above target")).await;
    *scene.each.lock().unwrap() = Some(10);
    scene.world.pass(200).await;
    assert_eq!(scene.replicas().await, 6, "a lower wish has to stand for five minutes");
    assert_eq!(scene.condition("AbleToScale").await.1, "ScaleDownStabilized");
    scene.world.pass(400).await;
    assert_eq!(scene.replicas().await, 2);
    scene.says("SuccessfulRescale", "New size: 2; reason: All metrics below target").await;
    let (status, reason, message) = scene.condition("ScalingLimited").await;
    assert_eq!(status, "True");
    assert_eq!(reason, "TooFewReplicas");
    assert_eq!(message, "the desired replica count is less than the minimum replica count");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_measured_changes_nothing() {
    let scene = scene(json!({})).await;
    *scene.each.lock().unwrap() = None;
    scene.world.pass(60).await;
    assert_eq!(scene.replicas().await, 3);
    let why = "unable to get metrics for resource cpu: the meter is broken";
    let (status, reason, message) = scene.condition("ScalingActive").await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "FailedGetResourceMetric"));
    assert_eq!(message, format!("the HPA was unable to compute the replica count: {why}"));
    scene.says("FailedGetResourceMetric", why).await;
    let all = format!("invalid metrics (1 invalid out of 1), first error is: {why}");
    scene.says("FailedComputeMetricsReplicas", &all).await;
}

#[tokio::test(start_paused = true)]
async fn of_several_metrics_the_one_that_asks_for_most_counts() {
    let metrics = json!({"spec": {"metrics": [
        {"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "External", "external": {"metric": {"name": "queue_length"},
            "target": {"type": "AverageValue", "averageValue": "10"}}},
    ]}});
    let scene = scene(metrics).await;
    *scene.queue.lock().unwrap() = 45_000;
    scene.world.pass(400).await;
    assert_eq!(scene.replicas().await, 5);
    let scaler = scene.world.get::<HorizontalPodAutoscaler>("scaler").await.unwrap();
    let shown = scaler.status.as_ref().unwrap().current_metrics.clone().unwrap();
    let current = &shown[1].external.as_ref().unwrap().current;
    assert_eq!(current.average_value.as_ref().unwrap().0, "9");
    // One that fails must not let the others shrink the set.
    *scene.each.lock().unwrap() = None;
    *scene.queue.lock().unwrap() = 0;
    scene.world.pass(900).await;
    assert_eq!(scene.replicas().await, 5);
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_without_metrics_too() {
    let scene = scene(json!({"spec": {"maxReplicas": 2, "minReplicas": 1}})).await;
    scene.world.pass(20).await;
    assert_eq!(scene.replicas().await, 2);
    let reason = "Current number of replicas above Spec.MaxReplicas";
    scene.says("SuccessfulRescale", &format!("New size: 2; reason: {reason}")).await;
    scene.world.patch::<ReplicaSet>("web", json!({"spec": {"replicas": 0}})).await;
    scene.world.pass(30).await;
    assert_eq!(scene.replicas().await, 0);
    assert_eq!(scene.condition("ScalingActive").await.1, "ScalingDisabled");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_there_is_told() {
    let target = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "nobody"});
    let scene = scene(json!({"spec": {"scaleTargetRef": target}})).await;
    scene.world.pass(5).await;
    let (status, reason, message) = scene.condition("AbleToScale").await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "FailedGetScale"));
    assert!(message.ends_with("replicasets.apps \"nobody\" not found"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_api_is_read_as_a_metrics_server_gives_it() {
    let world = World::start(|informers| vec![replica_set(informers)]);
    let kind = ResourceType::new(
        "metrics.k8s.io",
        "v1beta1",
        "pods",
        "PodMetrics",
        orch_core::Scope::Namespaced,
    );
    let api = ResourceMetricsApi::new(Arc::new(world.cluster.clone()));
    let ask = async |container| api.of_resource("default", "cpu", "app=web", container).await;
    let none = ask(None).await.unwrap_err();
    assert_eq!(none.to_string(), "no metrics returned from resource metrics API");
    for (name, app) in [("one", "web"), ("two", "other")] {
        let metrics = json!({
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
            "timestamp": "2026-01-01T00:00:00Z", "window": "30s",
            "containers": [
                {"name": "main", "usage": {"cpu": "250m", "memory": "1Gi"}},
                {"name": "proxy", "usage": {"cpu": "1500000n", "memory": "1Mi"}},
            ],
        });
        world.cluster.seed(&kind, metrics).unwrap();
    }
    let measured = ask(None).await.unwrap();
    assert_eq!(measured.keys().collect::<Vec<_>>(), ["one"]);
    assert_eq!((measured["one"].milli, measured["one"].window), (252, Duration::from_secs(30)));
    assert_eq!(ask(Some("main")).await.unwrap()["one"].milli, 250);
    let missing = ask(Some("nobody")).await.unwrap_err().to_string();
    assert_eq!(missing, "container nobody not present in metrics for pod one");
}
