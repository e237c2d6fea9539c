//! From two measurements of a node to what it uses.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use orch_core::Key;

use crate::{
    runtime::ContainerUsage,
    usage::{ContainerSample, NodeSample},
};

/// A container that has run for less than this has no rate of its own yet.
const FRESH_MIN: Duration = Duration::from_secs(10);

/// What something uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// CPUs, in thousand-millionths.
    pub(super) cpu_nano: u64,
    pub(super) memory_bytes: u64,
    /// How much time the rate was measured over.
    pub(super) window: Duration,
}

/// What a pod's containers use, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodRates {
    pub(super) uid: String,
    pub(super) containers: Vec<(String, Rate)>,
}

impl PodRates {
    pub(super) fn window(&self) -> Duration {
        self.containers.iter().map(|(_, rate)| rate.window).max().unwrap_or_default()
    }
}

/// A node's newest measurement, and what follows from it and the one before.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) last: NodeSample,
    /// `None` after the first measurement.
    pub(super) node: Option<Rate>,
    /// Only pods all of whose running containers have a rate.
    pub(super) pods: BTreeMap<Key, PodRates>,
}

impl Measured {
    /// What is known after another measurement.
    pub(super) fn next(before: Option<Self>, sample: NodeSample, resolution: Duration) -> Self {
        let before = before.map(|before| before.last).filter(|last| last.at < sample.at);
        let node = before
            .as_ref()
            .and_then(|last| rate((last.node.cpu_ns, last.at), (sample.node, sample.at)));
        let known = |container: &ContainerSample| {
            let same = |one: &&ContainerSample| {
                (&one.pod_uid, &one.name, one.started_at)
                    == (&container.pod_uid, &container.name, container.started_at)
            };
            let last = before.as_ref()?;
            last.containers.iter().find(same).map(|one| (one.usage.cpu_ns, last.at))
        };
        let mut pods: BTreeMap<Key, Option<PodRates>> = BTreeMap::new();
        for container in &sample.containers {
            let since = known(container).or_else(|| fresh(container, sample.at, resolution));
            let rate = since.and_then(|since| rate(since, (container.usage, sample.at)));
            let pod = pods.entry(container.pod.clone()).or_insert_with(|| {
                Some(PodRates { uid: container.pod_uid.clone(), containers: Vec::new() })
            });
            match (pod.as_mut(), rate) {
                (Some(pod), Some(rate)) => pod.containers.push((container.name.clone(), rate)),
                _ => *pod = None,
            }
        }
        let pods = pods.into_iter().filter_map(|(key, pod)| Some((key, pod?))).collect();
        Self { last: sample, node, pods }
    }
}

/// A container that was started since the last measurement is measured from its start.
fn fresh(
    container: &ContainerSample,
    at: Timestamp,
    resolution: Duration,
) -> Option<(u64, Timestamp)> {
    let ran = Duration::try_from(at.duration_since(container.started_at)).ok()?;
    (FRESH_MIN <= ran && ran < resolution).then_some((0, container.started_at))
}

fn rate(
    (cpu_before, before): (u64, Timestamp),
    (usage, at): (ContainerUsage, Timestamp),
) -> Option<Rate> {
    let window = Duration::try_from(at.duration_since(before)).ok().filter(|w| !w.is_zero())?;
    // CPU time that shrinks is another container's, or a counter that began anew.
    let cpu_ns = u128::from(usage.cpu_ns.checked_sub(cpu_before)?);
    let cpu_nano = cpu_ns * 1_000_000_000 / window.as_nanos();
    Some(Rate {
        cpu_nano: u64::try_from(cpu_nano).unwrap_or(u64::MAX),
        memory_bytes: usage.working_set_bytes,
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLUTION: Duration = Duration::from_secs(15);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(name: &str, started: i64, cpu_ms: u64) -> ContainerSample {
        ContainerSample {
            pod: Key::new("default", "web"),
            pod_uid: "1".into(),
            name: name.into(),
            started_at: at(started),
            usage: ContainerUsage { cpu_ns: cpu_ms * 1_000_000, working_set_bytes: 7 },
        }
    }

    fn sample(second: i64, containers: Vec<ContainerSample>) -> NodeSample {
        let cpu_ns = containers.iter().map(|one| one.usage.cpu_ns).sum();
        let node = ContainerUsage { cpu_ns, working_set_bytes: 9 };
        NodeSample { at: at(second), node, containers }
    }

    fn rates(measured: &Measured) -> Vec<(String, u64)> {
        let pods = measured.pods.values().flat_map(|pod| pod.containers.clone());
        pods.map(|(name, rate)| (name, rate.cpu_nano)).collect()
    }

    #[test]
    fn a_rate_is_the_difference_of_two_measurements() {
        let first = sample(100, vec![container("a", 50, 1000)]);
        let measured = Measured::next(None, first, RESOLUTION);
        assert!(measured.node.is_none() && measured.pods.is_empty());
        let second = sample(110, vec![container("a", 50, 3500)]);
        let measured = Measured::next(Some(measured), second, RESOLUTION);
        assert_eq!(rates(&measured), [("a".to_owned(), 250_000_000)]);
        assert_eq!(measured.node.unwrap().cpu_nano, 250_000_000);
        assert_eq!(measured.pods.values().next().unwrap().window(), Duration::from_secs(10));
    }

    #[test]
    fn a_pod_is_told_once_all_its_containers_are_measured() {
        let first = sample(100, vec![container("a", 50, 0)]);
        let measured = Measured::next(None, first, RESOLUTION);
        let second = sample(115, vec![container("a", 50, 0), container("b", 110, 100)]);
        let measured = Measured::next(Some(measured), second, RESOLUTION);
        assert!(rates(&measured).is_empty(), "b has run for 5 s only");
        // Started again in between, and long enough ago.
        let third = sample(130, vec![container("a", 50, 15), container("b", 118, 120)]);
        let measured = Measured::next(Some(measured), third, RESOLUTION);
        let expected = [("a".to_owned(), 1_000_000), ("b".to_owned(), 10_000_000)];
        assert_eq!(rates(&measured), expected);
    }
}
