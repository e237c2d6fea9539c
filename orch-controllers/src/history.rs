//! What a ControllerRevision keeps of a pod template.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/history`.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::runtime::RawExtension,
};
use serde_json::json;

/// A patch that brings the owner back to this template.
pub(crate) fn data(template: &PodTemplateSpec) -> RawExtension {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    RawExtension(json!({"spec": {"template": template}}))
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    serde_json::from_value(template).ok()
}

pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// How often a hash was taken, as a status says it.
pub(crate) fn collisions(count: Option<i32>) -> i32 {
    count.unwrap_or(0).max(0)
}

/// Whether a revision that is there is the one that was to be made. Another one of its name is a
/// collision of hashes.
pub(crate) fn is_same(known: &ControllerRevision, wanted: &ControllerRevision) -> bool {
    let data = |revision: &ControllerRevision| revision.data.as_ref().map(|data| data.0.clone());
    data(known) == data(wanted)
}

/// The newest of these revisions that keeps this template.
pub(crate) fn newest_of<'a>(
    known: &'a [Arc<ControllerRevision>],
    template: &PodTemplateSpec,
) -> Option<&'a Arc<ControllerRevision>> {
    known.iter().rev().find(|revision| template_of(revision).as_ref() == Some(template))
}
