//! Which pods were scheduled when.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::{Change, Informer};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use crate::config::LabelSelection;

/// How often those who wait for pods look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a pod has been seen to be.
#[derive(Clone, Debug, Default)]
struct Seen {
    labels: BTreeMap<String, String>,
    scheduled: Option<Instant>,
    attempted: bool,
}

/// The pods of a namespace by their uids, and how many of them are how far: looking at all of them
/// each time would take longer than scheduling them.
#[derive(Debug, Default)]
struct Namespace {
    pods: HashMap<String, Seen>,
    scheduled: usize,
    attempted: usize,
    /// Who hears of each pod that is scheduled.
    told: Option<mpsc::Sender<String>>,
}

type Labels = BTreeMap<String, String>;

fn has_labels(seen: &Seen, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| seen.labels.get(key) == Some(value))
}

impl Namespace {
    fn take_in(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            // What was scheduled and is gone counts as scheduled.
            if self.pods.get(&uid).is_some_and(|seen| seen.scheduled.is_none()) {
                let gone = self.pods.remove(&uid);
                self.attempted -= usize::from(gone.is_some_and(|seen| seen.attempted));
            }
            return;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let tried = conditions.into_iter().any(|condition| condition.type_ == "PodScheduled");
        let seen = self.pods.entry(uid).or_default();
        let labels = pod.metadata.labels.as_ref();
        if labels.map_or(!seen.labels.is_empty(), |labels| *labels != seen.labels) {
            seen.labels = labels.cloned().unwrap_or_default();
        }
        if !seen.attempted && (tried || node.is_some()) {
            seen.attempted = true;
            self.attempted += 1;
        }
        if node.is_some() && seen.scheduled.is_none() {
            seen.scheduled = Some(Instant::now());
            self.scheduled += 1;
            if let Some(told) = &self.told {
                // There is room for all pods of the namespace, or nobody listens any more.
                drop(told.try_send(pod.metadata.name.clone().unwrap_or_default()));
            }
        }
    }

    fn done(&self, labels: &Labels, attempted: bool) -> usize {
        if labels.is_empty() {
            return if attempted { self.attempted } else { self.scheduled };
        }
        let is_done = |seen: &&Seen| seen.scheduled.is_some() || attempted && seen.attempted;
        self.pods.values().filter(is_done).filter(|seen| has_labels(seen, labels)).count()
    }
}

/// Follows all pods.
#[derive(Clone, Default)]
pub(crate) struct Pods {
    namespaces: Arc<Mutex<BTreeMap<String, Namespace>>>,
}

impl Pods {
    pub(crate) fn follow(informer: &Informer<Pod>) -> Self {
        let pods = Self::default();
        let own = pods.clone();
        informer.on_change(move |change| {
            let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
            own.within(namespace, |namespace| namespace.take_in(change));
        });
        pods
    }

    fn within<R>(&self, name: &str, look: impl FnOnce(&mut Namespace) -> R) -> R {
        let mut namespaces = self.namespaces.lock();
        if let Some(namespace) = namespaces.get_mut(name) {
            return look(namespace);
        }
        look(namespaces.entry(name.to_owned()).or_default())
    }

    /// Waits until so many pods of a namespace with these labels are scheduled, or tried.
    pub(crate) async fn wait(&self, name: &str, labels: &Labels, count: usize, attempted: bool) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if self.within(name, |namespace| namespace.done(labels, attempted)) >= count {
                return;
            }
        }
    }

    /// How many pods of a namespace were seen.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.within(name, |namespace| namespace.pods.len())
    }

    /// The names of the pods of a namespace as they are scheduled from now on; at most so many may
    /// be on their way.
    pub(crate) fn scheduled(&self, name: &str, at_most: usize) -> mpsc::Receiver<String> {
        let (told, scheduled) = mpsc::channel(at_most.max(1));
        self.within(name, |namespace| namespace.told = Some(told));
        scheduled
    }

    /// When each of the selected pods was scheduled, since `start`, in order.
    pub(crate) fn scheduled_since(
        &self,
        selection: &LabelSelection,
        start: Instant,
    ) -> Vec<Duration> {
        let namespaces = self.namespaces.lock();
        let named: Vec<&String> = selection.namespaces.iter().chain(&selection.namespace).collect();
        let selected =
            namespaces.iter().filter(|(name, _)| named.is_empty() || named.contains(name));
        let pods = selected.flat_map(|(_, namespace)| namespace.pods.values());
        let pods = pods.filter(|seen| has_labels(seen, &selection.label_selector));
        let times = pods.filter_map(|seen| seen.scheduled?.checked_duration_since(start));
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
