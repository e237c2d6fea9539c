//! Warnings about pods and templates of pods.
//!
//! Source: `pkg/api/pod/warnings.go`.

use crate::kinds::{field::Field, pod_spec::resources};

/// Deprecated and doubtful things in a pod or a template: `holder` has the metadata.
pub(crate) fn spec_warnings(holder: &Field<'_>, spec: &Field<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, instead) in [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ] {
        if spec.raw("nodeSelector").get(key).is_some() {
            let path = spec.at_key("nodeSelector", key);
            warnings.push(format!("{path}: deprecated since v1.14; use \"{instead}\" instead"));
        }
    }
    volumes(spec, &mut warnings);
    environment(spec, &mut warnings);
    let annotations = holder.get("metadata");
    for (key, _) in annotations.entries("annotations") {
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            let path = annotations.at_key("annotations", key);
            warnings.push(format!(
                "{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
        }
    }
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = spec.at("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{path}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

fn volumes(spec: &Field<'_>, warnings: &mut Vec<String>) {
    for volume in spec.items("volumes") {
        for (source, text) in [
            ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if volume.has(source) {
                warnings.push(format!("{}: {text}", volume.at(source)));
            }
        }
    }
}

fn environment(spec: &Field<'_>, warnings: &mut Vec<String>) {
    for list in ["initContainers", "containers"] {
        for container in spec.items(list) {
            let mut seen = std::collections::BTreeSet::new();
            for variable in container.items("env") {
                let name = variable.str("name");
                if seen.contains(&name) {
                    let path = variable.at("name").trim_end_matches(".name").to_owned();
                    warnings.push(format!(
                        "{path}: hides previous definition of \"{name}\", which may be dropped when using apply"
                    ));
                }
                seen.insert(name);
            }
            for kind in ["limits", "requests"] {
                let held = container.get("resources");
                for (name, value) in held.entries(kind) {
                    let fraction = resources::amount(value)
                        .filter(|a| name != "cpu" && a.milli_value() % 1000 != 0);
                    if let Some(amount) = fraction {
                        let path = held.at_key(kind, name);
                        warnings.push(format!("{path}: fractional byte value \"{amount}\" is invalid, must be an integer"));
                    }
                }
            }
        }
    }
}
