//! Extended resources of containers, and the classes of devices that may stand behind them.
//!
//! Source: `k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache`,
//! `pkg/apis/core/v1/helper/helpers.go` (`IsExtendedResourceName`), `pkg/scheduler/util/utils.go`
//! (`IsDRAExtendedResourceName`).

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{DeviceClass, ResourceClaim},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{names::qualified_name_errors, owner::controller_of};

/// Marks a claim that a scheduler made for the extended resources of a pod. The one value is
/// `true`.
pub const CLAIM_ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// What stands before the name of a class of devices in the resource that means the class without
/// its having an extended resource's name.
pub const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// Whether a resource is none of Kubernetes' own.
pub fn is_extended(resource: &str) -> bool {
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    !native
        && !resource.starts_with("requests.")
        && qualified_name_errors(&format!("requests.{resource}")).is_empty()
}

/// Whether devices may stand behind a resource, by its name.
pub fn may_be_devices(resource: &str) -> bool {
    resource.starts_with(CLASS_PREFIX) || is_extended(resource)
}

/// The uid of the pod for whose extended resources a claim was made.
pub fn claimant(claim: &ObjectMeta) -> Option<&str> {
    let annotations = claim.annotations.as_ref()?;
    let marked = annotations.get(CLAIM_ANNOTATION).is_some_and(|value| value == "true");
    let owner = controller_of(claim).filter(|_| marked)?;
    (owner.kind == "Pod" && owner.api_version == "v1").then_some(owner.uid.as_str())
}

/// Whether a claim was made for the extended resources of a pod.
pub fn is_claim_of(claim: &ResourceClaim, pod_uid: &str) -> bool {
    claimant(&claim.metadata) == Some(pod_uid)
}

/// Which class of devices each extended resource means.
///
/// Differs: when the class goes that a resource means, the next one that names the resource is
/// meant. Upstream forgets the resource until that other class changes.
#[derive(Clone, Debug, Default)]
pub struct DeviceClasses {
    classes: HashMap<String, Arc<DeviceClass>>,
    /// The classes of each resource, that which is meant first: the youngest, then by name.
    by_resource: HashMap<String, BTreeSet<(Reverse<Timestamp>, String)>>,
}

fn name_of(class: &DeviceClass) -> &str {
    class.metadata.name.as_deref().unwrap_or_default()
}

fn place(class: &DeviceClass) -> (Reverse<Timestamp>, String) {
    let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (Reverse(created.unwrap_or(Timestamp::MIN)), name_of(class).to_owned())
}

impl DeviceClasses {
    /// Adds a class, or changes it. Tells whether some resource may mean another class than before.
    pub fn set(&mut self, class: &Arc<DeviceClass>) -> bool {
        let name = name_of(class);
        let known = self.classes.get(name);
        let same = known.is_some_and(|known| {
            known.spec.extended_resource_name == class.spec.extended_resource_name
                && known.metadata.creation_timestamp == class.metadata.creation_timestamp
        });
        if !same {
            self.remove(name);
            if let Some(resource) = &class.spec.extended_resource_name {
                self.by_resource.entry(resource.clone()).or_default().insert(place(class));
            }
        }
        self.classes.insert(name.to_owned(), class.clone());
        !same
    }

    /// Takes a class away. Tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(class) = self.classes.remove(name) else { return false };
        if let Some(resource) = &class.spec.extended_resource_name
            && let Some(all) = self.by_resource.get_mut(resource)
        {
            all.remove(&place(&class));
            if all.is_empty() {
                self.by_resource.remove(resource);
            }
        }
        true
    }

    /// The class of devices that stands behind a resource.
    pub fn behind(&self, resource: &str) -> Option<&Arc<DeviceClass>> {
        let named = || {
            let (_, name) = self.by_resource.get(resource)?.first()?;
            self.classes.get(name)
        };
        match resource.strip_prefix(CLASS_PREFIX) {
            Some(class) => self.classes.get(class),
            None => named(),
        }
    }

    /// The extended resource that a class names.
    pub fn resource_of(&self, class: &str) -> Option<&str> {
        self.classes.get(class)?.spec.extended_resource_name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_tell_what_may_be_devices() {
        let check = |name: &str, extended: bool, devices: bool| {
            assert_eq!((is_extended(name), may_be_devices(name)), (extended, devices), "{name}");
        };
        check("cpu", false, false);
        check("hugepages-2Mi", false, false);
        check("example.com/gpu", true, true);
        check("requests.example.com/gpu", false, false);
        check("example.com/", false, false);
        check("kubernetes.io/thing", false, false);
        check("deviceclass.resource.kubernetes.io/gpu", false, true);
        check("attachable.kubernetes.io/x", false, false);
    }

    fn class(name: &str, resource: Option<&str>, created: &str) -> Arc<DeviceClass> {
        let class = json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"extendedResourceName": resource},
        });
        Arc::new(serde_json::from_value(class).unwrap())
    }

    #[test]
    fn the_youngest_class_of_a_name_is_meant() {
        let mut classes = DeviceClasses::default();
        let gpu = Some("example.com/gpu");
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let meant = |classes: &DeviceClasses, expected: Option<&str>| {
            let found = classes.behind("example.com/gpu").map(|class| name_of(class));
            assert_eq!(found, expected);
        };
        meant(&classes, None);
        assert!(classes.set(&class("b", gpu, early)));
        meant(&classes, Some("b"));
        assert!(classes.set(&class("a", gpu, early)));
        meant(&classes, Some("a"));
        assert!(classes.set(&class("c", gpu, late)));
        meant(&classes, Some("c"));
        assert!(!classes.set(&class("c", gpu, late)));
        assert_eq!(classes.resource_of("c"), gpu);
        assert!(classes.set(&class("c", None, late)));
        meant(&classes, Some("a"));
        assert!(classes.remove("a"));
        meant(&classes, Some("b"));
        let implicit = |class: &str| format!("{CLASS_PREFIX}{class}");
        assert_eq!(classes.behind(&implicit("c")).map(|class| name_of(class)), Some("c"));
        assert!(classes.behind(&implicit("a")).is_none());
        assert!(!classes.remove("a"));
    }

    #[test]
    fn claims_tell_for_whose_resources_they_are() {
        let check = |meta: serde_json::Value, expected: Option<&str>| {
            let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
            assert_eq!(claimant(&meta), expected);
        };
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u",
                            "controller": true}]);
        let marked = json!({CLAIM_ANNOTATION: "true"});
        check(json!({"annotations": marked, "ownerReferences": owner}), Some("u"));
        check(json!({"ownerReferences": owner}), None);
        check(json!({"annotations": marked}), None);
    }
}
