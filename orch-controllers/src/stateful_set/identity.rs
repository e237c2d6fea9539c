//! What makes a pod of a set that pod: its ordinal, its names, its claims.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
    },
};
use orch_core::Key;

use crate::{ownership, pods};

pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name, if the pod is named after the set.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, ordinal) = name.rsplit_once('-')?;
    (parent == set).then(|| ordinal.parse().ok()).flatten()
}

/// The name of the revision that a pod was made of.
pub(super) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

fn claim_name(template: &str, pod: &str) -> String {
    format!("{template}-{pod}")
}

/// The pod of an ordinal.
pub(super) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let key = Key::of(&set.metadata);
    let mut pod = pods::from_template(template, &key, ownership::controller_reference(set));
    let name = format!("{}-{ordinal}", key.name);
    pod.metadata.generate_name = Some(format!("{}-", key.name));
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let set_spec = set.spec.clone().unwrap_or_default();
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name.clone());
        spec.subdomain = set_spec.service_name.filter(|service| !service.is_empty());
        let volumes = spec.volumes.get_or_insert_default();
        for template in set_spec.volume_claim_templates.iter().flatten() {
            let volume = template.metadata.name.clone().unwrap_or_default();
            volumes.retain(|known| known.name != volume);
            volumes.push(Volume {
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name(&volume, &name),
                    read_only: None,
                }),
                name: volume,
                ..Volume::default()
            });
        }
        if volumes.is_empty() {
            spec.volumes = None;
        }
    }
    pod
}

/// The claims of the pod of that name.
pub(super) fn claims(set: &StatefulSet, pod: &str) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            let volume = claim.metadata.name.clone().unwrap_or_default();
            claim.metadata.name = Some(claim_name(&volume, pod));
            claim.metadata.namespace.clone_from(&set.metadata.namespace);
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            claim.status = None;
            claim
        })
        .collect()
}
