//! What expressions cost, in upstream's units.
//!
//! Source: cel-go `common/cost.go`, `interpreter/runtimecost.go`, `checker/cost.go`;
//! `k8s.io/apiserver/pkg/cel/library/cost.go`.

mod budget;
mod estimate;
mod estimated_calls;
mod lists;
mod measured;
mod range;

pub use budget::{Budget, PER_CALL_LIMIT, RUNTIME_BUDGET, RUNTIME_BUDGET_MATCH_CONDITIONS};
pub(crate) use estimate::estimate;
pub use estimate::{DeclaredSizes, Sizes};
pub(crate) use measured::call_cost;
pub use range::Range;

use crate::value::Value;

/// The cost of traversing one code point.
const TRAVERSAL: f64 = 0.1;
/// The cost of one code point of a pattern, applied to a string of unit cost.
const PATTERN: f64 = 0.25;
const LIST_CREATE: u64 = 10;
const MAP_CREATE: u64 = 30;
const STRUCT_CREATE: u64 = 40;
/// Two checks of the authorizer fit into one expression.
const AUTHORIZATION: u64 = 350_000;

pub(crate) const SELECT: u64 = 1;
pub(crate) const CREATE_LIST: u64 = LIST_CREATE;
pub(crate) const CREATE_MAP: u64 = MAP_CREATE;
pub(crate) const CREATE_STRUCT: u64 = STRUCT_CREATE;

/// The cost of an overload of an application's own.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// By the arguments of a call.
    pub of: fn(&[Value<'_>]) -> u64,
    /// Before there are any.
    pub estimate: Range,
}
