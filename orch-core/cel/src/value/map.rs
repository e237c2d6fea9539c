//! Maps, and objects with fields.
//!
//! Source: cel-go `common/types/map.go`; `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go`
//! for objects with a schema.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use super::{Text, Value};
use crate::declared::{Declared, ObjectType, unescape};
use crate::error::Error;
use crate::types::Type;

/// A map from keys to values, or an object with fields.
#[derive(Clone, Debug)]
pub struct Map<'a>(Entries<'a>);

#[derive(Clone, Debug)]
enum Entries<'a> {
    /// JSON of which nothing is known, or whose values are all declared alike.
    Json(&'a JsonMap<String, Json>, Option<&'a Declared>),
    /// JSON with declared fields.
    Object(&'a JsonMap<String, Json>, &'a ObjectType),
    Owned(Arc<BTreeMap<Key<'a>, (Value<'a>, Value<'a>)>>),
    /// A map that has a value for every string that is no key of it.
    Defaulted(Arc<(Map<'a>, Value<'a>)>),
    /// An object that an expression built: its type and fields.
    Built(Arc<str>, Arc<BTreeMap<Arc<str>, Value<'a>>>),
}

/// A key, so that keys which are equal in the language are equal here: `1`, `1u` and `1.0` are.
#[derive(Clone, Debug)]
pub(crate) enum Key<'a> {
    Bool(bool),
    /// Every whole number that any of the types of numbers can hold.
    Whole(i128),
    /// The bits of a number that is not whole.
    Fraction(u64),
    String(Text<'a>),
}

impl<'a> Key<'a> {
    /// The key that a value is, if it can be one.
    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Whole(i128::from(*value)),
            Value::Uint(value) => Self::Whole(i128::from(*value)),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 2e19 => {
                Self::Whole(*value as i128)
            }
            Value::Double(value) if !value.is_nan() => Self::Fraction(value.to_bits()),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }
}

/// A key that is only looked at. Keys are looked up by it, whatever they live for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum KeyRef<'k> {
    Bool(bool),
    Whole(i128),
    Fraction(u64),
    String(&'k str),
}

trait Keyed {
    fn key(&self) -> KeyRef<'_>;
}

impl Keyed for Key<'_> {
    fn key(&self) -> KeyRef<'_> {
        match self {
            Self::Bool(value) => KeyRef::Bool(*value),
            Self::Whole(value) => KeyRef::Whole(*value),
            Self::Fraction(bits) => KeyRef::Fraction(*bits),
            Self::String(text) => KeyRef::String(text),
        }
    }
}

impl Keyed for KeyRef<'_> {
    fn key(&self) -> KeyRef<'_> {
        *self
    }
}

impl<'a: 'k, 'k> Borrow<dyn Keyed + 'k> for Key<'a> {
    fn borrow(&self) -> &(dyn Keyed + 'k) {
        self
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Key<'_> {}

impl<'a> Map<'a> {
    /// A map of these entries; of equal keys the last one stays.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if a key is neither a truth value, a whole number nor a string.
    pub fn of(entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>) -> Result<Self, Error> {
        let mut map = Self::empty();
        for (key, value) in entries {
            map.insert(key, value)?;
        }
        Ok(map)
    }

    /// The same, but every string that is no key has this value, if it is asked for. It is in no
    /// list of keys and does not count. The domains of the attributes of devices are so.
    #[must_use]
    pub fn with_default(self, value: Value<'a>) -> Self {
        Self(Entries::Defaulted(Arc::new((self, value))))
    }

    pub(crate) fn empty() -> Self {
        Self(Entries::Owned(Arc::default()))
    }

    pub(crate) fn of_json(
        fields: &'a JsonMap<String, Json>,
        declared: Option<&'a Declared>,
    ) -> Self {
        Self(Entries::Json(fields, declared))
    }

    pub(crate) fn of_object(fields: &'a JsonMap<String, Json>, object: &'a ObjectType) -> Self {
        Self(Entries::Object(fields, object))
    }

    pub(crate) fn built(name: Arc<str>, fields: BTreeMap<Arc<str>, Value<'a>>) -> Self {
        Self(Entries::Built(name, Arc::new(fields)))
    }

    /// Puts an entry into a map that an expression made, in logarithmic time if nobody else has
    /// it. Gives whether the key was there.
    pub(crate) fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> Result<bool, Error> {
        let Some(index) = Key::of(&key) else {
            return Err(Error::failed(format!("unsupported key type: {}", key.type_of().name())));
        };
        if !matches!(self.0, Entries::Owned(_)) {
            let entries = self.iter().collect::<Result<Vec<_>, _>>()?;
            *self = Self::of(entries)?;
        }
        let Entries::Owned(entries) = &mut self.0 else {
            unreachable!("it was made so above");
        };
        Ok(Arc::make_mut(entries).insert(index, (key, value)).is_some())
    }

    /// Takes an entry out again.
    pub(crate) fn remove(&mut self, key: &Value<'a>) {
        if let (Entries::Owned(entries), Some(key)) = (&mut self.0, Key::of(key)) {
            Arc::make_mut(entries).remove(&key);
        }
    }

    pub(crate) fn type_of(&self) -> Type {
        match &self.0 {
            Entries::Built(name, _) => Type::Object(name.clone()),
            _ => Type::map(Type::Dyn, Type::Dyn),
        }
    }

    /// The type of an object that an expression built.
    pub(crate) fn built_type(&self) -> Option<&Arc<str>> {
        match &self.0 {
            Entries::Built(name, _) => Some(name),
            _ => None,
        }
    }

    /// The declaration and the JSON of an object with declared fields.
    pub(super) fn declared(&self) -> Option<(&'a JsonMap<String, Json>, &'a ObjectType)> {
        match self.0 {
            Entries::Object(fields, object) => Some((fields, object)),
            _ => None,
        }
    }

    /// The number of entries. Fields that are not declared count.
    pub fn len(&self) -> usize {
        match &self.0 {
            Entries::Json(fields, _) | Entries::Object(fields, _) => fields.len(),
            Entries::Owned(entries) => entries.len(),
            Entries::Built(_, fields) => fields.len(),
            Entries::Defaulted(map) => map.0.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the value is not what was declared, or if the key is of a type that
    /// this map does not have.
    pub fn find(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, Error> {
        match (&self.0, key) {
            (Entries::Owned(entries), key) => {
                Ok(Key::of(key).and_then(|key| lookup(entries, key.key())))
            }
            (_, Value::String(name)) => self.field(name),
            (Entries::Defaulted(map), key) => map.0.find(key),
            (Entries::Json(_, None) | Entries::Built(..), _) => Ok(None),
            _ => Err(Error::no_such_overload()),
        }
    }

    /// Whether a key is there, without a default.
    pub(crate) fn has(&self, key: &Value<'_>) -> Result<bool, Error> {
        match &self.0 {
            Entries::Defaulted(map) => map.0.has(key),
            _ => self.find(key).map(|found| found.is_some()),
        }
    }

    /// The value of a key that is a string, or of a field.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the value is not what was declared.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, Error> {
        match &self.0 {
            Entries::Json(fields, declared) => {
                fields.get(name).map(|value| super::read_json(value, *declared)).transpose()
            }
            Entries::Object(fields, object) => {
                let Some(real) = unescape(name) else { return Ok(None) };
                // A null in the place of a field is as if the field was left out.
                let Some(value) = fields.get(&*real).filter(|value| !value.is_null()) else {
                    return Ok(None);
                };
                let Some(declared) = object.field_of_json(&real) else { return Ok(None) };
                super::read_json(value, Some(declared)).map(Some)
            }
            Entries::Owned(entries) => Ok(lookup(entries, KeyRef::String(name))),
            Entries::Built(_, fields) => Ok(fields.get(name).cloned()),
            Entries::Defaulted(map) => {
                map.0.field(name).map(|found| found.or_else(|| Some(map.1.clone())))
            }
        }
    }

    /// The keys, in a fixed order.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match &self.0 {
            Entries::Json(fields, _) => fields.keys().map(|name| Value::text(name)).collect(),
            Entries::Object(fields, object) => {
                fields.keys().filter_map(|name| object.escaped(name)).map(Value::text).collect()
            }
            Entries::Owned(entries) => entries.values().map(|(key, _)| key.clone()).collect(),
            Entries::Built(_, fields) => {
                fields.keys().map(|name| Value::String(Text::Owned(name.clone()))).collect()
            }
            Entries::Defaulted(map) => map.0.keys(),
        }
    }

    /// The entries, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Value<'a>, Value<'a>), Error>> + '_ {
        self.keys().into_iter().map(|key| {
            let value = self.find(&key)?.unwrap_or(Value::Null);
            Ok((key, value))
        })
    }
}

fn lookup<'a>(
    entries: &BTreeMap<Key<'a>, (Value<'a>, Value<'a>)>,
    key: KeyRef<'_>,
) -> Option<Value<'a>> {
    entries.get(&key as &dyn Keyed).map(|(_, value)| value.clone())
}
