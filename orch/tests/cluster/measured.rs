//! What nodes and pods use, and what follows from it; addresses of load balancers.

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
};
use orch::node::resource_metrics::MetricsOptions;
use serde_json::{Value, json};

use crate::world::{create, seeded, template, until};

/// What the API answers to a GET.
async fn get(cluster: &orch::Cluster, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    let answer = cluster.client().request_text(request).await;
    match answer {
        Ok(text) => serde_json::from_str(&text).expect("JSON"),
        Err(kube::Error::Api(status)) => json!({"code": status.code, "message": status.message}),
        Err(error) => panic!("{path}: {error}"),
    }
}

fn busy(app: &str, cpu: &str) -> Value {
    let mut pods = template(app);
    pods["metadata"]["annotations"] =
        json!({"simulation.orch.io/cpu": cpu, "simulation.orch.io/memory": "64Mi"});
    pods["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "200m"}});
    json!({
        "metadata": {"name": app},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": app}}, "template": pods},
    })
}

#[tokio::test(start_paused = true)]
async fn pods_are_measured_and_scaled_by_what_they_use() {
    let builder = seeded(11).simulated_nodes(2).resource_metrics(MetricsOptions::default());
    let cluster = builder.start().await.expect("it starts");
    cluster.nodes_ready().await;
    create::<Deployment>(&cluster, busy("web", "300m")).await;
    create::<HorizontalPodAutoscaler>(
        &cluster,
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 10,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}],
            },
        }),
    )
    .await;
    // 300 of 200 thousandths are 150 %: three times what is wanted, and each pod uses as much.
    until::<Deployment>(&cluster, |all| {
        let replicas = |one: &Deployment| one.spec.as_ref().and_then(|spec| spec.replicas);
        all.iter().all(|one| replicas(one) == Some(10))
    })
    .await;
    let discovered = get(&cluster, "/apis/metrics.k8s.io/v1beta1").await;
    assert_eq!(discovered["resources"][1]["kind"], "PodMetrics");
    let groups = get(&cluster, "/apis").await;
    let groups = groups["groups"].as_array().expect("groups");
    assert!(groups.iter().any(|group| group["name"] == "metrics.k8s.io"));

    let nodes = get(&cluster, "/apis/metrics.k8s.io/v1beta1/nodes").await;
    assert_eq!(
        (&nodes["kind"], nodes["items"].as_array().map(Vec::len)),
        (&json!("NodeMetricsList"), Some(2))
    );
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    let pods = get(&cluster, &format!("{path}?labelSelector=app%3Dweb")).await;
    let first = &pods["items"][0];
    assert_eq!(first["containers"][0]["usage"], json!({"cpu": "300m", "memory": "64Mi"}));
    assert_eq!(first["metadata"]["labels"]["app"], "web");
    let name = first["metadata"]["name"].as_str().expect("a name");
    let one = get(&cluster, &format!("{path}/{name}")).await;
    assert_eq!((&one["kind"], &one["window"]), (&json!("PodMetrics"), &json!("15s")));
    let none = get(&cluster, &format!("{path}?labelSelector=app%3Dother")).await;
    assert_eq!(none["items"], json!([]));
    let missing = get(&cluster, &format!("{path}/other")).await;
    let expected = json!({"code": 404, "message": "podmetrics.metrics.k8s.io \"other\" not found"});
    assert_eq!(missing, expected);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_has_an_address_of_the_pool_until_it_goes() {
    let pool = ["192.0.2.0/24".parse().expect("a range")];
    let builder = seeded(12).simulated_nodes(1).load_balancer_pool(pool);
    let cluster = builder.start().await.expect("it starts");
    let service = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}})
    };
    let addresses = |all: &[std::sync::Arc<Service>]| -> Vec<String> {
        let status = |one: &std::sync::Arc<Service>| one.status.clone()?.load_balancer?.ingress;
        all.iter().filter_map(status).flatten().filter_map(|ingress| ingress.ip).collect()
    };
    create::<Service>(&cluster, service("a")).await;
    until::<Service>(&cluster, |all| addresses(all) == ["192.0.2.1"]).await;
    create::<Service>(&cluster, service("b")).await;
    until::<Service>(&cluster, |all| addresses(all) == ["192.0.2.1", "192.0.2.2"]).await;
    let services: kube::Api<Service> = kube::Api::default_namespaced(cluster.client());
    services.delete("a", &Default::default()).await.expect("it is deleted");
    until::<Service>(&cluster, |all| addresses(all) == ["192.0.2.2"]).await;
    // What wants no load balancer has neither address nor finalizer.
    let patch = kube::api::Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    services.patch("b", &Default::default(), &patch).await.expect("it is patched");
    until::<Service>(&cluster, |all| {
        let b = all.iter().find(|one| one.metadata.name.as_deref() == Some("b"));
        addresses(all).is_empty()
            && b.is_some_and(|b| b.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
    })
    .await;
    cluster.shutdown().await;
}
