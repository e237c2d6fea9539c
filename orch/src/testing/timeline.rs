//! What happened, line by line.

use std::fmt;

use jiff::Timestamp;
use orch_core::Object;
use orch_store::{Event, Revision};

use super::difference::{differences, in_one_line, name_of};
use crate::sim::ObjectChange;

/// The kinds whose changes say nothing but that a cluster runs.
const LEFT_OUT: [&str; 1] = ["Lease"];

/// What happened in a cluster, in its order: a line for each object that was created, changed or
/// deleted and for each event that was recorded. Printed as
///
/// ```text
/// +0.012s   41  Pod default/web-0 created
/// +0.014s   43  Pod default/web-0 +spec.nodeName: "node-1"
/// +0.014s   44  Scheduled (Pod default/web-0): Successfully assigned default/web-0 to node-1
/// ```
///
/// Leases are left out.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    lines: Vec<Line>,
    left_out: usize,
}

/// One thing that happened.
#[derive(Clone, Debug)]
struct Line {
    /// Since the first line.
    after: jiff::SignedDuration,
    revision: Revision,
    text: String,
}

impl Timeline {
    pub(super) fn of(events: &[Event], time_of: impl Fn(Revision) -> Timestamp) -> Self {
        let first = events.first().map(|event| time_of(event.entry.mod_revision));
        let lines = events.iter().filter_map(|event| {
            let revision = event.entry.mod_revision;
            let after = time_of(revision).duration_since(first.unwrap_or_default());
            Some(Line { after, revision, text: text(event)? })
        });
        Self { lines: lines.collect(), left_out: 0 }
    }

    /// Only the last lines, and how many came before.
    #[must_use]
    pub fn last(mut self, count: usize) -> Self {
        let before = self.lines.len().saturating_sub(count);
        self.lines.drain(..before);
        Self { left_out: self.left_out + before, ..self }
    }

    /// Only the lines in which a text occurs: a name, a kind, a field.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.lines.retain(|line| line.text.contains(what));
        self
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left_out > 0 {
            writeln!(f, "({} lines before)", self.left_out)?;
        }
        for Line { after, revision, text } in &self.lines {
            let seconds = after.as_secs_f64();
            writeln!(f, "{:>12}  {revision:>6}  {text}", format!("+{seconds:.3}s"))?;
        }
        Ok(())
    }
}

fn text(event: &Event) -> Option<String> {
    let change = ObjectChange::of_event(event)?;
    told(change.old.as_deref(), change.new.as_deref())
}

/// What became of an object, in one line; `None` if there is nothing to tell.
pub(crate) fn told(old: Option<&Object>, new: Option<&Object>) -> Option<String> {
    let subject = new.or(old)?;
    if LEFT_OUT.contains(&subject.kind()) {
        return None;
    }
    if subject.kind() == "Event" {
        return new.map(recorded);
    }
    let name = name_of(subject);
    match (old, new) {
        (None, _) => Some(format!("{name} created")),
        (Some(_), None) => Some(format!("{name} deleted")),
        (Some(old), Some(new)) => {
            let found = differences(old, new);
            (!found.is_empty()).then(|| format!("{name} {}", in_one_line(&found)))
        }
    }
}

/// An event as one reads it in a log.
fn recorded(event: &Object) -> String {
    let event = event.to_value();
    let text =
        |path: &str| event.pointer(path).and_then(|value| value.as_str()).unwrap_or_default();
    let of = ["/involvedObject", "/regarding"]
        .iter()
        .find(|path| event.pointer(path).is_some())
        .copied()
        .unwrap_or_default();
    let (kind, namespace) = (text(&format!("{of}/kind")), text(&format!("{of}/namespace")));
    let name = text(&format!("{of}/name"));
    let slash = if namespace.is_empty() { "" } else { "/" };
    let message = if text("/message").is_empty() { text("/note") } else { text("/message") };
    format!("{} ({kind} {namespace}{slash}{name}): {message}", text("/reason"))
}
