//! What is known of a value before it is there: the declarations of variables.
//!
//! A declaration gives the type checker a type with all its fields, tells the evaluator how to
//! read JSON, and the estimates how large a value can get.
//!
//! Source: `k8s.io/apiserver/pkg/cel/types.go` (`DeclType`).

mod escape;
mod kubernetes;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use escape::unescape;
pub use escape::{escape, is_identifier};
pub use kubernetes::{admission_request, namespace};
pub use schema::REQUEST_BYTES_MAX;

use crate::types::Type;
use crate::value::ListKind;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    shape: Shape,
    nullable: bool,
    /// The largest size; 0 for what has none.
    elements_max: u64,
    /// The shortest JSON that a value can be written as, in bytes.
    bytes_min: u64,
}

/// What kind of value it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Dyn,
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    Formatted(Format),
    List(Box<Declared>, DeclaredList),
    Map(Box<Declared>),
    Object(ObjectType),
}

/// A string that is read as something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Byte,
    Duration,
    Date,
    DateTime,
}

/// How a declared list compares and adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeclaredList {
    /// As one value.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// A map whose keys are these fields of its elements, escaped.
    Map(Vec<String>),
}

impl DeclaredList {
    pub(crate) fn as_kind(&self) -> ListKind<'_> {
        match self {
            Self::Atomic => ListKind::Atomic,
            Self::Set => ListKind::Set,
            Self::Map(keys) => ListKind::Map(keys),
        }
    }
}

/// The fields of an object, and the name of its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectType {
    name: Arc<str>,
    /// By escaped name.
    fields: BTreeMap<String, Declared>,
    /// Escaped names by those of JSON, where they differ.
    escaped: BTreeMap<String, String>,
}

impl ObjectType {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A field by the name that expressions use.
    pub(crate) fn field(&self, name: &str) -> Option<&Declared> {
        self.fields.get(name)
    }

    /// A field by its name in JSON.
    pub(crate) fn field_of_json(&self, name: &str) -> Option<&Declared> {
        self.fields.get(self.escaped.get(name).map_or(name, String::as_str))
    }

    /// The name that expressions use for a field of JSON, if it is declared.
    pub(crate) fn escaped<'s>(&'s self, name: &str) -> Option<&'s str> {
        let escaped = self.escaped.get(name).map_or(name, String::as_str);
        self.fields.get_key_value(escaped).map(|(name, _)| name.as_str())
    }
}

impl Declared {
    pub(crate) fn new(shape: Shape, elements_max: u64, bytes_min: u64) -> Self {
        Self { shape, nullable: false, elements_max, bytes_min }
    }

    /// Anything: JSON is read as it is.
    pub fn any() -> Self {
        Self::new(Shape::Dyn, 0, 1)
    }

    /// A truth value.
    pub fn boolean() -> Self {
        Self::new(Shape::Bool, 0, 4)
    }

    /// A whole number.
    pub fn integer() -> Self {
        Self::new(Shape::Int, 0, 1)
    }

    /// A number, whole or not.
    pub fn number() -> Self {
        Self::new(Shape::Double, 0, 1)
    }

    /// A string. Its length is estimated as 0 unless [`with_elements_max`] says more, as upstream
    /// has it for the strings of admission requests.
    ///
    /// [`with_elements_max`]: Self::with_elements_max
    pub fn string() -> Self {
        Self::new(Shape::String, 0, 2)
    }

    /// A point in time, written in RFC 3339.
    pub fn timestamp() -> Self {
        Self::new(Shape::Formatted(Format::DateTime), 0, 12)
    }

    /// A list of elements that are all declared alike.
    pub fn list(items: Self, kind: DeclaredList, items_max: u64) -> Self {
        Self::new(Shape::List(Box::new(items), kind), items_max, 2)
    }

    /// A map from strings to values that are all declared alike.
    pub fn map(values: Self, entries_max: u64) -> Self {
        Self::new(Shape::Map(Box::new(values)), entries_max, 2)
    }

    /// An object with these fields, by the names that they have in JSON, and the name of its type.
    /// Fields whose names cannot be written in an expression are left out.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let mut object =
            ObjectType { name: name.into(), fields: BTreeMap::new(), escaped: BTreeMap::new() };
        for (field, declared) in fields {
            let Some(escaped) = escape(&field) else { continue };
            if *escaped != *field {
                object.escaped.insert(field.clone(), escaped.clone().into_owned());
            }
            object.fields.insert(escaped.into_owned(), declared);
        }
        Self::new(Shape::Object(object), 0, 2)
    }

    /// The same, and its size is so much at most.
    #[must_use]
    pub fn with_elements_max(mut self, elements_max: u64) -> Self {
        self.elements_max = elements_max;
        self
    }

    /// The same, but it may be null.
    #[must_use]
    pub fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The same with names for the types of objects that have none: the given one, and below it
    /// the path of fields, as messages show them.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.assign(name);
        self
    }

    fn assign(&mut self, name: &str) {
        match &mut self.shape {
            Shape::Object(object) => {
                if &*object.name == UNNAMED {
                    object.name = name.into();
                }
                let name = object.name.clone();
                for (field, declared) in &mut object.fields {
                    declared.assign(&format!("{name}.{field}"));
                }
            }
            Shape::Map(values) => values.assign(&format!("{name}.@elem")),
            Shape::List(items, _) => items.assign(&format!("{name}.@idx")),
            _ => {}
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn is_nullable(&self) -> bool {
        self.nullable
    }

    /// The largest size that a value can have; 0 for what has none.
    pub fn elements_max(&self) -> u64 {
        self.elements_max
    }

    /// The shortest JSON that a value can be written as, in bytes.
    pub fn bytes_min(&self) -> u64 {
        self.bytes_min
    }

    /// The type that an expression sees.
    pub fn type_of(&self) -> Type {
        match &self.shape {
            Shape::Dyn | Shape::IntOrString => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Formatted(Format::Byte) => Type::Bytes,
            Shape::Formatted(Format::Duration) => Type::Duration,
            Shape::Formatted(Format::Date | Format::DateTime) => Type::Timestamp,
            Shape::List(items, _) => Type::list(items.type_of()),
            Shape::Map(values) => Type::map(Type::String, values.type_of()),
            Shape::Object(object) => Type::Object(object.name.clone()),
        }
    }

    /// Every type of objects in it, this one first.
    pub(crate) fn each_object<'s>(&'s self, visit: &mut dyn FnMut(&'s ObjectType)) {
        match &self.shape {
            Shape::Object(object) => {
                visit(object);
                object.fields.values().for_each(|field| field.each_object(visit));
            }
            Shape::Map(inner) | Shape::List(inner, _) => inner.each_object(visit),
            _ => {}
        }
    }

    /// What is declared below it, one step further.
    pub(crate) fn step(&self, step: &str) -> Option<&Self> {
        match (&self.shape, step) {
            (Shape::List(inner, _) | Shape::Map(inner), "@items" | "@values") => Some(inner),
            (Shape::Object(object), field) => object.field(field),
            _ => None,
        }
    }
}

/// The name of the type of an object that has not got one yet.
pub(crate) const UNNAMED: &str = "object";
