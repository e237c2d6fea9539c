//! What holds after every step of a cluster while everything fails, and that it settles after it.
//!
//! Short by default; `ORCH_TEST_ROUNDS=N` looks at N times as many seeds, and `ORCH_TEST_SEED=S`
//! at one, to replay it.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{Node, Pod},
};
use orch::sim::{Exploration, FaultPlan, Simulation, World, standard};
use orch_core::{Key, client::Propagation, testing::rounds};
use serde_json::{Value, json};

/// Names the one seed that is to be replayed.
const SEED_VARIABLE: &str = "ORCH_TEST_SEED";

/// Seeds of the short form, for each of the tests.
const SEEDS: u32 = 6;

fn seeds() -> Vec<u64> {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (0..u64::from(rounds(SEEDS))).collect(),
    }
}

/// What a random user does: one pick of several, all drawn from the cluster's own generator.
struct User {
    world: World,
    version: u32,
}

impl User {
    fn below(&self, bound: u64) -> u64 {
        self.world.random().below(bound)
    }

    fn chance(&self) -> bool {
        self.below(2) == 0
    }

    fn template(&self, app: &str, version: u32) -> Value {
        let ready_after = format!("{}s", self.below(8));
        json!({
            "metadata": {
                "labels": {"app": app},
                "annotations": {"simulation.orch.io/ready-after": ready_after},
            },
            "spec": {
                "terminationGracePeriodSeconds": self.below(4) * 2,
                "containers": [{
                    "name": "app",
                    "image": format!("registry.example/app:v{version}"),
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
                }],
            },
        })
    }

    fn deployment(&self, name: &str) -> Value {
        let strategy = match self.below(5) {
            0 => json!({"type": "Recreate"}),
            _ => json!({"type": "RollingUpdate", "rollingUpdate": {
                "maxSurge": self.below(4), "maxUnavailable": 1 + self.below(3)}}),
        };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": 1 + self.below(6),
                "minReadySeconds": self.below(2) * 3,
                "strategy": strategy,
                "selector": {"matchLabels": {"app": name}},
                "template": self.template(name, 1),
            },
        })
    }

    fn stateful_set(&self, name: &str) -> Value {
        let policy = if self.below(3) == 0 { "Parallel" } else { "OrderedReady" };
        let mut template = self.template(name, 1);
        template["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}]);
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": 1 + self.below(4),
                "podManagementPolicy": policy,
                "serviceName": name,
                "selector": {"matchLabels": {"app": name}},
                "template": template,
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}}},
                }],
            },
        })
    }

    fn daemon_set(&self, name: &str) -> Value {
        let rolling = match self.below(3) {
            0 => json!({"maxSurge": 1, "maxUnavailable": 0}),
            _ => json!({"maxSurge": 0, "maxUnavailable": 1}),
        };
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                "template": self.template(name, 1),
            },
        })
    }

    async fn begin(&self) {
        // The namespace's account is there before any pod; its controller may be late.
        self.world
            .create(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"}}))
            .await;
        self.world.create(self.deployment("web")).await;
        self.world.create(self.stateful_set("db")).await;
        self.world.create(self.daemon_set("agent")).await;
        if self.chance() {
            let pods = (8 + self.below(20)).to_string();
            self.world
                .create(json!({"apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": {"name": "most", "namespace": "default"},
                "spec": {"hard": {"pods": pods}}}))
                .await;
        }
    }

    async fn act(&mut self) {
        let key = |name: &str| Key::new("default", name);
        self.version += u32::from(self.chance());
        let template = json!({"spec": {"template": self.template("web", self.version)}});
        let size = json!({"spec": {"replicas": self.below(6)}});
        match self.below(11) {
            0 | 1 => drop(self.world.patch::<Deployment>(&key("web"), template).await),
            2 => drop(self.world.patch::<Deployment>(&key("web"), size).await),
            3 => {
                let of = json!({"spec": {"template": self.template("db", self.version)}});
                self.world.patch::<StatefulSet>(&key("db"), of).await;
            }
            4 => drop(self.world.patch::<StatefulSet>(&key("db"), size).await),
            5 => {
                let of = json!({"spec": {"template": self.template("agent", self.version)}});
                self.world.patch::<DaemonSet>(&key("agent"), of).await;
            }
            6 | 7 => self.delete_some_pod().await,
            8 => self.replace_deployment().await,
            9 => self.cordon_some_node().await,
            _ => {
                let propagation = Some(self.propagation());
                let set = self.world.look(|view| view.list::<ReplicaSet>().first().cloned());
                if let Some(set) = set {
                    self.world.delete::<ReplicaSet>(&Key::of(&set.metadata), propagation).await;
                }
            }
        }
    }

    fn propagation(&self) -> Propagation {
        match self.below(3) {
            0 => Propagation::Orphan,
            1 => Propagation::Foreground,
            _ => Propagation::Background,
        }
    }

    async fn delete_some_pod(&self) {
        let keys: Vec<Key> = self
            .world
            .look(|view| view.list::<Pod>().iter().map(|pod| Key::of(&pod.metadata)).collect());
        if !keys.is_empty() {
            let key = &keys[self.below(keys.len() as u64) as usize];
            self.world.delete::<Pod>(key, None).await;
        }
    }

    /// What was orphaned is adopted again.
    async fn replace_deployment(&self) {
        let key = Key::new("default", "web");
        self.world.delete::<Deployment>(&key, Some(self.propagation())).await;
        tokio::time::sleep(Duration::from_secs(self.below(60))).await;
        self.world.create(self.deployment("web")).await;
    }

    async fn cordon_some_node(&self) {
        let key = Key::cluster(format!("node-{}", 1 + self.below(3)));
        self.world.patch::<Node>(&key, json!({"spec": {"unschedulable": true}})).await;
        tokio::time::sleep(Duration::from_secs(self.below(60))).await;
        self.world.patch::<Node>(&key, json!({"spec": {"unschedulable": false}})).await;
    }

    /// What was left undone because something failed is not left in the way.
    async fn end(&self) {
        for number in 1..=3 {
            let key = Key::cluster(format!("node-{number}"));
            self.world.patch::<Node>(&key, json!({"spec": {"unschedulable": null}})).await;
        }
        self.world.create(self.deployment("web")).await;
    }
}

async fn scenario(world: World) {
    let mut user = User { world, version: 1 };
    user.begin().await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(600) && !user.world.is_violated() {
        tokio::time::sleep(Duration::from_secs(user.below(60))).await;
        user.act().await;
    }
    user.end().await;
}

fn simulation() -> Simulation {
    Simulation::new(0).invariants(standard::all)
}

#[test]
fn everything_holds_while_everything_fails() {
    let explored = Exploration::of(simulation().faults(FaultPlan::drawn)).run(scenario, seeds());
    println!("{explored}");
    explored.assert_holds();
    assert!(explored.faults > 0 || seeds().len() == 1, "nothing failed");
}

#[test]
fn everything_holds_while_nothing_fails() {
    for seed in seeds().into_iter().take(rounds(1) as usize) {
        let report = simulation().seed(seed).run(scenario);
        report.assert_holds();
        let idle: Vec<_> =
            report.idle_writes.iter().filter(|(write, _)| !write.starts_with("user")).collect();
        assert!(idle.is_empty(), "written without a change, with the seed {seed}: {idle:?}");
    }
}

#[test]
fn a_seed_is_one_history() {
    let run = |seed| simulation().faults(FaultPlan::drawn).seed(seed).run(scenario);
    let (first, second) = (run(3), run(3));
    assert_eq!(first.timeline, second.timeline);
    assert_eq!((first.steps, first.requests), (second.steps, second.requests));
    assert_ne!(first.timeline, run(4).timeline);
    let literal = simulation().seed(3).plan(first.plan.clone()).run(scenario);
    assert_eq!(literal.timeline, first.timeline, "its plan alone replays it");
}
