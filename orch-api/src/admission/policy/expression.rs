//! Expressions of admission: what they may name, and how they are compiled and evaluated.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/cel/compile.go`, `activation.go`,
//! `composition.go`.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::LazyLock,
};

use orch_cel::{
    Bindings, Budget, Declared, Environment, Error, PER_CALL_LIMIT, Program, Type, Value as Cel,
    admission_request,
    library::{Authorize, Authorizer, Query, ResourceCheck, authorizer_type, resource_check_type},
    namespace,
};
use serde_json::Value;

static REQUEST: LazyLock<Declared> = LazyLock::new(admission_request);
static NAMESPACE: LazyLock<Declared> = LazyLock::new(namespace);
static BASE: LazyLock<Environment> = LazyLock::new(|| {
    Environment::kubernetes()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", &*REQUEST)
        .variable("namespaceObject", &*NAMESPACE)
        .build()
});

/// What an expression may use besides the objects and the request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uses {
    pub(crate) params: bool,
    pub(crate) authorizer: bool,
    /// `Object{...}` and `JSONPatch{...}`.
    pub(crate) patches: bool,
}

impl Uses {
    /// What expressions may name.
    pub(crate) fn environment(self) -> Environment {
        let mut environment = BASE.extend();
        if self.params {
            environment = environment.variable("params", Type::Dyn);
        }
        if self.authorizer {
            environment = environment
                .variable("authorizer", authorizer_type())
                .variable("authorizer.requestResource", resource_check_type());
        }
        if self.patches {
            environment = environment.patches();
        }
        environment.build()
    }
}

/// What an expression has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    Truth,
    Text,
    TextOrNull,
    Patches,
    Object,
    Anything,
}

impl Gives {
    fn types(self) -> Vec<Type> {
        match self {
            Self::Truth => vec![Type::Bool],
            Self::Text => vec![Type::String],
            Self::TextOrNull => vec![Type::String, Type::Null],
            Self::Patches => vec![Type::list(Type::object("JSONPatch"))],
            Self::Object => vec![Type::object("Object")],
            Self::Anything => Vec::new(),
        }
    }

    /// Says why a type is none of those that are wanted.
    fn refuse(self, found: &Type) -> Option<String> {
        let wanted = self.types();
        if wanted.is_empty() || wanted.contains(found) {
            return None;
        }
        let (names, found) = (wanted.iter().map(go_name).collect::<Vec<_>>(), go_name(found));
        Some(match names.as_slice() {
            [one] => format!("must evaluate to {one} but got {found}"),
            many => format!("must evaluate to one of [{}] but got {found}", many.join(" ")),
        })
    }
}

/// A type as it is printed where it is not the type checker that speaks.
fn go_name(of: &Type) -> String {
    match of {
        Type::Null => "null_type".into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        Type::List(items) => format!("list({})", go_name(items)),
        Type::Map(keys, values) => format!("map({}, {})", go_name(keys), go_name(values)),
        other => other.to_string(),
    }
}

/// An expression, compiled; or why it cannot be.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub(crate) source: String,
    pub(crate) program: Result<Program, String>,
}

impl Expression {
    pub(crate) fn compile(environment: &Environment, source: &str, gives: Gives) -> Self {
        let program = environment.compile(source).map_err(|error| match error {
            orch_cel::CompileError::Instantiation(error) => {
                format!("program instantiation failed: {error}")
            }
            error => format!("compilation failed: {error}"),
        });
        let program = program.and_then(|program| match gives.refuse(program.result_type()) {
            Some(why) => Err(why),
            None => Ok(program),
        });
        Self { source: source.to_owned(), program }
    }
}

/// Variables of a policy, each of which may name those before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Composed(Vec<(String, Expression)>);

impl Composed {
    /// Compiles variables, and gives the environment that knows them.
    pub(crate) fn compile(uses: Uses, variables: &[(&str, &str)]) -> (Self, Environment) {
        Self::compile_in(uses.environment(), variables)
    }

    /// The same, where it is said already what else expressions may name.
    pub(crate) fn compile_in(
        mut environment: Environment,
        variables: &[(&str, &str)],
    ) -> (Self, Environment) {
        let mut composed = Vec::with_capacity(variables.len());
        for (name, source) in variables {
            let expression = Expression::compile(&environment, source, Gives::Anything);
            let of = match &expression.program {
                Ok(program) => program.result_type().clone(),
                Err(_) => Type::Dyn,
            };
            environment = environment.extend().variable(&format!("variables.{name}"), of).build();
            composed.push(((*name).to_owned(), expression));
        }
        (Self(composed), environment)
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.0.iter().map(|(_, expression)| expression)
    }
}

/// What the variables of an evaluation stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) object: &'a Value,
    pub(crate) old: &'a Value,
    pub(crate) request: &'a Value,
    /// `null` for what is in no namespace.
    pub(crate) namespace: &'a Value,
    pub(crate) params: &'a Value,
    pub(crate) resource: &'a ResourceCheck,
}

/// Why an expression gave no value.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed, as upstream words it.
    Failed(String),
    /// Nothing more may be evaluated.
    Spent(String),
    /// An answer of the authorizer is needed first.
    Asks(Box<Query>),
}

/// The variables of one evaluation. Those of the policy are computed when they are asked for.
pub(crate) struct Scope<'a> {
    inputs: Inputs<'a>,
    composed: Option<&'a Composed>,
    authorizer: &'a dyn Authorize,
    computed: RefCell<HashMap<String, Result<Cel<'a>, Error>>>,
    /// What the computing cost.
    spent: Cell<u64>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(
        inputs: Inputs<'a>,
        composed: Option<&'a Composed>,
        authorizer: &'a dyn Authorize,
    ) -> Self {
        let (computed, spent) = (RefCell::default(), Cell::new(0));
        Self { inputs, composed, authorizer, computed, spent }
    }

    fn computed(&self, name: &str) -> Result<Option<Cel<'a>>, Error> {
        if let Some(known) = self.computed.borrow().get(name) {
            return known.clone().map(Some);
        }
        let all = self.composed.map_or(&[][..], |composed| &composed.0);
        let Some((_, expression)) = all.iter().find(|(own, _)| own == name) else {
            return Ok(None);
        };
        let value = match &expression.program {
            Err(why) => {
                Err(Error::failed(format!("composited variable {name:?} fails to compile: {why}")))
            }
            Ok(program) => {
                let (value, cost) = program.measure(self, Some(self.authorizer), PER_CALL_LIMIT);
                self.spent.set(self.spent.get().saturating_add(cost));
                value.map_err(|error| match error {
                    Error::Failed(why) => Error::failed(format!(
                        "composited variable {name:?} fails to evaluate: {why}"
                    )),
                    other => other,
                })
            }
        };
        if !matches!(value, Err(Error::NeedsAuthorization(_))) {
            self.computed.borrow_mut().insert(name.to_owned(), value.clone());
        }
        value.map(Some)
    }

    /// The value of an expression; what it costs is taken off the budget.
    pub(crate) fn evaluate(
        &self,
        expression: &Expression,
        budget: &mut Budget,
    ) -> Result<Cel<'a>, Stop> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Err(Stop::Failed(format!("compilation error: {why}"))),
        };
        let (value, cost) = program.measure(self, Some(self.authorizer), PER_CALL_LIMIT);
        if let Err(Error::NeedsAuthorization(query)) = value {
            return Err(Stop::Asks(query));
        }
        let cost = cost.saturating_add(self.spent.take());
        budget.charge(cost).map_err(|error| Stop::Spent(error.to_string()))?;
        value.map_err(|error| {
            let source = &expression.source;
            Stop::Failed(format!("expression '{source}' resulted in error: {error}"))
        })
    }
}

impl<'a> Bindings<'a> for Scope<'a> {
    fn variable(&self, name: &str) -> Result<Option<Cel<'a>>, Error> {
        let inputs = &self.inputs;
        let declared = |json: &'a Value, declared: &'static Declared| match json {
            Value::Null => Ok(Cel::Null),
            json => Cel::declared(json, declared),
        };
        Ok(Some(match name {
            "object" => inputs.object.into(),
            "oldObject" => inputs.old.into(),
            "params" => inputs.params.into(),
            "request" => declared(inputs.request, &REQUEST)?,
            "namespaceObject" => declared(inputs.namespace, &NAMESPACE)?,
            "authorizer" => Cel::opaque(Authorizer::default()),
            "authorizer.requestResource" => Cel::opaque(inputs.resource.clone()),
            other => match other.strip_prefix("variables.") {
                Some(own) => return self.computed(own),
                None => return Ok(None),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(expression: &str, gives: Gives) -> Result<Value, String> {
        let uses = Uses { params: true, authorizer: true, patches: gives == Gives::Object };
        let variables =
            [("twice", "object.n * 2"), ("bad", "object.none"), ("sum", "variables.twice + 1")];
        let (composed, environment) = Composed::compile(uses, &variables);
        let compiled = Expression::compile(&environment, expression, gives);
        let (object, request) = (json!({"n": 4}), json!({"name": "x", "userInfo": {}}));
        let (null, resource) = (Value::Null, ResourceCheck::default());
        let inputs = Inputs {
            object: &object,
            old: &null,
            request: &request,
            namespace: &null,
            params: &null,
            resource: &resource,
        };
        let nobody = |_: &Query| None;
        let scope = Scope::new(inputs, Some(&composed), &nobody);
        match scope.evaluate(&compiled, &mut Budget::default()) {
            Ok(value) => Ok(value.to_json().unwrap()),
            Err(Stop::Failed(why) | Stop::Spent(why)) => Err(why),
            Err(Stop::Asks(query)) => Err(format!("asks {}", query.verb)),
        }
    }

    #[test]
    fn expressions_see_what_upstreams_do() {
        let check = |expression: &str, expected: Value| {
            assert_eq!(outcome(expression, Gives::Anything), Ok(expected), "{expression}");
        };
        check("variables.sum", json!(9));
        check("oldObject == null && params == null && namespaceObject == null", json!(true));
        check("request.name", json!("x"));
        check("has(request.subResource)", json!(false));
        let applied = outcome("Object{spec: Object.spec{replicas: 2}}", Gives::Object);
        assert_eq!(applied, Ok(json!({"spec": {"replicas": 2}})));
    }

    #[test]
    fn failures_are_worded_as_upstreams() {
        let check = |expression: &str, gives: Gives, expected: &str| {
            let error = outcome(expression, gives).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        check("1", Gives::Truth, "compilation error: must evaluate to bool but got int");
        check(
            "1",
            Gives::TextOrNull,
            "compilation error: must evaluate to one of [string null_type] but got int",
        );
        check(
            "x",
            Gives::Truth,
            "compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'x'",
        );
        check(
            "object.none == 1",
            Gives::Truth,
            "expression 'object.none == 1' resulted in error: no such key: none",
        );
        check(
            "variables.bad == 1",
            Gives::Truth,
            "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: no such key: none",
        );
        check("authorizer.path('/x').check('get').allowed()", Gives::Truth, "asks get");
    }
}
