//! Pods as controllers see them: made from templates, judged by their status, created in batches.

mod disrupt;
mod unknown;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use orch_core::{ClientError, Key, client::DeleteOptions, informer::Watchable, status::Reason};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::disrupt::disrupt;
use crate::{
    context::{Context, EventType},
    expectations::Expectations,
};

/// How many pods a controller creates or deletes for one owner in one call at most.
///
/// Source: `BurstReplicas` of the replica set controller.
pub(crate) const BURST: usize = 500;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether nothing of a pod runs any more: its volumes are not used then.
///
/// Source: `IsPodTerminated` of `k8s.io/kubernetes/pkg/volume/util/util.go`.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let none_runs = statuses.into_iter().flatten().all(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
    });
    is_terminal(pod) || (is_terminating(pod) && none_runs)
}

/// Neither over nor going.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the pod is ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether a pod has been ready for long enough.
pub(crate) fn is_available(pod: &Pod, min_ready_s: i32, now: Timestamp) -> bool {
    is_ready(pod) && available_in(pod, min_ready_s, now).is_some_and(|left| left.is_zero())
}

/// How long a ready pod has still to stay ready until it is available.
pub(crate) fn available_in(pod: &Pod, min_ready_s: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_s <= 0 {
        return Some(Duration::ZERO);
    }
    let since = now.duration_since(ready_since(pod)?);
    let wanted = jiff::SignedDuration::from_secs(i64::from(min_ready_s));
    Some(Duration::try_from(wanted - since).unwrap_or(Duration::ZERO))
}

/// Whether the selector selects these labels. One that cannot be understood selects nothing; an
/// empty one everything.
pub(crate) fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| value(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            let found = value(&requirement.key);
            match requirement.operator.as_str() {
                "In" => found.is_some_and(|v| values.contains(v)),
                "NotIn" => found.is_none_or(|v| !values.contains(v)),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

pub(crate) fn is_empty_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether an owner of pods with this selector selects these labels: one with none, or with an
/// empty one, selects nothing.
pub(crate) fn are_selected(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    selector.is_some_and(|selector| !is_empty_selector(selector) && selects(selector, labels))
}

/// The pod that a template describes, with a generated name and one controller.
///
/// Source: `GetPodFromTemplate` of `k8s.io/kubernetes/pkg/controller/controller_utils.go`.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    owner: &Key,
    controller: OwnerReference,
) -> Pod {
    let described = template.metadata.as_ref();
    let metadata = ObjectMeta {
        generate_name: Some(name_prefix(&owner.name)),
        namespace: Some(owner.namespace.clone()),
        labels: described.and_then(|meta| meta.labels.clone()),
        annotations: described.and_then(|meta| meta.annotations.clone()),
        finalizers: described.and_then(|meta| meta.finalizers.clone()),
        owner_references: Some(vec![controller]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// Generated names are the owner's and a dash, as long as that leaves room in a DNS subdomain.
fn name_prefix(owner: &str) -> String {
    let prefix = format!("{owner}-");
    if prefix.len() > 253 { owner.to_owned() } else { prefix }
}

/// Calls `act` `count` times in batches of 1, 2, 4, ..., each batch at once, and stops after a
/// batch with a failure: what cannot succeed (a quota that is used up) costs few calls. Gives how
/// many succeeded, and the first error.
///
/// Source: `slowStartBatch` of the replica set controller.
pub async fn slow_start_batch<E, F, Fut>(count: usize, act: F) -> (usize, Option<E>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut started, mut succeeded, mut batch) = (0, 0, 1);
    while started < count {
        let size = batch.min(count - started);
        let results = join_all((started..started + size).map(&act)).await;
        started += size;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(()) => succeeded += 1,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if first_error.is_some() {
            return (succeeded, first_error);
        }
        batch = size * 2;
    }
    (succeeded, None)
}

/// One of many calls at once: a task of its own, so that all cores have a part in them. It ends
/// with whoever waits for it.
async fn beside<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> T {
    match AbortOnDropHandle::new(tokio::spawn(call)).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Whether the call failed because the namespace is being deleted: then there is nothing to retry.
pub(crate) fn is_namespace_terminating(error: &ClientError) -> bool {
    let ClientError::Api(api) = error else { return false };
    let causes = api.status().details.as_ref().and_then(|details| details.causes.as_deref());
    error.reason() == Reason::Forbidden
        && causes
            .into_iter()
            .flatten()
            .any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}

/// How an owner tells of its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Voice {
    /// `Created pod: web-x7k2p`
    #[default]
    Common,
    /// `create Pod db-0 in StatefulSet db successful`
    StatefulSet,
}

impl Voice {
    fn done(self, verb: &str, past: &str, pod: &str, owner: &str) -> String {
        match self {
            Self::Common => format!("{past} pod: {pod}"),
            Self::StatefulSet => format!("{verb} Pod {pod} in StatefulSet {owner} successful"),
        }
    }

    /// `doing` is the verb as the common messages of failures have it.
    pub(crate) fn failed(
        self,
        (verb, doing): (&str, &str),
        pod: &str,
        owner: &str,
        error: &dyn std::fmt::Display,
    ) -> String {
        match self {
            Self::Common => format!("Error {doing}: {error}"),
            Self::StatefulSet => {
                format!("{verb} Pod {pod} in StatefulSet {owner} failed error: {error}")
            }
        }
    }
}

/// Creates and deletes pods for one owner, with its events and expectations.
pub(crate) struct PodControl<'a, O> {
    pub(crate) context: &'a Context,
    pub(crate) expectations: &'a Expectations,
    pub(crate) owner: &'a O,
    pub(crate) voice: Voice,
}

impl<O: Watchable> PodControl<'_, O> {
    fn key(&self) -> Key {
        Key::of(self.owner.metadata())
    }

    /// Creates `count` pods, the i-th as `pod(i)` says.
    pub(crate) async fn create(
        &self,
        count: usize,
        pod: impl Fn(usize) -> Pod + Sync,
    ) -> Result<usize, ClientError> {
        let key = self.key();
        let resources = self.context.resources::<Pod>(&key.namespace);
        self.expectations.expect_creations(&key, count);
        let outstanding = Outstanding::new(self.expectations, &key, count);
        let outstanding = parking_lot::Mutex::new(outstanding);
        let (resources, pod, left, key) = (&resources, &pod, &outstanding, &key);
        let (created, error) = slow_start_batch(count, |at| async move {
            let pod = pod(at);
            let name = pod.metadata.name.clone().unwrap_or_default();
            let resources = (*resources).clone();
            match beside(async move { resources.create(&pod).await }).await {
                Ok(created) => {
                    left.lock().left -= 1;
                    let version = created.metadata.resource_version.as_deref();
                    self.expectations.created_at(key, version);
                    let name = created.metadata.name.as_deref().unwrap_or_default();
                    let message = self.voice.done("create", "Created", name, &key.name);
                    self.context.event(self.owner, EventType::Normal, "SuccessfulCreate", message);
                    Ok(())
                }
                Err(error) => {
                    left.lock().unknown += usize::from(unknown::is_unknown(&error));
                    // A set's pod that is there already is one that the local copy lacks.
                    let was_made = self.voice == Voice::StatefulSet && error.is_already_exists();
                    if !is_namespace_terminating(&error) && !was_made {
                        let verb = ("create", "creating");
                        let message = self.voice.failed(verb, &name, &key.name, &error);
                        self.context.event(self.owner, EventType::Warning, "FailedCreate", message);
                    }
                    Err(error)
                }
            }
        })
        .await;
        let any_unknown = left.lock().unknown > 0;
        if any_unknown && let Err(version) = self.catches_up(resources, (0..count).map(pod)).await {
            self.expectations.created_at(key, version.as_deref());
            left.lock().keep_unknown();
        }
        match error {
            None => Ok(created),
            Some(error) if is_namespace_terminating(&error) => Ok(created),
            Some(error) => Err(error),
        }
    }

    /// Deletes pods, all at once.
    pub(crate) async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), ClientError> {
        let key = self.key();
        self.expectations
            .expect_deletions(&key, pods.iter().filter_map(|pod| pod.metadata.uid.clone()));
        let results = join_all(pods.iter().map(|pod| self.delete_one(&key, pod))).await;
        results.into_iter().collect()
    }

    async fn delete_one(&self, key: &Key, pod: &Pod) -> Result<(), ClientError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        let resources = self.context.resources::<Pod>(&key.namespace);
        let (own, named) = (resources.clone(), name.to_owned());
        let error = match beside(async move { own.delete(&named, options).await }).await {
            Ok(_) => return self.has_deleted(key, name),
            Err(error) if unknown::is_unknown(&error) => match self.is_going(&resources, pod).await
            {
                Some(true) => return self.has_deleted(key, name),
                Some(false) => error,
                // It is expected to go further on.
                None => return Err(error),
            },
            Err(error) => error,
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.expectations.deletion_observed(key, uid);
        if error.is_not_found() {
            return Ok(());
        }
        // Another pod has the name by now, or the server was in two minds: it is looked at again.
        if error.is_conflict() {
            return Err(error);
        }
        let verb = ("delete", "deleting");
        let message = self.voice.failed(verb, name, &key.name, &error);
        self.context.event(self.owner, EventType::Warning, "FailedDelete", message);
        Err(error)
    }

    fn has_deleted(&self, key: &Key, pod: &str) -> Result<(), ClientError> {
        let message = self.voice.done("delete", "Deleted", pod, &key.name);
        self.context.event(self.owner, EventType::Normal, "SuccessfulDelete", message);
        Ok(())
    }
}

/// Takes back the expectation of what was never created, also when the work is cancelled.
struct Outstanding<'a> {
    expectations: &'a Expectations,
    key: &'a Key,
    left: usize,
    /// How many of those that are left may have been created.
    unknown: usize,
}

impl<'a> Outstanding<'a> {
    fn new(expectations: &'a Expectations, key: &'a Key, left: usize) -> Self {
        Self { expectations, key, left, unknown: 0 }
    }

    /// What may have been created is expected further on.
    fn keep_unknown(&mut self) {
        self.left -= self.unknown;
        self.unknown = 0;
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        (0..self.left).for_each(|_| self.expectations.creation_observed(self.key));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn slow_start_stops_after_the_first_failing_batch() {
        let check = async |fail_from: usize, count: usize, calls: usize, succeeded: usize| {
            let made = AtomicUsize::new(0);
            let (done, error) = slow_start_batch(count, |at| {
                made.fetch_add(1, Ordering::Relaxed);
                std::future::ready(if at >= fail_from { Err("refused") } else { Ok(()) })
            })
            .await;
            assert_eq!((made.into_inner(), done), (calls, succeeded));
            assert_eq!(error.is_some(), fail_from < count);
        };
        check(usize::MAX, 10, 10, 10).await;
        check(0, 10, 1, 0).await;
        check(5, 10, 7, 5).await;
        check(0, 0, 0, 0).await;
    }
}
