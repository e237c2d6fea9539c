//! Values: what variables hold and expressions give.
//!
//! A value that came from JSON is a view of it: fields, elements and strings are read where they
//! are, when an expression asks for them. What an expression makes is shared by reference counts.

mod equal;
mod json;
mod list;
mod map;
mod opaque;
mod order;
mod time;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use equal::Comparison;
pub(crate) use json::read as read_json;
pub use list::{List, ListKind};
pub(crate) use map::Key;
pub use map::Map;
pub use opaque::Opaque;
pub(crate) use order::compare;
pub use time::Moment;
pub(crate) use time::{duration_text, parse_duration, parse_moment, zone_of};

use crate::error::Error;
use crate::types::Type;

/// A value. The lifetime is that of the JSON and the declarations that it is a view of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// A string.
    String(Text<'a>),
    /// A string of bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Moment),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A type.
    Type(Type),
    /// A list.
    List(List<'a>),
    /// A map, or an object with fields.
    Map(Map<'a>),
    /// A value that may be missing.
    Optional(Option<Arc<Value<'a>>>),
    /// A value that only functions look into.
    Opaque(Arc<dyn Opaque>),
}

/// A string: a part of the JSON that was bound, or one that was made.
#[derive(Clone)]
pub enum Text<'a> {
    /// A part of what was bound.
    Borrowed(&'a str),
    /// Made by an expression.
    Owned(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<'a> Value<'a> {
    /// A string that is a part of what outlives the value.
    pub fn text(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    /// A string of its own.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Owned(text.into()))
    }

    /// A list of these values.
    pub fn list(values: Vec<Self>) -> Self {
        Self::List(List::of(values))
    }

    /// An optional that has a value.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// A value of a type that the library or the application brings.
    pub fn opaque(value: impl Opaque) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// The type that the value has, as `type(x)` gives it. Elements of lists and maps are `dyn`.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::Type(_) => Type::Type(None),
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(map) => map.type_of(),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(value) => value.type_of(),
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of the type `T`, if it is opaque and of that type.
    pub fn downcast<T: Opaque>(&self) -> Option<&T> {
        match self {
            Self::Opaque(value) => value.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The number of code points, bytes, elements or entries; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::String(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::List(list) => Some(list.len()),
            Self::Map(map) => Some(map.len()),
            _ => None,
        }
    }

    /// Whether it is what its type has when nothing was said: zero, empty, null.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::Duration(nanoseconds) => *nanoseconds == 0,
            Self::Timestamp(moment) => moment.is_zero(),
            Self::Optional(value) => value.is_none(),
            Self::Type(_) => false,
            Self::Opaque(value) => value.is_zero(),
            sized => sized.size() == Some(0),
        }
    }

    /// How the value stands in a message. What is large is cut off.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => go_double(*value),
            Self::String(text) => text.chars().take(1024).collect(),
            Self::Timestamp(moment) => moment.to_string(),
            Self::Duration(nanoseconds) => duration_text(*nanoseconds),
            other => other.type_of().name().to_owned(),
        }
    }
}

/// A floating point number as Go's `%g` writes it.
pub(crate) fn go_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Where Go looks for the shortest digits, it decides as if there were six.
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:0>2}", exponent.abs())
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::string(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::text(value)
    }
}

/// The value of a call that has none: an error.
pub(crate) fn no_such_overload<'a>() -> Result<Value<'a>, Error> {
    Err(Error::no_such_overload())
}
