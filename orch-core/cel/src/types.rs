//! The types of the language, and how they are written in messages.
//!
//! Source: cel-go `common/types/types.go`, `checker/format.go`.

use std::fmt;
use std::sync::Arc;

/// The name of the opaque type behind `optional.of(x)`.
pub(crate) const OPTIONAL: &str = "optional_type";

/// A type of the language.
///
/// It is cheap to clone. `Display` writes it as the messages of the type checker do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Anything; checks wait until evaluation.
    Dyn,
    /// What could not be typed. It is reported once, where it came up.
    Error,
    /// `null`.
    Null,
    /// `true` and `false`.
    Bool,
    /// Signed integers of 64 bits.
    Int,
    /// Unsigned integers of 64 bits.
    Uint,
    /// Floating point numbers of 64 bits.
    Double,
    /// Strings of Unicode code points.
    String,
    /// Strings of bytes.
    Bytes,
    /// Points in time, from year 1 to year 9999.
    Timestamp,
    /// Spans of time, in nanoseconds.
    Duration,
    /// A list of elements of one type.
    List(Arc<Type>),
    /// A map from keys to values.
    Map(Arc<Type>, Arc<Type>),
    /// The type of a type; the parameter is missing for `type` itself.
    Type(Option<Arc<Type>>),
    /// A type with named fields, which the environment knows by this name.
    Object(Arc<str>),
    /// A type that only functions look into, with its parameters.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A parameter of an overload, to be found by unification.
    Param(Arc<str>),
}

impl Type {
    /// The type of lists of these elements.
    pub fn list(elements: Self) -> Self {
        Self::List(Arc::new(elements))
    }

    /// The type of maps from these keys to these values.
    pub fn map(keys: Self, values: Self) -> Self {
        Self::Map(Arc::new(keys), Arc::new(values))
    }

    /// The type of optional values.
    pub fn optional(value: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), Arc::new([value]))
    }

    /// A type with fields, by its name.
    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    /// An opaque type without parameters.
    pub fn opaque(name: &str) -> Self {
        Self::Opaque(name.into(), Arc::new([]))
    }

    /// A parameter of an overload.
    pub fn param(name: &str) -> Self {
        Self::Param(name.into())
    }

    /// The type of a type.
    pub fn type_of(inner: Self) -> Self {
        Self::Type(Some(Arc::new(inner)))
    }

    /// The name of the type without its parameters, as `type(x)` shows it.
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Type(_) => "type",
            Self::Object(name) | Self::Opaque(name, _) | Self::Param(name) => name,
        }
    }

    /// What an optional type holds.
    pub(crate) fn optional_of(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, of) if &**name == OPTIONAL => of.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// Whether values of the type have one fixed size.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::Duration
            | Self::Timestamp => true,
            _ => self.optional_of().is_some_and(Self::is_scalar),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(elements) => write!(f, "list({elements})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Type(Some(inner)) => write!(f, "type({inner})"),
            Self::Opaque(name, parameters) if !parameters.is_empty() => {
                write!(f, "{name}(")?;
                for (at, parameter) in parameters.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{parameter}")?;
                }
                f.write_str(")")
            }
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_upstream_writes_them() {
        let check = |given: Type, expected: &str| assert_eq!(given.to_string(), expected);
        check(Type::Null, "null");
        check(Type::map(Type::String, Type::list(Type::Dyn)), "map(string, list(dyn))");
        check(Type::optional(Type::Int), "optional_type(int)");
        check(Type::type_of(Type::Timestamp), "type(timestamp)");
        check(Type::object("Object.spec"), "Object.spec");
    }
}
