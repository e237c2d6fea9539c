//! Functions: what they take, give and do, and the registry that environments look them up in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::cost::Cost;
use crate::error::Error;
use crate::evaluate::Context;
use crate::types::Type;
use crate::value::Value;

/// What an overload does with arguments of the types that it takes.
pub trait Body: Send + Sync {
    /// Calls it. The receiver of a method is the first argument.
    ///
    /// # Errors
    ///
    /// What the expression fails with, unless `&&` or `||` make up for it.
    fn call<'a>(&self, context: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error>;
}

impl<F> Body for F
where
    F: for<'a> Fn(&mut Context<'_>, &[Value<'a>]) -> Result<Value<'a>, Error> + Send + Sync,
{
    fn call<'a>(&self, context: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
        self(context, args)
    }
}

/// One form of a function.
#[derive(Clone)]
pub struct Overload {
    id: Cow<'static, str>,
    member: bool,
    args: Vec<Type>,
    result: Type,
    parameters: Vec<Arc<str>>,
    body: Arc<dyn Body>,
    cost: Option<Cost>,
    guarded: bool,
}

impl Overload {
    /// A function `f(x)`. The id names the form and is unique.
    pub fn function(
        id: impl Into<Cow<'static, str>>,
        args: impl IntoIterator<Item = Type>,
        result: Type,
        body: impl Body + 'static,
    ) -> Self {
        let args: Vec<Type> = args.into_iter().collect();
        let mut parameters = Vec::new();
        args.iter().chain([&result]).for_each(|arg| parameters_of(arg, &mut parameters));
        let (id, body) = (id.into(), Arc::new(body));
        Self { id, member: false, args, result, parameters, body, cost: None, guarded: true }
    }

    /// A method `x.f(y)`; the first argument is `x`.
    pub fn method(
        id: impl Into<Cow<'static, str>>,
        args: impl IntoIterator<Item = Type>,
        result: Type,
        body: impl Body + 'static,
    ) -> Self {
        Self { member: true, ..Self::function(id, args, result, body) }
    }

    /// The same at this cost. Without it a call costs 1, or what upstream's cost model says of
    /// the function's name.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// The same, but the body looks at the types of the arguments itself.
    #[must_use]
    pub fn unguarded(mut self) -> Self {
        self.guarded = false;
        self
    }

    /// What names this form.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member
    }

    pub(crate) fn args(&self) -> &[Type] {
        &self.args
    }

    pub(crate) fn result(&self) -> &Type {
        &self.result
    }

    pub(crate) fn parameters(&self) -> &[Arc<str>] {
        &self.parameters
    }

    pub(crate) fn body(&self) -> &dyn Body {
        &*self.body
    }

    pub(crate) fn cost(&self) -> Option<Cost> {
        self.cost
    }

    /// Whether the values are of the types that this form takes.
    pub(crate) fn takes(&self, args: &[Value<'_>]) -> bool {
        let fit = || self.args.iter().zip(args).all(|(expected, value)| fits(expected, value));
        self.args.len() == args.len() && (!self.guarded || fit())
    }
}

impl fmt::Debug for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overload").field("id", &self.id).finish_non_exhaustive()
    }
}

fn parameters_of(of: &Type, found: &mut Vec<Arc<str>>) {
    match of {
        Type::Param(name) if !found.contains(name) => found.push(name.clone()),
        Type::List(inner) | Type::Type(Some(inner)) => parameters_of(inner, found),
        Type::Map(keys, values) => {
            parameters_of(keys, found);
            parameters_of(values, found);
        }
        Type::Opaque(_, inner) => inner.iter().for_each(|inner| parameters_of(inner, found)),
        _ => {}
    }
}

fn fits(expected: &Type, value: &Value<'_>) -> bool {
    match (expected, value) {
        (Type::Dyn | Type::Param(_), _)
        | (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::Type(_), Value::Type(_)) => true,
        // What the first element is decides for all of them.
        (Type::List(of), Value::List(list)) => {
            list.is_empty() || list.get(0).is_ok_and(|first| fits(of, &first))
        }
        (Type::Map(keys, values), Value::Map(map)) => match map.iter().next() {
            Some(Ok((key, value))) => fits(keys, &key) && fits(values, &value),
            Some(Err(_)) => false,
            None => true,
        },
        (Type::Object(name), Value::Map(map)) => map.built_type().is_none_or(|built| built == name),
        (Type::Opaque(name, _), Value::Optional(_)) => &**name == crate::types::OPTIONAL,
        (Type::Object(_) | Type::Opaque(..), Value::Opaque(value)) => {
            value.type_of().name() == expected.name()
        }
        _ => false,
    }
}

/// A function by its name, with all its forms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub(crate) overloads: Vec<Arc<Overload>>,
}

/// All functions that expressions may call, and the names of types that they may compare with.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    by_name: BTreeMap<Cow<'static, str>, Function>,
    types: BTreeMap<Cow<'static, str>, Type>,
}

impl Functions {
    /// Adds a form of a function. One of the same id is replaced.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, overload: Overload) {
        let overloads = &mut self.by_name.entry(name.into()).or_default().overloads;
        match overloads.iter_mut().find(|other| other.id == overload.id) {
            Some(other) => *other = Arc::new(overload),
            None => overloads.push(Arc::new(overload)),
        }
    }

    /// Adds the name of a type, as which expressions can write it: `type(x) == net.IP`.
    pub fn add_type(&mut self, name: impl Into<Cow<'static, str>>, named: Type) {
        self.types.insert(name.into(), named);
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.by_name.get(name)
    }

    pub(crate) fn named_type(&self, name: &str) -> Option<&Type> {
        self.types.get(name)
    }
}

/// A set of functions that belong together.
///
/// A closure that adds them is one:
///
/// ```
/// use orch_cel::{Environment, Functions, Overload, Type, Value};
///
/// fn double<'a>(
///     _: &mut orch_cel::Context<'_>,
///     args: &[Value<'a>],
/// ) -> Result<Value<'a>, orch_cel::Error> {
///     match args {
///         [Value::Int(x)] => Ok(Value::Int(x * 2)),
///         _ => Err(orch_cel::Error::no_such_overload()),
///     }
/// }
///
/// let environment = Environment::kubernetes()
///     .library(&|functions: &mut Functions| {
///         let form = Overload::function("double_int", [Type::Int], Type::Int, double);
///         functions.add("double", form);
///     })
///     .build();
/// assert!(environment.compile("double(21) == 42").is_ok());
/// ```
pub trait Library {
    /// Adds its functions.
    fn install(&self, functions: &mut Functions);
}

impl<F: Fn(&mut Functions)> Library for F {
    fn install(&self, functions: &mut Functions) {
        self(functions);
    }
}
