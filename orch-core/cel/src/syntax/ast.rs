//! Expressions as they were written, with the macros expanded.

use std::sync::Arc;

/// The number of a node; positions and types are kept by it.
pub(crate) type Id = usize;

/// A node of an expression.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) id: Id,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select { operand: Box<Expr>, field: String, test: bool },
    Call { target: Option<Box<Expr>>, function: String, args: Vec<Expr> },
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct { name: String, fields: Vec<Field> },
    Fold(Box<Fold>),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// An element of a list; an optional one may be absent.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// An entry of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A field of an object that is built.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) id: Id,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A comprehension: what the macros `all`, `map` and their kin become.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) variable: String,
    pub(crate) second: Option<String>,
    pub(crate) accumulator: String,
    pub(crate) start: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Fold {
    /// Whether it only gives a name to a value, as `optMap` does.
    pub(crate) fn is_binding(&self) -> bool {
        matches!(&self.range.kind, Kind::List(elements) if elements.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && self.accumulator != super::macros::ACCUMULATOR
    }
}

/// More nodes than these are refused. The text is bounded too; macros copy.
const NODES_MAX: usize = 100_000;
/// A deeper expression is refused, so that walking through one never runs out of stack.
///
/// Source: cel-go `parser/parser.go` (`maxRecursionDepth`). Differs: it counts what its grammar
/// nests, we count nodes.
pub(crate) const DEPTH_MAX: usize = 250;

/// The nodes that were made: where each is, and how deep the expression below it.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    offsets: Vec<usize>,
    depths: Vec<usize>,
    too_deep: bool,
}

impl Nodes {
    /// Makes a node.
    pub(crate) fn add(&mut self, offset: usize, kind: Kind) -> Expr {
        let depth = 1 + self.depth_below(&kind);
        self.too_deep |= depth > DEPTH_MAX;
        self.offsets.push(offset);
        self.depths.push(depth);
        Expr { id: self.offsets.len() - 1, kind }
    }

    /// Makes a number for what is no expression but has a place.
    pub(crate) fn place(&mut self, offset: usize) -> Id {
        self.offsets.push(offset);
        self.depths.push(0);
        self.offsets.len() - 1
    }

    /// Where a node is, in code points.
    pub(crate) fn offset(&self, id: Id) -> usize {
        self.offsets[id]
    }

    /// Whether a node is deeper than may be.
    pub(crate) fn too_deep(&self) -> bool {
        self.too_deep
    }

    /// Whether there are more nodes than may be.
    pub(crate) fn exhausted(&self) -> bool {
        self.offsets.len() > NODES_MAX
    }

    pub(crate) fn into_offsets(self) -> Vec<usize> {
        self.offsets
    }

    fn depth_below(&self, kind: &Kind) -> usize {
        let depth = |expr: &Expr| self.depths[expr.id];
        match kind {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => depth(operand),
            Kind::Call { target, args, .. } => {
                let target = target.as_deref().map_or(0, depth);
                args.iter().map(depth).fold(target, usize::max)
            }
            Kind::List(elements) => elements.iter().map(|e| depth(&e.value)).fold(0, usize::max),
            Kind::Map(entries) => {
                entries.iter().map(|e| depth(&e.key).max(depth(&e.value))).fold(0, usize::max)
            }
            Kind::Struct { fields, .. } => {
                fields.iter().map(|field| depth(&field.value)).fold(0, usize::max)
            }
            Kind::Fold(fold) => {
                let parts = [&fold.range, &fold.start, &fold.condition, &fold.step, &fold.result];
                parts.into_iter().map(depth).fold(0, usize::max)
            }
        }
    }
}

/// A whole expression and where its nodes are.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub(crate) root: Expr,
    /// By node: the offset in the source, in code points.
    pub(crate) offsets: Vec<usize>,
}

impl Expr {
    /// `a.b.c` as one name, if it is nothing but names.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, test: false } => {
                Some(format!("{}.{field}", operand.qualified_name()?))
            }
            _ => None,
        }
    }
}
