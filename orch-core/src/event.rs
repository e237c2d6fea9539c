//! Events: what components tell users about objects.
//!
//! Source: `k8s.io/client-go/tools/record`, `k8s.io/client-go/tools/events`.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    Metadata,
    api::core::v1::{Event, EventSeries, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    client::{Client, ClientError, PatchKind, Resources},
    clock::to_seconds,
    environment::Environment,
};

/// Events that wait to be written; past that they are dropped and counted.
const QUEUE_MAX: usize = 1000;
/// Distinct events that are remembered for counting repetitions; the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// From so many different messages about one matter within the window on, they are one event.
const SIMILAR_MAX: usize = 10;
/// Events that say the same further apart than this are different events.
const WINDOW: Duration = Duration::from_secs(600);
const TRIES_MAX: u32 = 12;
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// The API takes no longer messages.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether an event is about something expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go their way.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Who reports, and in which of upstream's two shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The component, for example `kubelet` or `default-scheduler`.
    pub component: String,
    /// The node, for components of a node; otherwise the instance. May be empty.
    pub host: String,
    /// Write what a client of `events.k8s.io/v1` writes (`eventTime`, `action`, `series`), as the
    /// scheduler does, rather than the older form (`count`, `firstTimestamp`, `lastTimestamp`) of
    /// the controllers and the kubelet. Both are stored as `v1` events.
    pub series: bool,
}

impl Reporter {
    /// A component that reports as controllers do.
    pub fn new(component: &str) -> Self {
        Self { component: component.to_owned(), host: String::new(), series: false }
    }
}

/// The reference to an object as events have it.
pub fn reference_to<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// Something to tell.
struct Report {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    action: String,
    message: String,
    at: Timestamp,
}

/// Tells users about objects, without ever delaying the caller.
///
/// Repetitions are counted instead of written again, and many different messages about the same
/// matter become one event, as client-go's correlator does. When the queue (1000) is full, events
/// are dropped and counted. Cheap to clone; the task that writes ends with the last clone, after
/// it has written what was queued.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Report>,
    environment: Environment,
    dropped: Arc<AtomicU64>,
}

impl fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventRecorder({} dropped)", self.dropped())
    }
}

impl EventRecorder {
    /// Starts a recorder. Call it inside a tokio runtime.
    pub fn start(client: Arc<dyn Client>, environment: Environment, reporter: Reporter) -> Self {
        let (queue, reports) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            environment: environment.clone(),
            reporter,
            correlator: Correlator::default(),
            written: 0,
        };
        tokio::spawn(writer.run(reports));
        Self { queue, environment, dropped: Arc::default() }
    }

    /// Reports something expected.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, reason, message);
    }

    /// Reports something that somebody may want to look at.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, reason, message);
    }

    /// Reports something, and what the component did about it (`action`; only in the shape of
    /// `events.k8s.io/v1`).
    pub fn record(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        message: impl Into<String>,
    ) {
        let report = Report {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            action: action.to_owned(),
            message: truncated(message.into()),
            at: self.environment.clock.now(),
        };
        if self.queue.try_send(report).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn truncated(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - 3).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str("...");
    }
    message
}

/// What makes two reports the same matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Matter {
    namespace: String,
    name: String,
    uid: String,
    kind: String,
    field_path: String,
    event_type: EventType,
    reason: String,
}

impl Matter {
    fn of(report: &Report) -> Self {
        let about = &report.about;
        Self {
            namespace: about.namespace.clone().unwrap_or_default(),
            name: about.name.clone().unwrap_or_default(),
            uid: about.uid.clone().unwrap_or_default(),
            kind: about.kind.clone().unwrap_or_default(),
            field_path: about.field_path.clone().unwrap_or_default(),
            event_type: report.kind,
            reason: report.reason.clone(),
        }
    }
}

/// An event that was written, and may be counted up.
#[derive(Clone, Debug)]
struct Written {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Default)]
struct Seen {
    /// By message.
    written: HashMap<String, Written>,
    /// Distinct messages of the current window.
    distinct: usize,
    window_start: Option<Timestamp>,
}

#[derive(Default)]
struct Correlator {
    matters: HashMap<Matter, Seen>,
    order: VecDeque<Matter>,
}

fn is_recent(then: Timestamp, now: Timestamp) -> bool {
    now.duration_since(then).unsigned_abs() <= WINDOW
}

impl Correlator {
    /// The message to write, and the event that already says so.
    fn correlate(&mut self, report: &Report) -> (Matter, String, Option<Written>) {
        let matter = Matter::of(report);
        if !self.matters.contains_key(&matter) {
            self.order.push_back(matter.clone());
            if self.order.len() > REMEMBERED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.matters.remove(&oldest);
            }
        }
        let seen = self.matters.entry(matter.clone()).or_default();
        if !seen.window_start.is_some_and(|start| is_recent(start, report.at)) {
            seen.window_start = Some(report.at);
            seen.distinct = 0;
            seen.written.retain(|_, written| is_recent(written.last, report.at));
        }
        if !seen.written.contains_key(&report.message) {
            seen.distinct += 1;
        }
        if seen.distinct <= SIMILAR_MAX {
            let known = seen.written.get(&report.message).cloned();
            return (matter, report.message.clone(), known);
        }
        const COMBINED: &str = "(combined from similar events): ";
        let known = seen.written.get(COMBINED).cloned();
        (matter, truncated(format!("{COMBINED}{}", report.message)), known)
    }

    fn remember(&mut self, matter: &Matter, message: &str, written: Written) {
        const COMBINED: &str = "(combined from similar events): ";
        let key = if message.starts_with(COMBINED) { COMBINED } else { message };
        if let Some(seen) = self.matters.get_mut(matter) {
            seen.written.insert(key.to_owned(), written);
        }
    }
}

struct Writer {
    client: Arc<dyn Client>,
    environment: Environment,
    reporter: Reporter,
    correlator: Correlator,
    written: u64,
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        while let Some(report) = reports.recv().await {
            self.take(&report).await;
        }
    }

    async fn take(&mut self, report: &Report) {
        let (matter, message, known) = self.correlator.correlate(report);
        for attempt in 1..=TRIES_MAX {
            match self.write(report, &message, known.as_ref()).await {
                Ok(written) => return self.correlator.remember(&matter, &message, written),
                Err(error) if error.is_retryable() && attempt < TRIES_MAX => {
                    self.environment.clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    tracing::debug!(reason = report.reason, %error, "event not written");
                    return;
                }
            }
        }
    }

    async fn write(
        &mut self,
        report: &Report,
        message: &str,
        known: Option<&Written>,
    ) -> Result<Written, ClientError> {
        // Events about objects without a namespace live in the default one.
        let namespace = report.about.namespace.as_deref().filter(|ns| !ns.is_empty());
        let namespace = namespace.unwrap_or("default");
        let events: Resources<Event> = Resources::namespaced(self.client.clone(), namespace);
        if let Some(known) = known {
            let more = Written { count: known.count + 1, last: report.at, ..known.clone() };
            let patch = self.count_patch(&more, message);
            match events.patch(&known.name, PatchKind::Strategic, patch).await {
                Ok(_) => return Ok(more),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.written += 1;
        let event = self.event(report, namespace, message);
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&event).await?;
        Ok(Written { name, count: 1, first: report.at, last: report.at })
    }

    fn count_patch(&self, more: &Written, message: &str) -> serde_json::Value {
        if self.reporter.series {
            let series = EventSeries {
                count: Some(more.count),
                last_observed_time: Some(MicroTime(more.last)),
            };
            return json!({"series": series});
        }
        json!({
            "count": more.count,
            "firstTimestamp": Time(to_seconds(more.first)),
            "lastTimestamp": Time(to_seconds(more.last)),
            "message": message,
        })
    }

    fn event(&self, report: &Report, namespace: &str, message: &str) -> Event {
        let name = report.about.name.as_deref().unwrap_or_default();
        let unique = report.at.as_nanosecond() + i128::from(self.written);
        let Reporter { component, host, series } = &self.reporter;
        let mut event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{unique:x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: report.about.clone(),
            reason: Some(report.reason.clone()),
            message: Some(message.to_owned()),
            type_: Some(report.kind.as_str().to_owned()),
            reporting_component: Some(component.clone()),
            reporting_instance: Some(host.clone()),
            ..Event::default()
        };
        if *series {
            let instance = if host.is_empty() { component } else { host };
            event.reporting_instance = Some(instance.clone());
            event.event_time = Some(MicroTime(report.at));
            event.action = Some(report.action.clone());
        } else {
            let at = Some(Time(to_seconds(report.at)));
            event.count = Some(1);
            event.first_timestamp = at.clone();
            event.last_timestamp = at;
            event.source = Some(EventSource {
                component: Some(component.clone()),
                host: (!host.is_empty()).then(|| host.clone()),
            });
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::{client::ListOptions, testing::MemoryClient};

    async fn recorded(series: bool, messages: &[&str]) -> Vec<Arc<Event>> {
        let environment = Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), 1);
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(environment.clone()));
        let reporter = Reporter { series, ..Reporter::new("kubelet") };
        let recorder = EventRecorder::start(client.clone(), environment, reporter);
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("ns".into());
        for message in messages {
            recorder.warning(&reference_to(&pod), "Failed", *message);
        }
        assert_eq!(recorder.dropped(), 0);
        drop(recorder);
        let events: Resources<Event> = Resources::namespaced(client, "ns");
        // The writer ends with its recorder; virtual time moves on only when it has nothing to do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        events.list(ListOptions::default()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn repetitions_are_counted() {
        let events = recorded(false, &["a", "a", "b", "a"]).await;
        let counts: Vec<_> =
            events.iter().map(|e| (e.message.as_deref().unwrap(), e.count.unwrap())).collect();
        assert_eq!(counts, [("a", 3), ("b", 1)]);
        let source = events[0].source.as_ref().and_then(|source| source.component.as_deref());
        assert_eq!(source, Some("kubelet"));
        let events = recorded(true, &["a", "a"]).await;
        assert_eq!(events[0].series.as_ref().and_then(|series| series.count), Some(2));
        assert!(events[0].event_time.is_some() && events[0].count.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn many_messages_about_one_matter_become_one_event() {
        let messages: Vec<String> = (0..30).map(|n| format!("message {n}")).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let events = recorded(false, &messages).await;
        assert_eq!(events.len(), SIMILAR_MAX + 1);
        let combined = events.iter().find(|e| e.count == Some(20)).expect("one counts the rest");
        let message = combined.message.as_deref().unwrap();
        assert_eq!(message, "(combined from similar events): message 29");
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let cut = truncated("é".repeat(600));
        assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.ends_with("é..."));
    }
}
