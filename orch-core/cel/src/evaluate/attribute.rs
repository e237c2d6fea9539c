//! Chains of fields and indexes.
//!
//! Source: cel-go `interpreter/attributes.go`.

use super::machine::{Machine, Outcome, Slot};
use super::{Attribute, Branch, Root, Step, StepKey};
use crate::cost::SELECT;
use crate::error::Error;
use crate::value::{Text, Value};

/// What came out of a chain: whether it was optional, and the value.
type Resolved<'a> = Result<Value<'a>, Error>;

impl<'p, 'a> Machine<'p, 'a, '_> {
    /// A chain where its value is asked for. Presence tests are not counted, and neither is `?:`.
    pub(super) fn attribute(&mut self, attribute: &'p Attribute) -> Outcome<'a> {
        let resolved = self.resolve(attribute);
        if let Err(error) = &resolved
            && error.is_fatal()
        {
            return resolved;
        }
        if !attribute.test && !matches!(attribute.root, Root::Conditional(..)) {
            self.charge(SELECT)?;
        }
        resolved
    }

    /// A side of `?:`, or an index: of an attribute there, only the steps are counted.
    fn branch(&mut self, branch: &'p Branch) -> Outcome<'a> {
        match branch {
            Branch::Attribute(attribute) => self.resolve(attribute),
            Branch::Node(node) => self.node(node),
        }
    }

    fn resolve(&mut self, attribute: &'p Attribute) -> Resolved<'a> {
        let (root, taken) = match &attribute.root {
            Root::Variable(name) => self.variable(name, &attribute.steps)?,
            Root::Local(slot) => (self.local(*slot)?, 0),
            Root::Node(node) => (self.node(node)?, 0),
            Root::Conditional(condition, yes, no) => {
                let side = match self.node(condition)? {
                    Value::Bool(true) => yes,
                    Value::Bool(false) => no,
                    _ => return Err(Error::no_such_overload()),
                };
                (self.branch(side)?, 0)
            }
        };
        self.steps(root, &attribute.steps[taken..], attribute.test)
    }

    /// A variable, or one of its fields if those are computed one by one; and how many steps that
    /// were.
    fn variable(&mut self, name: &str, steps: &'p [Step]) -> Result<(Value<'a>, usize), Error> {
        if let Some(Step { key: StepKey::Field(field), optional: false }) = steps.first()
            && let Some(value) = self.bindings.field(name, field)
        {
            self.charge(SELECT)?;
            return Ok((value?, 1));
        }
        match self.bindings.variable(name)? {
            Some(value) => Ok((value, 0)),
            None => Err(Error::failed(format!("no such attribute(s): {name}"))),
        }
    }

    pub(super) fn local(&mut self, slot: usize) -> Resolved<'a> {
        if let Slot::Later(node) = self.slots[slot] {
            // The node was planned as if nothing were behind the variables of this fold.
            let inner = self.slots.split_off(slot + 3);
            let outcome = self.node(node);
            self.slots.truncate(slot + 3);
            self.slots.extend(inner);
            if let Err(error) = &outcome
                && error.is_fatal()
            {
                return outcome;
            }
            self.slots[slot] = match outcome {
                Ok(value) => Slot::Value(value),
                Err(error) => Slot::Failed(error),
            };
        }
        match &self.slots[slot] {
            Slot::Value(value) => Ok(value.clone()),
            Slot::Failed(error) => Err(error.clone()),
            Slot::Later(_) => unreachable!("it was computed above"),
        }
    }

    fn steps(&mut self, root: Value<'a>, steps: &'p [Step], test: bool) -> Resolved<'a> {
        if steps.is_empty() {
            return Ok(root);
        }
        let mut optional = false;
        let mut at = match root {
            Value::Optional(None) => {
                return Ok(if test { Value::Bool(false) } else { Value::Optional(None) });
            }
            Value::Optional(Some(value)) => {
                optional = true;
                (*value).clone()
            }
            other => other,
        };
        let last = steps.len() - 1;
        for (number, step) in steps.iter().enumerate() {
            optional |= step.optional;
            let key = match &step.key {
                StepKey::Field(name) => Value::String(name.clone()),
                StepKey::Constant(value) => value.clone(),
                StepKey::Branch(branch) => self.branch(branch)?,
            };
            let asks = test && number == last;
            match find(&at, &key, optional || asks) {
                Ok(found) if asks => {
                    self.charge(SELECT)?;
                    // A presence test that is no branch of anything costs nothing by itself; the
                    // root that it leaves out was counted here.
                    return Ok(Value::Bool(found.is_some()));
                }
                Ok(Some(value)) => {
                    self.charge(SELECT)?;
                    at = value;
                }
                // A step that is not taken is not counted.
                Ok(None) if test => return Ok(Value::Bool(false)),
                Ok(None) => return Ok(Value::Optional(None)),
                Err(error) => {
                    self.charge(SELECT)?;
                    return Err(error);
                }
            }
        }
        Ok(if optional { Value::some(at) } else { at })
    }
}

/// One step from a value; `None` if it cannot be taken and that is no failure.
fn find<'a>(at: &Value<'a>, key: &Value<'_>, lenient: bool) -> Result<Option<Value<'a>>, Error> {
    match at {
        Value::Map(map) => match map.find(key)? {
            Some(value) => Ok(Some(value)),
            None if lenient => Ok(None),
            None => Err(Error::no_such_key(key.shown())),
        },
        Value::List(list) => {
            let index = index_of(key)?;
            match usize::try_from(index).ok().filter(|index| *index < list.len()) {
                Some(index) => list.get(index).map(Some),
                None if lenient => Ok(None),
                None => Err(Error::failed(format!("index out of bounds: {index}"))),
            }
        }
        _ if lenient => Ok(None),
        _ => Err(Error::no_such_key(key.shown())),
    }
}

fn index_of(key: &Value<'_>) -> Result<i64, Error> {
    let wrong = || Error::failed(format!("unsupported index value {} in list", key.shown()));
    match key {
        Value::Int(index) => Ok(*index),
        Value::Uint(index) => i64::try_from(*index).map_err(|_| wrong()),
        Value::Double(index) if index.fract() == 0.0 && index.abs() < 9.2e18 => Ok(*index as i64),
        Value::Double(_) => Err(wrong()),
        other => {
            let name = other.type_of();
            Err(Error::failed(format!("unsupported index type '{}' in list", name.name())))
        }
    }
}

/// The name of a field, as a step.
pub(super) fn field_key(name: &str) -> StepKey {
    StepKey::Field(Text::Owned(name.into()))
}
