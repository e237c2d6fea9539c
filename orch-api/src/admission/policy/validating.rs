//! The decisions of validating policies.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go`,
//! `validator.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use orch_cel::{Budget, Value as Cel, library::Query};
use orch_core::ApiError;
use serde_json::{Value, json};

use super::{
    super::AdmissionRequest,
    authorize::{Answers, settled},
    config::{Binding, Bound, Policy, Validation},
    expression::{Scope, Stop},
    params::collect,
    request::Asked,
};
use crate::{catalog::Catalog, server::Inner};

const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
const FAILURES_MAX: usize = 50;
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What a policy says about a request: of each validation the refusal, if it refuses.
#[derive(Debug, Default)]
struct Verdict {
    refusals: Vec<Option<Refusal>>,
    annotations: Vec<(String, String)>,
    /// Annotations that failed, which refuses the request whatever the binding says.
    broken: Vec<String>,
}

#[derive(Clone, Debug)]
struct Refusal {
    message: String,
    reason: String,
}

/// A request that is refused: by which policy and binding, and why.
struct Denied<'a> {
    policy: &'a str,
    binding: Option<&'a str>,
    refusal: Refusal,
}

/// What all policies said.
#[derive(Default)]
struct Outcome<'a> {
    denied: Vec<Denied<'a>>,
    failures: Vec<Value>,
}

/// Lets every policy that is put to work decide; the first refusal counts.
pub(super) async fn dispatch(
    server: &Inner,
    request: &AdmissionRequest,
    policies: &[Bound],
) -> Result<(), ApiError> {
    let catalog = server.catalog().await?;
    let mut outcome = Outcome::default();
    for bound in policies {
        decide(server, request, &catalog, bound, &mut outcome).await?;
    }
    if !outcome.failures.is_empty() {
        outcome.failures.truncate(FAILURES_MAX);
        request.notes.annotate(FAILURE, Value::Array(outcome.failures).to_string());
    }
    match outcome.denied.first() {
        Some(denied) => Err(refused(request, denied)),
        None => Ok(()),
    }
}

fn refused(request: &AdmissionRequest, denied: &Denied<'_>) -> ApiError {
    let (policy, why) = (denied.policy, &denied.refusal.message);
    let message = match denied.binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {why}"
        ),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {why}"),
    };
    let mut status = request.refuse(&message).status().clone();
    let (reason, code) = match denied.refusal.reason.as_str() {
        "Unauthorized" => ("Unauthorized", 401),
        "Forbidden" => ("Forbidden", 403),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    status.reason = Some(reason.into());
    status.code = Some(code);
    let details = status.details.get_or_insert_with(Default::default);
    let cause = StatusCause { message: Some(message), ..StatusCause::default() };
    details.causes.get_or_insert_with(Vec::new).push(cause);
    ApiError::from_status(status)
}

impl<'a> Outcome<'a> {
    /// What is wrong with a policy or its binding refuses the request, unless failures are ignored.
    fn misconfigured(
        &mut self,
        policy: &'a Policy,
        binding: Option<&'a str>,
        why: impl std::fmt::Display,
    ) {
        if !policy.fails {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        let message = format!("failed to configure {what}: {why}");
        let refusal = Refusal { message, reason: String::new() };
        self.denied.push(Denied { policy: &policy.name, binding, refusal });
    }

    /// Does with a verdict what the binding says.
    fn take(
        &mut self,
        request: &AdmissionRequest,
        policy: &'a Policy,
        binding: &'a Binding,
        verdict: &Verdict,
    ) {
        let name = Some(binding.name.as_str());
        for (index, refusal) in verdict.refusals.iter().enumerate() {
            let Some(refusal) = refusal else { continue };
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => self.denied.push(Denied {
                        policy: &policy.name,
                        binding: name,
                        refusal: refusal.clone(),
                    }),
                    "Audit" => self.failures.push(json!({
                        "message": refusal.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": index, "validationActions": binding.actions,
                    })),
                    _ => request.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, refusal.message
                    )),
                }
            }
        }
        for message in &verdict.broken {
            let refusal = Refusal { message: message.clone(), reason: String::new() };
            self.denied.push(Denied { policy: &policy.name, binding: name, refusal });
        }
    }
}

async fn decide<'a>(
    server: &Inner,
    request: &AdmissionRequest,
    catalog: &Catalog,
    bound: &'a Bound,
    outcome: &mut Outcome<'a>,
) -> Result<(), ApiError> {
    let policy = &*bound.policy;
    let seen_as = match policy.constraints.pick(server, request, catalog).await {
        Ok(Some(seen_as)) => seen_as,
        Ok(None) => return Ok(()),
        Err(error) => {
            outcome.misconfigured(policy, None, error);
            return Ok(());
        }
    };
    let mut asked = None;
    let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in &bound.bindings {
        let name = Some(binding.name.as_str());
        if let Some(constraints) = &binding.constraints {
            match constraints.pick(server, request, catalog).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    outcome.misconfigured(policy, name, error);
                    continue;
                }
            }
        }
        let namespace = request.namespace_attribute();
        let (kind, wanted) = (policy.param_kind.as_ref(), binding.params.as_ref());
        let params = match collect(server, catalog, kind, wanted, &namespace).await {
            Ok(params) => params,
            Err(why) => {
                outcome.misconfigured(policy, name, why);
                continue;
            }
        };
        if asked.is_none() {
            asked = Some(Asked::of(server, request, &seen_as, true).await?);
        }
        let Some(asked) = &asked else { continue };
        for params in &params {
            let work = |answers: &Answers| evaluate(policy, asked, params, answers);
            let verdict = settled(server, &request.user, work).await;
            outcome.take(request, policy, binding, &verdict);
            for (key, value) in verdict.annotations {
                let values = annotations.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }
    for (key, values) in annotations {
        request.notes.annotate(format!("{}/{key}", policy.name), values.join(", "));
    }
    Ok(())
}

/// What happens to an error, as the policy says.
fn failure(policy: &Policy, message: String) -> Option<Refusal> {
    policy.fails.then(|| Refusal { message, reason: String::new() })
}

fn evaluate(
    policy: &Policy,
    asked: &Asked,
    params: &Value,
    answers: &Answers,
) -> Result<Verdict, Box<Query>> {
    let whole =
        |why: String| Verdict { refusals: vec![failure(policy, why)], ..Verdict::default() };
    let scope = || Scope::new(asked.inputs(params), Some(&policy.composed), answers);
    if !policy.conditions.is_empty() {
        match policy.conditions.hold(&scope(), policy.fails)? {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::default()),
            Err(why) => return Ok(whole(why)),
        }
    }
    let (scope, mut budget) = (scope(), Budget::default());
    let mut verdict = Verdict::default();
    for validation in &policy.validations {
        let refusal = match scope.evaluate(&validation.expression, &mut budget) {
            Ok(value) if value.as_bool() == Some(true) => None,
            Ok(_) => Some(refusal_of(validation, &scope, &mut budget)?),
            Err(Stop::Failed(why)) => failure(policy, why),
            Err(Stop::Spent(why)) => return Ok(whole(why)),
            Err(Stop::Asks(query)) => return Err(query),
        };
        verdict.refusals.push(refusal);
    }
    let mut budget = Budget::default();
    for (key, expression) in &policy.annotations {
        match scope.evaluate(expression, &mut budget) {
            Ok(Cel::Null) => {}
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                if !text.is_empty() {
                    verdict.annotations.push((key.clone(), shortened(text).to_owned()));
                }
            }
            Err(Stop::Failed(why)) if policy.fails => verdict.broken.push(why),
            Err(Stop::Failed(_)) => {}
            Err(Stop::Spent(why)) => return Ok(whole(why)),
            Err(Stop::Asks(query)) => return Err(query),
        }
    }
    Ok(verdict)
}

/// As much of an annotation as the audit log takes.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(ANNOTATION_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a validation that does not hold says: its message expression, its message, or itself.
fn refusal_of(
    validation: &Validation,
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<Refusal, Box<Query>> {
    let mut message = String::new();
    if let Some(expression) = &validation.message_expression {
        match scope.evaluate(expression, budget) {
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                if text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
                    text.clone_into(&mut message);
                }
            }
            Err(Stop::Failed(why)) => tracing::debug!(%why, "a message expression failed"),
            Err(Stop::Spent(why)) => message = format!("failed messageExpression: {why}"),
            Err(Stop::Asks(query)) => return Err(query),
        }
    }
    if message.is_empty() {
        message.clone_from(&validation.message);
    }
    if message.is_empty() {
        message = format!("failed expression: {}", validation.expression.source.trim());
    }
    Ok(Refusal { message, reason: validation.reason.clone() })
}
