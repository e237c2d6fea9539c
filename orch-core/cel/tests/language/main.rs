//! The language: what expressions give, what is wrong with them, and what they cost.

mod checks;
mod costs;
mod devices;
mod library;
mod properties;
mod values;

use orch_cel::{Budget, Environment, Error, Type, Value, Variables};
use serde_json::{Value as Json, json};

/// What the cases of these tables may use: `x` is anything.
fn environment() -> Environment {
    Environment::kubernetes().variable("x", Type::Dyn).build()
}

/// The JSON that an expression is looked at with.
fn given() -> Json {
    json!({
        "a": 1, "s": "text", "list": [1, 2, 3], "map": {"k": "v"}, "none": null, "d": 1.5,
        "nested": {"deep": {"er": [{"name": "n"}]}},
    })
}

/// Evaluates an expression.
fn evaluated(source: &str) -> Result<Json, String> {
    let program = environment().compile(source).map_err(|error| error.to_string())?;
    let given = given();
    let variables = Variables::new().with("x", &given);
    let value: Result<Value<'_>, Error> = program.evaluate(&variables, &mut Budget::default());
    value.and_then(|value| value.to_json()).map_err(|error| error.to_string())
}

/// Expressions that are true.
fn check_true(cases: &[&str]) {
    for source in cases {
        assert_eq!(evaluated(source), Ok(Json::Bool(true)), "{source}");
    }
}

/// Expressions that fail, and with which message.
fn check_failing(cases: &[(&str, &str)]) {
    for (source, message) in cases {
        assert_eq!(evaluated(source), Err((*message).to_owned()), "{source}");
    }
}
