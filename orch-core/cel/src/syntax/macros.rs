//! The macros: what `has`, `all`, `map` and their kin become.
//!
//! Source: cel-go `parser/macro.go`, `ext/comprehensions.go`, `ext/lists.go` (`sortBy`) and
//! `cel/library.go` (`optMap`).

use super::ast::{Element, Entry, Expr, Field, Fold, Id, Kind, Literal, Nodes};

/// The name of the variable that a fold collects its result in; no identifier can be it.
pub(crate) const ACCUMULATOR: &str = "@result";
/// The name that it had in older versions, which may not be used either.
const OLD_ACCUMULATOR: &str = "__result__";
/// The variable of a fold over nothing.
const UNUSED: &str = "#unused";

/// The name of the list that is sorted.
const SORTED: &str = "@__sortBy_input__";

/// Why a macro cannot be expanded: the node to point at, and the message.
pub(super) type Refusal = (Id, String);

/// Makes nodes; the positions of all of them are where the macro is.
pub(super) struct Maker<'p> {
    pub(super) nodes: &'p mut Nodes,
    pub(super) offset: usize,
}

impl Maker<'_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.nodes.add(self.offset, kind)
    }

    fn literal(&mut self, value: Literal) -> Expr {
        self.node(Kind::Literal(value))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.to_owned()))
    }

    fn result(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { target: None, function: function.to_owned(), args })
    }

    fn member(&mut self, function: &str, target: Expr) -> Expr {
        let target = Some(Box::new(target));
        self.node(Kind::Call { target, function: function.to_owned(), args: Vec::new() })
    }

    fn list(&mut self, values: Vec<Expr>) -> Expr {
        let elements = values.into_iter().map(|value| Element { value, optional: false });
        self.node(Kind::List(elements.collect()))
    }

    /// The same expression again, with nodes of its own. Copies of copies would grow without
    /// bound: past the limit on nodes, which the parser reports, nothing more is copied.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let offset = self.nodes.offset(expr.id);
        if self.nodes.exhausted() {
            return self.nodes.add(offset, Kind::Literal(Literal::Null));
        }
        let kind = match &expr.kind {
            Kind::Literal(value) => Kind::Literal(value.clone()),
            Kind::Ident(name) => Kind::Ident(name.clone()),
            Kind::Select { operand, field, test } => Kind::Select {
                operand: Box::new(self.copy(operand)),
                field: field.clone(),
                test: *test,
            },
            Kind::Call { target, function, args } => Kind::Call {
                target: target.as_ref().map(|target| Box::new(self.copy(target))),
                function: function.clone(),
                args: args.iter().map(|arg| self.copy(arg)).collect(),
            },
            Kind::List(elements) => {
                let copied = elements.iter();
                let copied = copied.map(|e| Element { value: self.copy(&e.value), ..*e });
                Kind::List(copied.collect())
            }
            Kind::Map(entries) => Kind::Map(entries.iter().map(|e| self.copy_entry(e)).collect()),
            Kind::Struct { name, fields } => Kind::Struct {
                name: name.clone(),
                fields: fields.iter().map(|field| self.copy_field(field)).collect(),
            },
            Kind::Fold(fold) => Kind::Fold(Box::new(self.copy_fold(fold))),
        };
        self.nodes.add(offset, kind)
    }

    fn copy_entry(&mut self, entry: &Entry) -> Entry {
        let key = self.copy(&entry.key);
        Entry { key, value: self.copy(&entry.value), optional: entry.optional }
    }

    fn copy_field(&mut self, field: &Field) -> Field {
        let value = self.copy(&field.value);
        let id = self.nodes.place(self.nodes.offset(field.id));
        Field { id, name: field.name.clone(), value, optional: field.optional }
    }

    fn copy_fold(&mut self, fold: &Fold) -> Fold {
        Fold {
            range: self.copy(&fold.range),
            variable: fold.variable.clone(),
            second: fold.second.clone(),
            accumulator: fold.accumulator.clone(),
            start: self.copy(&fold.start),
            condition: self.copy(&fold.condition),
            step: self.copy(&fold.step),
            result: self.copy(&fold.result),
        }
    }
}

/// What a macro with a receiver becomes, given its name, the receiver and the arguments.
pub(super) type Expansion = fn(&mut Maker<'_>, &str, Expr, Vec<Expr>) -> Result<Expr, Refusal>;

/// The macro with a receiver of this name and number of arguments.
pub(super) fn of_receiver(function: &str, count: usize) -> Option<Expansion> {
    Some(match (function, count) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => quantifier,
        ("map", 2 | 3) | ("filter", 2) => mapping,
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => transformation,
        ("optMap" | "optFlatMap", 2) => optional,
        ("sortBy", 2) => sort_by,
        _ => return None,
    })
}

/// `has(a.b)`, the only macro without a receiver.
pub(super) fn has(maker: &mut Maker<'_>, argument: Expr) -> Result<Expr, Refusal> {
    match argument.kind {
        Kind::Select { operand, field, .. } => {
            Ok(maker.node(Kind::Select { operand, field, test: true }))
        }
        _ => Err((argument.id, "invalid argument to has() macro".to_owned())),
    }
}

/// Takes the variables of a fold off the arguments.
fn variables(
    args: &mut Vec<Expr>,
    count: usize,
    complaint: &str,
) -> Result<(String, Option<String>), Refusal> {
    let mut names = Vec::with_capacity(count);
    for arg in args.drain(..count) {
        let Kind::Ident(name) = arg.kind else { return Err((arg.id, complaint.to_owned())) };
        names.push((arg.id, name));
    }
    if count == 2 && names[0].1 == names[1].1 {
        return Err((names[1].0, format!("duplicate variable name: {}", names[0].1)));
    }
    for (id, name) in &names {
        if name == ACCUMULATOR || name == OLD_ACCUMULATOR {
            let message = "iteration variable overwrites accumulator variable";
            return Err((*id, message.to_owned()));
        }
    }
    let mut names = names.into_iter().map(|(_, name)| name);
    Ok((names.next().unwrap_or_default(), names.next()))
}

fn quantifier(
    maker: &mut Maker<'_>,
    function: &str,
    range: Expr,
    mut args: Vec<Expr>,
) -> Result<Expr, Refusal> {
    let count = args.len() - 1;
    let (variable, second) = variables(&mut args, count, "argument must be a simple name")?;
    let predicate = args.remove(0);
    let (start, condition, step, result) = match function {
        "all" => {
            let start = maker.literal(Literal::Bool(true));
            let result = maker.result();
            let condition = maker.call("@not_strictly_false", vec![result]);
            let result = maker.result();
            let step = maker.call("_&&_", vec![result, predicate]);
            (start, condition, step, maker.result())
        }
        "exists" => {
            let start = maker.literal(Literal::Bool(false));
            let result = maker.result();
            let negated = maker.call("!_", vec![result]);
            let condition = maker.call("@not_strictly_false", vec![negated]);
            let result = maker.result();
            let step = maker.call("_||_", vec![result, predicate]);
            (start, condition, step, maker.result())
        }
        _ => {
            let start = maker.literal(Literal::Int(0));
            let condition = maker.literal(Literal::Bool(true));
            let (result, one) = (maker.result(), maker.literal(Literal::Int(1)));
            let more = maker.call("_+_", vec![result, one]);
            let same = maker.result();
            let step = maker.call("_?_:_", vec![predicate, more, same]);
            let (result, one) = (maker.result(), maker.literal(Literal::Int(1)));
            (start, condition, step, maker.call("_==_", vec![result, one]))
        }
    };
    let accumulator = ACCUMULATOR.to_owned();
    let fold = Fold { range, variable, second, accumulator, start, condition, step, result };
    Ok(maker.node(Kind::Fold(Box::new(fold))))
}

/// A fold that collects; `step` is taken only where the filter holds.
fn collecting(
    maker: &mut Maker<'_>,
    range: Expr,
    (variable, second): (String, Option<String>),
    (start, filter, step): (Expr, Option<Expr>, Expr),
) -> Expr {
    let condition = maker.literal(Literal::Bool(true));
    let step = match filter {
        Some(filter) => {
            let same = maker.result();
            maker.call("_?_:_", vec![filter, step, same])
        }
        None => step,
    };
    let (accumulator, result) = (ACCUMULATOR.to_owned(), maker.result());
    let fold = Fold { range, variable, second, accumulator, start, condition, step, result };
    maker.node(Kind::Fold(Box::new(fold)))
}

/// `@result + [value]`.
fn appending(maker: &mut Maker<'_>, value: Expr) -> Expr {
    let result = maker.result();
    let list = maker.list(vec![value]);
    maker.call("_+_", vec![result, list])
}

fn mapping(
    maker: &mut Maker<'_>,
    function: &str,
    range: Expr,
    mut args: Vec<Expr>,
) -> Result<Expr, Refusal> {
    let names = variables(&mut args, 1, "argument is not an identifier")?;
    let last = args.pop();
    let (filter, value) = match (function, last) {
        ("filter", predicate) => (predicate, maker.ident(&names.0)),
        (_, Some(value)) => (args.pop(), value),
        (_, None) => unreachable!("the number of arguments was matched"),
    };
    let start = maker.list(Vec::new());
    let step = appending(maker, value);
    Ok(collecting(maker, range, names, (start, filter, step)))
}

fn transformation(
    maker: &mut Maker<'_>,
    function: &str,
    range: Expr,
    mut args: Vec<Expr>,
) -> Result<Expr, Refusal> {
    let names = variables(&mut args, 2, "argument must be a simple name")?;
    let value = args.remove(args.len() - 1);
    let filter = args.pop();
    let (start, step) = match function {
        "transformList" => (maker.list(Vec::new()), appending(maker, value)),
        "transformMap" => {
            let (result, key) = (maker.result(), maker.ident(&names.0));
            let step = maker.call("cel.@mapInsert", vec![result, key, value]);
            (maker.node(Kind::Map(Vec::new())), step)
        }
        _ => {
            let result = maker.result();
            let step = maker.call("cel.@mapInsert", vec![result, value]);
            (maker.node(Kind::Map(Vec::new())), step)
        }
    };
    Ok(collecting(maker, range, names, (start, filter, step)))
}

/// `optMap` and `optFlatMap`: a fold over nothing gives the value its name.
fn optional(
    maker: &mut Maker<'_>,
    function: &str,
    target: Expr,
    mut args: Vec<Expr>,
) -> Result<Expr, Refusal> {
    let mapped = args.remove(1);
    let Kind::Ident(name) = &args[0].kind else {
        let message = format!("{function}() variable name must be a simple identifier");
        return Err((args[0].id, message));
    };
    let copy = maker.copy(&target);
    let present = maker.member("hasValue", target);
    let fold = Fold {
        range: maker.list(Vec::new()),
        variable: UNUSED.to_owned(),
        second: None,
        accumulator: name.clone(),
        start: maker.member("value", copy),
        condition: maker.literal(Literal::Bool(false)),
        step: maker.ident(name),
        result: mapped,
    };
    let mut value = maker.node(Kind::Fold(Box::new(fold)));
    if function == "optMap" {
        value = maker.call("optional.of", vec![value]);
    }
    let none = maker.call("optional.none", Vec::new());
    Ok(maker.call("_?_:_", vec![present, value, none]))
}

/// `sortBy`: the list gets a name, and is sorted by what becomes of its elements.
fn sort_by(maker: &mut Maker<'_>, _: &str, target: Expr, args: Vec<Expr>) -> Result<Expr, Refusal> {
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or \
                       select expression";
        return Err((target.id, message.to_owned()));
    }
    let range = maker.ident(SORTED);
    let keys = mapping(maker, "map", range, args)?;
    let list = maker.ident(SORTED);
    let call = Kind::Call {
        target: Some(Box::new(list)),
        function: "@sortByAssociatedKeys".to_owned(),
        args: vec![keys],
    };
    let fold = Fold {
        range: maker.list(Vec::new()),
        variable: UNUSED.to_owned(),
        second: None,
        accumulator: SORTED.to_owned(),
        start: target,
        condition: maker.literal(Literal::Bool(false)),
        step: maker.ident(SORTED),
        result: maker.node(call),
    };
    Ok(maker.node(Kind::Fold(Box::new(fold))))
}
