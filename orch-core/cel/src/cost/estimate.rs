//! What an expression can cost, before it runs.
//!
//! Source: cel-go `checker/cost.go`.

use std::collections::HashMap;

use super::estimated_calls::{Estimate, Part, call};
use super::range::Range;
use super::{CREATE_LIST, CREATE_MAP, CREATE_STRUCT, SELECT};
use crate::check::{Checked, Reference};
use crate::declared::{Declared, Shape};
use crate::syntax::ACCUMULATOR;
use crate::syntax::ast::{Ast, Expr, Fold, Id, Kind, Literal};
use crate::types::Type;

/// How large the values of variables can be.
pub trait Sizes {
    /// The size of what a path leads to, if anything is known of it: in code points, bytes,
    /// elements or entries. The path begins with a variable; what follows are names of fields
    /// and `@items`, `@indices`, `@keys` and `@values` for what lists and maps hold.
    fn size(&self, path: &[String]) -> Option<Range>;
}

/// Nothing is known.
impl Sizes for () {
    fn size(&self, _: &[String]) -> Option<Range> {
        None
    }
}

/// The sizes that a declaration states. It is taken for the declaration of every variable, as
/// upstream takes that of `self` for `oldSelf` too.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredSizes<'d>(pub &'d Declared);

impl Sizes for DeclaredSizes<'_> {
    fn size(&self, path: &[String]) -> Option<Range> {
        let mut at = self.0;
        let mut steps = path.get(1..)?.iter();
        while let Some(step) = steps.next() {
            if step == "@keys" && matches!(at.shape(), Shape::Map(_)) {
                // Nothing bounds the keys, and upstream takes them for empty.
                return steps.next().is_none().then_some(Range::exactly(0));
            }
            at = at.step(step)?;
        }
        Some(Range { min: 0, max: at.elements_max() })
    }
}

/// The sizes of the keys and values of a list or map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    pub(super) fn union(self, other: Self) -> Self {
        let (key, value) = (self.key.union(other.key), self.value.union(other.value));
        Self { is_list: self.is_list, key, value }
    }
}

struct Local {
    path: Vec<String>,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// The least and the most that an expression can cost.
pub(crate) fn estimate(ast: &Ast, checked: &Checked, sizes: &dyn Sizes) -> Range {
    let mut estimator = Estimator {
        checked,
        sizes,
        paths: HashMap::new(),
        locals: HashMap::new(),
        known: HashMap::new(),
        entries: HashMap::new(),
    };
    estimator.cost(&ast.root)
}

pub(super) struct Estimator<'e> {
    checked: &'e Checked,
    sizes: &'e dyn Sizes,
    paths: HashMap<Id, Vec<String>>,
    locals: HashMap<String, Vec<Local>>,
    known: HashMap<Id, Range>,
    entries: HashMap<Id, Entries>,
}

impl Estimator<'_> {
    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::exactly(0),
            Kind::Ident(name) => {
                let local = self.local(name).map(|local| local.path.clone());
                self.paths.insert(expr.id, local.unwrap_or_else(|| vec![name.clone()]));
                Range::exactly(SELECT)
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => self.select(expr, operand, field),
            Kind::Call { target, function, args } => {
                self.call(expr, target.as_deref(), function, args)
            }
            Kind::List(elements) => {
                let values: Vec<&Expr> = elements.iter().map(|e| &e.value).collect();
                let cost = self.costs(&values);
                let entries =
                    Entries { is_list: true, key: Range::exactly(1), value: self.union(&values) };
                self.entries.insert(expr.id, entries);
                cost.plus(Range::exactly(CREATE_LIST))
            }
            Kind::Map(map) => {
                let keys: Vec<&Expr> = map.iter().map(|entry| &entry.key).collect();
                let values: Vec<&Expr> = map.iter().map(|entry| &entry.value).collect();
                let cost = self.costs(&keys).plus(self.costs(&values));
                let (key, value) = (self.union(&keys), self.union(&values));
                self.entries.insert(expr.id, Entries { is_list: false, key, value });
                cost.plus(Range::exactly(CREATE_MAP))
            }
            Kind::Struct { fields, .. } => {
                let values: Vec<&Expr> = fields.iter().map(|field| &field.value).collect();
                self.costs(&values).plus(Range::exactly(CREATE_STRUCT))
            }
            Kind::Fold(fold) if fold.is_binding() => self.binding(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn costs(&mut self, parts: &[&Expr]) -> Range {
        parts.iter().fold(Range::default(), |sum, part| sum.plus(self.cost(part)))
    }

    /// The sizes of all of them; of none at all it is 0.
    fn union(&mut self, parts: &[&Expr]) -> Range {
        if parts.is_empty() {
            return Range::default();
        }
        parts.iter().fold(Range::NONE, |all, part| all.union(self.size_or_unknown(part)))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str) -> Range {
        if matches!(self.checked.references.get(&expr.id), Some(Reference::Name(_))) {
            // `a.b` is one name.
            let path = expr.qualified_name().into_iter().collect();
            self.paths.insert(expr.id, path);
            return Range::exactly(SELECT);
        }
        let mut cost = self.cost(operand);
        if matches!(
            self.checked.type_of(operand.id),
            Type::Map(..) | Type::Object(_) | Type::Param(_)
        ) {
            cost = cost.plus(Range::exactly(SELECT));
        }
        self.extend_path(expr.id, operand, field);
        cost
    }

    fn extend_path(&mut self, id: Id, operand: &Expr, step: &str) {
        let mut path = self.path(operand);
        path.push(step.to_owned());
        self.paths.insert(id, path);
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Range {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg);
            self.copy_sizes(expr.id, arg);
            return cost.plus(Range::exactly(1));
        }
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let parts: Vec<Part> = args.iter().map(|arg| self.part(arg)).collect();
        let Some(reference) = self.checked.references.get(&expr.id) else {
            return Range::default();
        };
        let (forms, optional) = match reference {
            Reference::Overloads(forms) => (forms.as_slice(), false),
            Reference::OptionalField => (&[][..], true),
            Reference::Name(_) => return Range::default(),
        };
        // The receiver of a method; of a function with a dotted name it is a part of the name.
        let target = target.filter(|_| forms.iter().any(|form| form.is_member()));
        let mut sum = Range::default();
        let target = target.map(|target| {
            sum = self.cost(target);
            self.part(target)
        });
        let mut cost = Range::NONE;
        let mut size: Option<Range> = None;
        if optional {
            cost = costs.iter().fold(Range::exactly(1), |sum, cost| sum.plus(*cost));
        }
        for form in forms {
            let name = full_name(function, expr, form.is_member());
            let found = call(self, expr.id, &name, form, target.as_ref(), &parts, &costs);
            cost = cost.union(found.cost);
            size = match (size, found.size) {
                (Some(size), Some(other)) => Some(size.union(other)),
                (size, other) => size.or(other),
            };
            self.index(expr, form.id(), args, &mut size);
        }
        if let Some(size) = size {
            self.known.insert(expr.id, size);
        }
        sum.plus(cost)
    }

    /// Where an index leads, and how large what is there is.
    fn index(&mut self, expr: &Expr, id: &str, args: &[Expr], size: &mut Option<Range>) {
        let step = match id {
            "index_list" => "@items",
            "index_map" => "@values",
            _ => {
                *size = size.or_else(|| self.size(expr));
                return;
            }
        };
        if let Some(operand) = args.first() {
            *size = self.entries_of(operand).map(|entries| entries.value);
            self.extend_path(expr.id, operand, step);
        }
        *size = size.or_else(|| self.size(expr));
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.start));
        self.push(&fold.accumulator, &fold.start);
        let entries = self.entries_of(&fold.range);
        let is_list = match entries {
            Some(entries) => entries.is_list,
            None => matches!(self.checked.type_of(fold.range.id), Type::List(_)),
        };
        let first = match (&fold.second, is_list) {
            (Some(_), true) => "@indices",
            (None, true) => "@items",
            (_, false) => "@keys",
        };
        let (key, value) = (entries.map(|e| e.key), entries.map(|e| e.value));
        let first_size = if first == "@items" { value } else { key };
        self.push_step(&fold.variable, &fold.range, first, first_size);
        if let Some(name) = &fold.second {
            let step = if is_list { "@items" } else { "@values" };
            self.push_step(name, &fold.range, step, value);
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.pop(&fold.variable);
        if let Some(name) = &fold.second {
            self.pop(name);
        }
        sum = sum.plus(self.cost(&fold.result));
        self.pop(&fold.accumulator);
        let rounds = self.size_or_unknown(&fold.range);
        sum = sum.plus(rounds.times(step.plus(condition)));
        match &fold.start.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.start) {
                    self.known.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.known.insert(expr.id, rounds);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn binding(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.start));
        self.push(&fold.accumulator, &fold.start);
        let sum = sum.plus(self.cost(&fold.result));
        self.pop(&fold.accumulator);
        self.copy_sizes(expr.id, &fold.result);
        sum
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name).and_then(|locals| locals.last())
    }

    fn push(&mut self, name: &str, start: &Expr) {
        let (path, entries) = (self.path(start), self.entries_of(start));
        let size = self.size(start);
        self.locals.entry(name.to_owned()).or_default().push(Local { path, size, entries });
    }

    fn push_step(&mut self, name: &str, range: &Expr, step: &str, size: Option<Range>) {
        let mut path = self.path(range);
        path.push(step.to_owned());
        let local = Local { path, size, entries: None };
        self.locals.entry(name.to_owned()).or_default().push(local);
    }

    fn pop(&mut self, name: &str) {
        if let Some(locals) = self.locals.get_mut(name) {
            locals.pop();
        }
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn part(&mut self, expr: &Expr) -> Part {
        let mut path = self.path(expr);
        if path.first().is_some_and(|first| first == ACCUMULATOR) {
            path.clear();
        }
        let literal = match &expr.kind {
            Kind::Literal(Literal::Int(value)) => Some(*value),
            _ => None,
        };
        let (of, entries) = (self.checked.type_of(expr.id).clone(), self.entries_of(expr));
        Part { path, of, size: self.size(expr), entries, literal }
    }

    pub(super) fn declared_size(&self, path: &[String]) -> Option<Range> {
        if path.is_empty() { None } else { self.sizes.size(path) }
    }

    fn copy_sizes(&mut self, to: Id, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.known.insert(to, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to, entries);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(known) = self.known.get(&expr.id) {
            return Some(*known);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Range::exactly(size));
        }
        if let Some(size) = self.declared_size(&self.path(expr)) {
            self.known.insert(expr.id, size);
            return Some(size);
        }
        if self.checked.type_of(expr.id).is_scalar() {
            return Some(Range::exactly(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        if let Some(known) = self.entries.get(&expr.id) {
            return Some(*known);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    pub(super) fn set_entries(&mut self, id: Id, entries: Option<Entries>) {
        if let Some(entries) = entries {
            self.entries.insert(id, entries);
        }
    }
}

/// A function of a dotted name is written as a method of the name before the dot.
fn full_name(function: &str, expr: &Expr, member: bool) -> String {
    match &expr.kind {
        Kind::Call { target: Some(target), .. } if !member => match target.qualified_name() {
            Some(prefix) => format!("{prefix}.{function}"),
            None => function.to_owned(),
        },
        _ => function.to_owned(),
    }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}

impl From<Range> for Estimate {
    fn from(cost: Range) -> Self {
        Self { cost, size: None }
    }
}
