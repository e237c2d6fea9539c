//! Whether two values are equal.
//!
//! Source: cel-go `common/types/util.go` (`Equal`) and the `Equal` of each type;
//! `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go` for lists that are sets or maps.

use std::collections::BTreeSet;

use super::order::numeric;
use super::{Key, List, ListKind, Map, Value};
use crate::error::Error;

/// A comparison, which looks at so many values at most: what is equal all the way down may hold
/// the same list any number of times.
#[derive(Debug)]
pub(crate) struct Comparison {
    steps: u64,
}

impl Comparison {
    /// A comparison that looks at so many values.
    pub(crate) fn of_steps(steps: u64) -> Self {
        Self { steps }
    }

    /// Whether the values are equal. Values of different types are not, except that numbers are
    /// compared as numbers.
    ///
    /// # Errors
    ///
    /// [`Error::CostLimit`] if there was too much to look at, and what reading a view fails with.
    pub(crate) fn equal(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Error> {
        self.steps = self.steps.checked_sub(1).ok_or(Error::CostLimit)?;
        Ok(match (left, right) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::String(left), Value::String(right)) => **left == **right,
            (Value::Bytes(left), Value::Bytes(right)) => left == right,
            (Value::Timestamp(left), Value::Timestamp(right)) => left == right,
            (Value::Duration(left), Value::Duration(right)) => left == right,
            (Value::Type(left), Value::Type(right)) => left.name() == right.name(),
            (Value::Opaque(left), Value::Opaque(right)) => left.equals(&**right),
            (Value::Optional(None), Value::Optional(None)) => true,
            (Value::Optional(Some(left)), Value::Optional(Some(right))) => {
                self.equal(left, right)?
            }
            (Value::List(left), Value::List(right)) => self.lists(left, right)?,
            (Value::Map(left), Value::Map(right)) => self.maps(left, right)?,
            _ => numeric(left, right).flatten() == Some(std::cmp::Ordering::Equal),
        })
    }

    fn lists(&mut self, left: &List<'_>, right: &List<'_>) -> Result<bool, Error> {
        if left.len() != right.len() {
            return Ok(false);
        }
        match left.kind() {
            ListKind::Atomic => self.in_order(left, right),
            ListKind::Set => self.contains_all(left, right),
            ListKind::Map(fields) => self.by_fields(left, right, fields),
        }
    }

    fn in_order(&mut self, left: &List<'_>, right: &List<'_>) -> Result<bool, Error> {
        for (left, right) in left.iter().zip(right.iter()) {
            if !self.equal(&left?, &right?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a list has every element of another. Scalars are looked up, as sets have no more.
    pub(crate) fn contains_all(
        &mut self,
        list: &List<'_>,
        elements: &List<'_>,
    ) -> Result<bool, Error> {
        let values = list.iter().collect::<Result<Vec<_>, _>>()?;
        let keys: Option<BTreeSet<Key<'_>>> = values.iter().map(Key::of).collect();
        for element in elements.iter() {
            let element = element?;
            let found = match (&keys, Key::of(&element)) {
                (Some(keys), Some(key)) => {
                    self.steps = self.steps.checked_sub(1).ok_or(Error::CostLimit)?;
                    keys.iter().next().is_some() && contains(keys, &key)
                }
                _ => self.any_equal(&values, &element)?,
            };
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn any_equal(&mut self, values: &[Value<'_>], element: &Value<'_>) -> Result<bool, Error> {
        for value in values {
            if self.equal(value, element)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn by_fields(
        &mut self,
        left: &List<'_>,
        right: &List<'_>,
        fields: &[String],
    ) -> Result<bool, Error> {
        let left = left.iter().collect::<Result<Vec<_>, _>>()?;
        for element in right.iter() {
            let element = element?;
            let Some(twin) = self.position(&left, &element, fields)? else { return Ok(false) };
            if !self.equal(&left[twin], &element)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which of the elements has the same keys as this one.
    fn position(
        &mut self,
        elements: &[Value<'_>],
        element: &Value<'_>,
        fields: &[String],
    ) -> Result<Option<usize>, Error> {
        for (at, candidate) in elements.iter().enumerate() {
            if self.same_fields(candidate, element, fields)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn same_fields(
        &mut self,
        left: &Value<'_>,
        right: &Value<'_>,
        fields: &[String],
    ) -> Result<bool, Error> {
        let (Value::Map(left), Value::Map(right)) = (left, right) else { return Ok(false) };
        for field in fields {
            let same = match (left.field(field)?, right.field(field)?) {
                (Some(left), Some(right)) => self.equal(&left, &right)?,
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What `left + right` is: by the kind of the left list.
    pub(crate) fn added<'a>(
        &mut self,
        left: &List<'a>,
        right: &List<'a>,
    ) -> Result<List<'a>, Error> {
        let mut values = match left.kind() {
            ListKind::Atomic => return left.joined(right).ok_or(Error::CostLimit),
            _ => left.iter().collect::<Result<Vec<_>, _>>()?,
        };
        for element in right.iter() {
            let element = element?;
            let twin = match left.kind() {
                ListKind::Map(fields) => self.position(&values, &element, fields)?,
                _ => self.any_equal(&values, &element)?.then_some(usize::MAX),
            };
            match twin {
                Some(usize::MAX) => {}
                Some(at) => values[at] = element,
                None => values.push(element),
            }
        }
        Ok(List::of(values).with_kind(left.kind()))
    }

    fn maps(&mut self, left: &Map<'_>, right: &Map<'_>) -> Result<bool, Error> {
        if left.built_type() != right.built_type() || left.len() != right.len() {
            return Ok(false);
        }
        for entry in left.iter() {
            let (key, value) = entry?;
            let Some(other) = right.find(&key)? else {
                // A field with a null is as good as none.
                if matches!(value, Value::Null) && left.declared().is_some() {
                    continue;
                }
                return Ok(false);
            };
            if !self.equal(&value, &other)? {
                return Ok(false);
            }
        }
        Ok(self.undeclared(left, right))
    }

    /// Whether what two objects have besides their declared fields is equal.
    fn undeclared(&mut self, left: &Map<'_>, right: &Map<'_>) -> bool {
        let (Some((left, object)), Some((right, _))) = (left.declared(), right.declared()) else {
            return true;
        };
        left.iter()
            .filter(|(name, _)| object.field_of_json(name).is_none())
            .all(|(name, value)| right.get(name).is_none_or(|other| value == other))
    }
}

fn contains(keys: &BTreeSet<Key<'_>>, key: &Key<'_>) -> bool {
    keys.contains(key)
}
