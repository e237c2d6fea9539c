//! Which of what is reported is written, and as what.
//!
//! Source: `k8s.io/client-go/tools/record/events_cache.go`.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use jiff::Timestamp;

use super::{EventType, Report, truncated};

/// Distinct matters that are remembered; the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// From so many different messages about one matter within the window on, they are one event.
const SIMILAR_MAX: usize = 10;
/// Events that say the same further apart than this are different events.
const WINDOW: Duration = Duration::from_secs(600);
/// So many events about one object are written without a pause, and then one in so long.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

const COMBINED: &str = "(combined from similar events): ";

/// What an event tells of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    namespace: String,
    name: String,
    uid: String,
    kind: String,
    event_type: EventType,
}

impl Subject {
    fn of(report: &Report) -> Self {
        let about = &report.about;
        Self {
            namespace: about.namespace.clone().unwrap_or_default(),
            name: about.name.clone().unwrap_or_default(),
            uid: about.uid.clone().unwrap_or_default(),
            kind: about.kind.clone().unwrap_or_default(),
            event_type: report.kind,
        }
    }
}

/// What makes two reports the same matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Matter {
    subject: Subject,
    field_path: String,
    reason: String,
}

impl Matter {
    fn of(report: &Report) -> Self {
        Self {
            subject: Subject::of(report),
            field_path: report.about.field_path.clone().unwrap_or_default(),
            reason: report.reason.clone(),
        }
    }
}

/// An event as it stands with what was reported last.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) name: String,
    pub(super) message: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

#[derive(Default)]
struct Seen {
    /// By message.
    observed: HashMap<String, Observed>,
    /// Distinct messages of the current window.
    distinct: usize,
    window_start: Option<Timestamp>,
}

/// How much may be told of an object still.
struct Allowance {
    events: f64,
    at: Timestamp,
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.events = (self.events + passed / REFILL.as_secs_f64()).min(BURST);
        self.at = now;
        let enough = self.events >= 1.0;
        if enough {
            self.events -= 1.0;
        }
        enough
    }
}

/// A bounded map that forgets what it has known for the longest time.
struct Remembered<K, V> {
    known: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.known.contains_key(&key) {
            self.order.push_back(key.clone());
            if self.order.len() > REMEMBERED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.known.entry(key).or_insert_with(new)
    }
}

/// What has been reported so far.
#[derive(Default)]
pub(super) struct Correlator {
    matters: Remembered<Matter, Seen>,
    allowances: Remembered<Subject, Allowance>,
}

fn is_recent(then: Timestamp, now: Timestamp) -> bool {
    now.duration_since(then).unsigned_abs() <= WINDOW
}

impl Correlator {
    /// The event that a report is, or is counted by; a new one gets the name that is given.
    pub(super) fn observe(&mut self, report: &Report, name: impl FnOnce() -> String) -> Observed {
        let seen = self.matters.entry(Matter::of(report), Seen::default);
        if !seen.window_start.is_some_and(|start| is_recent(start, report.at)) {
            seen.window_start = Some(report.at);
            seen.distinct = 0;
            seen.observed.retain(|_, observed| is_recent(observed.last, report.at));
        }
        if !seen.observed.contains_key(&report.message) {
            seen.distinct += 1;
        }
        let (key, message) = if seen.distinct <= SIMILAR_MAX {
            (report.message.clone(), report.message.clone())
        } else {
            (COMBINED.to_owned(), truncated(format!("{COMBINED}{}", report.message)))
        };
        let observed = seen.observed.entry(key).or_insert_with(|| Observed {
            name: name(),
            message: String::new(),
            count: 0,
            first: report.at,
            last: report.at,
        });
        observed.count = observed.count.saturating_add(1);
        observed.last = report.at;
        observed.message = message;
        observed.clone()
    }

    /// Whether so much may be told of one object; what is not told is counted all the same.
    pub(super) fn may_tell(&mut self, report: &Report) -> bool {
        let whole = || Allowance { events: BURST, at: report.at };
        self.allowances.entry(Subject::of(report), whole).take(report.at)
    }
}
