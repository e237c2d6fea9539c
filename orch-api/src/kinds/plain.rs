//! Kinds with little behaviour of their own: what they have is data.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::field::Errors;
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

/// A kind put together from functions.
#[derive(Debug)]
pub(crate) struct Plain {
    /// Fills in what was left out.
    pub(crate) defaults: fn(&mut Value),
    /// What is wrong with an object.
    pub(crate) validate: fn(&Value) -> Errors,
    /// What is wrong with an update besides; the new object comes first.
    pub(crate) update: fn(&Value, &Value) -> Errors,
    /// What is wrong with an update of the status; the new object comes first.
    pub(crate) status_update: fn(&Value, &Value) -> Errors,
    /// Fields to select by, at their own paths.
    pub(crate) selectable: &'static [&'static str],
    /// What is wrong with a name.
    pub(crate) name: fn(&str) -> Vec<String>,
    /// The status that a new object starts with, if the kind has one that clients may not set.
    pub(crate) status: Option<fn() -> Value>,
    /// Whether the generation counts changes.
    pub(crate) generation: bool,
    /// Whether a PUT to a free name creates.
    pub(crate) create_on_update: bool,
    /// Whether an update may come without a resource version.
    pub(crate) unconditional: bool,
    /// The columns of the table.
    pub(crate) columns: &'static [Column],
    /// The cells of a row.
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Plain {
    /// A kind with a status and a generation, and no rules: fits whatever is not known better.
    pub(crate) const ANY: Self = Self {
        defaults: |_| {},
        validate: |_| Vec::new(),
        update: |_, _| Vec::new(),
        status_update: |_, _| Vec::new(),
        selectable: &[],
        name: names::dns_subdomain,
        status: Some(|| Value::Null),
        generation: true,
        create_on_update: false,
        unconditional: true,
        columns: &printers::NAME_AND_AGE,
        row: printers::name_and_age,
    };

    /// A kind that is all data: no status, no generation.
    pub(crate) const DATA: Self = Self { status: None, generation: false, ..Self::ANY };
}

/// An empty status.
pub(crate) fn empty_status() -> Value {
    json!({})
}

impl Strategy for Plain {
    fn set_defaults(&self, object: &mut Value) {
        (self.defaults)(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let Some(status) = self.status else { return };
        match status() {
            Value::Null => carry(object, &Value::Null, "status"),
            status => object["status"] = status,
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        if self.status.is_some() {
            carry(new, old, "status");
        }
    }

    fn has_generation(&self) -> bool {
        self.generation
    }

    fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        let rest = |object: &Value| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.remove("metadata");
                fields.remove("status");
            }
            object
        };
        rest(new) != rest(old)
    }

    fn validate(&self, object: &Value) -> Errors {
        (self.validate)(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = (self.validate)(new);
        errors.extend((self.update)(new, old));
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Errors {
        (self.status_update)(new, old)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        self.selectable
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        super::select(object, field, self.selectable)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.name)(name)
    }

    fn allows_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allows_unconditional_update(&self) -> bool {
        self.unconditional
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }
}
