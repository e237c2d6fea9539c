//! Which pods were scheduled when.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::{Change, Informer};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::LabelSelection;

/// How often those who wait for pods look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a pod has been seen to be.
#[derive(Clone, Debug)]
struct Seen {
    namespace: String,
    labels: BTreeMap<String, String>,
    scheduled: Option<Instant>,
    attempted: bool,
}

/// Follows all pods.
#[derive(Clone, Default)]
pub(crate) struct Pods {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

fn is_in(selection: &LabelSelection, seen: &Seen) -> bool {
    let mut namespaces = selection.namespaces.iter().chain(&selection.namespace).peekable();
    let here = namespaces.peek().is_none() || namespaces.any(|name| *name == seen.namespace);
    here && selection.label_selector.iter().all(|(k, v)| seen.labels.get(k) == Some(v))
}

impl Pods {
    pub(crate) fn follow(informer: &Informer<Pod>) -> Self {
        let pods = Self::default();
        let own = pods.clone();
        informer.on_change(move |change| own.take_in(change));
        pods
    }

    fn take_in(&self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            // What was scheduled and is gone counts as scheduled.
            self.seen.lock().retain(|key, seen| *key != uid || seen.scheduled.is_some());
            return;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let tried = conditions.into_iter().any(|condition| condition.type_ == "PodScheduled");
        let mut all = self.seen.lock();
        let seen = all.entry(uid).or_insert_with(|| Seen {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: BTreeMap::new(),
            scheduled: None,
            attempted: false,
        });
        seen.labels = pod.metadata.labels.clone().unwrap_or_default();
        seen.attempted |= tried || node.is_some();
        if node.is_some() && seen.scheduled.is_none() {
            seen.scheduled = Some(Instant::now());
        }
    }

    /// Waits until so many of the selected pods are scheduled (or tried), or all that were seen.
    pub(crate) async fn wait(&self, selection: &LabelSelection, at_least: usize, attempted: bool) {
        // Looking at all pods after each change would take longer than scheduling them.
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            let (mut done, mut open) = (0, 0);
            for seen in self.seen.lock().values().filter(|seen| is_in(selection, seen)) {
                let ready = if attempted { seen.attempted } else { seen.scheduled.is_some() };
                if ready { done += 1 } else { open += 1 }
            }
            if open == 0 && done >= at_least {
                return;
            }
        }
    }

    /// How many of the selected pods were seen.
    pub(crate) fn count(&self, selection: &LabelSelection) -> usize {
        self.seen.lock().values().filter(|seen| is_in(selection, seen)).count()
    }

    /// When each of the selected pods was scheduled, since `start`, in order.
    pub(crate) fn scheduled_since(
        &self,
        selection: &LabelSelection,
        start: Instant,
    ) -> Vec<Duration> {
        let seen = self.seen.lock();
        let times = seen.values().filter(|seen| is_in(selection, seen));
        let times = times.filter_map(|seen| seen.scheduled?.checked_duration_since(start));
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        times
    }
}

/// Upstream's metric of a measured step: the average, and percentiles of samples. Upstream samples
/// every second; what takes less than ten seconds is sampled a hundred times here.
pub(crate) fn throughput(name: &str, times: &[Duration], threshold: Option<f64>) -> Vec<String> {
    let Some(last) = times.last().filter(|last| !last.is_zero()) else {
        return vec![format!("SchedulingThroughput {name}: no pods were scheduled")];
    };
    let average = times.len() as f64 / last.as_secs_f64();
    let interval = (last.as_secs_f64() / 100.0).min(1.0);
    let mut samples = vec![0u64; (last.as_secs_f64() / interval).ceil() as usize];
    for time in times {
        let at = ((time.as_secs_f64() / interval) as usize).min(samples.len() - 1);
        samples[at] += 1;
    }
    samples.sort_unstable();
    let percentile = |part: f64| {
        let at = ((samples.len() as f64 * part).ceil() as usize).clamp(1, samples.len());
        samples[at - 1] as f64 / interval
    };
    let mut lines = vec![format!(
        "SchedulingThroughput {name}: Average {average:.0} Perc50 {:.0} Perc90 {:.0} Perc95 {:.0} \
         Perc99 {:.0} pods/s ({} pods in {:.3} s)",
        percentile(0.5),
        percentile(0.9),
        percentile(0.95),
        percentile(0.99),
        times.len(),
        last.as_secs_f64(),
    )];
    if let Some(threshold) = threshold {
        lines.push(format!("threshold {threshold:.0} pods/s: {:.1} times", average / threshold));
    }
    lines
}
