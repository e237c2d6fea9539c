//! Programs and their evaluation.
//!
//! An expression that was checked becomes a tree of steps, as upstream plans one: chains of fields
//! and indexes are one step, what is constant is computed once, and membership in a constant list
//! is looked up. What upstream's observer counts is counted here.
//!
//! Source: cel-go `interpreter/planner.go`, `interpretable.go`, `attributes.go`, `decorators.go`.

mod attribute;
mod bindings;
mod call;
mod context;
mod fold;
mod machine;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use bindings::{Bindings, Variables};
pub use context::Context;
pub(crate) use machine::evaluate;
pub(crate) use plan::{Plan, plan};

use crate::function::Overload;
use crate::value::{Key, Text, Value};

/// A step of an evaluation.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Constant(Value<'static>),
    Attribute(Box<Attribute>),
    Call(Box<Call>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// `a.or(b)` and `a.orValue(b)` of optionals.
    OptionalOr(Box<[Node; 2]>, Otherwise),
    /// Whether a value is in a constant list of scalars.
    Member(Box<Node>, Arc<BTreeSet<Key<'static>>>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Fold(Box<Fold>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    Optional,
    Value,
}

/// A variable or another value, and a chain of fields and indexes.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) root: Root,
    pub(crate) steps: Vec<Step>,
    /// Whether the last step only asks if it could be taken.
    pub(crate) test: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// A variable of the environment.
    Variable(Arc<str>),
    /// A variable of a fold.
    Local(usize),
    Node(Node),
    Conditional(Node, Branch, Branch),
}

/// A side of `?:`. Of an attribute there, the root is free.
#[derive(Clone, Debug)]
pub(crate) enum Branch {
    Attribute(Box<Attribute>),
    Node(Node),
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) key: StepKey,
    /// Whether it is no failure if the step cannot be taken.
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum StepKey {
    Field(Text<'static>),
    Constant(Value<'static>),
    Branch(Branch),
}

/// A call of a function that evaluates all its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: Arc<str>,
    /// The forms that the checker left; the arguments choose.
    pub(crate) forms: Vec<Arc<Overload>>,
    pub(crate) args: Vec<Node>,
    /// Whether it puts something at the end of what the innermost fold collects: that is taken
    /// out of its variable, so that it need not be copied.
    pub(crate) collects: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) value: Node,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Node,
    pub(crate) value: Node,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(Arc<str>, Element)>,
}

/// A comprehension. Its variables are numbered from `slot` on: what it collects, the variable,
/// and the second one.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) slot: usize,
    pub(crate) range: Node,
    pub(crate) start: Node,
    pub(crate) two: bool,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}
