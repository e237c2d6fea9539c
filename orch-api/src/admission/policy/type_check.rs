//! Type checking of validating policies: what their expressions get wrong about the kinds that
//! they are for. It warns in the status, and changes nothing about what a policy does.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`. Differs:
//! upstream's controller writes the status a moment later; kinds of custom resources are not
//! checked.

use async_trait::async_trait;
use orch_cel::{CompileError, Declared, DeclaredList, Environment};
use orch_core::{
    ApiError,
    schema::{self, Definition, Shape, Type},
};
use serde_json::{Value, json};

use super::expression::{Composed, Uses};
use crate::{
    catalog::{ApiVersions, Catalog},
    strategy::{Hook, WriteContext},
};

/// How many kinds a policy is checked against.
const KINDS_MAX: usize = 10;

/// Writes what type checking finds into the status of a policy that is stored.
#[derive(Debug)]
pub(crate) struct TypeCheck;

#[async_trait]
impl Hook for TypeCheck {
    async fn before_create(&self, _ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        check(new);
        Ok(())
    }

    async fn before_update(
        &self,
        _ctx: &WriteContext,
        new: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        check(new);
        Ok(())
    }
}

fn check(policy: &mut Value) {
    let found = warnings(&policy["spec"]);
    let generation = policy["metadata"]["generation"].clone();
    if !policy["status"].is_object() {
        policy["status"] = json!({});
    }
    policy["status"]["observedGeneration"] = generation;
    policy["status"]["typeChecking"] =
        if found.is_empty() { json!({}) } else { json!({"expressionWarnings": found}) };
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// Group, version and kind.
type Kind = (String, String, String);

/// The kinds that the rules name without wildcards.
fn kinds(constraints: &Value) -> Vec<Kind> {
    let catalog = Catalog::built_in(ApiVersions::All);
    let mut kinds = Vec::new();
    for rule in constraints["resourceRules"].as_array().into_iter().flatten() {
        let (groups, versions) = (texts(&rule["apiGroups"]), texts(&rule["apiVersions"]));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        for (group, version) in groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v))) {
            let named = texts(&rule["resources"]);
            for plural in named.into_iter().filter(|plural| !plural.contains(['*', '/'])) {
                let of = catalog.find(group, version, plural);
                kinds.extend(of.map(|one| {
                    ((*group).to_owned(), (*version).to_owned(), one.of.kind.to_string())
                }));
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    kinds.truncate(KINDS_MAX);
    kinds
}

/// What is found, as `expressionWarnings`.
fn warnings(spec: &Value) -> Vec<Value> {
    let environments = environments(spec);
    let mut found = Vec::new();
    let validations = spec["validations"].as_array().into_iter().flatten();
    for (at, validation) in validations.enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(source) = validation[field].as_str().filter(|text| !text.is_empty()) else {
                continue;
            };
            let told: Vec<String> = environments
                .iter()
                .filter_map(|(kind, environment)| told(kind, environment.compile(source).err()?))
                .collect();
            if !told.is_empty() {
                let path = format!("spec.validations[{at}].{field}");
                found.push(json!({"fieldRef": path, "warning": told.join("\n")}));
            }
        }
    }
    found
}

fn told((group, version, kind): &Kind, error: CompileError) -> Option<String> {
    let CompileError::Issues(issues) = error else { return None };
    let slash = if group.is_empty() { "" } else { "/" };
    Some(format!("{group}{slash}{version}, Kind={kind}: {issues}\n"))
}

/// What expressions may name, for each kind that the policy is for.
fn environments(spec: &Value) -> Vec<(Kind, Environment)> {
    let variables: Vec<(&str, &str)> = spec["variables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one["name"].as_str()?, one["expression"].as_str()?)))
        .collect();
    let params = spec["paramKind"]["apiVersion"].as_str().map(|version| {
        let kind = spec["paramKind"]["kind"].as_str().unwrap_or_default();
        schema::of_api_version(version, kind).map(|of| declared(of, kind, &mut Vec::new()))
    });
    let uses = Uses { params: params.is_some(), authorizer: true, patches: false };
    let mut environments = Vec::new();
    for kind in kinds(&spec["matchConstraints"]) {
        let Some(of) = schema::of(&kind.0, &kind.1, &kind.2) else { continue };
        let object = declared(of, &kind.2, &mut Vec::new());
        let mut environment =
            uses.environment().extend().variable("object", &object).variable("oldObject", &object);
        if let Some(Some(params)) = &params {
            environment = environment.variable("params", params);
        }
        let (_, environment) = Composed::compile_in(environment.build(), &variables);
        environments.push((kind, environment));
    }
    environments
}

/// What is declared of a definition. One within itself is anything.
fn declared(
    of: &'static Definition,
    name: &str,
    within: &mut Vec<&'static Definition>,
) -> Declared {
    let of_schema = |schema: Value| Declared::of_schema(&schema, false);
    match of.shape {
        Shape::Struct if within.iter().any(|outer| std::ptr::eq(*outer, of)) => Declared::any(),
        Shape::Struct => {
            within.push(of);
            let fields: Vec<(String, Declared)> = of
                .fields()
                .iter()
                .map(|field| {
                    let path = format!("{name}.{}", field.name);
                    (field.name.to_owned(), typed(&field.ty, &path, within))
                })
                .collect();
            within.pop();
            Declared::object(name, fields)
        }
        Shape::Time | Shape::MicroTime => Declared::timestamp(),
        Shape::Quantity => Declared::string(),
        Shape::IntOrString => {
            of_schema(json!({"x-kubernetes-int-or-string": true})).unwrap_or_else(Declared::any)
        }
        _ => Declared::any(),
    }
}

fn typed(of: &Type, path: &str, within: &mut Vec<&'static Definition>) -> Declared {
    match of {
        Type::String => Declared::string(),
        Type::Bytes => {
            let bytes = json!({"type": "string", "format": "byte"});
            Declared::of_schema(&bytes, false).unwrap_or_else(Declared::any)
        }
        Type::Boolean => Declared::boolean(),
        Type::Int32 | Type::Int64 => Declared::integer(),
        Type::Double => Declared::number(),
        Type::Array(items) => {
            let items = typed(items, &format!("{path}.@idx"), within);
            Declared::list(items, DeclaredList::Atomic, u64::MAX)
        }
        Type::Map(values) => {
            Declared::map(typed(values, &format!("{path}.@elem"), within), u64::MAX)
        }
        Type::Reference(reference) => declared(reference.definition(), path, within),
        _ => Declared::any(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_checked_against_the_kinds_that_they_are_for() {
        let found_in = |expression: &str, resources: &[&str]| {
            let mut policy = json!({
                "metadata": {"generation": 3},
                "spec": {
                    "matchConstraints": {"resourceRules": [{
                        "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": resources,
                    }]},
                    "variables": [{"name": "labels", "expression": "object.metadata.labels"}],
                    "validations": [{"expression": expression}],
                },
            });
            check(&mut policy);
            assert_eq!(policy["status"]["observedGeneration"], 3);
            policy["status"]["typeChecking"].clone()
        };
        assert_eq!(found_in("object.spec.replicas > 1", &["deployments"]), json!({}));
        assert_eq!(found_in("variables.labels.size() > 0", &["deployments"]), json!({}));
        assert_eq!(
            found_in("object.replicas > 1", &["*"]),
            json!({}),
            "nothing is known of anything"
        );
        let found = found_in("object.replicas > 1", &["deployments", "deployments/scale"]);
        let warnings = found["expressionWarnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
        let warning = warnings[0]["warning"].as_str().unwrap();
        let expected = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'";
        assert!(warning.starts_with(expected), "{warning}");
        let found = found_in("object.spec.replicas == 'x'", &["deployments", "replicasets"]);
        let warning = found["expressionWarnings"][0]["warning"].as_str().unwrap();
        assert!(warning.contains("Kind=Deployment") && warning.contains("Kind=ReplicaSet"));
    }
}
