//! Which volume suits a claim.
//!
//! Source: `k8s.io/component-helpers/storage/volume/pv_helpers.go`, `FindMatchingVolume`.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::quantity::Amount;

use crate::pods;

/// The annotation that was there before the field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn class_of_volume(volume: &PersistentVolume) -> &str {
    super::annotation(&volume.metadata, CLASS)
        .or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// The class that a claim asks for; `None` leaves it to the default class.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    super::annotation(&claim.metadata, CLASS)
        .or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

fn amount(quantity: Option<&Quantity>) -> Amount {
    quantity.and_then(|quantity| Amount::try_from(quantity).ok()).unwrap_or(Amount::ZERO)
}

pub(super) fn capacity(volume: &PersistentVolume) -> Amount {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    amount(capacity.and_then(|capacity| capacity.get("storage")))
}

pub(super) fn requested(claim: &PersistentVolumeClaim) -> Amount {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    amount(resources.and_then(|resources| resources.requests.as_ref()?.get("storage")))
}

/// How large a claim's volume is as far as the claim knows.
pub(super) fn provided(claim: &PersistentVolumeClaim) -> Amount {
    let status = claim.status.as_ref();
    amount(status.and_then(|status| status.capacity.as_ref()?.get("storage")))
}

fn attributes_class(name: Option<&String>) -> &str {
    name.map(String::as_str).unwrap_or_default()
}

fn same_attributes_class(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let volume = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref());
    let claim = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref());
    attributes_class(volume) == attributes_class(claim)
}

/// Whether one is for a file system and the other a block device.
pub(super) fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |mode: Option<&String>| mode.map_or("Filesystem", String::as_str).to_owned();
    mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
        != mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let asked = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let offered = offered.unwrap_or_default();
    asked.into_iter().flatten().all(|mode| offered.contains(mode))
}

/// Why a free volume does not suit the claim that names it.
///
/// Source: `checkVolumeSatisfyClaim` of `pv_controller.go`.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let why = if volume.metadata.deletion_timestamp.is_some() {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        return Some(format!("the volume is marked for deletion \"{name}\""));
    } else if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim).unwrap_or_default() {
        "storageClassName does not match"
    } else if !same_attributes_class(volume, claim) {
        "volumeAttributesClassName does not match"
    } else if modes_differ(volume, claim) {
        "incompatible volumeMode"
    } else if !has_access_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Whether a volume is set aside for this claim.
pub(super) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return false;
    };
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid))
}

/// The volume that is set aside for the claim, or else the smallest free one that suits. With
/// `delayed`, free ones are left for the scheduler to choose from.
pub(super) fn best(
    volumes: &[Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let suits = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none()
            && capacity(volume) >= requested(claim)
            && same_attributes_class(volume, claim)
            && !modes_differ(volume, claim)
            && has_access_modes(volume, claim)
    };
    // What was set aside is taken whatever its class and labels are.
    if let Some(reserved) = volumes.iter().filter(suits).find(|volume| is_for(volume, claim)) {
        return Some(reserved.clone());
    }
    if delayed {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let is_free = |volume: &&Arc<PersistentVolume>| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none())
            && phase == Some("Available")
            && class_of_volume(volume) == class_of_claim(claim).unwrap_or_default()
            && selector.is_none_or(|s| pods::selects(s, volume.metadata.labels.as_ref()))
    };
    let free = volumes.iter().filter(suits).filter(is_free);
    free.min_by_key(|volume| capacity(volume)).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, more: &Value) -> Arc<PersistentVolume> {
        let mut value = json!({
            "metadata": {"name": name, "labels": {"disk": name}},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Available"},
        });
        json_patch::merge(&mut value, more);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn the_smallest_that_suits_is_taken_unless_one_is_reserved() {
        let volumes = [
            volume("tiny", "1Gi", &json!({})),
            volume("large", "10Gi", &json!({})),
            volume("medium", "5Gi", &json!({})),
            volume("classy", "5Gi", &json!({"spec": {"storageClassName": "fast"}})),
            volume("taken", "5Gi", &json!({"spec": {"claimRef": {"namespace": "x", "name": "y"}}})),
            volume(
                "reserved",
                "20Gi",
                &json!({"spec": {"claimRef": {"namespace": "default", "name": "special"}}}),
            ),
        ];
        let check = |claim: &str, spec: Value, delayed: bool, expected: Option<&str>| {
            let mut value = json!({
                "metadata": {"name": claim, "namespace": "default"},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                    "resources": {"requests": {"storage": "2Gi"}}},
            });
            json_patch::merge(&mut value, &json!({"spec": spec}));
            let claim = serde_json::from_value(value).unwrap();
            let found = best(&volumes, &claim, delayed);
            let name = found.as_ref().and_then(|volume| volume.metadata.name.as_deref());
            assert_eq!(name, expected);
        };
        check("any", json!({}), false, Some("medium"));
        check("any", json!({"storageClassName": "fast"}), false, Some("classy"));
        check("any", json!({"selector": {"matchLabels": {"disk": "large"}}}), false, Some("large"));
        check("any", json!({"accessModes": ["ReadWriteMany"]}), false, None);
        check("any", json!({"volumeMode": "Block"}), false, None);
        check("special", json!({}), false, Some("reserved"));
        check("special", json!({"storageClassName": "fast"}), false, Some("reserved"));
        check("any", json!({"volumeAttributesClassName": "gold"}), false, None);
        check("special", json!({}), true, Some("reserved"));
        check("any", json!({}), true, None);
    }
}
