//! Taking the steps, and counting what they cost.

use std::collections::BTreeMap;

use super::{Bindings, Context, Element, Entry, Node, Otherwise, Plan, Struct};
use crate::cost::{CREATE_LIST, CREATE_MAP, CREATE_STRUCT};
use crate::error::Error;
use crate::library::Authorize;
use crate::value::{Key, Map, Value};

/// What a step gives.
pub(super) type Outcome<'a> = Result<Value<'a>, Error>;

/// The variable of a fold.
#[derive(Debug)]
pub(super) enum Slot<'a, 'p> {
    Value(Value<'a>),
    /// Computed when it is first asked for.
    Later(&'p Node),
    Failed(Error),
}

/// One evaluation.
pub(super) struct Machine<'p, 'a, 'e> {
    pub(super) bindings: &'e dyn Bindings<'a>,
    pub(super) slots: Vec<Slot<'a, 'p>>,
    pub(super) context: Context<'e>,
    cost: u64,
    limit: u64,
}

/// Evaluates a plan; gives the value and what it cost.
pub(crate) fn evaluate<'a>(
    plan: &Plan,
    bindings: &dyn Bindings<'a>,
    authorizer: Option<&dyn Authorize>,
    limit: u64,
) -> (Result<Value<'a>, Error>, u64) {
    let context = Context::new(Some(&plan.patterns), authorizer);
    let mut machine = Machine { bindings, slots: Vec::new(), context, cost: 0, limit };
    let outcome = machine.node(&plan.root);
    (outcome, machine.cost)
}

impl<'p, 'a> Machine<'p, 'a, '_> {
    /// Counts what a step costs.
    pub(super) fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Error::CostLimit) } else { Ok(()) }
    }

    pub(super) fn node(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Attribute(attribute) => self.attribute(attribute),
            Node::Call(call) => self.call(call),
            Node::And(terms) => self.logical(terms, false),
            Node::Or(terms) => self.logical(terms, true),
            Node::OptionalOr(sides, otherwise) => self.optional_or(sides, *otherwise),
            Node::Member(needle, set) => {
                let needle = self.node(needle)?;
                Ok(Value::Bool(Key::of(&needle).is_some_and(|key| has(set, &key))))
            }
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Struct(structure) => self.structure(structure),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    /// `&&` and `||`: a side that decides makes up for a failure of the other.
    fn logical(&mut self, terms: &'p [Node; 2], decides: bool) -> Outcome<'a> {
        let mut failure = None;
        for term in terms {
            match self.node(term) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failure = failure.or_else(|| Some(Error::no_such_overload())),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(Value::Bool(!decides)),
        }
    }

    fn optional_or(&mut self, sides: &'p [Node; 2], otherwise: Otherwise) -> Outcome<'a> {
        match self.node(&sides[0])? {
            Value::Optional(Some(value)) if otherwise == Otherwise::Value => Ok((*value).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.node(&sides[1]),
            _ => Err(Error::no_such_overload()),
        }
    }

    /// The value of an element of a list; an optional one may be absent.
    fn element(&mut self, element: &'p Element) -> Result<Option<Value<'a>>, Error> {
        let value = self.node(&element.value)?;
        if !element.optional {
            return Ok(Some(value));
        }
        match value {
            Value::Optional(value) => Ok(value.map(|value| (*value).clone())),
            other => Err(Error::failed(format!(
                "cannot initialize optional list element from non-optional value {}",
                other.shown()
            ))),
        }
    }

    fn list(&mut self, elements: &'p [Element]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(elements.len());
        let mut failure = None;
        for element in elements {
            match self.element(element) {
                Ok(value) => values.extend(value),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.charge(CREATE_LIST)?;
        failure.map_or_else(|| Ok(Value::list(values)), Err)
    }

    fn map(&mut self, entries: &'p [Entry]) -> Outcome<'a> {
        let built = self.entries(entries);
        if let Err(error) = &built
            && error.is_fatal()
        {
            return built.map(Value::Map);
        }
        self.charge(CREATE_MAP)?;
        built.map(Value::Map)
    }

    fn entries(&mut self, entries: &'p [Entry]) -> Result<Map<'a>, Error> {
        let mut map = Map::empty();
        for entry in entries {
            let key = self.node(&entry.key)?;
            let value = match (self.node(&entry.value)?, entry.optional) {
                (value, false) => Some(value),
                (Value::Optional(value), true) => value.map(|value| (*value).clone()),
                (other, true) => return Err(not_optional(&key.shown(), &other)),
            };
            match value {
                Some(value) => {
                    map.insert(key, value)?;
                }
                None => map.remove(&key),
            }
        }
        Ok(map)
    }

    fn structure(&mut self, structure: &'p Struct) -> Outcome<'a> {
        let mut fields = BTreeMap::new();
        let mut failure = None;
        for (name, element) in &structure.fields {
            let value = self.node(&element.value);
            let value = match (value, element.optional) {
                (Ok(value), false) => Ok(Some(value)),
                (Ok(Value::Optional(value)), true) => Ok(value.map(|value| (*value).clone())),
                (Ok(other), true) => Err(not_optional(name, &other)),
                (Err(error), _) => Err(error),
            };
            match value {
                Ok(Some(value)) => {
                    fields.insert(name.clone(), value);
                }
                Ok(None) => {
                    fields.remove(name);
                }
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.charge(CREATE_STRUCT)?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Value::Map(Map::built(structure.name.clone(), fields))),
        }
    }
}

fn not_optional(key: &str, value: &Value<'_>) -> Error {
    let shown = value.shown();
    Error::failed(format!(
        "cannot initialize optional entry '{key}' from non-optional value {shown}"
    ))
}

/// A list of constants, if there is nothing else in it.
pub(super) fn constant_list(elements: &[Element]) -> Option<Result<Value<'static>, Error>> {
    let values: Option<Vec<_>> = elements
        .iter()
        .map(|element| match (&element.value, element.optional) {
            (Node::Constant(value), false) => Some(value.clone()),
            _ => None,
        })
        .collect();
    values.map(|values| Ok(Value::list(values)))
}

/// Sets of constants hold keys that live for ever; they are only compared.
fn has<'k>(set: &'k std::collections::BTreeSet<Key<'static>>, key: &'k Key<'k>) -> bool {
    let set: &std::collections::BTreeSet<Key<'k>> = set;
    set.contains(key)
}
