//! What calls can cost.
//!
//! Source: cel-go `checker/cost.go` (`functionCost`);
//! `k8s.io/apiserver/pkg/cel/library/cost.go` (`EstimateCallCost`).

use super::estimate::{Entries, Estimator};
use super::lists;
use super::measured::{COSTS_ONE, selector};
use super::range::Range;
use super::{AUTHORIZATION, PATTERN, TRAVERSAL};
use crate::function::Overload;
use crate::library::{FORMAT_SIZE_MAX, PATTERN_SIZE_MAX};
use crate::syntax::ast::Id;
use crate::types::Type;

/// An argument as estimates see it.
pub(super) struct Part {
    pub(super) path: Vec<String>,
    pub(super) of: Type,
    pub(super) size: Option<Range>,
    /// The sizes of what it holds, if they follow from the expression.
    pub(super) entries: Option<Entries>,
    pub(super) literal: Option<i64>,
}

/// The cost of a call, and the size of its result if it has one.
pub(super) struct Estimate {
    pub(super) cost: Range,
    pub(super) size: Option<Range>,
}

impl Estimate {
    fn sized(cost: Range, size: Range) -> Self {
        Self { cost, size: Some(size) }
    }
}

/// Everything that an estimate of a call may look at.
struct Call<'c, 'e> {
    estimator: &'c mut Estimator<'e>,
    id: Id,
    form: &'c str,
    target: Option<&'c Part>,
    args: &'c [Part],
    costs: &'c [Range],
}

/// The cost of a call of one form of a function and of its arguments, without the receiver's.
pub(super) fn call(
    estimator: &mut Estimator<'_>,
    id: Id,
    name: &str,
    form: &Overload,
    target: Option<&Part>,
    args: &[Part],
    costs: &[Range],
) -> Estimate {
    let all = costs.iter().fold(Range::default(), |sum, cost| sum.plus(*cost));
    if let Some(cost) = form.cost() {
        return cost.estimate.plus(all).into();
    }
    let mut call = Call { estimator, id, form: form.id(), target, args, costs };
    if let Some(found) = call.extension(form) {
        return Estimate { cost: found.cost.plus(all), size: found.size };
    }
    if let Some(found) = call.kubernetes(name) {
        return Estimate { cost: found.cost.plus(all), size: found.size };
    }
    if let Some(lazy) = call.lazy() {
        return lazy;
    }
    let found = call.standard().unwrap_or_else(|| Range::exactly(1).into());
    Estimate { cost: found.cost.plus(all), size: found.size }
}

impl Call<'_, '_> {
    /// The size of an argument as the standard functions see it.
    fn size(&self, part: &Part) -> Range {
        part.size.unwrap_or(Range::UNKNOWN)
    }

    /// The size of an argument as Kubernetes' functions see it: what is declared counts too.
    fn sized(&self, part: &Part) -> Range {
        let declared = || self.estimator.declared_size(&part.path);
        part.size.or_else(declared).unwrap_or(Range::UNKNOWN)
    }

    /// The functions of the extensions for lists and sets.
    fn extension(&self, form: &Overload) -> Option<Estimate> {
        let args: Vec<(Range, Option<i64>)> =
            self.args.iter().map(|arg| (self.sized(arg), arg.literal)).collect();
        let compared = match form.args().last() {
            Some(Type::List(of)) => Some(&**of),
            _ => None,
        };
        let target = self.target.map(|target| self.sized(target));
        let call = lists::Estimated { id: self.form, target, args: &args, compared };
        lists::estimated(&call).map(|(cost, size)| Estimate { cost, size })
    }

    /// The element of a list, as an argument.
    fn element(&self, list: &Part) -> Option<Part> {
        let of = match &list.of {
            Type::List(of) => (**of).clone(),
            Type::Map(keys, _) => (**keys).clone(),
            Type::Opaque(_, inner) => inner.first()?.clone(),
            _ => return None,
        };
        let mut path = list.path.clone();
        if !path.is_empty() {
            path.push("@items".to_owned());
        }
        Some(Part { path, of, size: None, entries: None, literal: None })
    }

    fn kubernetes(&self, name: &str) -> Option<Estimate> {
        let first = self.args.first();
        Some(match (name, first, self.target) {
            ("check", ..) => Range::exactly(AUTHORIZATION).into(),
            ("fieldSelector" | "labelSelector", Some(text), _) if self.args.len() == 1 => {
                selector(self.sized(text)).into()
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", _, Some(list)) => {
                self.walk(list)
            }
            ("url" | "jsonpatch.escapeKey", Some(text), _) if self.args.len() == 1 => {
                Estimate::sized(self.sized(text).scaled(TRAVERSAL), self.sized(text))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", _, Some(text)) => {
                Estimate::sized(self.sized(text).scaled(TRAVERSAL), self.sized(text))
            }
            ("replace", Some(old), Some(text)) if self.args.len() >= 2 => {
                let size = replaced(self.sized(text), self.sized(old), self.sized(&self.args[1]));
                Estimate::sized(self.sized(text).scaled(2.0 * TRAVERSAL), size)
            }
            ("split", _, Some(text)) => self.split(text),
            ("join", separator, Some(list)) => self.join(list, separator),
            ("find" | "findAll", Some(pattern), Some(text)) => {
                let size = self.sized(text);
                let cost = size.plus(Range::exactly(1)).scaled(TRAVERSAL);
                let cost = cost.times(self.sized(pattern).scaled(PATTERN));
                Estimate::sized(cost, Range { min: 0, max: size.max })
            }
            ("ip", ..) if self.form == "cidr_ip" => Range::exactly(1).into(),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver"
                | "isSemver",
                Some(text),
                _,
            ) => self.sized(text).scaled(TRAVERSAL).into(),
            ("ip.isCanonical", Some(text), _) => self.sized(text).scaled(2.0 * TRAVERSAL).into(),
            ("containsIP" | "containsCIDR", Some(other), _) => self.contains(name, other).into(),
            ("validate", Some(text), _) => {
                let cost = self.sized(text).scaled(TRAVERSAL);
                cost.scaled(PATTERN_SIZE_MAX as f64 * PATTERN).into()
            }
            ("_==_", Some(left), _) => return self.equal(left),
            _ if COSTS_ONE.contains(&name) => Range::exactly(1).into(),
            _ => return None,
        })
    }

    fn walk(&self, list: &Part) -> Estimate {
        let Some(element) = self.element(list) else {
            return self.sized(list).scaled(TRAVERSAL).into();
        };
        let mut cost = Range::exactly(1);
        if matches!(&element.of, Type::String | Type::Bytes) {
            cost = cost.plus(self.sized(&element).scaled(TRAVERSAL));
        }
        self.sized(list).times(cost).into()
    }

    fn split(&self, text: &Part) -> Estimate {
        let size = self.sized(text);
        let limit = self.args.get(1).and_then(|limit| limit.literal);
        let max = limit.map_or(size.max, |limit| limit as u64);
        Estimate::sized(size.scaled(2.0 * TRAVERSAL), Range { min: 0, max })
    }

    fn join(&self, list: &Part, separator: Option<&Part>) -> Estimate {
        let count = self.sized(list);
        let mut size = match self.element(list) {
            Some(element) => count.times(self.sized(&element)),
            None => Range::default(),
        };
        if let Some(separator) = separator {
            let (min, max) = (count.min.saturating_sub(1), count.max.saturating_sub(1));
            size = size.plus(self.sized(separator).times(Range { min, max }));
        }
        Estimate::sized(size.scaled(TRAVERSAL), size)
    }

    /// Addresses are of 4 or 16 bytes; those of both are compared.
    fn contains(&self, name: &str, other: &Part) -> Range {
        let address = Range { min: 4, max: 16 };
        let mut cost = address.plus(address).scaled(TRAVERSAL);
        if name == "containsCIDR" {
            cost = cost.plus(address.scaled(TRAVERSAL)).plus(Range::exactly(1));
        }
        if matches!(self.form, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
            cost = cost.plus(self.sized(other).scaled(TRAVERSAL));
        }
        cost
    }

    fn equal(&self, left: &Part) -> Option<Estimate> {
        let right = self.args.get(1)?;
        if left.of != right.of {
            return None;
        }
        let name = match &left.of {
            Type::Object(name) | Type::Opaque(name, _) => &**name,
            _ => return None,
        };
        let max = match name {
            "net.IP"
            | "net.CIDR"
            | "kubernetes.Quantity"
            | "kubernetes.Semver"
            | "kubernetes.authorization.Authorizer"
            | "kubernetes.authorization.PathCheck"
            | "kubernetes.authorization.GroupCheck"
            | "kubernetes.authorization.ResourceCheck"
            | "kubernetes.authorization.Decision" => {
                return Some(Range::exactly(1).into());
            }
            "kubernetes.NamedFormat" => FORMAT_SIZE_MAX,
            "kubernetes.URL" => right.size.map_or(1, |size| size.max),
            _ => return None,
        };
        Some(Range { min: 1, max }.scaled(TRAVERSAL).into())
    }

    /// The operators that do not evaluate all their arguments.
    fn lazy(&mut self) -> Option<Estimate> {
        match (self.form, self.costs, self.args) {
            ("logical_or" | "logical_and", [left, right], _) => {
                Some(Range { min: left.min, max: left.plus(*right).max }.into())
            }
            ("conditional", [condition, yes, no], [_, yes_part, no_part]) => {
                let size = self.size(yes_part).union(self.size(no_part));
                let entries = yes_part.entries.zip(no_part.entries);
                self.estimator.set_entries(self.id, entries.map(|(yes, no)| yes.union(no)));
                Some(Estimate::sized(condition.plus(yes.union(*no)), size))
            }
            _ => None,
        }
    }

    fn standard(&mut self) -> Option<Estimate> {
        Some(match (self.form, self.target, self.args) {
            ("string_format", Some(text), _) => self.size(text).scaled(TRAVERSAL).into(),
            ("string_to_bytes", _, [text]) => {
                let size = self.size(text);
                // A code point is four bytes at most.
                let bytes = Range { min: size.min, max: size.max.saturating_mul(4) };
                Estimate::sized(size.scaled(TRAVERSAL), bytes)
            }
            ("bytes_to_string", _, [bytes]) => {
                let size = self.size(bytes);
                let text = Range { min: size.min / 4, max: size.max };
                Estimate::sized(size.scaled(TRAVERSAL), text)
            }
            ("strings_quote", _, [text]) => {
                let size = self.size(text);
                let quoted = size.plus(Range { min: 2, max: size.max.saturating_add(2) });
                Estimate::sized(size.scaled(TRAVERSAL), quoted)
            }
            ("starts_with_string" | "ends_with_string", _, [part]) => {
                self.size(part).scaled(TRAVERSAL).into()
            }
            ("in_list", _, [_, list]) => self.size(list).into(),
            ("matches_string", Some(text), [pattern]) => {
                let text = self.size(text).plus(Range::exactly(1)).scaled(TRAVERSAL);
                text.times(self.size(pattern).scaled(PATTERN)).into()
            }
            ("contains_string", Some(text), [part]) => {
                let text = self.size(text).scaled(TRAVERSAL);
                text.times(self.size(part).scaled(TRAVERSAL)).into()
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => self.add(left, right),
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                [left, right],
            ) => {
                let max = self.size(left).max.min(self.size(right).max);
                Range { min: max.min(1), max }.scaled(TRAVERSAL).into()
            }
            _ => return None,
        })
    }

    fn add(&mut self, left: &Part, right: &Part) -> Estimate {
        let size = self.size(left).plus(self.size(right));
        let entries = left.entries.zip(right.entries);
        self.estimator.set_entries(self.id, entries.map(|(left, right)| left.union(right)));
        let cost = match self.form {
            "add_list" => Range::exactly(1),
            _ => size.scaled(TRAVERSAL),
        };
        Estimate::sized(cost, size)
    }
}

/// The size of a string in which a part was replaced everywhere.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let mut count = Range::default();
    let mut kept = Range::default();
    if old.min == 0 {
        // An empty part is found before and behind each code point.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = (text.max as f64 / old.min as f64).ceil() as u64;
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = (text.min as f64 / old.max as f64).ceil() as u64;
    }
    count.times(new).plus(kept)
}
