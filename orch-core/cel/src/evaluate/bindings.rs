//! The values of variables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::Error;
use crate::value::Value;

/// Where an evaluation gets the values of variables.
///
/// Values may be computed when they are asked for. The same variable may be asked for many times
/// in one evaluation; an implementation that computes keeps what it found.
pub trait Bindings<'a> {
    /// The value of a variable, or `None` if it is not bound.
    ///
    /// # Errors
    ///
    /// What its computation failed with. The expression fails with it.
    fn variable(&self, name: &str) -> Result<Option<Value<'a>>, Error>;

    /// A field of a variable whose fields are computed one by one, as those of `variables` in
    /// policies are. `None`: the variable has no such fields, and is asked for as a whole. By
    /// default no variable has any.
    ///
    /// # Errors
    ///
    /// What the computation of the field failed with.
    fn field(&self, _variable: &str, _field: &str) -> Option<Result<Value<'a>, Error>> {
        None
    }
}

/// Variables that all have a value.
///
/// ```
/// use orch_cel::{Budget, Environment, Type, Variables};
///
/// let environment = Environment::kubernetes().variable("x", Type::Int).build();
/// let program = environment.compile("x * 2").unwrap();
/// let variables = Variables::new().with("x", 21);
/// let value = program.evaluate(&variables, &mut Budget::default()).unwrap();
/// assert_eq!(value.to_json().unwrap(), 42);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Variables<'a> {
    values: BTreeMap<Cow<'a, str>, Value<'a>>,
}

impl<'a> Variables<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same and one more; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }
}

impl<'a> Bindings<'a> for Variables<'a> {
    fn variable(&self, name: &str) -> Result<Option<Value<'a>>, Error> {
        Ok(self.values.get(name).cloned())
    }
}
