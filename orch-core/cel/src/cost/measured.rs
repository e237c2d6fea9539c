//! What a call cost, by its arguments.
//!
//! Source: cel-go `interpreter/runtimecost.go` (`costCall`);
//! `k8s.io/apiserver/pkg/cel/library/cost.go` (`CallCost`).

use super::lists;
use super::range::{Range, scaled};
use super::{AUTHORIZATION, LIST_CREATE, PATTERN, STRUCT_CREATE, TRAVERSAL};
use crate::function::Overload;
use crate::library::Format;
use crate::value::Value;

/// The size of a value as costs see it; 1 for what has none.
fn size(value: Option<&Value<'_>>) -> u64 {
    match value {
        Some(Value::Optional(Some(value))) => size(Some(value)),
        Some(Value::Opaque(value)) => value.size(),
        Some(value) => value.size().map_or(1, |size| size as u64),
        None => 1,
    }
}

fn traversal(size: u64) -> u64 {
    scaled(size, TRAVERSAL)
}

/// The cost of searching a string for a pattern. One is added to the length of the string, so
/// that a pattern is not free on an empty one.
pub(super) fn pattern(text: u64, pattern: u64) -> u64 {
    let text = ((1.0 + text as f64) * TRAVERSAL).ceil() as u64;
    text.saturating_mul(scaled(pattern, PATTERN))
}

/// The cost of reading a selector of fields or labels: its text, and what holds its requirements,
/// of which there may be one for each two characters.
pub(super) fn selector(length: Range) -> Range {
    let requirements = length.scaled(0.5).scaled((LIST_CREATE + STRUCT_CREATE) as f64);
    Range::exactly(LIST_CREATE).plus(length.scaled(TRAVERSAL)).plus(requirements)
}

/// The cost of a call of one form of a function, or of one that only evaluation chose.
///
/// `result` is there once the call has been made. Whether it is there changes the cost of `join`
/// only, so that everything else is charged before it is done.
pub(crate) fn call_cost(
    name: &str,
    form: Option<&Overload>,
    args: &[Value<'_>],
    result: Option<&Value<'_>>,
) -> u64 {
    if let Some(cost) = form.and_then(Overload::cost) {
        return (cost.of)(args);
    }
    let id = form.map_or("", Overload::id);
    if let Some(cost) = lists::measured(id, args) {
        return cost;
    }
    kubernetes(name, id, args, result).unwrap_or_else(|| standard(id, args))
}

fn kubernetes(name: &str, id: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let of = |at: usize| size(args.get(at));
    Some(match (name, args.len()) {
        ("check", _) => AUTHORIZATION,
        ("fieldSelector" | "labelSelector", 2..) => selector(Range::exactly(of(1))).max,
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", _) => {
            args.first().map_or(0, |list| walk(list, &mut STEPS_MAX.clone()))
        }
        (
            "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey",
            1..,
        ) => traversal(of(0)),
        ("replace" | "split", 1..) => scaled(of(0), 2.0 * TRAVERSAL),
        ("join", 1..) => scaled(size(result), 2.0 * TRAVERSAL),
        ("find" | "findAll", 2..) => pattern(of(0), of(1)),
        ("ip", _) if id == "cidr_ip" => 1,
        (
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
            1..,
        ) => traversal(of(0)),
        ("ip.isCanonical", 1..) => scaled(of(0), 2.0 * TRAVERSAL),
        ("containsIP", 2..) => {
            let parsed = if id == "cidr_contains_ip_string" { traversal(of(1)) } else { 0 };
            traversal(of(0) + of(0)) + parsed
        }
        ("containsCIDR", 2..) => {
            let parsed = if id == "cidr_contains_cidr_string" { traversal(of(1)) } else { 0 };
            traversal(of(0) + of(0)) + traversal(of(0)) + 1 + parsed
        }
        ("validate", 2..) => match args[0].downcast::<Format>() {
            Some(format) => pattern(of(1), format.pattern_size()),
            None => return None,
        },
        ("_==_", 2) if matches!(args[0], Value::Opaque(_)) => 1,
        _ if COSTS_ONE.contains(&name) => 1,
        _ => return None,
    })
}

/// Constructors and accessors that cost one, whatever they get.
pub(super) const COSTS_ONE: &[&str] = &[
    "serviceAccount",
    "path",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "allowed",
    "reason",
    "error",
    "errored",
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
    "getEscapedPath",
    "getQuery",
];

fn standard(id: &str, args: &[Value<'_>]) -> u64 {
    let of = |at: usize| size(args.get(at));
    match id {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => traversal(of(0)),
        "in_list" => of(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes"
        | "equals"
        | "not_equals" => traversal(of(0).min(of(1))),
        "add_string" | "add_bytes" => traversal(of(0) + of(1)),
        "matches_string" => pattern(of(0), of(1)),
        "contains_string" => traversal(of(0)).saturating_mul(traversal(of(1))),
        _ => 1,
    }
}

/// A walk through a value looks at so many parts at most; it costs more than any limit by then.
const STEPS_MAX: u64 = 1 << 24;

/// The cost of walking through a value and everything in it.
fn walk(value: &Value<'_>, steps: &mut u64) -> u64 {
    *steps = steps.saturating_sub(1);
    if *steps == 0 {
        return u64::MAX;
    }
    match value {
        // Upstream counts bytes here, and rounds down.
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list
            .iter()
            .map(|item| item.map_or(1, |item| walk(&item, steps)))
            .fold(0, u64::saturating_add),
        Value::Map(map) => map
            .iter()
            .map(|entry| {
                entry
                    .map_or(1, |(key, value)| walk(&key, steps).saturating_add(walk(&value, steps)))
            })
            .fold(0, u64::saturating_add),
        _ => 1,
    }
}
