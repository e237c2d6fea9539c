//! What came of a run.

use std::{collections::BTreeMap, fmt};

use crate::sim::{faults::FaultPlan, invariant::Violation};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed, which replays it.
    pub seed: u64,
    /// What went wrong.
    pub plan: FaultPlan,
    /// What did not hold, if something did not.
    pub violation: Option<Violation>,
    /// The last steps before the violation, or of the run.
    pub timeline: Vec<String>,
    /// How many revisions were looked at.
    pub steps: u64,
    /// How many calls the components and the user made.
    pub requests: u64,
    /// Writes of the components that changed nothing: who wrote what, and how often.
    pub idle_writes: BTreeMap<String, u64>,
    /// How many faults of calls and watches were injected.
    pub faults: u64,
}

impl Report {
    /// The code that replays this run, to be put in place of the seed and the faults of its
    /// simulation.
    pub fn replay(&self) -> String {
        format!(".seed({}).plan({})", self.seed, self.plan.to_code())
    }

    /// Says that everything held.
    ///
    /// # Panics
    /// If something did not: with what it was, the last steps, and how to replay it.
    pub fn assert_holds(&self) {
        assert!(self.violation.is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(violation) = &self.violation else {
            return write!(f, "seed {}: everything held", self.seed);
        };
        writeln!(f, "seed {}: {violation}\nthe last steps:", self.seed)?;
        self.timeline.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "it is replayed by {}", self.replay())
    }
}
