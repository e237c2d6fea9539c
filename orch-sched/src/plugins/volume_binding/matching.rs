//! Which volumes suit which claims and nodes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use orch_core::{Key, quantity::Amount, selector::Selector};

use crate::{
    node_info::NodeInfo,
    pod_info::{NO_LABELS, term_matches},
};

pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let completed = claim.metadata.annotations.as_ref();
    let completed = completed.is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"));
    volume.is_some_and(|name| !name.is_empty()) && (completed || phase == Some("Bound"))
}

pub(super) fn fits_node(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|required| {
        let terms = required.node_selector_terms.iter();
        terms.into_iter().any(|term| term_matches(term, node.labels(), node.name()))
    })
}

pub(super) fn storage(list: Option<&BTreeMap<String, Quantity>>) -> Amount {
    let quantity = list.and_then(|list| list.get("storage"));
    quantity.and_then(|quantity| quantity.0.parse().ok()).unwrap_or_default()
}

pub(super) fn for_claim(claim: &ObjectMeta) -> String {
    format!("claim {}", Key::of(claim))
}

pub(super) fn for_class(class: Option<&str>) -> String {
    format!("class {}", class.unwrap_or_default())
}

pub(super) fn for_whom(volume: &PersistentVolume) -> String {
    let spec = volume.spec.as_ref();
    match spec.and_then(|spec| spec.claim_ref.as_ref()) {
        Some(claim) => for_claim(&ObjectMeta {
            name: claim.name.clone(),
            namespace: claim.namespace.clone(),
            ..ObjectMeta::default()
        }),
        None => for_class(spec.and_then(|spec| spec.storage_class_name.as_deref())),
    }
}

/// Whether a volume could be bound to a claim, wherever it is.
pub(super) fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mode = |value: &Option<String>| value.clone().unwrap_or_else(|| "Filesystem".into());
    if let Some(reference) = &has.claim_ref {
        let same = reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (reference.uid.is_none() || reference.uid == claim.metadata.uid);
        if !same {
            return false;
        }
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let available = phase == Some("Available") || has.claim_ref.is_some();
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let selector = wants.selector.as_ref().map(|s| Selector::from_label_selector(Some(s)));
    let labels = volume.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
    available
        && volume.metadata.deletion_timestamp.is_none()
        && text(&has.storage_class_name) == text(&wants.storage_class_name)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && storage(has.capacity.as_ref())
            >= storage(wants.resources.as_ref().and_then(|r| r.requests.as_ref()))
        && selector.is_none_or(|s| s.is_ok_and(|s| s.matches(labels)))
}
