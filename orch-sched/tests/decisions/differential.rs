//! For random clusters, while pods and nodes come and go: the same nodes fit, with the same scores,
//! and the choice is one of the best, as the reference has it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use orch_core::{Environment, testing::rounds};
use orch_sched::{
    PlanError, Planner, Profile,
    plugins::{
        Arguments, FitArguments, InterPodAffinityArguments, ScoringStrategy, ShapePoint,
        SpreadDefaults, WeightedResource,
    },
};
use serde_json::{Value, json};

use crate::{
    reference, reference_preemption,
    world::{Dice, World, info},
};

/// How many pods are looked at in one cluster.
const PODS: u64 = 40;

fn environment(seed: u64) -> Environment {
    Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), seed)
}

/// One pod's decision; what is found is the node that it got.
fn decide(world: &World, planner: &mut Planner, pod: &Value, seed: u64) -> Option<String> {
    let expected = reference::evaluate(world, pod);
    let found: BTreeMap<String, i64> = match planner.evaluate(&info(pod)) {
        Ok(found) => found.into_iter().map(|(node, score)| (node.to_string(), score)).collect(),
        Err(PlanError::Unschedulable(_)) => BTreeMap::new(),
        Err(fault) => panic!("seed {seed}: {fault}"),
    };
    assert_eq!(found, expected, "seed {seed}: {pod:#}");
    let best = expected.values().copied().max();
    let ties = expected.iter().filter(|(_, score)| Some(**score) == best);
    let mut ties: Vec<String> = ties.map(|(node, _)| node.clone()).collect();
    let mut choice: Vec<String> = match planner.best(&info(pod)) {
        Ok(best) => best.into_iter().map(|node| node.to_string()).collect(),
        Err(_) => Vec::new(),
    };
    choice.sort();
    ties.sort();
    assert_eq!(choice, ties, "seed {seed}: {pod:#}");
    let placed = planner.place(info(pod)).ok().map(|node| node.to_string());
    assert_eq!(placed.is_some(), best.is_some(), "seed {seed}");
    assert!(placed.iter().all(|node| ties.contains(node)), "seed {seed}: {placed:?}");
    placed
}

/// Where room would be made for a pod that fits nowhere, and for whose sake.
async fn make_room(
    world: &World,
    planner: &mut Planner,
    pod: &Value,
    seed: u64,
) -> Option<(String, Vec<String>)> {
    let expected = reference_preemption::preempt(world, pod);
    let found = match planner.preempt(&info(pod)).await {
        Err(PlanError::Unschedulable(_)) => None,
        Err(fault) => panic!("seed {seed}: {fault}"),
        Ok((node, victims)) => {
            let names = victims.iter().map(|victim| victim.key().name.clone());
            Some((node.to_string(), names.collect::<Vec<_>>()))
        }
    };
    match &found {
        None => assert!(expected.is_empty(), "seed {seed}: {expected:?} for {pod:#}"),
        Some(found) => assert!(
            expected.contains(found),
            "seed {seed}: {found:?} and not of {expected:?} for {pod:#}"
        ),
    }
    found
}

/// Carries a preemption out: the pod waits for room, and its victims leave, at once or not.
fn carry_out(
    world: &mut World,
    planner: &mut Planner,
    dice: &Dice,
    mut pod: Value,
    (node, victims): (String, Vec<String>),
) {
    for victim in victims {
        if dice.below(2) == 0 {
            let gone = world.pods.remove(&victim).unwrap();
            planner.remove_pod(gone["metadata"]["uid"].as_str().unwrap());
        } else {
            let mut victim = world.pods[&victim].clone();
            victim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            world.set_pod(planner, victim);
        }
    }
    pod["status"]["nominatedNodeName"] = node.as_str().into();
    planner.nominate(&info(&pod), &node);
    world.nominated.insert(reference::name(&pod).to_owned(), pod);
}

/// Something else happens to the cluster.
fn disturb(world: &mut World, planner: &mut Planner, dice: &Dice, nodes: u64) {
    let names: Vec<String> = world.pods.keys().cloned().collect();
    match dice.below(8) {
        0 | 1 if !names.is_empty() => {
            let gone = world.pods.remove(dice.of(&names)).unwrap();
            planner.remove_pod(gone["metadata"]["uid"].as_str().unwrap());
        }
        2 if !names.is_empty() => {
            // A pod that is being deleted keeps its place, and does not count for spreading.
            let mut pod = world.pods[dice.of(&names)].clone();
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            world.set_pod(planner, pod);
        }
        3 => world.set_node(planner, dice.node(dice.below(nodes))),
        4 => {
            let node = format!("n{}", dice.below(nodes));
            planner.remove_node(&node);
            world.nodes.remove(&node);
        }
        _ => {}
    }
}

async fn simulate(seed: u64, profile: &Profile) -> Counts {
    let environment = environment(seed);
    let dice = Dice(environment.random.clone());
    let mut world = World::surroundings();
    world.arguments = profile.arguments.clone();
    let mut planner = world.planner(profile, environment).await;
    let nodes = 1 + dice.below(14);
    for n in 0..nodes {
        world.set_node(&mut planner, dice.node(n));
    }
    let specs: Vec<Value> = (0..5).map(|_| dice.spec()).collect();
    let mut counts = Counts::default();
    for n in 0..PODS {
        let waiting: Vec<String> = world.nominated.keys().cloned().collect();
        let again = !waiting.is_empty() && dice.below(4) == 0;
        let mut pod = match again {
            true => world.nominated[dice.of(&waiting)].clone(),
            false => dice.pod(n, &specs),
        };
        match decide(&world, &mut planner, &pod, seed) {
            Some(node) => {
                counts.placed += 1;
                counts.promised += u64::from(again);
                pod["spec"]["nodeName"] = node.into();
                world.nominated.remove(reference::name(&pod));
                world.pods.insert(reference::name(&pod).to_owned(), pod);
            }
            None => {
                counts.refused += 1;
                let room = make_room(&world, &mut planner, &pod, seed).await;
                if let Some(room) = room.filter(|_| !again) {
                    counts.preempting += 1;
                    carry_out(&mut world, &mut planner, &dice, pod, room);
                }
            }
        }
        disturb(&mut world, &mut planner, &dice, nodes);
    }
    counts
}

/// A profile in which everything is set that can be set for a plugin.
fn arranged() -> Profile {
    let resource = |(name, weight): (&str, i64)| WeightedResource { name: name.into(), weight };
    let resources = || [("cpu", 3), ("memory", 1)].map(resource).into();
    let point = |(utilization, score)| ShapePoint { utilization, score };
    let shape = [(0, 2), (40, 10), (90, 0)].map(point).into();
    let constraint = |(key, when): (&str, &str)| TopologySpreadConstraint {
        topology_key: key.into(),
        max_skew: 2,
        when_unsatisfiable: when.into(),
        ..TopologySpreadConstraint::default()
    };
    let constraints =
        [("topology.kubernetes.io/zone", "DoNotSchedule"), ("rack", "ScheduleAnyway")];
    let zones = |operator: &str, zone: &str| {
        json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": operator,
                                     "values": [zone]}]})
    };
    let added = json!({
        "requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [zones("NotIn", "z2")]},
        "preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 5, "preference": zones("In", "z0")}],
    });
    let strategy = ScoringStrategy::RequestedToCapacityRatio(resources(), shape);
    let arguments = Arguments {
        inter_pod_affinity: InterPodAffinityArguments {
            hard_weight: 7,
            ignore_preferred_of_existing: true,
        },
        added_affinity: serde_json::from_value(added).unwrap(),
        node_resources_fit: FitArguments { strategy, ..FitArguments::default() },
        spread_defaults: SpreadDefaults::List(constraints.map(constraint).into()),
        ..Arguments::default()
    };
    Profile { arguments, ..Profile::default() }
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Counts {
    placed: u64,
    /// Of these, onto the node where room was made.
    promised: u64,
    refused: u64,
    preempting: u64,
}

#[tokio::test]
async fn every_decision_is_that_of_the_reference() {
    let mut all = Counts::default();
    for seed in 0..u64::from(rounds(50)) {
        // A cluster as small as these is looked at whole even so, but on another way through the code.
        let sampled = || Profile::default().percentage_of_nodes_to_score(10);
        let profile = match seed % 5 {
            0 => sampled(),
            1 => arranged(),
            2 => Profile { arguments: arranged().arguments, ..sampled() },
            _ => Profile::default(),
        };
        let Counts { placed, promised, refused, preempting } = simulate(seed, &profile).await;
        all.placed += placed;
        all.promised += promised;
        all.refused += refused;
        all.preempting += preempting;
    }
    // No side of the question may be rare.
    assert!(all.placed > 200 && all.refused > 200, "{all:?}");
    assert!(all.preempting > 30 && all.promised > 10, "{all:?}");
}
