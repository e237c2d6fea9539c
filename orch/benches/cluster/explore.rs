//! Exploration: how many seeds of one scenario a core runs.

use std::{num::NonZeroUsize, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use orch::{
    core::Key,
    sim::{Exploration, FaultPlan, Simulation, World, standard},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::resident_mib;

const SEEDS: u64 = 200;

fn template(version: u32) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": format!("registry.example/app:v{version}")}]},
    })
}

/// A Deployment of three that is rolled to a new version after a minute, in ten minutes.
async fn one_rollout(world: World) {
    world
        .create(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": template(1),
            },
        }))
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rolled = json!({"spec": {"template": template(2)}});
    world.patch::<Deployment>(&Key::new("default", "web"), rolled).await;
}

pub(crate) fn run() {
    let one = NonZeroUsize::MIN;
    type Draw = fn(&dyn orch::core::random::Random, &orch::sim::Scene) -> FaultPlan;
    let parts: [(&str, Draw); 2] =
        [("everything fails", FaultPlan::drawn), ("nothing fails", |_, _| FaultPlan::none())];
    for (what, faults) in parts {
        let simulation = Simulation::new(0).faults(faults).invariants(standard::all);
        let exploration = Exploration::of(simulation).threads(one).shrink(0, 0).quiet();
        let start = Instant::now();
        let explored = exploration.run(one_rollout, 0..SEEDS);
        let taken = start.elapsed();
        println!(
            "explore ten minutes, three nodes and one rollout, {what}: {:.0} seeds per minute and \
             core; a seed has {} steps and {} calls; {} fail; resident {:.0} MiB",
            SEEDS as f64 / taken.as_secs_f64() * 60.0,
            explored.steps / SEEDS,
            explored.requests / SEEDS,
            explored.failures.len(),
            resident_mib("self"),
        );
        for failure in &explored.failures {
            let violation = failure.found.violation.as_ref().map(ToString::to_string);
            println!("  seed {}: {}", failure.found.seed, violation.unwrap_or_default());
        }
    }
}
