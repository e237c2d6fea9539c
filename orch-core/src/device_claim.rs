//! Claims for devices: which of them a pod uses, and for whom they are kept.
//!
//! Source: `k8s.io/dynamic-resource-allocation/resourceclaim/resourceclaim.go`.

use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{DeviceTaint, DeviceToleration, ResourceClaim},
};

use crate::owner::is_controlled_by;

/// Keeps a claim while it is allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// A claim that a pod uses, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName {
    /// The name, in the pod's namespace.
    pub name: String,
    /// Whether it was made for the pod: one of the same name that was not is none of the pod's.
    pub generated: bool,
}

/// Why it cannot be told which claim a pod uses. `Display` is upstream's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// It has yet to be made from its template.
    #[error("pod {pod:?}: ResourceClaim not created yet")]
    NotCreated {
        /// The pod's namespace and name.
        pod: String,
    },
    /// The pod names neither a claim nor a template.
    #[error("pod {pod:?}, spec.resourceClaim {claim:?}: none of the supported fields are set")]
    Unsupported {
        /// The pod's namespace and name.
        pod: String,
        /// The name within the pod.
        claim: String,
    },
    /// The claim belongs to somebody else.
    #[error("ResourceClaim {claim} was not created for Pod {pod} (Pod is not owner)")]
    NotOwner {
        /// The pod's namespace and name.
        pod: String,
        /// The claim's namespace and name.
        claim: String,
    },
}

fn whole_name(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn shown(pod: &Pod) -> String {
    whole_name(pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref())
}

/// The claim behind one of a pod's names for claims; `None` if none is needed.
///
/// # Errors
/// [`ClaimError`] if there is no telling.
pub fn claim_name(pod: &Pod, of: &PodResourceClaim) -> Result<Option<ClaimName>, ClaimError> {
    if let Some(name) = &of.resource_claim_name {
        return Ok(Some(ClaimName { name: name.clone(), generated: false }));
    }
    if of.resource_claim_template_name.is_none() {
        return Err(ClaimError::Unsupported { pod: shown(pod), claim: of.name.clone() });
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    let status = statuses.into_iter().flatten().find(|status| status.name == of.name);
    let status = status.ok_or_else(|| ClaimError::NotCreated { pod: shown(pod) })?;
    let name = status.resource_claim_name.clone();
    Ok(name.map(|name| ClaimName { name, generated: true }))
}

/// Checks that a claim was made for a pod.
///
/// # Errors
/// [`ClaimError::NotOwner`] if it was not.
pub fn is_for_pod(pod: &Pod, claim: &ResourceClaim) -> Result<(), ClaimError> {
    if is_controlled_by(&claim.metadata, pod.metadata.uid.as_deref().unwrap_or_default()) {
        return Ok(());
    }
    let meta = &claim.metadata;
    let claim = whole_name(meta.namespace.as_deref(), meta.name.as_deref());
    Err(ClaimError::NotOwner { pod: shown(pod), claim })
}

/// Whether a claim is kept for a pod.
pub fn is_reserved_for(pod_uid: &str, claim: &ResourceClaim) -> bool {
    let status = claim.status.as_ref();
    let users = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    users.iter().any(|user| user.uid == pod_uid)
}

/// Whether a claim has its devices.
pub fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// Whether a request puts up with a taint of a device.
///
/// Source: `k8s.io/dynamic-resource-allocation/resourceclaim/devicetoleration.go`.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_named_by_pods_or_by_their_status() {
        let check = |claim: serde_json::Value, expected: Result<Option<(&str, bool)>, &str>| {
            let pod = json!({
                "metadata": {"name": "p", "namespace": "d", "uid": "u"},
                "spec": {"containers": [], "resourceClaims": [claim]},
                "status": {"resourceClaimStatuses": [
                    {"name": "made", "resourceClaimName": "p-made-x"}, {"name": "none"},
                ]},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let claims = pod.spec.as_ref().unwrap().resource_claims.as_ref().unwrap();
            let found = claim_name(&pod, &claims[0]).map_err(|error| error.to_string());
            let found = found.map(|found| found.map(|found| (found.name, found.generated)));
            let expected = expected.map(|found| found.map(|(name, made)| (name.to_owned(), made)));
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check(json!({"name": "a", "resourceClaimName": "c"}), Ok(Some(("c", false))));
        let template = |name| json!({"name": name, "resourceClaimTemplateName": "t"});
        check(template("made"), Ok(Some(("p-made-x", true))));
        check(template("none"), Ok(None));
        check(template("other"), Err("pod \"d/p\": ResourceClaim not created yet"));
        let words = "pod \"d/p\", spec.resourceClaim \"a\": none of the supported fields are set";
        check(json!({"name": "a"}), Err(words));
    }
}
