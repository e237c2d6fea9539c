//! Eviction: a deletion that respects PodDisruptionBudgets.
//!
//! Source: `pkg/registry/core/pod/storage/eviction.go`.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodCondition},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails, Time},
};
use orch_core::{
    ApiError, ClientError, ResourceType, Resources, Target,
    client::{DeleteOptions, ListOptions, Propagation, Write},
    selector::Selector,
    status::Reason,
};
use serde_json::{Value, json};

use crate::strategy::{VirtualResource, WriteContext};

/// How often a lost race for the budget's status is run again.
const TRIES: usize = 5;
/// Pods that are disrupted but not gone yet; more are taken as a controller that does not run.
const DISRUPTED_MAX: usize = 2000;
const WOULD_VIOLATE: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Answers a POST to `pods/eviction`.
#[derive(Debug)]
pub struct Eviction;

#[async_trait]
impl VirtualResource for Eviction {
    async fn create(
        &self,
        ctx: &WriteContext,
        target: &Target,
        body: Value,
    ) -> Result<Value, ApiError> {
        let name = target.name.as_deref().unwrap_or_default();
        let given = body["metadata"]["name"].as_str().unwrap_or_default();
        if !given.is_empty() && given != name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let pods: Resources<Pod> = Resources::namespaced(ctx.client.clone(), namespace);
        let pod = pods.get(name).await.map_err(api_error)?;
        let mut options = delete_options(&body, ctx.dry_run);
        if !may_go_at_once(&pod) {
            let pinned = check_budgets(ctx, namespace, &pod).await?;
            if pinned && options.resource_version.is_none() {
                // The pod was let go because it was not ready: it must still be.
                options.resource_version = pod.metadata.resource_version.clone();
            }
        }
        if !ctx.dry_run && options.resource_version.is_none() {
            mark(ctx, &pods, name).await?;
        }
        let object = Target::object(ResourceType::of::<Pod>(), Some(namespace), name);
        ctx.client.write(Write::Delete(object, options)).await.map_err(api_error)?;
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        }))
    }
}

fn api_error(error: ClientError) -> ApiError {
    match error {
        ClientError::Api(error) => error,
        other => ApiError::internal(other),
    }
}

fn delete_options(body: &Value, dry_run: bool) -> DeleteOptions {
    let options = &body["deleteOptions"];
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let dry = options["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    DeleteOptions {
        grace_period_s: options["gracePeriodSeconds"].as_i64(),
        propagation: match options["propagationPolicy"].as_str() {
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            _ => None,
        },
        uid: text(&options["preconditions"]["uid"]),
        resource_version: text(&options["preconditions"]["resourceVersion"]),
        dry_run: dry_run || dry,
    }
}

/// A pod that runs nothing (any more), or is on its way out, is nobody's loss.
fn may_go_at_once(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Asks the budget that covers the pod. `true` means: go ahead, but only if the pod is as it was.
async fn check_budgets(ctx: &WriteContext, namespace: &str, pod: &Pod) -> Result<bool, ApiError> {
    let budgets: Resources<PodDisruptionBudget> =
        Resources::namespaced(ctx.client.clone(), namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for _ in 0..TRIES {
        let all = budgets.list(ListOptions::default()).await.map_err(api_error)?;
        let mut covering = all.iter().filter(|budget| covers(budget, pod));
        let Some(budget) = covering.next() else { return Ok(false) };
        if covering.next().is_some() {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        if !is_ready(pod) && lets_unready_go(budget) {
            return Ok(true);
        }
        let mut budget = PodDisruptionBudget::clone(budget);
        take_one(&mut budget, name, ctx.environment.clock.now())?;
        if ctx.dry_run {
            return Ok(false);
        }
        match budgets.update_status(&budget).await {
            Ok(_) => return Ok(false),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(api_error(error)),
        }
    }
    let why = "couldn't update PodDisruptionBudget due to conflicts";
    Err(too_many(budget_cause(why), 10))
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Ok(selector) = Selector::from_label_selector(selector) else { return false };
    selector.matches(pod.metadata.labels.as_ref().unwrap_or(&std::collections::BTreeMap::new()))
}

/// Pods that are not ready do not count for a budget that is met, or for one that says so.
fn lets_unready_go(budget: &PodDisruptionBudget) -> bool {
    let policy =
        budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let met = budget
        .status
        .as_ref()
        .is_some_and(|s| s.current_healthy >= s.desired_healthy && s.desired_healthy > Some(0));
    policy == Some("AlwaysAllow") || met
}

fn budget_cause(message: &str) -> StatusCause {
    StatusCause {
        reason: Some("DisruptionBudget".into()),
        message: Some(message.into()),
        field: None,
    }
}

fn too_many(cause: StatusCause, after_s: i32) -> ApiError {
    ApiError::new(Reason::TooManyRequests, WOULD_VIOLATE).with_details(StatusDetails {
        causes: Some(vec![cause]),
        retry_after_seconds: (after_s > 0).then_some(after_s),
        ..StatusDetails::default()
    })
}

/// Takes one disruption from the budget, if it has one to give.
fn take_one(budget: &mut PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or_default();
    let status = budget.status.get_or_insert_with(Default::default);
    if status.observed_generation.unwrap_or_default() < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(budget_cause(&why), 10));
    }
    let allowed = status.disruptions_allowed.unwrap_or_default();
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return Err(ApiError::forbidden("policy", "poddisruptionbudgets", &name, why));
    }
    let disrupted = status.disrupted_pods.get_or_insert_with(Default::default);
    if disrupted.len() > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden("policy", "poddisruptionbudgets", &name, why));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or_default(),
            status.current_healthy.unwrap_or_default()
        );
        return Err(too_many(budget_cause(&why), 0));
    }
    status.disruptions_allowed = Some(allowed - 1);
    // The controller forgets this entry when the pod is gone, or after two minutes.
    disrupted.insert(pod.to_owned(), Time(orch_core::clock::to_seconds(now)));
    Ok(())
}

/// Notes in the pod's status why it goes.
async fn mark(ctx: &WriteContext, pods: &Resources<Pod>, name: &str) -> Result<(), ApiError> {
    let now = Time(orch_core::clock::to_seconds(ctx.environment.clock.now()));
    for _ in 0..TRIES {
        let mut pod = Pod::clone(&*pods.get(name).await.map_err(api_error)?);
        let status = pod.status.get_or_insert_with(Default::default);
        let conditions = status.conditions.get_or_insert_with(Vec::new);
        conditions.retain(|condition| condition.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("EvictionByEvictionAPI".into()),
            message: Some("Eviction API: evicting".into()),
            last_transition_time: Some(now.clone()),
            ..PodCondition::default()
        });
        match pods.update_status(&pod).await {
            Err(error) if error.is_conflict() => {}
            other => return other.map(|_| ()).map_err(api_error),
        }
    }
    Err(ApiError::stale("", "pods", name))
}
