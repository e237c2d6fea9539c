//! From a checked expression to the steps of its evaluation.
//!
//! Source: cel-go `interpreter/planner.go`, `decorators.go` (`decOptimize`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::attribute::field_key;
use super::context::Patterns;
use super::machine::constant_list;
use super::{
    Attribute, Branch, Call, Context, Element, Entry, Fold, Node, Otherwise, Root, Step, StepKey,
    Struct,
};
use crate::check::{Checked, Reference, Scope};
use crate::error::Error;
use crate::function::Overload;
use crate::library::compile_pattern;
use crate::syntax::ACCUMULATOR;
use crate::syntax::ast::{self, Expr, Kind, Literal};
use crate::types::Type;
use crate::value::{Key, Map, Text, Value};

/// Functions of which a constant makes a constant.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// The steps of an evaluation, and the patterns that it has compiled.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    pub(crate) patterns: Patterns,
}

/// Plans an expression.
///
/// # Errors
///
/// [`Error::Failed`] if what is constant in it fails.
pub(crate) fn plan(root: &Expr, checked: &Checked, scope: &Scope) -> Result<Plan, Error> {
    let patterns = HashMap::new();
    let mut planner = Planner { checked, scope, locals: Vec::new(), patterns };
    let root = planner.node(root)?;
    Ok(Plan { root, patterns: planner.patterns })
}

struct Planner<'p> {
    checked: &'p Checked,
    scope: &'p Scope,
    /// The names of the variables of folds, three for each; `None` where one is not visible.
    locals: Vec<Option<String>>,
    patterns: Patterns,
}

type Planned<T> = Result<T, Error>;

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Planned<Node> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(Node::Constant(constant(literal))),
            Kind::Ident(name) => Ok(self.name(expr, name)),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, function, args } => {
                self.call(expr, target.as_deref(), function, args)
            }
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(expr, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn name(&self, expr: &Expr, name: &str) -> Node {
        let local = self.locals.iter().rposition(|local| local.as_deref() == Some(name));
        let root = match local {
            Some(slot) => Root::Local(slot),
            None => return self.global(expr, name),
        };
        Node::Attribute(Box::new(Attribute { root, steps: Vec::new(), test: false }))
    }

    /// A variable of the environment, or the name of a type.
    fn global(&self, expr: &Expr, name: &str) -> Node {
        let name = name.strip_prefix('.').unwrap_or(name);
        if !self.scope.variables.contains_key(name)
            && let Type::Type(Some(named)) = self.checked.type_of(expr.id)
        {
            return Node::Constant(Value::Type((**named).clone()));
        }
        let root = Root::Variable(name.into());
        Node::Attribute(Box::new(Attribute { root, steps: Vec::new(), test: false }))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Planned<Node> {
        if let Some(Reference::Name(name)) = self.checked.references.get(&expr.id) {
            return Ok(self.global(expr, name));
        }
        let step = Step { key: field_key(field), optional: false };
        let operand = self.node(operand)?;
        Ok(extended(operand, step, test))
    }

    fn call(
        &mut self,
        expr: &Expr,
        target: Option<&Expr>,
        function: &str,
        args: &[Expr],
    ) -> Planned<Node> {
        let forms: &[Arc<Overload>] = match self.checked.references.get(&expr.id) {
            Some(Reference::Overloads(forms)) => forms,
            _ => &[],
        };
        // The receiver of a function with a dotted name is a part of the name.
        let member = forms.iter().any(|form| form.is_member());
        let prefix = target.filter(|_| !member).and_then(Expr::qualified_name);
        let name = match prefix {
            Some(prefix) => format!("{prefix}.{function}"),
            None => function.to_owned(),
        };
        let name = name.strip_prefix('.').unwrap_or(&name);
        if let Some(slot) = self.collects(name, args) {
            return self.collecting(name, forms, args, slot);
        }
        let mut nodes = Vec::with_capacity(args.len() + 1);
        for part in target.filter(|_| member).into_iter().chain(args) {
            nodes.push(self.node(part)?);
        }
        self.special(name, forms, nodes)
    }

    /// The calls that are more than a function of their arguments.
    fn special(
        &mut self,
        name: &str,
        forms: &[Arc<Overload>],
        mut nodes: Vec<Node>,
    ) -> Planned<Node> {
        let only = match forms {
            [form] => form.id(),
            _ => "",
        };
        match (name, nodes.len()) {
            ("_&&_", 2) => return Ok(Node::And(pair(nodes))),
            ("_||_", 2) => return Ok(Node::Or(pair(nodes))),
            ("_?_:_", 3) => return Ok(conditional(nodes)),
            ("_[_]" | "_[?_]" | "_?._", 2) => {
                let index = nodes.remove(1);
                return Ok(indexed(nodes.remove(0), index, name != "_[_]"));
            }
            ("or", 2) if only == "optional_or_optional" => {
                return Ok(Node::OptionalOr(pair(nodes), Otherwise::Optional));
            }
            ("orValue", 2) if only == "optional_orValue_value" => {
                return Ok(Node::OptionalOr(pair(nodes), Otherwise::Value));
            }
            ("@in", 2) if only == "in_list" => {
                if let Some(set) = constant_set(&nodes[1]) {
                    if set.is_empty() {
                        return Ok(Node::Constant(Value::Bool(false)));
                    }
                    return Ok(Node::Member(Box::new(nodes.remove(0)), Arc::new(set)));
                }
            }
            ("matches" | "find" | "findAll", 2..) => self.constant_pattern(&nodes[1])?,
            _ if CONVERSIONS.contains(&name) => {
                if let [Node::Constant(value)] = &nodes[..] {
                    return converted(name, forms, value).map(Node::Constant);
                }
            }
            _ => {}
        }
        let forms = forms.to_vec();
        let call = Call { name: name.into(), forms, args: nodes, collects: None };
        Ok(Node::Call(Box::new(call)))
    }

    /// The place of what a fold collects, if the call puts something at its end.
    fn collects(&self, name: &str, args: &[Expr]) -> Option<usize> {
        let (Kind::Ident(first), [_, second, ..]) = (&args.first()?.kind, args) else {
            return None;
        };
        let appends = name == "_+_" && matches!(second.kind, Kind::List(_));
        if first != ACCUMULATOR || !appends && name != "cel.@mapInsert" {
            return None;
        }
        self.locals.iter().rposition(|local| local.as_deref() == Some(ACCUMULATOR))
    }

    fn collecting(
        &mut self,
        name: &str,
        forms: &[Arc<Overload>],
        args: &[Expr],
        slot: usize,
    ) -> Planned<Node> {
        let args = args.iter().map(|arg| self.node(arg)).collect::<Planned<_>>()?;
        let forms = forms.to_vec();
        Ok(Node::Call(Box::new(Call { name: name.into(), forms, args, collects: Some(slot) })))
    }

    fn constant_pattern(&mut self, node: &Node) -> Planned<()> {
        if let Node::Constant(Value::String(Text::Owned(pattern))) = node {
            let compiled = compile_pattern(pattern)?;
            self.patterns.insert(pattern.clone(), compiled);
        }
        Ok(())
    }

    fn list(&mut self, elements: &[ast::Element]) -> Planned<Node> {
        let mut planned = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.node(&element.value)?;
            planned.push(Element { value, optional: element.optional });
        }
        match constant_list(&planned) {
            Some(list) => list.map(Node::Constant),
            None => Ok(Node::List(planned)),
        }
    }

    fn map(&mut self, entries: &[ast::Entry]) -> Planned<Node> {
        let mut planned = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, value) = (self.node(&entry.key)?, self.node(&entry.value)?);
            planned.push(Entry { key, value, optional: entry.optional });
        }
        let constants: Option<Vec<_>> = planned
            .iter()
            .map(|entry| match (&entry.key, &entry.value, entry.optional) {
                (Node::Constant(key), Node::Constant(value), false) => {
                    Some((key.clone(), value.clone()))
                }
                _ => None,
            })
            .collect();
        match constants {
            Some(entries) => Ok(Node::Constant(Value::Map(Map::of(entries)?))),
            None => Ok(Node::Map(planned)),
        }
    }

    fn structure(&mut self, expr: &Expr, name: &str, fields: &[ast::Field]) -> Planned<Node> {
        let name = match self.checked.references.get(&expr.id) {
            Some(Reference::Name(name)) => name.as_str(),
            _ => name,
        };
        let mut planned = Vec::with_capacity(fields.len());
        for field in fields {
            let value = self.node(&field.value)?;
            let element = Element { value, optional: field.optional };
            planned.push((field.name.as_str().into(), element));
        }
        Ok(Node::Struct(Box::new(Struct { name: name.into(), fields: planned })))
    }

    fn fold(&mut self, fold: &ast::Fold) -> Planned<Node> {
        let slot = self.locals.len();
        let range = self.node(&fold.range)?;
        // What it begins with is computed late, when the places of its variables are taken, but
        // does not see them.
        self.locals.extend([None, None, None]);
        let start = self.node(&fold.start)?;
        self.locals[slot] = Some(fold.accumulator.clone());
        self.locals[slot + 1] = Some(fold.variable.clone());
        self.locals[slot + 2].clone_from(&fold.second);
        let condition = self.node(&fold.condition)?;
        let step = self.node(&fold.step)?;
        self.locals[slot + 1] = None;
        self.locals[slot + 2] = None;
        let result = self.node(&fold.result)?;
        self.locals.truncate(slot);
        let two = fold.second.is_some();
        Ok(Node::Fold(Box::new(Fold { slot, range, start, two, condition, step, result })))
    }
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Owned(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

fn pair(nodes: Vec<Node>) -> Box<[Node; 2]> {
    match <[Node; 2]>::try_from(nodes) {
        Ok(pair) => Box::new(pair),
        Err(_) => unreachable!("the number of arguments was matched"),
    }
}

/// A chain with one more step.
fn extended(operand: Node, step: Step, test: bool) -> Node {
    let mut attribute = match operand {
        Node::Attribute(attribute) if !attribute.test => attribute,
        other => Box::new(Attribute { root: Root::Node(other), steps: Vec::new(), test: false }),
    };
    attribute.steps.push(step);
    attribute.test = test;
    Node::Attribute(attribute)
}

fn indexed(operand: Node, index: Node, optional: bool) -> Node {
    let key = match index {
        Node::Constant(Value::String(name)) => StepKey::Field(name),
        Node::Constant(value) => StepKey::Constant(value),
        other => StepKey::Branch(branch(other)),
    };
    extended(operand, Step { key, optional }, false)
}

fn branch(node: Node) -> Branch {
    match node {
        Node::Attribute(attribute) => Branch::Attribute(attribute),
        other => Branch::Node(other),
    }
}

fn conditional(nodes: Vec<Node>) -> Node {
    let mut nodes = nodes.into_iter();
    let (Some(condition), Some(yes), Some(no)) = (nodes.next(), nodes.next(), nodes.next()) else {
        unreachable!("the number of arguments was matched");
    };
    let root = Root::Conditional(condition, branch(yes), branch(no));
    Node::Attribute(Box::new(Attribute { root, steps: Vec::new(), test: false }))
}

/// The elements of a constant list, if they are scalars.
fn constant_set(node: &Node) -> Option<BTreeSet<Key<'static>>> {
    let Node::Constant(Value::List(list)) = node else { return None };
    list.iter().map(|element| Key::of(&element.ok()?)).collect()
}

fn converted(
    name: &str,
    forms: &[Arc<Overload>],
    value: &Value<'static>,
) -> Result<Value<'static>, Error> {
    let args = [value.clone()];
    match forms.iter().find(|form| form.takes(&args)) {
        Some(form) => form.body().call(&mut Context::new(None, None), &args),
        None => Err(Error::failed(format!("no such overload: {name}"))),
    }
}
