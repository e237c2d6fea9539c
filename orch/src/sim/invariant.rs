//! What must always hold, and who checks it.

use std::{collections::VecDeque, fmt};

use jiff::Timestamp;
use orch_store::Event;

use super::view::{ObjectChange, Step, View};

/// How many steps before a violation are told with it.
const TOLD: usize = 80;

/// Something that holds after every step of a cluster.
///
/// - **Order.** [`step`](Invariant::step) is called for every revision, in order, none left out.
///   [`settled`](Invariant::settled) is called at the end of a run in which nothing has failed for
///   so long that everything should be as it is asked to be.
/// - **State.** It may keep what it needs of earlier steps. It must not do I/O, and its verdict
///   must depend on nothing but the steps.
/// - **Cost.** Steps are many: look at what changed first, at the whole cluster only where a
///   change concerns it.
///
/// The error is a sentence that says what was seen instead. Object-safe. A closure over steps with
/// a name is one: [`always`].
pub trait Invariant: Send {
    /// What it says, as a short name.
    fn name(&self) -> &str;

    /// Looks at a step.
    ///
    /// # Errors
    /// What it is that does not hold.
    fn step(&mut self, step: &Step<'_>) -> Result<(), String>;

    /// Looks at a cluster that had the time to settle.
    ///
    /// # Errors
    /// What it is that is not as it should be.
    fn settled(&mut self, view: &View) -> Result<(), String> {
        let _everything_goes = view;
        Ok(())
    }
}

struct Always<F> {
    name: String,
    check: F,
}

impl<F: FnMut(&Step<'_>) -> Result<(), String> + Send> Invariant for Always<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        (self.check)(step)
    }
}

/// An invariant that is a closure.
///
/// ```
/// use k8s_openapi::api::core::v1::Pod;
/// use orch::sim::{Step, invariant::always};
///
/// let few = always("at most ten pods", |step: &Step<'_>| {
///     let count = step.view.list::<Pod>().len();
///     if count <= 10 { Ok(()) } else { Err(format!("there are {count}")) }
/// });
/// # let _ = few;
/// ```
pub fn always(
    name: impl Into<String>,
    check: impl FnMut(&Step<'_>) -> Result<(), String> + Send + 'static,
) -> Box<dyn Invariant> {
    Box::new(Always { name: name.into(), check })
}

/// An invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: String,
    /// After which revision.
    pub revision: u64,
    /// When that was committed.
    pub time: Timestamp,
    /// What was seen.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, revision, time, message } = self;
        write!(f, "{invariant}: {message} (revision {revision}, {time})")
    }
}

/// Follows a cluster step by step and asks its invariants after each. The first violation stays.
pub struct Observer {
    view: View,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    timeline: VecDeque<String>,
    steps: u64,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({} invariants, {} steps)", self.invariants.len(), self.steps)
    }
}

impl Observer {
    /// An observer of an empty cluster.
    pub fn new(invariants: Vec<Box<dyn Invariant>>) -> Self {
        Self {
            view: View::default(),
            invariants,
            violation: None,
            timeline: VecDeque::new(),
            steps: 0,
        }
    }

    /// The cluster as it was last seen.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How many steps were looked at.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What did not hold, if something did not.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The last steps, a line each.
    pub fn timeline(&self) -> impl Iterator<Item = &str> {
        self.timeline.iter().map(String::as_str)
    }

    /// Notes something that is not a step, for the timeline.
    pub fn note(&mut self, time: Timestamp, what: &str) {
        self.tell(format!("{time:.3} -- {what}"));
    }

    fn tell(&mut self, line: String) {
        if self.violation.is_some() {
            return;
        }
        if self.timeline.len() == TOLD {
            self.timeline.pop_front();
        }
        self.timeline.push_back(line);
    }

    /// Takes in what one revision changed.
    pub fn step(&mut self, events: &[Event], time: Timestamp, writer: Option<&str>) {
        let changes = self.view.apply(events, time);
        self.steps += 1;
        for change in &changes {
            if !is_noise(change) {
                self.tell(line(change, &self.view, writer));
            }
        }
        let step = Step { view: &self.view, changes: &changes, writer };
        for invariant in &mut self.invariants {
            if let Err(message) = invariant.step(&step) {
                let invariant = invariant.name().to_owned();
                let revision = self.view.revision();
                let found = Violation { invariant, revision, time, message };
                self.violation.get_or_insert(found);
            }
        }
    }

    /// Asks whether everything has settled.
    pub fn settled(&mut self) {
        for invariant in &mut self.invariants {
            if let Err(message) = invariant.settled(&self.view) {
                let invariant = format!("{}, in the end", invariant.name());
                let (revision, time) = (self.view.revision(), self.view.time());
                let found = Violation { invariant, revision, time, message };
                self.violation.get_or_insert(found);
            }
        }
    }
}

/// Heartbeats and events would drown the rest.
fn is_noise(change: &ObjectChange) -> bool {
    matches!(change.object().kind(), "Lease" | "Event")
}

fn line(change: &ObjectChange, view: &View, writer: Option<&str>) -> String {
    let object = change.object();
    let verb = match (&change.old, &change.new) {
        (None, _) => "created",
        (_, None) => "gone",
        _ => "changed",
    };
    let going = object.metadata().deletion_timestamp.as_ref().map_or("", |_| " (going)");
    let (time, revision, kind, key) = (view.time(), view.revision(), object.kind(), object.key());
    let status = brief(change);
    let writer = writer.unwrap_or("?");
    format!("{time:.3} {revision} {kind} {key} {verb}{going} by {writer}{status}")
}

/// What is worth telling of the object's state.
fn brief(change: &ObjectChange) -> String {
    let Some(new) = &change.new else { return String::new() };
    let value = new.to_value();
    let (spec, status) = (&value["spec"], &value["status"]);
    match new.kind() {
        "Pod" => {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let ready = conditions.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True");
            format!(" node={} phase={} ready={ready}", spec["nodeName"], status["phase"])
        }
        "Node" => format!(" taints={}", spec["taints"]),
        "PersistentVolumeClaim" => {
            format!(" volume={} phase={}", spec["volumeName"], status["phase"])
        }
        "ResourceQuota" => format!(" used={}", status["used"]),
        _ if spec["replicas"].is_number() => {
            let of = |name: &str| status[name].as_i64().unwrap_or(0);
            let generation = new.metadata().generation.unwrap_or(0);
            format!(
                " replicas={} generation={generation}/{} status={}/{} available",
                spec["replicas"],
                of("observedGeneration"),
                of("replicas"),
                of("availableReplicas"),
            )
        }
        _ => String::new(),
    }
}
