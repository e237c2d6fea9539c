//! The type checker: which type each part of an expression has, and which function each call
//! calls.

mod checker;
mod literals;
mod unify;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use checker::check;
pub(crate) use literals::check_literals;

use crate::declared::ObjectType;
use crate::function::{Functions, Overload};
use crate::syntax::ast::Id;
use crate::types::Type;

/// What names mean: variables, types of objects and functions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) variables: HashMap<Arc<str>, Type>,
    pub(crate) objects: HashMap<Arc<str>, Arc<ObjectType>>,
    pub(crate) functions: Arc<Functions>,
    /// Whether `Object{...}` and `JSONPatch{...}` can be built.
    pub(crate) patches: bool,
}

/// The type of the objects that build a patch, as `Object.spec.template`.
pub(crate) const OBJECT: &str = "Object";
/// The type of one operation of a JSON patch.
pub(crate) const JSON_PATCH: &str = "JSONPatch";

impl Scope {
    /// Whether a name is that of the type of objects whose fields can be anything.
    fn is_dynamic_object(&self, name: &str) -> bool {
        let below = |name: &str| name.strip_prefix(OBJECT).is_some_and(|n| n.starts_with('.'));
        self.patches && (name == OBJECT || below(name))
    }

    /// The type of objects of this name, if there is one.
    pub(crate) fn object_type(&self, name: &str) -> Option<Type> {
        let known = self.objects.contains_key(name)
            || self.is_dynamic_object(name)
            || self.patches && name == JSON_PATCH;
        known.then(|| Type::object(name))
    }

    /// The type of a field. The outer `None`: there is no such type.
    pub(crate) fn field_type(&self, object: &str, field: &str) -> Option<Option<Type>> {
        if self.is_dynamic_object(object) {
            return Some(Some(Type::Dyn));
        }
        if self.patches && object == JSON_PATCH {
            return Some(Some(match field {
                "op" | "from" | "path" => Type::String,
                _ => Type::Dyn,
            }));
        }
        let object = self.objects.get(object)?;
        let keyword = || object.field(&format!("__{field}__"));
        let found = object.field(field).or_else(keyword);
        Some(found.map(crate::declared::Declared::type_of))
    }

    /// The type of a name that is a variable or a type.
    pub(crate) fn ident(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(of) = self.variables.get(name) {
            return Some(of.clone());
        }
        let named = self.functions.named_type(name).cloned().or_else(|| self.object_type(name));
        named.map(Type::type_of)
    }
}

/// What a name or a call refers to.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    /// A variable or a type of this name.
    Name(String),
    /// Any of these forms of a function; which one, the arguments decide.
    Overloads(Vec<Arc<Overload>>),
    /// A field of an optional value.
    OptionalField,
}

/// What the checker found out, by node.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) types: HashMap<Id, Type>,
    pub(crate) references: HashMap<Id, Reference>,
}

impl Checked {
    /// The type of a node.
    pub(crate) fn type_of(&self, id: Id) -> &Type {
        self.types.get(&id).unwrap_or(&Type::Dyn)
    }
}
