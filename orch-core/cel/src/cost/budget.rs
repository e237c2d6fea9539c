//! Budgets of evaluations.
//!
//! Source: `k8s.io/apiserver/pkg/apis/cel/config.go`.

use crate::error::Error;

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations of one request may cost together: the rules of one custom resource, or
/// the expressions of one policy.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// What all match conditions of one request may cost together.
pub const RUNTIME_BUDGET_MATCH_CONDITIONS: u64 = 2_500_000;

/// What a number of evaluations may cost together, and each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    remaining: u64,
    per_call: u64,
}

impl Budget {
    /// A budget for the evaluations of one request, each of which may cost [`PER_CALL_LIMIT`].
    pub fn new(total: u64) -> Self {
        Self { remaining: total, per_call: PER_CALL_LIMIT }
    }

    /// The same with another limit for each evaluation.
    #[must_use]
    pub fn with_limit(mut self, per_call: u64) -> Self {
        self.per_call = per_call;
        self
    }

    /// What is left.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(crate) fn per_call(&self) -> u64 {
        self.per_call
    }

    /// Takes off what something cost.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBudget`] if it is more than what is left; nothing is left then.
    pub fn charge(&mut self, cost: u64) -> Result<(), Error> {
        match self.remaining.checked_sub(cost) {
            Some(remaining) => {
                self.remaining = remaining;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(Error::OutOfBudget)
            }
        }
    }
}

impl Default for Budget {
    /// [`RUNTIME_BUDGET`].
    fn default() -> Self {
        Self::new(RUNTIME_BUDGET)
    }
}
