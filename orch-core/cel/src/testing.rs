//! What a fuzzer or a property test calls with whatever it thinks of.

use serde_json::{Value as Json, json};

use crate::cost::{DeclaredSizes, PER_CALL_LIMIT};
use crate::{Declared, Environment, Error, Program, Value, Variables};

/// The schema of `self` in the expressions that [`exercise`] takes.
pub fn schema() -> Json {
    json!({"type": "object", "properties": {
        "flag": {"type": "boolean"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "name": {"type": "string", "maxLength": 64},
        "list": {"type": "array", "maxItems": 8, "items": {"type": "integer"}},
        "set": {
            "type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": true},
    }})
}

/// An object of that schema.
pub fn object() -> Json {
    json!({
        "flag": true, "count": 3, "ratio": 0.5, "name": "orch", "list": [1, 2, 3],
        "set": ["a", "b"], "labels": {"app": "web"}, "either": "50%",
    })
}

/// Compiles an expression over `self`, of the type of [`schema`], and `any`, of any type, and
/// evaluates it if it compiles. Whatever the expression, this returns soon and takes little memory;
/// what it checks on the way are promises of this crate.
///
/// # Panics
///
/// If a promise is broken: a value that is not of the type that was found, a limit that does not
/// hold, a result that depends on how often it was computed.
pub fn exercise(source: &str) -> Option<(Program, Result<Json, Error>)> {
    let declared = Declared::of_schema(&schema(), false)?.named("self0");
    let environment = Environment::kubernetes()
        .variable("self", &declared)
        .variable("any", crate::Type::Dyn)
        .build();
    let program = environment.compile(source).ok()?;
    let object = object();
    let variables = Variables::new()
        .with("self", Value::declared(&object, &declared).ok()?)
        .with("any", &object);
    let (value, cost) = program.measure(&variables, None, PER_CALL_LIMIT);
    let (again, same) = program.measure(&variables, None, cost);
    let limited = matches!(value, Err(Error::CostLimit));
    assert!(limited || same == cost, "{source}: {cost}, then {same}");
    assert_eq!(value.is_ok(), again.is_ok(), "{source}");
    if let (Some(less), Ok(_)) = (cost.checked_sub(1), &value) {
        let (refused, _) = program.measure(&variables, None, less);
        assert!(matches!(refused, Err(Error::CostLimit)), "{source}: {refused:?} for {less}");
    }
    if let Ok(value) = &value {
        let (expected, found) = (program.result_type(), value.type_of());
        let fits = expected.is_dyn()
            || expected.name() == found.name()
            || matches!(expected, crate::Type::Object(_)) && found.name() == "map";
        assert!(fits, "{source}: {found} is no {expected}");
    }
    program.estimate(&DeclaredSizes(&declared));
    program.estimate(&());
    Some((program, value.and_then(|value| value.to_json())))
}
