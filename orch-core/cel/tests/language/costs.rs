//! Costs, beside those that upstream publishes in its tests for their stability.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/celcoststability_test.go`;
//! the figures of `costs.json` (what rules cost on an object) and `estimates.json` (the most that
//! they can cost).

use orch_cel::{Declared, DeclaredSizes, Environment, PER_CALL_LIMIT, Value, Variables};
use serde_json::Value as Json;

struct Case<'c> {
    declared: Declared,
    environment: Environment,
    json: &'c Json,
}

fn cases(json: &Json, root: bool) -> Vec<Case<'_>> {
    let cases = json.as_array().expect("a list of cases").iter();
    cases
        .map(|json| {
            let declared = Declared::of_schema(&json["schema"], root);
            let declared = declared.expect("rules can see the schema").named("self0");
            let environment = Environment::kubernetes()
                .variable("self", &declared)
                .variable("oldSelf", declared.type_of())
                .build();
            Case { declared, environment, json }
        })
        .collect()
}

fn costs<'c>(case: &Case<'c>) -> impl Iterator<Item = (&'c String, u64)> {
    let costs = case.json["costs"].as_object().expect("costs by rule").iter();
    costs.map(|(rule, cost)| (rule, cost.as_u64().expect("a cost")))
}

#[test]
fn rules_cost_what_they_cost_upstream() {
    let json: Json = serde_json::from_str(include_str!("costs.json")).expect("JSON");
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases(&json, true) {
        let object = Value::declared(&case.json["object"], &case.declared).expect("it fits");
        let variables = Variables::new().with("self", object);
        for (rule, expected) in costs(&case) {
            count += 1;
            match case.environment.compile(rule) {
                Ok(program) => {
                    let (value, cost) = program.measure(&variables, None, PER_CALL_LIMIT);
                    let holds = matches!(value, Ok(Value::Bool(true)));
                    if cost != expected || !holds {
                        wrong.push(format!("{rule}: {cost}, not {expected}; {value:?}"));
                    }
                }
                Err(error) => wrong.push(format!("{rule}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 300);
}

#[test]
fn rules_are_estimated_as_upstream_estimates_them() {
    let json: Json = serde_json::from_str(include_str!("estimates.json")).expect("JSON");
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases(&json, false) {
        for (rule, expected) in costs(&case) {
            count += 1;
            match case.environment.compile(rule) {
                Ok(program) => {
                    let found = program.estimate(&DeclaredSizes(&case.declared)).max;
                    if found != expected {
                        wrong.push(format!("{rule}: {found}, not {expected}"));
                    }
                }
                Err(error) => wrong.push(format!("{rule}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 300);
}
