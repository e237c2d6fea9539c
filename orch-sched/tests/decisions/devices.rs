//! For random clusters, while claims come and give their devices back: pods go where the reference
//! finds devices for them, the best of these, and their claims get the very devices.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use orch_core::{
    Environment, Resources,
    client::{ListOptions, WatchOptions},
    informer::Informers,
    resource::ResourceType,
    testing::{MemoryClient, rounds},
};
use orch_sched::{Profile, Scheduler};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    reference::name,
    reference_devices::{Cluster, DRIVER, Fault},
    world::{Dice, pruned},
};

/// How many pods come to one cluster.
const PODS: u64 = 12;

const SELECTORS: [&str; 4] = [
    "device.attributes['dra.example.com'].kind == 'a'",
    "device.attributes['dra.example.com'].board > 1",
    "device.allowMultipleAllocations",
    "!device.allowMultipleAllocations",
];

fn selectors(dice: &Dice) -> Value {
    json!([{"cel": {"expression": dice.of(&SELECTORS)}}])
}

/// A device, with a part of a counter if its pool has one.
fn device(dice: &Dice, n: u64, counted: bool) -> Value {
    let multiple = !counted && dice.one_in(4);
    let policy = || json!({"default": "2"});
    let memory = || {
        json!({"memory": {"value": dice.of(&["4", "8"]),
                          "requestPolicy": dice.maybe(if multiple { 1 } else { 3 }, policy)}})
    };
    let part =
        || json!([{"counterSet": "set", "counters": {"c": {"value": dice.of(&["1", "2"])}}}]);
    let effect = || *dice.of(&["NoSchedule", "NoExecute", "None"]);
    let taint = || json!([{"key": "k", "value": "v", "effect": effect()}]);
    json!({
        "name": format!("d{n}"),
        "allowMultipleAllocations": multiple.then_some(true),
        "attributes": {"kind": {"string": dice.of(&["a", "b"])},
                       "board": {"int": 1 + dice.below(3)}},
        "capacity": dice.maybe(if multiple { 1 } else { 2 }, memory),
        "consumesCounters": counted.then(part),
        "taints": dice.maybe(7, taint),
    })
}

/// The slices of one pool, most of them whole. Other generations have other devices.
fn pool(dice: &Dice, id: &str, place: &Value, generation: u64) -> Vec<Value> {
    let counted = dice.one_in(4);
    let parts = 1 + dice.below(2);
    let missing = u64::from(dice.one_in(12));
    let count = parts + u64::from(counted) + missing;
    let slice = |part: u64, more: Value| {
        let mut spec = json!({
            "driver": DRIVER,
            "pool": {"name": id, "generation": generation, "resourceSliceCount": count},
        });
        for fields in [place, &more] {
            let fields = fields.as_object().expect("fields").clone();
            spec.as_object_mut().expect("an object").extend(fields);
        }
        let name = format!("{id}-{generation}-{part}");
        pruned(json!({"metadata": {"name": name}, "spec": spec}))
    };
    let devices = |part: u64| -> Vec<Value> {
        let first = generation * 100 + part * 10;
        (0..=dice.below(3)).map(|n| device(dice, first + n, counted)).collect()
    };
    let mut slices: Vec<Value> =
        (0..parts).map(|part| slice(part, json!({"devices": devices(part)}))).collect();
    if counted {
        let counters = json!({"c": {"value": dice.of(&["2", "3"])}});
        let sets = json!([{"name": "set", "counters": counters}]);
        slices.push(slice(9, json!({"sharedCounters": sets})));
    }
    slices
}

fn ask(dice: &Dice, all: bool, alone: bool) -> Value {
    let mode = if all { "All" } else { "ExactCount" };
    json!({
        "deviceClassName": dice.of(&["any", "any", "plain", "board"]),
        "allocationMode": mode,
        "count": (!all).then(|| 1 + dice.below(2)),
        "selectors": dice.maybe(3, || selectors(dice)),
        "tolerations": dice.maybe(3, || json!([{"key": "k", "operator": "Exists"}])),
        "capacity": dice.maybe(6, || json!({"requests": {"memory": dice.of(&["1", "3"])}})),
        "adminAccess": (alone && dice.one_in(12)).then_some(true),
    })
}

fn claim(dice: &Dice, id: &str) -> Value {
    let all = dice.one_in(8);
    let request = |n: u64| {
        let name = format!("r{n}");
        if all || !dice.one_in(4) {
            return json!({"name": name, "exactly": ask(dice, all && n == 0, true)});
        }
        let alternative = |n: u64| {
            let mut one = ask(dice, false, false);
            one["name"] = format!("a{n}").into();
            one
        };
        json!({"name": name, "firstAvailable": [alternative(0), alternative(1)]})
    };
    let constraint = || {
        let board = "dra.example.com/board";
        let about = dice.maybe(2, || json!(["r0"]));
        let kind = dice.of(&["matchAttribute", "distinctAttribute"]);
        json!([{"requests": about, *kind: board}])
    };
    let requests: Vec<Value> = (0..=dice.below(2)).map(request).collect();
    // A claim for all whose constraint does not hold is an error, not a refusal.
    let constraints = if all { Value::Null } else { dice.maybe(2, constraint) };
    pruned(json!({
        "metadata": {"name": id, "namespace": "default"},
        "spec": {"devices": {"requests": requests, "constraints": constraints}},
    }))
}

fn surroundings(dice: &Dice) -> Cluster {
    let class = |name: &str, expression: Option<&str>| {
        let selectors = expression.map(|text| json!([{"cel": {"expression": text}}]));
        pruned(json!({"metadata": {"name": name}, "spec": {"selectors": selectors}}))
    };
    let nodes = (0..2 + dice.below(3)).map(|n| dice.node(n)).collect();
    let classes = vec![
        class("any", None),
        class("plain", Some(SELECTORS[3])),
        class("board", Some(SELECTORS[1])),
    ];
    let mut cluster = Cluster { nodes, classes, ..Cluster::default() };
    for node in &cluster.nodes {
        let place = json!({"nodeName": name(node)});
        cluster.slices.extend(pool(dice, name(node), &place, 1));
    }
    let zone = json!([{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z1"]}]);
    let zone = json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": zone}]}});
    cluster.slices.extend(pool(dice, "zone", &zone, 1));
    cluster.slices.extend(pool(dice, "everywhere", &json!({"allNodes": true}), 1));
    cluster
}

/// The cluster as a scheduler sees it.
struct Running {
    memory: Arc<MemoryClient>,
    cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Running {
    fn start(cluster: &Cluster, environment: Environment) -> Self {
        let memory = Arc::new(MemoryClient::new(environment.clone()));
        for (resource, objects) in [
            (ResourceType::of::<Node>(), &cluster.nodes),
            (ResourceType::of::<ResourceSlice>(), &cluster.slices),
            (ResourceType::of::<DeviceClass>(), &cluster.classes),
        ] {
            objects.iter().for_each(|one| drop(memory.seed(&resource, one.clone()).unwrap()));
        }
        let informers = Informers::new(memory.clone(), environment);
        // Nothing but devices decides, so that the best node is known.
        let profile = ["PrioritySort", "DynamicResources", "DefaultBinder"]
            .into_iter()
            .fold(Profile::empty("default-scheduler"), |profile, name| profile.enable(name, 1));
        let scheduler = Scheduler::builder(&informers).profile(profile).build().unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn(scheduler.run(cancel.clone()));
        Self { memory, cancel }
    }

    /// The pod once it was decided about: its node, or the reason why it has none.
    async fn decided(&self, pod: &str) -> Result<String, String> {
        let pods: Resources<Pod> = Resources::namespaced(self.memory.clone(), "default");
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let refusal = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone());
            conditions.into_iter().flatten().find_map(|one| one.reason)
        };
        let field_selector = Some(format!("metadata.name={pod}"));
        let stream =
            pods.watch(WatchOptions { field_selector, ..Default::default() }).await.unwrap();
        let done = Resources::first_match(stream, move |pod: &Pod| {
            node(pod).is_some() || refusal(pod).is_some()
        });
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        let pod = done.expect("a decision").unwrap().unwrap();
        node(&pod).ok_or_else(|| refusal(&pod).unwrap())
    }

    async fn claims(&self) -> Vec<Value> {
        let claims: Resources<ResourceClaim> = Resources::all(self.memory.clone());
        let claims = claims.list(ListOptions::default()).await.unwrap();
        claims.iter().map(|claim| serde_json::to_value(&**claim).unwrap()).collect()
    }
}

fn results(claim: &Value) -> Vec<String> {
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    let shown = |result: &Value| {
        let text = |field: &str| result[field].as_str().unwrap().to_owned();
        format!("{}={}/{}", text("request"), text("pool"), text("device"))
    };
    results.into_iter().flatten().map(shown).collect()
}

#[derive(Debug, Default)]
struct Counts {
    placed: u64,
    refused: u64,
    failed: u64,
    shared: u64,
    second_best: u64,
}

/// One pod with claims of its own. The cluster is as it was before.
async fn decide(
    cluster: &Cluster,
    running: &Running,
    pod: &str,
    own: &[Value],
    seed: u64,
) -> Counts {
    let claims: Vec<&Value> = own.iter().collect();
    let outcomes: Vec<_> =
        cluster.nodes.iter().map(|node| (name(node), cluster.allocate(&claims, node))).collect();
    let found = |outcome: &Result<Option<_>, Fault>| outcome.as_ref().is_ok_and(Option::is_some);
    let best = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()?.as_ref());
    let best = best.map(|given| Cluster::score(&claims, given)).max();
    let decision = running.decided(pod).await;
    let words =
        format!("seed {seed}, {pod}: {decision:?} for {own:?} in\n{}", cluster.shown_whole());
    if outcomes.iter().any(|(_, outcome)| outcome.is_err()) {
        assert_eq!(decision, Err("SchedulerError".to_owned()), "{words}");
        return Counts { failed: 1, ..Counts::default() };
    }
    let Ok(node) = decision else {
        assert!(!outcomes.iter().any(|(_, outcome)| found(outcome)), "{words}");
        return Counts { refused: 1, ..Counts::default() };
    };
    let (_, given) = outcomes.iter().find(|(name, _)| **name == node).expect("a node");
    let given = given.as_ref().unwrap().as_ref().unwrap_or_else(|| panic!("{words}"));
    assert_eq!(Some(Cluster::score(&claims, given)), best, "{words}");
    let now = running.claims().await;
    let now = |own: &Value| now.iter().find(|claim| name(claim) == name(own)).expect("the claim");
    let got: Vec<Vec<String>> = own.iter().map(|claim| results(now(claim))).collect();
    assert_eq!(got, Cluster::shown(&claims, given), "{words}");
    let text = format!("{:?}", own.iter().map(now).collect::<Vec<_>>());
    Counts {
        placed: 1,
        shared: text.contains("shareID").into(),
        second_best: text.contains("/a1").into(),
        ..Counts::default()
    }
}

/// Something happens to devices.
async fn disturb(cluster: &mut Cluster, running: &Running, dice: &Dice, round: u64) {
    let allocated: Vec<&Value> =
        cluster.claims.iter().filter(|claim| !claim["status"]["allocation"].is_null()).collect();
    match dice.below(4) {
        0 if !allocated.is_empty() => {
            let claims: Resources<ResourceClaim> =
                Resources::namespaced(running.memory.clone(), "default");
            let mut freed = (*dice.of(&allocated)).clone();
            freed["status"] = json!({});
            claims.update_status(&serde_json::from_value(freed).unwrap()).await.unwrap();
        }
        1 => {
            let place = json!({"allNodes": true});
            let slices = pool(dice, "everywhere", &place, 2 + round);
            let resource = ResourceType::of::<ResourceSlice>();
            for slice in &slices {
                drop(running.memory.seed(&resource, slice.clone()).unwrap());
            }
            cluster.slices.extend(slices);
        }
        _ => {}
    }
}

/// The claims of one pod.
fn new(dice: &Dice) -> Vec<Value> {
    (0..1 + u64::from(dice.one_in(4))).map(|_| claim(dice, "c")).collect()
}

async fn simulate(seed: u64) -> Counts {
    let epoch = Timestamp::from_second(1_700_000_000).unwrap();
    let environment = Environment::seeded(epoch, seed);
    let dice = Dice(environment.random.clone());
    let mut cluster = surroundings(&dice);
    let running = Running::start(&cluster, environment);
    let pods: Resources<Pod> = Resources::namespaced(running.memory.clone(), "default");
    let (mut all, mut kinds) = (Counts::default(), Vec::new());
    for n in 0..PODS {
        // What is known of nodes is kept for claims that are the same.
        let known = dice.one_in(2) && n > 0;
        let mut own = if known { dice.of::<Vec<Value>>(&kinds).clone() } else { new(&dice) };
        for (k, one) in own.iter_mut().enumerate() {
            one["metadata"]["name"] = format!("c{n}-{k}").into();
        }
        kinds.push(own.clone());
        for one in &own {
            running.memory.seed(&ResourceType::of::<ResourceClaim>(), one.clone()).unwrap();
        }
        cluster.claims = running.claims().await;
        let named: Vec<Value> = own
            .iter()
            .map(|one| json!({"name": name(one), "resourceClaimName": name(one)}))
            .collect();
        let pod = json!({
            "metadata": {"name": format!("p{n}"), "namespace": "default"},
            "spec": {"containers": [], "resourceClaims": named},
        });
        pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
        let counts = decide(&cluster, &running, &format!("p{n}"), &own, seed).await;
        // Who waits would take what others give back.
        pods.delete(&format!("p{n}"), Default::default()).await.unwrap();
        all.placed += counts.placed;
        all.refused += counts.refused;
        all.failed += counts.failed;
        all.shared += counts.shared;
        all.second_best += counts.second_best;
        cluster.claims = running.claims().await;
        disturb(&mut cluster, &running, &dice, n).await;
        // The informers take it in.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn claims_get_what_the_reference_gives_them() {
    let mut all = Counts::default();
    for seed in 0..u64::from(rounds(30)) {
        let counts = simulate(seed).await;
        all.placed += counts.placed;
        all.refused += counts.refused;
        all.failed += counts.failed;
        all.shared += counts.shared;
        all.second_best += counts.second_best;
    }
    // No side of the question may be rare.
    assert!(all.placed > 60 && all.refused > 60 && all.failed > 0, "{all:?}");
    assert!(all.shared > 5 && all.second_best > 3, "{all:?}");
}
