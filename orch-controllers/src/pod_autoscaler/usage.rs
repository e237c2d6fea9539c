//! From what pods use to how many there should be.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/podautoscaler/replica_calculator.go`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};
use orch_core::quantity::Amount;

use super::metrics::{MetricsError, PodMeasurements};
use crate::pods;

/// How long after its start a pod's use of processors says little.
const INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that was never ready for so long after its start is still starting.
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// How far from what is wanted is near enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerances {
    pub(super) fn contain(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is used for one pod, and how many pods there should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent of what was requested, where that is what counts.
    pub(super) utilization: Option<i32>,
    /// Thousandths for each pod, or of the whole where the target is a value.
    pub(super) milli: i64,
}

pub(super) fn rounded_up(value: f64) -> i32 {
    value.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// The pods as the measurements show them.
struct Grouped<'a> {
    ready: usize,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
    ignored: Vec<&'a str>,
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn plus(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn group<'a>(
    all: &'a [Arc<Pod>],
    measured: &PodMeasurements,
    is_cpu: bool,
    now: Timestamp,
) -> Grouped<'a> {
    let mut grouped =
        Grouped { ready: 0, unready: Vec::new(), missing: Vec::new(), ignored: Vec::new() };
    for pod in all {
        if pods::is_terminating(pod) || pods::phase(pod) == "Failed" {
            grouped.ignored.push(name(pod));
        } else if pods::phase(pod) == "Pending" {
            grouped.unready.push(name(pod));
        } else if !measured.contains_key(name(pod)) {
            grouped.missing.push(name(pod));
        } else if is_cpu && is_starting(pod, measured, now) {
            grouped.unready.push(name(pod));
        } else {
            grouped.ready += 1;
        }
    }
    grouped
}

/// Whether a pod's use of processors is that of its start.
fn is_starting(pod: &Pod, measured: &PodMeasurements, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else {
        return true;
    };
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    if plus(started.0, INITIALIZATION) > now {
        let measurement = measured.get(name(pod));
        return ready.status == "False"
            || measurement.is_some_and(|m| m.at < plus(since, m.window));
    }
    ready.status == "False" && plus(started.0, INITIAL_READINESS) > since
}

/// What a measure makes of amounts: their ratio to what is wanted, and what to show of it.
type Measure<'a> = dyn Fn(&BTreeMap<String, i64>) -> Result<(f64, Proposal), MetricsError> + 'a;

/// How pods are judged that are not measured.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) current: i32,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) is_cpu: bool,
    pub(super) tolerances: Tolerances,
    pub(super) now: Timestamp,
}

impl Question<'_> {
    /// How many pods there should be, judged by `measure`; `assumed` is what a pod that is not
    /// measured is taken to use where the others use less than wanted.
    fn answer(
        &self,
        measured: &PodMeasurements,
        measure: &Measure<'_>,
        assumed: impl Fn(&str) -> i64,
    ) -> Result<Proposal, MetricsError> {
        if self.pods.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(MetricsError(why.to_owned()));
        }
        let grouped = group(self.pods, measured, self.is_cpu, self.now);
        let mut used: BTreeMap<String, i64> =
            measured.iter().map(|(name, m)| (name.clone(), m.milli)).collect();
        for name in grouped.ignored.iter().chain(&grouped.unready) {
            used.remove(*name);
        }
        if used.is_empty() {
            let why = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(MetricsError(why.to_owned()));
        }
        let (ratio, shown) = measure(&used)?;
        let stay = Proposal { replicas: self.current, ..shown };
        let grows_with_unready = !grouped.unready.is_empty() && ratio > 1.0;
        if !grows_with_unready && grouped.missing.is_empty() {
            if self.tolerances.contain(ratio) {
                return Ok(stay);
            }
            return Ok(Proposal { replicas: rounded_up(ratio * grouped.ready as f64), ..shown });
        }
        for name in grouped.missing {
            if ratio < 1.0 {
                used.insert(name.to_owned(), assumed(name));
            } else if ratio > 1.0 {
                used.insert(name.to_owned(), 0);
            }
        }
        if grows_with_unready {
            used.extend(grouped.unready.iter().map(|name| ((*name).to_owned(), 0)));
        }
        let (corrected, _) = measure(&used)?;
        let turns = (ratio < 1.0 && corrected > 1.0) || (ratio > 1.0 && corrected < 1.0);
        if self.tolerances.contain(corrected) || turns {
            return Ok(stay);
        }
        let replicas = rounded_up(corrected * used.len() as f64);
        let contrary = (corrected < 1.0 && replicas > self.current)
            || (corrected > 1.0 && replicas < self.current);
        Ok(if contrary { stay } else { Proposal { replicas, ..shown } })
    }

    /// By the share of what the pods request.
    pub(super) fn by_utilization(
        &self,
        measured: &PodMeasurements,
        resource: &str,
        container: Option<&str>,
        wanted_percent: i32,
    ) -> Result<Proposal, MetricsError> {
        let requested = requests(self.pods, resource, container)?;
        let measure = |used: &BTreeMap<String, i64>| {
            let known = used.iter().filter_map(|(n, used)| Some((used, requested.get(n)?)));
            let (mut total, mut asked, mut count) = (0i64, 0i64, 0i64);
            for (used, requested) in known {
                (total, asked, count) = (total + used, asked + requested, count + 1);
            }
            if asked == 0 {
                let why = "no metrics returned matched known pods";
                return Err(MetricsError(why.to_owned()));
            }
            let percent = i32::try_from(total * 100 / asked).unwrap_or(i32::MAX);
            let shown = Proposal { replicas: 0, utilization: Some(percent), milli: total / count };
            Ok((f64::from(percent) / f64::from(wanted_percent), shown))
        };
        let full = i64::from(wanted_percent.max(100));
        self.answer(measured, &measure, |name| {
            requested.get(name).copied().unwrap_or(0) * full / 100
        })
    }

    /// By what each pod uses on average.
    pub(super) fn by_average(
        &self,
        measured: &PodMeasurements,
        wanted_milli: i64,
    ) -> Result<Proposal, MetricsError> {
        let measure = |used: &BTreeMap<String, i64>| {
            let average =
                used.values().sum::<i64>() / i64::try_from(used.len().max(1)).unwrap_or(1);
            let shown = Proposal { replicas: 0, utilization: None, milli: average };
            Ok((average as f64 / wanted_milli as f64, shown))
        };
        self.answer(measured, &measure, |_| wanted_milli)
    }

    /// By a value that all pods cause together.
    pub(super) fn by_value(&self, milli: i64, wanted_milli: i64) -> Proposal {
        let ratio = milli as f64 / wanted_milli as f64;
        let ready =
            self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod));
        let replicas = if self.current == 0 {
            rounded_up(ratio)
        } else if self.tolerances.contain(ratio) {
            self.current
        } else {
            rounded_up(ratio * ready.count() as f64)
        };
        Proposal { replicas, utilization: None, milli }
    }

    /// By a value of which each pod bears its part.
    pub(super) fn by_share(&self, milli: i64, wanted_milli: i64, counted: i32) -> Proposal {
        let ratio = milli as f64 / (wanted_milli as f64 * f64::from(counted));
        let replicas = if self.tolerances.contain(ratio) {
            counted
        } else {
            rounded_up(milli as f64 / wanted_milli as f64)
        };
        let each = f64::from(rounded_up(milli as f64 / f64::from(counted.max(1))));
        Proposal { replicas, utilization: None, milli: each as i64 }
    }
}

/// What each pod requests, in thousandths.
fn requests(
    all: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, MetricsError> {
    let mut requested = BTreeMap::new();
    for pod in all {
        let mut sum = 0;
        let spec = pod.spec.as_ref();
        let sidecars = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        for one in spec.iter().flat_map(|spec| &spec.containers).chain(sidecars) {
            if container.is_some_and(|wanted| wanted != one.name) {
                continue;
            }
            let amounts = one.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let Some(milli) = amounts.and_then(|amounts| milli(amounts.get(resource)?)) else {
                return Err(MetricsError(format!(
                    "missing request for {resource} in container {} of Pod {}",
                    one.name,
                    name(pod)
                )));
            };
            sum += milli;
        }
        requested.insert(name(pod).to_owned(), sum);
    }
    Ok(requested)
}

pub(super) fn milli(quantity: &Quantity) -> Option<i64> {
    quantity.0.parse::<Amount>().ok().map(Amount::milli_value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    /// Pods of which the first `count` are measured.
    fn pods_of(phases: &[&str]) -> Vec<Arc<Pod>> {
        let pod = |(at, phase): (usize, &&str)| {
            let ready = if *phase == "Running" { "True" } else { "False" };
            let value = json!({
                "metadata": {"name": format!("p{at}")},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
                "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "conditions": [
                    {"type": "Ready", "status": ready,
                        "lastTransitionTime": "2026-01-01T00:00:01Z"}]},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        phases.iter().enumerate().map(pod).collect()
    }

    #[track_caller]
    fn check(phases: &[&str], used: &[i64], wanted_percent: i32, expected: i32) {
        let pods = pods_of(phases);
        let now: Timestamp = NOW.parse().unwrap();
        let measurement = |milli| super::super::metrics::PodMeasurement {
            at: now,
            window: Duration::ZERO,
            milli,
        };
        let measured: PodMeasurements = used
            .iter()
            .enumerate()
            .map(|(at, milli)| (format!("p{at}"), measurement(*milli)))
            .collect();
        let question = Question {
            current: i32::try_from(phases.len()).unwrap(),
            pods: &pods,
            is_cpu: true,
            tolerances: Tolerances { down: 0.1, up: 0.1 },
            now,
        };
        let proposal = question.by_utilization(&measured, "cpu", None, wanted_percent).unwrap();
        assert_eq!(proposal.replicas, expected, "{phases:?} {used:?}");
    }

    #[test]
    fn replicas_follow_use() {
        let running = ["Running"; 3];
        check(&running, &[30, 50, 70], 50, 3);
        check(&running, &[90, 90, 90], 30, 9);
        check(&running, &[10, 10, 10], 50, 1);
        check(&running, &[52, 54, 53], 50, 3);
        // What is not measured is taken for idle where more is asked for, for busy where less is.
        check(&running, &[100, 100], 50, 4);
        check(&running, &[100], 50, 3);
        check(&running, &[20, 20], 100, 2);
        // So is what is not ready yet, where more is asked for.
        check(&["Running", "Running", "Pending"], &[100, 100], 50, 4);
        check(&["Running", "Running", "Pending"], &[60, 60], 50, 3);
        // What failed does not count.
        check(&["Running", "Running", "Failed"], &[100, 100, 100], 50, 4);
    }
}
