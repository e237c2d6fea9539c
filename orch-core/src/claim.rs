//! The claims that the volumes of a pod lead to: those that it names, and its own.
//!
//! Source: `k8s.io/component-helpers/storage/ephemeral`.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

use crate::owner::is_controlled_by;

/// A claim that a volume of a pod leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    /// The claim's name. It is in the pod's namespace.
    pub name: String,
    /// Whether it is made for the pod, of an `ephemeral` volume, and goes with it.
    pub is_ephemeral: bool,
}

/// A claim of the name that an ephemeral volume of a pod needs is somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PVC {claim} was not created for pod {pod} (pod is not owner)")]
pub struct NotOwner {
    /// Namespace and name of the claim.
    pub claim: String,
    /// Namespace and name of the pod.
    pub pod: String,
}

/// The claim that a volume of this pod leads to, if it leads to one.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<PodClaim> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(PodClaim { name: source.claim_name.clone(), is_ephemeral: false });
    }
    volume.ephemeral.as_ref()?;
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    Some(PodClaim { name: format!("{pod_name}-{}", volume.name), is_ephemeral: true })
}

/// The claims of all volumes of a pod, in their order.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = PodClaim> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| claim_of(pod, volume))
}

/// Whether the claim of an ephemeral volume is the one that was made for the pod.
///
/// # Errors
/// [`NotOwner`] if it is another one of the same name, which the pod must not use.
pub fn check_made_for(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), NotOwner> {
    let (pod, claim) = (&pod.metadata, &claim.metadata);
    let uid = pod.uid.as_deref().unwrap_or_default();
    if pod.namespace == claim.namespace && is_controlled_by(claim, uid) {
        return Ok(());
    }
    let path = |namespace: &Option<String>, name: &Option<String>| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!("{}/{}", text(namespace), text(name))
    };
    Err(NotOwner {
        claim: path(&claim.namespace, &claim.name),
        pod: path(&pod.namespace, &pod.name),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ephemeral_claim_is_named_after_pod_and_volume_and_owned_by_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "shared"}},
                {"name": "b", "emptyDir": {}},
                {"name": "c", "ephemeral": {}},
            ]},
        }))
        .unwrap();
        let claims: Vec<_> =
            claims_of(&pod).map(|claim| (claim.name, claim.is_ephemeral)).collect();
        assert_eq!(claims, [("shared".to_owned(), false), ("web-c".to_owned(), true)]);
        let check = |owners: serde_json::Value, expected: Option<&str>| {
            let claim = serde_json::from_value(json!({"metadata": {
                "name": "web-c", "namespace": "default", "ownerReferences": owners,
            }}));
            let found = check_made_for(&pod, &claim.unwrap()).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        let owner = |uid: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid,
                "controller": true})
        };
        let foreign = "PVC default/web-c was not created for pod default/web (pod is not owner)";
        check(json!([owner("u1")]), None);
        check(json!([owner("u0")]), Some(foreign));
        check(json!([]), Some(foreign));
    }
}
