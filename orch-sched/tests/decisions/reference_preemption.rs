//! The reference for preemption: where less important pods would have to go, and which of them.

use serde_json::Value;

use crate::{
    reference::{Status, label, list, name, priority, status, status_since},
    world::World,
};

/// The best nodes, each with the pods that would have to go, the most important first. None if no
/// node can be made to fit, or the pod may not make others go.
pub(crate) fn preempt(world: &World, pod: &Value) -> Vec<(String, Vec<String>)> {
    if pod["spec"]["preemptionPolicy"] == "Never" {
        return Vec::new();
    }
    let hopeful = |node: &&Value| status(world, pod, node) == Status::Unschedulable;
    let nodes = world.nodes.values().filter(hopeful);
    let candidates = nodes.filter_map(|node| Some((name(node), victims(world, pod, node)?)));
    let mut best: Vec<(&str, Victims)> = candidates.collect();
    let criteria: [fn(&Victims) -> i64; 5] = [
        |victims| victims.violations,
        |victims| priority(&victims.pods[0]),
        |victims| victims.pods.iter().map(|pod| priority(pod) + (1 << 31)).sum(),
        |victims| victims.pods.len() as i64,
        // The youngest goes first.
        |victims| -victims.oldest_of_the_highest(),
    ];
    for harm in criteria {
        let least = best.iter().map(|(_, victims)| harm(victims)).min();
        best.retain(|(_, victims)| Some(harm(victims)) == least);
    }
    let names = |victims: Victims| victims.pods.iter().map(|pod| name(pod).to_owned()).collect();
    best.into_iter().map(|(node, victims)| (node.to_owned(), names(victims))).collect()
}

struct Victims {
    pods: Vec<Value>,
    violations: i64,
}

impl Victims {
    fn oldest_of_the_highest(&self) -> i64 {
        let highest = priority(&self.pods[0]);
        let among = self.pods.iter().filter(|pod| priority(pod) == highest);
        among.map(started).min().expect("there are victims")
    }
}

fn started(pod: &Value) -> i64 {
    let time = pod["status"]["startTime"].as_str().expect("it runs");
    time.parse::<jiff::Timestamp>().expect("a time").as_second()
}

/// Everybody less important goes; then as many as can stay beside the pod come back, those first
/// whom a budget protects, and of these the most important.
fn victims(world: &World, pod: &Value, node: &Value) -> Option<Victims> {
    let began = world;
    let mut world = world.clone();
    let lower = world.pods_on(name(node)).filter(|other| priority(other) < priority(pod));
    let mut lower: Vec<Value> = lower.cloned().collect();
    lower.iter().for_each(|other| drop(world.pods.remove(name(other))));
    if lower.is_empty() || status_since(began, &world, pod, node) != Status::Fits {
        return None;
    }
    lower.sort_by_key(|other| (-priority(other), started(other)));
    let mut budgets: Vec<(&Value, i64)> = Vec::new();
    for budget in &world.budgets {
        budgets.push((budget, budget["status"]["disruptionsAllowed"].as_i64().expect("a number")));
    }
    let (protected, others): (Vec<Value>, Vec<Value>) =
        lower.into_iter().partition(|other| violates(&mut budgets, other));
    let (protected_len, mut gone, mut violations) = (protected.len(), Vec::new(), 0);
    let budgets_and_pods = protected.into_iter().chain(others).enumerate();
    let mut world = World { budgets: Vec::new(), ..world.clone() };
    for (at, other) in budgets_and_pods {
        world.pods.insert(name(&other).to_owned(), other.clone());
        if status_since(began, &world, pod, node) != Status::Fits {
            world.pods.remove(name(&other));
            violations += i64::from(at < protected_len);
            gone.push(other);
        }
    }
    gone.sort_by_key(|other| (-priority(other), started(other)));
    Some(Victims { pods: gone, violations })
}

/// Whether one more pod goes than a budget allows.
fn violates(budgets: &mut [(&Value, i64)], pod: &Value) -> bool {
    let mut violated = false;
    for (budget, left) in budgets {
        let labels = budget["spec"]["selector"]["matchLabels"].as_object().expect("labels");
        let selected = labels.iter().all(|(key, value)| label(pod, key) == value.as_str());
        let same = budget["metadata"]["namespace"] == pod["metadata"]["namespace"];
        if selected && same && list(&budget["status"]["disruptedPods"]).is_empty() {
            *left -= 1;
            violated |= *left < 0;
        }
    }
    violated
}
