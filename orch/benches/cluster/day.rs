//! A day of a cluster in which nothing happens, in virtual time: what it costs to be idle.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::PostParams};
use orch::testing::{self, conditions};
use serde_json::json;
use tokio::time::Instant;

use crate::{median, resident_mib};

const ROUNDS: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Real seconds of a virtual day, and writes in it.
#[expect(clippy::disallowed_methods, reason = "tokio's own clock is the virtual one here")]
async fn day(nodes: usize, deployments: usize) -> (f64, f64) {
    let cluster = testing::cluster().nodes(nodes).forget_history().await;
    let api: Api<Deployment> = Api::default_namespaced(cluster.client());
    for n in 0..deployments {
        let labels = json!({"app": format!("web-{n}")});
        let web = serde_json::from_value(json!({
            "metadata": {"name": format!("web-{n}")},
            "spec": {"replicas": 10, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]}}},
        }));
        let web = web.expect("a Deployment");
        api.create(&PostParams::default(), &web).await.expect("a Deployment");
    }
    for n in 0..deployments {
        let name = format!("web-{n}");
        cluster.expect(&api, name).to("be available", conditions::is_available).await;
    }
    cluster.settle().await;
    let (before, start) = (cluster.revision(), std::time::Instant::now());
    let begun = Instant::now();
    cluster.advance(DAY).await;
    assert!(begun.elapsed() >= DAY, "the clock is paused");
    let writes = cluster.revision() - before;
    (start.elapsed().as_secs_f64(), writes as f64)
}

pub(crate) fn run() {
    for (nodes, deployments) in [(1, 1), (10, 10), (100, 100)] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
            rounds.push(runtime.block_on(day(nodes, deployments)));
        }
        let of = |field: fn(&(f64, f64)) -> f64| median(rounds.iter().map(field).collect());
        println!(
            "24 virtual hours of {nodes} nodes and {} pods: {:.2} s, {:.0} writes (resident {:.0} MiB)",
            deployments * 10,
            of(|round| round.0),
            of(|round| round.1),
            resident_mib("self")
        );
    }
}
