//! Comprehensions.
//!
//! Source: cel-go `interpreter/interpretable.go` (`evalFold`, `folder`).

use super::call::empty_list;
use super::machine::{Machine, Outcome, Slot};
use super::{Fold, Node};
use crate::error::Error;
use crate::value::{Map, Value};

impl<'p, 'a> Machine<'p, 'a, '_> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let range = self.node(&fold.range)?;
        // An expression may leave a fold in its middle: what it had is dropped here.
        self.slots.truncate(fold.slot);
        self.slots.push(start(&fold.start));
        self.slots.push(Slot::Value(Value::Null));
        self.slots.push(Slot::Value(Value::Null));
        let outcome = match &range {
            Value::List(list) => {
                let items = list.iter().enumerate();
                self.rounds(fold, items.map(|(at, item)| Ok((Value::Int(at as i64), item?))), true)
            }
            Value::Map(map) if fold.two => self.rounds(fold, map.iter(), false),
            Value::Map(map) => {
                let keys = map.keys().into_iter();
                self.rounds(fold, keys.map(|key| Ok((key, Value::Null))), false)
            }
            other => {
                let name = other.type_of();
                let message = format!("got '{}', expected iterable type", name.name());
                Err(Error::failed(message))
            }
        };
        let outcome = outcome.and_then(|()| self.node(&fold.result));
        self.slots.truncate(fold.slot);
        outcome
    }

    /// Takes the step for each element while the condition holds.
    fn rounds(
        &mut self,
        fold: &'p Fold,
        items: impl Iterator<Item = Result<(Value<'a>, Value<'a>), Error>>,
        is_list: bool,
    ) -> Result<(), Error> {
        for item in items {
            let (first, second) = match item {
                Ok(item) => item,
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    // An element that cannot be read fails where it is used.
                    self.slots[fold.slot + 1] = Slot::Failed(error.clone());
                    self.slots[fold.slot + 2] = Slot::Failed(error);
                    if self.round(fold)? {
                        continue;
                    }
                    break;
                }
            };
            match (fold.two, is_list) {
                (false, true) => self.slots[fold.slot + 1] = Slot::Value(second),
                (false, false) => self.slots[fold.slot + 1] = Slot::Value(first),
                (true, _) => {
                    self.slots[fold.slot + 1] = Slot::Value(first);
                    self.slots[fold.slot + 2] = Slot::Value(second);
                }
            }
            if !self.round(fold)? {
                break;
            }
        }
        Ok(())
    }

    /// One round; false if the condition does not hold any more.
    fn round(&mut self, fold: &'p Fold) -> Result<bool, Error> {
        match self.node(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(error) if error.is_fatal() => return Err(error),
            _ => {}
        }
        let outcome = self.node(&fold.step);
        // Folds within the step had the places behind.
        self.slots.truncate(fold.slot + 3);
        self.slots[fold.slot] = match outcome {
            Ok(value) => Slot::Value(value),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => Slot::Failed(error),
        };
        Ok(true)
    }
}

/// What a fold begins with. Nothing to collect into is at hand at once; the rest is computed when
/// it is asked for.
fn start<'a, 'p>(node: &'p Node) -> Slot<'a, 'p> {
    match node {
        Node::Constant(Value::List(list)) if list.is_empty() => Slot::Value(empty_list()),
        Node::Constant(Value::Map(map)) if map.is_empty() => Slot::Value(Value::Map(Map::empty())),
        Node::Constant(value) => Slot::Value(value.clone()),
        node => Slot::Later(node),
    }
}
