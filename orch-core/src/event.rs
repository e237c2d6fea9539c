//! Events: what components tell users about objects.
//!
//! Source: `k8s.io/client-go/tools/record`, `k8s.io/client-go/tools/events`.

mod correlation;

use std::{
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
use correlation::{Correlator, Observed};

/// Events that wait to be written; past that they are dropped and counted.
const QUEUE_MAX: usize = 1000;
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
/// Repetitions are counted instead of written again, many different messages about the same matter
/// become one event, and of what a controller says of one object 25 events are written at once and
/// then one in five minutes, as client-go's correlator does. When the queue (1000) is full, events
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
            named: 0,
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

struct Writer {
    client: Arc<dyn Client>,
    environment: Environment,
    reporter: Reporter,
    correlator: Correlator,
    /// How many events have got a name.
    named: u64,
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        while let Some(report) = reports.recv().await {
            self.take(&report).await;
        }
    }

    async fn take(&mut self, report: &Report) {
        let observed = self.correlator.observe(report, || {
            self.named += 1;
            let name = report.about.name.as_deref().unwrap_or_default();
            format!("{name}.{:x}", report.at.as_nanosecond() + i128::from(self.named))
        });
        // Those who write in the newer shape are not held back, as upstream has it.
        if !self.reporter.series && !self.correlator.may_tell(report) {
            return;
        }
        for attempt in 1..=TRIES_MAX {
            match self.write(report, &observed).await {
                Ok(()) => return,
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

    async fn write(&self, report: &Report, observed: &Observed) -> Result<(), ClientError> {
        // Events about objects without a namespace live in the default one.
        let namespace = report.about.namespace.as_deref().filter(|ns| !ns.is_empty());
        let namespace = namespace.unwrap_or("default");
        let events: Resources<Event> = Resources::namespaced(self.client.clone(), namespace);
        if observed.count > 1 {
            let patch = self.count_patch(observed);
            match events.patch_object(&observed.name, PatchKind::Strategic, patch).await {
                // Gone since, or held back so far.
                Err(error) if error.is_not_found() => {}
                result => return result.map(drop),
            }
        }
        events.create_object(&self.event(report, namespace, observed)).await.map(drop)
    }

    fn count_patch(&self, more: &Observed) -> serde_json::Value {
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
            "message": more.message,
        })
    }

    fn event(&self, report: &Report, namespace: &str, observed: &Observed) -> Event {
        let Reporter { component, host, series } = &self.reporter;
        let mut event = Event {
            metadata: ObjectMeta {
                name: Some(observed.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: report.about.clone(),
            reason: Some(report.reason.clone()),
            message: Some(observed.message.clone()),
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
            event.count = Some(observed.count);
            event.first_timestamp = Some(Time(to_seconds(observed.first)));
            event.last_timestamp = Some(Time(to_seconds(observed.last)));
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
        let messages: Vec<String> = (0..25).map(|n| format!("message {n}")).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let events = recorded(false, &messages).await;
        assert_eq!(events.len(), 11);
        let combined = events.iter().find(|e| e.count == Some(15)).expect("one counts the rest");
        let message = combined.message.as_deref().unwrap();
        assert_eq!(message, "(combined from similar events): message 24");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_much_of_one_object_is_held_back() {
        let messages: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let events = recorded(false, &messages).await;
        let counts: i32 = events.iter().filter_map(|event| event.count).sum();
        assert_eq!((events.len(), counts), (11, 25), "no more is written");
        // In the newer shape everything is told.
        let events = recorded(true, &messages).await;
        let series = events.iter().filter_map(|event| event.series.as_ref()?.count).max();
        assert_eq!((events.len(), series), (11, Some(90)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_back_is_told_with_its_count_later() {
        let environment = Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), 1);
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(environment.clone()));
        let recorder = EventRecorder::start(client.clone(), environment, Reporter::new("kubelet"));
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        for reason in (0..25).map(|n| format!("Reason{n}")) {
            recorder.normal(&reference_to(&pod), &reason, "it happened");
        }
        recorder.normal(&reference_to(&pod), "Late", "held back");
        tokio::time::sleep(Duration::from_secs(299)).await;
        recorder.normal(&reference_to(&pod), "Late", "held back");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let events: Resources<Event> = Resources::namespaced(client, "default");
        assert_eq!(events.list(ListOptions::default()).await.unwrap().len(), 25);
        recorder.normal(&reference_to(&pod), "Late", "held back");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = events.list(ListOptions::default()).await.unwrap();
        let late = events.iter().find(|event| event.reason.as_deref() == Some("Late"));
        assert_eq!(late.expect("it is told").count, Some(3));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let cut = truncated("é".repeat(600));
        assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.ends_with("é..."));
    }
}
