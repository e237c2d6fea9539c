//! What a namespace that is being deleted says about it.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/namespace/deletion/status_condition_utils.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::ClientError;

use super::Remaining;

const DISCOVERY: &str = "NamespaceDeletionDiscoveryFailure";
const PARSING: &str = "NamespaceDeletionGroupVersionParsingFailure";
const DELETION: &str = "NamespaceDeletionContentFailure";
const CONTENT: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

type Said<'a> = (&'a str, &'a str, &'a str, String);

/// The status after an attempt to empty the namespace.
pub(super) fn of(namespace: &Namespace, remaining: &Remaining, now: &Time) -> NamespaceStatus {
    let listed = |counts: &BTreeMap<String, usize>, unit: &str| {
        let each: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name} {unit}{count} resource instances"))
            .collect();
        each.join(", ")
    };
    let deletion: Said<'_> = if remaining.failures.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization";
        (DELETION, "False", "ContentDeleted", message.to_owned())
    } else {
        let message = format!(
            "Failed to delete all resource types, {} remaining: {}",
            remaining.failures.len(),
            remaining.failures.join(", ")
        );
        (DELETION, "True", "ContentDeletionFailed", message)
    };
    let content: Said<'_> = if remaining.objects.is_empty() {
        (CONTENT, "False", "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        let left = listed(&remaining.objects, "has ");
        (CONTENT, "True", "SomeResourcesRemain", format!("Some resources are remaining: {left}"))
    };
    let finalizers: Said<'_> = if remaining.finalizers.is_empty() {
        let message = "All content-preserving finalizers finished".to_owned();
        (FINALIZERS, "False", "ContentHasNoFinalizers", message)
    } else {
        let left = listed(&remaining.finalizers, "in ");
        let message = format!("Some content in the namespace has finalizers remaining: {left}");
        (FINALIZERS, "True", "SomeFinalizersRemain", message)
    };
    let discovery: Said<'_> =
        (DISCOVERY, "False", "ResourcesDiscovered", "All resources successfully discovered".into());
    let parsing: Said<'_> = (
        PARSING,
        "False",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed".into(),
    );
    with(namespace, [discovery, parsing, deletion, content, finalizers], now)
}

/// The status if it could not be found out what to delete.
pub(super) fn discovery_failed(
    namespace: &Namespace,
    error: &ClientError,
    now: &Time,
) -> NamespaceStatus {
    let message = format!("Discovery failed for some groups: {error}");
    with(namespace, [(DISCOVERY, "True", "DiscoveryFailed", message)], now)
}

fn with<'a>(
    namespace: &Namespace,
    said: impl IntoIterator<Item = Said<'a>>,
    now: &Time,
) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for (type_, value, reason, message) in said {
        let fresh = NamespaceCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(fresh),
            Some(known) => {
                let changed = known.status != fresh.status;
                let since = known.last_transition_time.clone().filter(|_| !changed);
                *known = NamespaceCondition {
                    last_transition_time: since.or(fresh.last_transition_time.clone()),
                    ..fresh
                };
            }
        }
    }
    status
}
