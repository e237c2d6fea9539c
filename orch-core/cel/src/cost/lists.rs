//! The costs of the extensions for lists and sets, which count before all others.
//!
//! Source: cel-go `ext/lists.go`, `ext/sets.go`.

use super::LIST_CREATE;
use super::TRAVERSAL;
use super::range::Range;
use crate::types::Type;
use crate::value::Value;

/// What a form of a function does with a list.
enum Work {
    /// Makes a list of as many elements as its result has.
    Copies,
    /// Compares each element with each other.
    Compares,
    /// Takes lists in lists apart, so many deep.
    Flattens,
    /// Compares each element of one list with each of another, so many times.
    Crosses(f64),
}

fn work(id: &str) -> Option<Work> {
    Some(match id {
        "list_slice" | "lists_range" | "list_reverse" => Work::Copies,
        "list_flatten" | "list_flatten_int" => Work::Flattens,
        "list_distinct" => Work::Compares,
        "list_sets_contains_list" | "list_sets_intersects_list" => Work::Crosses(1.0),
        "list_sets_equivalent_list" => Work::Crosses(2.0),
        id if id.starts_with("list_")
            && (id.ends_with("_sort") || id.ends_with("_sortByAssociatedKeys")) =>
        {
            Work::Compares
        }
        _ => return None,
    })
}

fn truncated(size: u64, factor: f64) -> u64 {
    (size as f64 * factor) as u64
}

fn allocating(factor: f64, size: u64) -> u64 {
    truncated(size, factor).saturating_add(1 + LIST_CREATE)
}

/// The cost of a call by its arguments.
pub(super) fn measured(id: &str, args: &[Value<'_>]) -> Option<u64> {
    let of = |at: usize| args.get(at).and_then(Value::size).map_or(1, |size| size as u64);
    let integer = |at: usize| match args.get(at) {
        Some(Value::Int(value)) => *value,
        _ => 0,
    };
    Some(match work(id)? {
        Work::Copies => {
            let made = match id {
                "list_slice" => integer(2).saturating_sub(integer(1)).min(of(0) as i64),
                "lists_range" => integer(0),
                _ => of(0) as i64,
            };
            allocating(1.0, made.max(0) as u64)
        }
        Work::Flattens => {
            let depth = if args.len() == 2 { integer(1).max(0) as f64 } else { 1.0 };
            allocating(depth, of(0))
        }
        Work::Compares => {
            let keys = if id.ends_with("_sortByAssociatedKeys") { 1 } else { 0 };
            let first = match args.get(keys) {
                Some(Value::List(list)) => list.get(0).ok(),
                _ => None,
            };
            let long = matches!(first, Some(Value::String(_) | Value::Bytes(_)));
            let factor = if long { 2.0 + TRAVERSAL } else { 2.0 };
            allocating(factor, of(keys).saturating_mul(of(keys)))
        }
        Work::Crosses(factor) => truncated(of(0).saturating_mul(of(1)), factor).saturating_add(1),
    })
}

/// What an estimate of a call may look at.
pub(super) struct Estimated<'e> {
    pub(super) id: &'e str,
    /// The receiver's size, if there is one.
    pub(super) target: Option<Range>,
    /// The sizes of the arguments and, of literals, the integers.
    pub(super) args: &'e [(Range, Option<i64>)],
    /// The type of the elements that are compared.
    pub(super) compared: Option<&'e Type>,
}

/// The cost of a call before there are values, and the size of its result.
pub(super) fn estimated(call: &Estimated<'_>) -> Option<(Range, Option<Range>)> {
    let literal = |at: usize, unknown: u64| {
        let value = call.args.get(at).and_then(|(_, literal)| *literal);
        value.map_or(unknown, |value| value.max(0) as u64)
    };
    let allocating = |factor: f64, size: Range| {
        let cost = size.scaled(factor).plus(Range::exactly(1 + LIST_CREATE));
        Some((cost, Some(size)))
    };
    match (work(call.id)?, call.target, call.args.len()) {
        (Work::Copies, Some(list), 2) => {
            let made = literal(1, list.max).wrapping_sub(literal(0, 0));
            allocating(1.0, Range::exactly(made))
        }
        (Work::Copies, None, 1) => allocating(1.0, Range::exactly(literal(0, u64::MAX))),
        (Work::Copies, Some(list), 0) => allocating(1.0, list),
        (Work::Flattens, Some(list), 0) => allocating(1.0, list),
        (Work::Flattens, Some(list), 1) => allocating(literal(0, u64::MAX) as f64, list),
        (Work::Compares, Some(list), count) => {
            let compared = if count == 1 { call.args[0].0 } else { list };
            let long = matches!(call.compared, Some(Type::String | Type::Bytes));
            let long = long && call.id != "list_distinct";
            let factor = if long { 2.0 + TRAVERSAL } else { 2.0 };
            allocating(factor, compared.times(compared))
        }
        (Work::Crosses(factor), _, 2) => {
            let cost = call.args[0].0.times(call.args[1].0).scaled(factor);
            Some((cost.plus(Range::exactly(1)), None))
        }
        _ => None,
    }
}
