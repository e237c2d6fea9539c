//! What stops an evaluation.

use std::borrow::Cow;

use crate::library::Query;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The expression failed: a missing key, a division by zero. `&&`, `||` and the macros that
    /// are made of them go on if the other side decides.
    #[error("{0}")]
    Failed(Cow<'static, str>),
    /// The expression cost more than one evaluation may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The expression cost more than was left of the budget that it shares with others.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    OutOfBudget,
    /// An answer of the authorizer is needed that it does not have at hand. Whoever evaluates
    /// gets the answer, and evaluates again.
    #[error("the answer of the authorizer is needed first")]
    NeedsAuthorization(Box<Query>),
}

impl Error {
    /// A failure of the expression.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(message.into())
    }

    /// The arguments do not fit any form of the function.
    pub fn no_such_overload() -> Self {
        Self::failed("no such overload")
    }

    pub(crate) fn no_such_key(key: impl std::fmt::Display) -> Self {
        Self::failed(format!("no such key: {key}"))
    }

    /// Whether nothing in the expression may make up for it.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}
