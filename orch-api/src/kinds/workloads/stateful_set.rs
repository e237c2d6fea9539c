//! StatefulSets.

use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::{SCALE, counts, rolling_defaults, selector, template_matches, template_warnings};
use crate::{
    kinds::{
        field::{Errors, Field, child, children, default_to, same, spec_of},
        metadata, persistent_volume_claim, pod_spec,
    },
    names, printers,
    strategy::{Column, ScaleFields, Strategy, carry},
};

/// Checks what upstream checks of a set's template: its labels and annotations, at paths of their
/// own. What the pods are to be is checked when they are made, with the volumes of their claims.
///
/// Source: `ValidatePodTemplateSpecForStatefulSet`.
fn template_of(spec: &Field<'_>, errors: &mut Errors) {
    template_matches(spec, errors);
    let template = spec.get("template");
    let meta = Field::new(&template.value["metadata"], template.path.clone());
    metadata::labels(&meta, "labels", errors);
    metadata::annotations(&meta, "annotations", errors);
    pod_spec::must_restart_always(&template, "StatefulSet", errors);
}

/// The strategy of `statefulsets`.
#[derive(Debug)]
pub(crate) struct StatefulSet;

impl Strategy for StatefulSet {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_of(object) {
            default_to(spec, "podManagementPolicy", "OrderedReady");
            rolling_defaults(spec, "updateStrategy", &[("partition", json!(0))]);
            default_to(
                spec,
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            );
            default_to(spec, "replicas", 1);
            default_to(spec, "revisionHistoryLimit", 10);
            default_to(spec, "serviceName", "");
            pod_spec::template_defaults(spec);
            for claim in children(spec, "volumeClaimTemplates") {
                default_to(claim, "apiVersion", "v1");
                default_to(claim, "kind", "PersistentVolumeClaim");
                if let Some(spec) = child(claim, "spec") {
                    persistent_volume_claim::spec_defaults(spec);
                }
                if let Some(status) = child(claim, "status") {
                    default_to(status, "phase", "Pending");
                }
            }
        }
        if let Some(status) = object.as_object_mut().and_then(|object| child(object, "status")) {
            default_to(status, "replicas", 0);
            default_to(status, "availableReplicas", 0);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        let policies = ["OrderedReady", "Parallel"];
        match spec.str("podManagementPolicy") {
            "OrderedReady" | "Parallel" => {}
            "" => errors.push(spec.required("podManagementPolicy", "")),
            _ => errors.push(spec.invalid(
                "podManagementPolicy",
                format!("must be '{}' or '{}'", policies[0], policies[1]),
            )),
        }
        update_strategy(&spec, &mut errors);
        let retention = spec.get("persistentVolumeClaimRetentionPolicy");
        for name in ["whenDeleted", "whenScaled"] {
            retention.one_of(name, &["Delete", "Retain"], true, &mut errors);
        }
        metadata::non_negative_all(
            &spec,
            &["replicas", "minReadySeconds", "revisionHistoryLimit"],
            &mut errors,
        );
        spec.get("ordinals").non_negative("start", &mut errors);
        selector(&spec, "statefulset", &mut errors);
        template_of(&spec, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(new);
        let mut munged = new["spec"].clone();
        for name in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "persistentVolumeClaimRetentionPolicy",
            "revisionHistoryLimit",
        ] {
            carry(&mut munged, &old["spec"], name);
        }
        if !same(&munged, &old["spec"]) {
            errors.push(FieldError::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        let names = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
        ];
        counts(new, &names, &mut errors);
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(new, old)
    }

    fn scale(&self) -> Option<ScaleFields> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::workloads::STATEFUL_SETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::workloads::stateful_set(object, now)
    }
}

fn update_strategy(spec: &Field<'_>, errors: &mut Errors) {
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.str("type") {
        "" => errors.push(strategy.required("type", "")),
        "OnDelete" if rolling.is_set() => errors.push(FieldError::invalid(
            rolling.path,
            rolling.value.clone(),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.non_negative("partition", errors);
            if rolling.has("maxUnavailable") {
                metadata::int_or_percent(&rolling, "maxUnavailable", errors);
                if metadata::is_none_of_anything(rolling.raw("maxUnavailable")) {
                    errors.push(rolling.invalid("maxUnavailable", "cannot be 0"));
                }
            }
        }
        _ => errors.push(strategy.invalid("type", "must be 'RollingUpdate' or 'OnDelete'")),
    }
}
