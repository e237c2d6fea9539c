//! What must always hold, and who checks it.

use std::{collections::VecDeque, fmt};

use jiff::Timestamp;
use orch_store::Event;

use super::view::{ObjectChange, Step, View};
use crate::testing::told;

/// How many steps before a violation are told with it.
const TOLD: usize = 250;
/// More revisions at one instant of virtual time than this are a circle that nobody leaves.
const AT_ONCE_MAX: u64 = 100_000;

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
    timeline: VecDeque<Line>,
    steps: u64,
    moved: Timestamp,
    /// How many of the last steps were at one instant.
    at_once: u64,
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
            moved: Timestamp::default(),
            at_once: 0,
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
    pub fn timeline(&self) -> impl Iterator<Item = String> {
        self.timeline.iter().map(Line::to_string)
    }

    /// Notes something that is not a step, for the timeline.
    pub fn note(&mut self, time: Timestamp, what: &str) {
        self.tell(Line::Note(time, what.to_owned()));
    }

    fn tell(&mut self, line: Line) {
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
        self.at_once = if time == self.view.time() { self.at_once + 1 } else { 0 };
        let changes = self.view.apply(events, time);
        self.steps += 1;
        if self.at_once == AT_ONCE_MAX {
            // Virtual time stands still while anybody works: nothing would ever end this.
            self.violate("time goes on", format!("{AT_ONCE_MAX} revisions at one instant"));
        }
        for change in &changes {
            if !change.is_heartbeat() {
                self.moved = time;
                let (revision, writer) = (self.view.revision(), writer.map(str::to_owned));
                self.tell(Line::Change { time, revision, writer, change: change.clone() });
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

    /// When something changed last, heartbeats and recorded events left aside.
    pub fn moved(&self) -> Timestamp {
        self.moved
    }

    /// Whether every invariant would accept the cluster as settled.
    pub fn is_settled(&mut self) -> bool {
        let view = &self.view;
        self.invariants.iter_mut().all(|invariant| invariant.settled(view).is_ok())
    }

    /// Notes that something went wrong besides the invariants, unless something has before.
    pub fn violate(&mut self, what: &str, message: String) {
        let (revision, time) = (self.view.revision(), self.view.time());
        let found = Violation { invariant: what.to_owned(), revision, time, message };
        self.violation.get_or_insert(found);
    }

    /// Asks whether everything has settled.
    pub fn settled(&mut self) {
        let mut found = None;
        for invariant in &mut self.invariants {
            if let Err(message) = invariant.settled(&self.view) {
                found.get_or_insert((format!("{}, in the end", invariant.name()), message));
            }
        }
        if let Some((what, message)) = found {
            self.violate(&what, message);
        }
    }
}

/// A line of the timeline, made into text only if somebody asks for it.
enum Line {
    Note(Timestamp, String),
    Change { time: Timestamp, revision: u64, writer: Option<String>, change: ObjectChange },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(time, what) => write!(f, "{time:.3} -- {what}"),
            Self::Change { time, revision, writer, change } => {
                let text = told(change.old.as_deref(), change.new.as_deref()).unwrap_or_default();
                let writer = writer.as_deref().unwrap_or("?");
                write!(f, "{time:.3} {revision} {writer}: {text}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_stands_still_is_told_of() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut observer = Observer::new(Vec::new());
        for second in 1..=2 {
            for _ in 0..AT_ONCE_MAX {
                observer.step(&[], at(second), None);
            }
            assert_eq!(observer.violation(), None);
        }
        observer.step(&[], at(2), None);
        let violation = observer.violation().expect("time stands still");
        assert_eq!(violation.invariant, "time goes on");
    }
}
