//! A random cluster, and the same cluster as a planner sees it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Service},
    policy::v1::PodDisruptionBudget,
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass},
};
use orch_core::{
    Environment,
    informer::{Informers, Watchable},
    random::Random,
    resource::ResourceType,
    testing::MemoryClient,
};
use orch_sched::{Planner, PodInfo, Profile, plugins::Arguments};
use serde_json::{Value, json};

use crate::reference::name;

/// A cluster as JSON. `pods` are placed.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<String, Value>,
    pub(crate) pods: BTreeMap<String, Value>,
    /// Pods that wait for room on a node.
    pub(crate) nominated: BTreeMap<String, Value>,
    pub(crate) budgets: Vec<Value>,
    /// Whether the pod at hand is not asked about other pods at all.
    pub(crate) without_affinity: bool,
    /// Whether it is not asked about volumes that others use.
    pub(crate) without_disks: bool,
    pub(crate) namespaces: Vec<Value>,
    pub(crate) claims: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
    pub(crate) classes: Vec<Value>,
    pub(crate) drivers: Vec<Value>,
    pub(crate) capacities: Vec<Value>,
    pub(crate) csi_nodes: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) replica_sets: Vec<Value>,
    /// What the profile sets.
    pub(crate) arguments: Arguments,
}

impl World {
    pub(crate) fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods.values().filter(move |pod| pod["spec"]["nodeName"] == node)
    }

    /// What does not change while pods and nodes come and go.
    pub(crate) fn surroundings() -> Self {
        let namespace =
            |name: &str, team: &str| json!({"metadata": {"name": name, "labels": {"team": team}}});
        let mut world = Self {
            namespaces: vec![namespace("red", "a"), namespace("blue", "b")],
            ..Self::default()
        };
        world.add_owners();
        world.add_volumes();
        world.add_drivers();
        world
    }

    /// What pods belong to, and what protects them.
    fn add_owners(&mut self) {
        let budget = |name: &str, namespace: &str, app: &str, allowed: i32| {
            json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"matchLabels": {"app": app}}},
                "status": {"disruptionsAllowed": allowed, "currentHealthy": 0,
                           "desiredHealthy": 0, "expectedPods": 0},
            })
        };
        self.services = vec![
            json!({"metadata": {"name": "s", "namespace": "red"},
                       "spec": {"selector": {"app": "a"}}}),
            json!({"metadata": {"name": "t", "namespace": "red"},
                       "spec": {"selector": {"tier": "front"}}}),
            json!({"metadata": {"name": "none", "namespace": "blue"}, "spec": {}}),
        ];
        self.replica_sets = vec![
            json!({"metadata": {"name": "r", "namespace": "red"},
                       "spec": {"selector": {"matchLabels": {"app": "b"}}}}),
            json!({"metadata": {"name": "r", "namespace": "blue"},
                       "spec": {"selector": {"matchExpressions": [
                           {"key": "app", "operator": "In", "values": ["a", "b"]}]}}}),
        ];
        self.budgets = vec![
            budget("x", "red", "a", 0),
            budget("y", "red", "b", 1),
            budget("z", "blue", "a", 1),
        ];
    }

    /// Claims and volumes.
    fn add_volumes(&mut self) {
        let claim = |name: &str, class: &str, volume: Option<&str>| {
            json!({
                "metadata": {"name": name, "namespace": "red"},
                "spec": {"storageClassName": class, "volumeName": volume,
                         "accessModes": ["ReadWriteOnce"],
                         "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": if volume.is_some() { "Bound" } else { "Pending" }},
            })
        };
        let volume = |name: &str, class: &str, phase: &str, zone: &str, label: Value| {
            let expression = json!({"key": "topology.kubernetes.io/zone", "operator": "In",
                                    "values": [zone]});
            json!({
                "metadata": {"name": name, "labels": label},
                "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
                         "capacity": {"storage": "5Gi"},
                         "csi": {"driver": "example.com/disk", "volumeHandle": name},
                         "nodeAffinity": {"required": {"nodeSelectorTerms": [
                             {"matchExpressions": [expression]}]}}},
                "status": {"phase": phase},
            })
        };
        let mut zoned = volume(
            "zoned",
            "late",
            "Bound",
            "z0",
            json!({"failure-domain.beta.kubernetes.io/zone": "z0__z1"}),
        );
        zoned["spec"]["nodeAffinity"] = Value::Null;
        let mut alone = claim("alone", "late", Some("alone"));
        alone["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        self.claims = vec![
            claim("bound", "late", Some("in-z1")),
            claim("zoned", "late", Some("zoned")),
            claim("unbound", "late", None),
            claim("static", "static", None),
            claim("now", "now", None),
            alone,
        ];
        self.volumes = vec![
            volume("in-z1", "late", "Bound", "z1", json!({})),
            volume("alone", "late", "Bound", "z1", json!({})),
            volume("free", "static", "Available", "z2", json!({})),
            zoned,
        ];
    }

    /// Classes, and what their drivers can do.
    fn add_drivers(&mut self) {
        let class = |name: &str, provisioner: &str, mode: &str| {
            json!({"metadata": {"name": name}, "provisioner": provisioner,
                   "volumeBindingMode": mode})
        };
        let capacity = |zone: &str, size: &str| {
            json!({"metadata": {"name": zone, "namespace": "red"}, "storageClassName": "late",
                   "capacity": size,
                   "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": zone}}})
        };
        // Every other node can attach one volume only; of some, nothing is known.
        let csi_node = |n: u64| {
            let allocatable = n.is_multiple_of(2).then(|| json!({"count": 1}));
            pruned(json!({"metadata": {"name": format!("n{n}")},
                   "spec": {"drivers": [{"name": "example.com/disk", "nodeID": "x",
                                         "allocatable": allocatable}]}}))
        };
        self.drivers = vec![json!({"metadata": {"name": "example.com/disk"},
                                   "spec": {"storageCapacity": true}})];
        self.capacities = vec![capacity("z0", "5Gi"), capacity("z1", "1Gi"), capacity("z2", "1Mi")];
        self.csi_nodes = (0..12).map(csi_node).collect();
        self.classes = vec![
            class("late", "example.com/disk", "WaitForFirstConsumer"),
            class("static", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
            class("now", "example.com/disk", "Immediate"),
        ];
    }

    /// A planner whose informers hold the surroundings, before any node or pod.
    pub(crate) async fn planner(&self, profile: &Profile, environment: Environment) -> Planner {
        let memory = Arc::new(MemoryClient::new(environment.clone()));
        for (resource, objects) in [
            (ResourceType::of::<Namespace>(), &self.namespaces),
            (ResourceType::of::<StorageClass>(), &self.classes),
            (ResourceType::of::<PersistentVolumeClaim>(), &self.claims),
            (ResourceType::of::<PersistentVolume>(), &self.volumes),
            (ResourceType::of::<PodDisruptionBudget>(), &self.budgets),
            (ResourceType::of::<CSIDriver>(), &self.drivers),
            (ResourceType::of::<CSIStorageCapacity>(), &self.capacities),
            (ResourceType::of::<CSINode>(), &self.csi_nodes),
            (ResourceType::of::<Service>(), &self.services),
            (ResourceType::of::<ReplicaSet>(), &self.replica_sets),
        ] {
            objects.iter().for_each(|o| drop(memory.seed(&resource, o.clone()).unwrap()));
        }
        let informers = Informers::new(memory, environment);
        let planner = Planner::new(&informers, profile).unwrap();
        synced::<Namespace>(&informers).await;
        synced::<StorageClass>(&informers).await;
        synced::<PersistentVolumeClaim>(&informers).await;
        synced::<PersistentVolume>(&informers).await;
        synced::<PodDisruptionBudget>(&informers).await;
        synced::<CSIDriver>(&informers).await;
        synced::<CSIStorageCapacity>(&informers).await;
        synced::<CSINode>(&informers).await;
        synced::<Service>(&informers).await;
        synced::<ReplicaSet>(&informers).await;
        planner
    }

    pub(crate) fn set_node(&mut self, planner: &mut Planner, node: Value) {
        planner.set_node(Arc::new(serde_json::from_value(node.clone()).unwrap()));
        self.nodes.insert(name(&node).to_owned(), node);
    }

    pub(crate) fn set_pod(&mut self, planner: &mut Planner, pod: Value) {
        planner.set_pod(info(&pod));
        self.pods.insert(name(&pod).to_owned(), pod);
    }
}

async fn synced<K: Watchable>(informers: &Informers) {
    informers.of::<K>().synced().await;
}

pub(crate) fn info(pod: &Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod.clone()).unwrap())))
}

/// What is null in a drawn object is not there.
pub(crate) fn pruned(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(key, value)| (key, pruned(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(pruned).collect(),
        other => other,
    }
}

/// Chances, from a seed.
pub(crate) struct Dice(pub(crate) Arc<dyn Random>);

impl Dice {
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn of<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// The text, or nothing.
    pub(crate) fn maybe(&self, chance: u64, value: impl FnOnce() -> Value) -> Value {
        if self.one_in(chance) { value() } else { Value::Null }
    }

    fn app(&self) -> &'static str {
        self.of::<&str>(&["a", "b", "c"])
    }

    fn key(&self) -> &'static str {
        self.of::<&str>(&["topology.kubernetes.io/zone", "kubernetes.io/hostname", "rack"])
    }

    fn selector(&self) -> Value {
        match self.below(8) {
            0 => json!({}),
            1 => Value::Null,
            2 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn",
                                              "values": [self.app()]}]}),
            3 => json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
            _ => json!({"matchLabels": {"app": self.app()}}),
        }
    }

    pub(crate) fn node(&self, n: u64) -> Value {
        let effect = || *self.of(&["NoSchedule", "NoExecute", "PreferNoSchedule"]);
        let taint = || json!({"key": self.of(&["k", "l"]), "value": "v", "effect": effect()});
        let images = || {
            json!([{"names": [format!("{}:latest", self.of(&["x", "y"]))],
                                "sizeBytes": 40_000_000 + self.below(900) * 1_000_000}])
        };
        let host = if self.one_in(20) { "shared".to_owned() } else { format!("n{n}") };
        pruned(json!({
            "metadata": {"name": format!("n{n}"), "labels": {
                "kubernetes.io/hostname": host,
                "topology.kubernetes.io/zone":
                    if self.one_in(8) { None } else { Some(format!("z{}", self.below(3))) },
                "rack": if self.one_in(2) { None } else { Some(self.below(20).to_string()) },
            }},
            "spec": {
                "unschedulable": self.one_in(12),
                "taints": self.maybe(4, || json!([taint(), taint()])),
            },
            "status": {
                "images": self.maybe(3, images),
                "allocatable": {
                    "cpu": self.of(&["2", "4", "1500m"]), "memory": self.of(&["4096Mi", "8192Mi"]),
                    "pods": self.of(&["4", "20"]), "ephemeral-storage": "100Mi",
                    "example.com/gpu": self.maybe(2, || json!("2")),
                },
            },
        }))
    }

    /// A pod of one of a few specs, so that many are alike; of a spec of its own now and then.
    pub(crate) fn pod(&self, n: u64, specs: &[Value]) -> Value {
        let mut pod = if self.one_in(6) { self.spec() } else { self.of(specs).clone() };
        pod["metadata"]["name"] = format!("p{n}").into();
        pod["metadata"]["uid"] = format!("u{n}").into();
        // No two pods began at the same time: nothing but that is left to chance upstream.
        pod["status"]["startTime"] = format!("2026-01-01T00:00:{:02}Z", n * 7 % 60).into();
        pod
    }

    /// A pod without a name.
    pub(crate) fn spec(&self) -> Value {
        let toleration = || match self.below(4) {
            0 => json!({"operator": "Exists"}),
            1 => json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
            2 => json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}),
            _ => json!({"key": "l", "operator": "Equal", "value": "v"}),
        };
        let claims =
            ["bound", "zoned", "unbound", "unbound", "static", "now", "missing", "alone", "alone"];
        let volume = || match self.below(4) {
            0 => json!([{"name": "v", "gcePersistentDisk":
                {"pdName": self.of(&["x", "y"]), "readOnly": self.one_in(2)}}]),
            _ => json!([{"name": "v", "persistentVolumeClaim": {"claimName": self.of(&claims)}}]),
        };
        let owner = || {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
                               "uid": "r", "controller": true}])
        };
        let count = 1 + u64::from(self.one_in(3));
        pruned(json!({
            "metadata": {
                "namespace": self.of(&["red", "red", "blue"]),
                "ownerReferences": self.maybe(3, owner),
                "labels": {"app": self.app(), "tier": self.maybe(2, || json!("front"))},
            },
            "spec": {
                "priority": self.of(&[0, 5, 10, 20]),
                "preemptionPolicy": self.maybe(12, || json!("Never")),
                "containers": (0..count).map(|n| self.container(n)).collect::<Vec<_>>(),
                "tolerations": self.maybe(3, || json!([toleration()])),
                "nodeSelector": self.maybe(8, || json!({"topology.kubernetes.io/zone": "z1"})),
                "affinity": self.affinity(),
                "topologySpreadConstraints": self.maybe(3, || self.constraints()),
                "volumes": self.maybe(5, volume),
            },
        }))
    }

    fn container(&self, n: u64) -> Value {
        let port = || {
            json!([{"containerPort": 80, "hostPort": 8000 + self.below(2),
                              "hostIP": self.maybe(2, || json!("10.0.0.1"))}])
        };
        json!({
            "name": format!("c{n}"), "image": self.of(&["x", "y", "z"]),
            "ports": self.maybe(8, port),
            "resources": {"requests": {
                "cpu": self.maybe(2, || json!(self.of(&["100m", "350m", "1"]))),
                "memory": self.maybe(2, || json!(self.of(&["64Mi", "900Mi"]))),
                "ephemeral-storage": self.maybe(10, || json!("30Mi")),
                "example.com/gpu": self.maybe(12, || json!("1")),
            }},
        })
    }

    fn constraints(&self) -> Value {
        let constraint = || {
            let when = *self.of(&["DoNotSchedule", "ScheduleAnyway"]);
            let hard = when == "DoNotSchedule";
            json!({
                "maxSkew": 1 + self.below(3), "topologyKey": self.key(),
                "whenUnsatisfiable": when, "labelSelector": self.selector(),
                "minDomains": if hard && self.one_in(3) { Some(1 + self.below(4)) } else { None },
                "nodeAffinityPolicy": self.maybe(4, || json!("Ignore")),
                "nodeTaintsPolicy": self.maybe(4, || json!("Honor")),
                "matchLabelKeys": self.maybe(4, || json!(["tier"])),
            })
        };
        (0..=self.below(2)).map(|_| constraint()).collect()
    }

    fn affinity(&self) -> Value {
        let expression = || {
            json!({"key": self.key(), "operator": self.of(&["Exists", "NotIn"]),
                                   "values": ["z0"]})
        };
        let fields = || {
            json!({"matchFields": [{"key": "metadata.name", "operator": "In",
                                                "values": ["n1"]}]})
        };
        let node_term = || {
            if self.one_in(4) {
                fields()
            } else {
                json!({
            "matchExpressions": [Self::without_values(expression())]})
            }
        };
        let term = || {
            json!({
                "labelSelector": self.selector(), "topologyKey": self.key(),
                "namespaces": self.maybe(4, || json!(["blue"])),
                "namespaceSelector": self.maybe(4, || self.of(&[
                    json!({}), json!({"matchLabels": {"team": "a"}})]).clone()),
            })
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let weighted = || json!([{"weight": 1 + self.below(50), "podAffinityTerm": term()}]);
        json!({
            "nodeAffinity": self.maybe(4, || json!({
                required: self.maybe(2, || json!({"nodeSelectorTerms": [node_term(), node_term()]})),
                preferred: self.maybe(2, || json!([
                    {"weight": 7, "preference": node_term()},
                    {"weight": 3, "preference": node_term()}])),
            })),
            "podAffinity": self.maybe(5, || json!({
                required: self.maybe(2, || json!([term()])),
                preferred: self.maybe(2, weighted),
            })),
            "podAntiAffinity": self.maybe(4, || json!({
                required: self.maybe(2, || json!([term()])),
                preferred: self.maybe(2, weighted),
            })),
        })
    }

    /// `Exists` has no values.
    fn without_values(mut expression: Value) -> Value {
        if expression["operator"] == "Exists" {
            expression["values"] = Value::Null;
        }
        expression
    }
}
