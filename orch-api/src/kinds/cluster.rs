//! Small cluster-wide and housekeeping kinds: storage and priority classes, runtime classes,
//! leases, quotas, autoscalers, flow control and admission registrations.

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{
    autoscaler, csi,
    field::{Errors, Field, child, child_opt, children, default_to, same, spec_of},
    flow_control, metadata,
    plain::{Plain, empty_status},
    pod_spec::{self, named, resources},
};
use crate::{names, printers};

pub(super) static STORAGE_CLASSES: Plain = Plain {
    defaults: |object| {
        let Some(class) = object.as_object_mut() else { return };
        default_to(class, "reclaimPolicy", "Delete");
        default_to(class, "volumeBindingMode", "Immediate");
    },
    validate: |object| {
        let mut errors = Vec::new();
        let class = Field::root(object);
        if class.str("provisioner").is_empty() {
            errors.push(class.required("provisioner", ""));
        } else {
            let lower = class.str("provisioner").to_lowercase();
            let wrong = names::qualified_name(&lower);
            errors.extend(wrong.into_iter().map(|why| class.invalid("provisioner", why)));
        }
        class.one_of("reclaimPolicy", &["Delete", "Retain"], true, &mut errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        class.one_of("volumeBindingMode", &modes, false, &mut errors);
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        let class = Field::root(new);
        for name in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(class.raw(name), &old[name]) {
                let why = format!("updates to {name} are forbidden.");
                errors.push(class.forbidden(name, why));
            }
        }
        class.immutable(old, "volumeBindingMode", &mut errors);
        errors
    },
    create_on_update: true,
    columns: &printers::storage::CLASSES,
    row: printers::storage::class,
    ..Plain::DATA
};

pub(super) static CSI_DRIVERS: Plain = Plain {
    defaults: |object| {
        let Some(spec) = spec_of(object) else { return };
        default_to(spec, "attachRequired", true);
        default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_to(spec, "volumeLifecycleModes", json!(["Persistent"]));
        for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default_to(spec, name, false);
        }
    },
    validate: csi::driver,
    update: csi::driver_update,
    generation: true,
    columns: &printers::storage::DRIVERS,
    row: printers::storage::driver,
    ..Plain::DATA
};

pub(super) static CSI_NODES: Plain = Plain {
    validate: csi::node,
    columns: &printers::storage::DRIVER_NODES,
    row: printers::storage::driver_node,
    ..Plain::DATA
};

pub(super) static CSI_CAPACITIES: Plain =
    Plain { validate: csi::capacity, update: csi::capacity_update, ..Plain::DATA };

pub(super) static VOLUME_ATTACHMENTS: Plain = Plain {
    validate: csi::attachment,
    update: |new, old| {
        let mut errors = Vec::new();
        if !same(&new["spec"], &old["spec"]) {
            errors.push(FieldError::invalid("spec", new["spec"].clone(), super::field::IMMUTABLE));
        }
        errors
    },
    status: Some(|| json!({"attached": false})),
    generation: false,
    columns: &printers::storage::ATTACHMENTS,
    row: printers::storage::attachment,
    ..Plain::ANY
};

pub(super) static RUNTIME_CLASSES: Plain = Plain {
    validate: |object| {
        let mut errors = Vec::new();
        let class = Field::root(object);
        named(&class, "handler", names::dns_label, &mut errors);
        let fixed = class.get("overhead");
        for (name, value) in fixed.entries("podFixed") {
            resources::quantity(&fixed.at_key("podFixed", name), name, value, &mut errors);
        }
        metadata::labels(&class.get("scheduling"), "nodeSelector", &mut errors);
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        Field::root(new).immutable(old, "handler", &mut errors);
        errors
    },
    columns: &printers::policy::RUNTIME_CLASSES,
    row: printers::policy::runtime_class,
    ..Plain::DATA
};

/// Above this is room for the system's own classes.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) static PRIORITY_CLASSES: Plain = Plain {
    defaults: |object| {
        if let Some(class) = object.as_object_mut() {
            default_to(class, "preemptionPolicy", "PreemptLowerPriority");
            default_to(class, "value", 0);
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        let class = Field::root(object);
        let name = class.get("metadata").str("name");
        let value = class.int("value").unwrap_or_default();
        let built_in = matches!(
            (name, value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if name.starts_with("system-") && !built_in {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            errors.push(FieldError::forbidden(
                "metadata.name",
                format!("{why}{name} is not a known system priority class"),
            ));
        } else if !built_in && value > USER_PRIORITY_MAX {
            let why =
                format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            errors.push(FieldError::forbidden("value", why));
        }
        let policies = ["PreemptLowerPriority", "Never"];
        class.one_of("preemptionPolicy", &policies, true, &mut errors);
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        if new["value"] != old["value"] {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        Field::root(new).immutable(old, "preemptionPolicy", &mut errors);
        errors
    },
    generation: true,
    columns: &printers::policy::PRIORITY_CLASSES,
    row: printers::policy::priority_class,
    ..Plain::DATA
};

pub(super) static LEASES: Plain = Plain {
    defaults: |object| {
        spec_of(object);
    },
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if spec.int("leaseDurationSeconds").is_some_and(|n| n <= 0) {
            errors.push(spec.invalid("leaseDurationSeconds", "must be greater than 0"));
        }
        spec.non_negative("leaseTransitions", &mut errors);
        if !spec.str("preferredHolder").is_empty() && spec.str("strategy").is_empty() {
            let why = "may only be specified if `strategy` is defined";
            errors.push(spec.forbidden("preferredHolder", why));
        }
        errors
    },
    create_on_update: true,
    unconditional: false,
    columns: &printers::cluster::LEASES,
    row: printers::cluster::lease,
    ..Plain::DATA
};

pub(super) static CONTROLLER_REVISIONS: Plain = Plain {
    validate: |object| {
        let mut errors = Vec::new();
        Field::root(object).non_negative("revision", &mut errors);
        if object["data"].is_null() {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        Field::root(new).immutable(old, "data", &mut errors);
        errors
    },
    columns: &printers::batch::REVISIONS,
    row: printers::batch::revision,
    ..Plain::DATA
};

pub(super) static POD_TEMPLATES: Plain = Plain {
    defaults: |object| {
        if let Some(object) = object.as_object_mut() {
            pod_spec::template_defaults(object);
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        pod_spec::template(&Field::root(object).get("template"), &mut errors);
        errors
    },
    generation: true,
    columns: &printers::workloads::TEMPLATES,
    row: |object, _| printers::workloads::template(object),
    ..Plain::DATA
};

pub(super) static LIMIT_RANGES: Plain = Plain {
    defaults: limit_defaults,
    validate: limit_range,
    columns: &printers::policy::CREATED,
    row: printers::policy::created,
    create_on_update: true,
    ..Plain::DATA
};

const LIMITS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn limit_defaults(object: &mut Value) {
    let Some(spec) = spec_of(object) else { return };
    for item in children(spec, "limits") {
        for name in LIMITS {
            if let Some(list) = child_opt(item, name) {
                resources::canonicalize(list);
            }
        }
        if item.get("type").is_none_or(|kind| kind != "Container") {
            continue;
        }
        // What is not limited by default is limited by the maximum, and so on down.
        for (to, from) in
            [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            let Some(Value::Object(source)) = item.get(from).cloned() else { continue };
            if let Some(list) = child(item, to) {
                for (name, value) in source {
                    list.entry(name).or_insert(value);
                }
            }
        }
    }
}

fn limit_range(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::root(object).get("spec");
    let mut seen = std::collections::BTreeSet::new();
    for item in spec.items("limits") {
        let kind = item.str("type");
        if kind.is_empty() {
            errors.push(item.required("type", ""));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(item.at("type"), kind));
        }
        seen.insert(kind);
        if kind == "Pod" {
            for name in ["default", "defaultRequest"] {
                if item.raw(name).as_object().is_some_and(|list| !list.is_empty()) {
                    let why = "may not be specified when `type` is 'Pod'";
                    errors.push(item.forbidden(name, why));
                }
            }
        }
        for name in LIMITS {
            for (resource, value) in item.entries(name) {
                let path = item.at_key(name, resource);
                resources::quantity(&path, resource, value, &mut errors);
            }
        }
        for (low, high) in [
            ("min", "max"),
            ("defaultRequest", "max"),
            ("defaultRequest", "default"),
            ("default", "max"),
        ] {
            limit_order(&item, low, high, &mut errors);
        }
        limit_order_min(&item, &mut errors);
    }
    errors
}

fn limit_order(item: &Field<'_>, low: &str, high: &str, errors: &mut Errors) {
    let words =
        |name: &str| if name == "defaultRequest" { "default request" } else { name }.to_owned();
    for (resource, value) in item.entries(low) {
        let Some(bound) = item.raw(high).get(resource) else { continue };
        let (Some(value), Some(bound)) = (resources::amount(value), resources::amount(bound))
        else {
            continue;
        };
        if value > bound {
            let (low_words, high_words) = (words(low), words(high));
            let bound_words =
                if high == "default" { "default limit".to_owned() } else { high_words };
            let why =
                format!("{low_words} value {value} is greater than {bound_words} value {bound}");
            let path = item.at_key(low, resource);
            errors.push(FieldError::invalid(path, value.to_string(), why));
        }
    }
}

fn limit_order_min(item: &Field<'_>, errors: &mut Errors) {
    for name in ["defaultRequest", "default"] {
        for (resource, value) in item.entries("min") {
            let Some(given) = item.raw(name).get(resource) else { continue };
            let (Some(least), Some(given)) = (resources::amount(value), resources::amount(given))
            else {
                continue;
            };
            if least > given {
                let what = if name == "default" { "default" } else { "default request" };
                let why = format!("min value {least} is greater than {what} value {given}");
                errors.push(FieldError::invalid(
                    item.at_key("min", resource),
                    least.to_string(),
                    why,
                ));
            }
        }
    }
}

pub(super) static RESOURCE_QUOTAS: Plain = Plain {
    defaults: |object| {
        if let Some(hard) = spec_of(object).and_then(|spec| child_opt(spec, "hard")) {
            resources::canonicalize(hard);
        }
        if let Some(object) = object.as_object_mut() {
            child(object, "status");
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        for (name, value) in spec.entries("hard") {
            let path = spec.at_key("hard", name);
            let wrong = names::qualified_name(name);
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, name, why)));
            resources::quantity(&path, name, value, &mut errors);
        }
        errors
    },
    update: |new, old| {
        let mut errors = Vec::new();
        Field::new(&new["spec"], "spec").immutable(&old["spec"], "scopes", &mut errors);
        errors
    },
    status: Some(empty_status),
    generation: false,
    columns: &printers::policy::QUOTAS,
    row: printers::policy::quota,
    ..Plain::ANY
};

pub(super) static AUTOSCALERS: Plain = Plain {
    defaults: |object| {
        let Some(spec) = spec_of(object) else { return };
        default_to(spec, "minReplicas", 1);
        let none = spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if none {
            let cpu =
                json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
            spec.insert("metrics".into(), json!([{"type": "Resource", "resource": cpu}]));
        }
        if let Some(behavior) = child_opt(spec, "behavior") {
            behavior_defaults(behavior);
        }
    },
    validate: autoscaler::autoscaler,
    status: Some(|| json!({"desiredReplicas": 0, "currentMetrics": null})),
    generation: false,
    columns: &printers::policy::AUTOSCALERS,
    row: printers::policy::autoscaler,
    ..Plain::ANY
};

fn behavior_defaults(behavior: &mut Map<String, Value>) {
    let up = json!([
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ]);
    let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
    for (name, policies) in [("scaleUp", up), ("scaleDown", down)] {
        if let Some(rules) = child(behavior, name) {
            default_to(rules, "selectPolicy", "Max");
            default_to(rules, "policies", policies);
            if name == "scaleUp" {
                default_to(rules, "stabilizationWindowSeconds", 0);
            }
        }
    }
}

pub(super) static FLOW_SCHEMAS: Plain = Plain {
    defaults: |object| {
        if let Some(spec) = spec_of(object) {
            default_to(spec, "matchingPrecedence", 1000);
        }
    },
    validate: flow_control::flow_schema,
    status: Some(empty_status),
    columns: &printers::policy::FLOW_SCHEMAS,
    row: printers::policy::flow_schema,
    ..Plain::ANY
};

pub(super) static PRIORITY_LEVELS: Plain = Plain {
    defaults: |object| {
        let Some(spec) = spec_of(object) else { return };
        if spec.get("type").is_some_and(|kind| kind == "Exempt") {
            if let Some(exempt) = child(spec, "exempt") {
                default_to(exempt, "nominalConcurrencyShares", 0);
                default_to(exempt, "lendablePercent", 0);
            }
            return;
        }
        let Some(limited) = child_opt(spec, "limited") else { return };
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        if let Some(response) = child_opt(limited, "limitResponse")
            && let Some(queuing) = child_opt(response, "queuing")
        {
            for (name, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                super::field::default_nonzero(queuing, name, value);
            }
        }
    },
    validate: flow_control::priority_level,
    status: Some(empty_status),
    columns: &printers::policy::PRIORITY_LEVELS,
    row: printers::policy::priority_level,
    ..Plain::ANY
};

fn match_defaults(resources: &mut Map<String, Value>) {
    default_to(resources, "matchPolicy", "Equivalent");
    child(resources, "namespaceSelector");
    child(resources, "objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in children(resources, list) {
            default_to(rule, "scope", "*");
        }
    }
}

pub(super) static ADMISSION_POLICIES: Plain = Plain {
    defaults: |object| {
        let Some(spec) = spec_of(object) else { return };
        default_to(spec, "failurePolicy", "Fail");
        if let Some(resources) = child_opt(spec, "matchConstraints") {
            match_defaults(resources);
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if !spec.has("matchConstraints") {
            errors.push(spec.required("matchConstraints", ""));
        }
        spec.one_of("failurePolicy", &["Fail", "Ignore"], true, &mut errors);
        errors
    },
    status: Some(empty_status),
    columns: &printers::policy::ADMISSION_POLICIES,
    row: printers::policy::admission_policy,
    ..Plain::ANY
};

pub(super) static ADMISSION_BINDINGS: Plain = Plain {
    defaults: |object| {
        if let Some(resources) = spec_of(object).and_then(|spec| child_opt(spec, "matchResources"))
        {
            match_defaults(resources);
        }
    },
    validate: |object| {
        let mut errors = Vec::new();
        Field::root(object).get("spec").not_empty("policyName", &mut errors);
        errors
    },
    generation: true,
    columns: &printers::policy::ADMISSION_BINDINGS,
    row: printers::policy::admission_binding,
    ..Plain::DATA
};
