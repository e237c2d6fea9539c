//! For random clusters, while pods and nodes come and go: the same nodes fit, with the same scores,
//! and the choice is one of the best, as the reference has it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use orch_core::{Environment, testing::rounds};
use orch_sched::{PlanError, Planner, Profile};
use serde_json::Value;

use crate::{
    reference,
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

async fn simulate(seed: u64, profile: &Profile) -> (u64, u64) {
    let environment = environment(seed);
    let dice = Dice(environment.random.clone());
    let mut world = World::surroundings();
    let mut planner = world.planner(profile, environment).await;
    let nodes = 1 + dice.below(14);
    for n in 0..nodes {
        world.set_node(&mut planner, dice.node(n));
    }
    let specs: Vec<Value> = (0..5).map(|_| dice.spec()).collect();
    let (mut placed, mut refused) = (0, 0);
    for n in 0..PODS {
        let mut pod = dice.pod(n, &specs);
        match decide(&world, &mut planner, &pod, seed) {
            Some(node) => {
                placed += 1;
                pod["spec"]["nodeName"] = node.into();
                world.pods.insert(reference::name(&pod).to_owned(), pod);
            }
            None => refused += 1,
        }
        disturb(&mut world, &mut planner, &dice, nodes);
    }
    (placed, refused)
}

#[tokio::test]
async fn every_decision_is_that_of_the_reference() {
    let (mut placed, mut refused) = (0, 0);
    for seed in 0..u64::from(rounds(50)) {
        // A cluster as small as these is looked at whole even so, but on another way through the code.
        let sampled = || Profile::default().percentage_of_nodes_to_score(10);
        let profile = if seed % 5 == 0 { sampled() } else { Profile::default() };
        let (fits, misfits) = simulate(seed, &profile).await;
        placed += fits;
        refused += misfits;
    }
    // Neither side of the question may be rare.
    assert!(placed > 200 && refused > 200, "{placed} placed, {refused} refused");
}
