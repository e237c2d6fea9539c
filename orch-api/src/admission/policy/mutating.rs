//! The changes of mutating policies.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/dispatcher.go`, `patch`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use orch_cel::{Budget, library::Query};
use orch_core::{ApiError, patch, schema};
use serde_json::Value;

use super::{
    super::AdmissionRequest,
    authorize::{Answers, settled},
    config::{Binding, Bound, Mutation, Policy},
    expression::{Expression, Scope, Stop},
    params::collect,
    request::Asked,
};
use crate::{
    catalog::{Catalog, Resource},
    server::Inner,
};

/// A policy that failed: its name, that of its binding, why, and whether the request is invalid.
struct Failure<'a> {
    policy: &'a str,
    binding: Option<&'a str>,
    why: String,
    invalid: bool,
}

/// Lets every policy that is put to work change the object, in the order of their names.
pub(super) async fn dispatch(
    server: &Inner,
    request: &mut AdmissionRequest,
    policies: &[Bound],
) -> Result<(), ApiError> {
    let catalog = server.catalog().await?;
    request.origin.policies.enter(request.object.as_ref());
    let mut failures = Vec::new();
    for bound in policies {
        run(server, request, &catalog, bound, &mut failures).await?;
    }
    request.origin.policies.leave(request.object.as_ref());
    match failures.as_slice() {
        [] => Ok(()),
        failures => Err(refused(request, failures)),
    }
}

fn refused(request: &AdmissionRequest, failures: &[Failure<'_>]) -> ApiError {
    let mut status = request.refuse("admission request denied by policy").status().clone();
    let told = |failure: &Failure<'_>| match failure.binding {
        Some(binding) => format!(
            "policy '{}' with binding '{binding}' denied request: {}",
            failure.policy, failure.why
        ),
        None => format!("policy '{}' denied request: {}", failure.policy, failure.why),
    };
    if let Some(first) = failures.first() {
        status.message = Some(told(first));
        if first.invalid {
            status.reason = Some("Invalid".into());
        }
    }
    let causes = failures
        .iter()
        .map(|failure| StatusCause { message: Some(told(failure)), ..StatusCause::default() });
    let details = status.details.get_or_insert_with(Default::default);
    details.causes.get_or_insert_with(Vec::new).extend(causes);
    ApiError::from_status(status)
}

async fn run<'a>(
    server: &Inner,
    request: &mut AdmissionRequest,
    catalog: &Catalog,
    bound: &'a Bound,
    failures: &mut Vec<Failure<'a>>,
) -> Result<(), ApiError> {
    let policy = &*bound.policy;
    let mut fail = |binding: Option<&'a str>, why: String, invalid: bool| {
        if policy.fails {
            failures.push(Failure { policy: &policy.name, binding, why, invalid });
        }
    };
    let seen_as = match policy.constraints.pick(server, request, catalog).await {
        Ok(Some(seen_as)) => seen_as,
        Ok(None) => return Ok(()),
        Err(error) => {
            fail(None, format!("failed to configure policy: {error}"), false);
            return Ok(());
        }
    };
    for binding in &bound.bindings {
        let name = Some(binding.name.as_str());
        match lent(server, request, catalog, policy, binding).await {
            Ok(params) => {
                for params in &params {
                    let ran = invoke(server, request, (policy, binding), &seen_as, params).await?;
                    for why in ran {
                        fail(name, why, true);
                    }
                }
            }
            Err(why) => fail(name, format!("failed to configure binding: {why}"), false),
        }
    }
    Ok(())
}

/// The parameters that a binding lends, none if it is not about the request.
async fn lent(
    server: &Inner,
    request: &AdmissionRequest,
    catalog: &Catalog,
    policy: &Policy,
    binding: &Binding,
) -> Result<Vec<Value>, String> {
    if let Some(constraints) = &binding.constraints {
        let picked = constraints.pick(server, request, catalog).await;
        if picked.map_err(|error| error.to_string())?.is_none() {
            return Ok(Vec::new());
        }
    }
    let namespace = request.namespace_attribute();
    let (kind, wanted) = (policy.param_kind.as_ref(), binding.params.as_ref());
    collect(server, catalog, kind, wanted, &namespace).await
}

/// Runs the mutations of a policy with one parameter; gives what failed.
async fn invoke(
    server: &Inner,
    request: &mut AdmissionRequest,
    (policy, binding): (&Policy, &Binding),
    seen_as: &Resource,
    params: &Value,
) -> Result<Vec<String>, ApiError> {
    let asked = Asked::of(server, request, seen_as, true).await?;
    if asked.versioned.object.is_null() {
        return Ok(Vec::new());
    }
    let work = |answers: &Answers| {
        let scope = Scope::new(asked.inputs(params), Some(&policy.composed), answers);
        policy.conditions.hold(&scope, policy.fails)
    };
    match settled(server, &request.user, work).await {
        Ok(true) => {}
        Ok(false) => return Ok(Vec::new()),
        Err(why) => return Ok(vec![why]),
    }
    let meta = &params["metadata"];
    let uid = format!("{}/{}/{}/{}", policy.name, binding.name, meta["namespace"], meta["name"]);
    if !request.origin.policies.asks(&uid) {
        return Ok(Vec::new());
    }
    let (mut failures, mut changed) = (Vec::new(), false);
    for mutation in &policy.mutations {
        let asked = Asked::of(server, request, seen_as, true).await?;
        let work = |answers: &Answers| mutated(policy, mutation, &asked, params, seen_as, answers);
        match settled(server, &request.user, work).await {
            Ok(Some(object)) => changed |= server.take_back(request, seen_as, object).await?,
            Ok(None) => {}
            Err(why) => failures.push(why),
        }
    }
    request.origin.policies.note(&uid, changed, policy.reinvoked);
    Ok(failures)
}

/// The object as one mutation leaves it; `None` if it leaves it alone.
fn mutated(
    policy: &Policy,
    mutation: &Mutation,
    asked: &Asked,
    params: &Value,
    seen_as: &Resource,
    answers: &Answers,
) -> Result<Result<Option<Value>, String>, Box<Query>> {
    let scope = Scope::new(asked.inputs(params), Some(&policy.composed), answers);
    let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
    let given = match given(&scope, expression) {
        Ok(given) => given,
        Err(Stop::Asks(query)) => return Err(query),
        Err(Stop::Failed(why) | Stop::Spent(why)) => return Ok(Err(why)),
    };
    let object = &asked.versioned.object;
    Ok(match mutation {
        Mutation::Apply(_) => merged(asked, seen_as, given)
            .map_err(|why| format!("error applying patch: {why}"))
            .map(Some),
        Mutation::Patch(_) => {
            let mut object = object.clone();
            match patch::json_patch(&mut object, &given) {
                Ok(()) => Ok(Some(object)),
                // A test that fails means: not this object.
                Err(error) if error.to_string().contains("test failed") => Ok(None),
                Err(error) => Err(format!("JSON Patch: {error}")),
            }
        }
    })
}

fn given(scope: &Scope<'_>, expression: &Expression) -> Result<Value, Stop> {
    let value = scope.evaluate(expression, &mut Budget::default())?;
    value.to_json().map_err(|error| Stop::Failed(error.to_string()))
}

fn merged(asked: &Asked, seen_as: &Resource, mut config: Value) -> Result<Value, String> {
    let object = &asked.versioned.object;
    for field in ["apiVersion", "kind"] {
        config[field] = object[field].clone();
    }
    if let Some(version) = &seen_as.custom {
        return patch::merge_configuration(version.structural(), object, &config);
    }
    let (group, version, kind) = &asked.versioned.kind;
    patch::merge_configuration(schema::of(group, version, kind), object, &config)
}
