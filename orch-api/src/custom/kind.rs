//! CustomResourceDefinitions as a kind of their own.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go`,
//! `pkg/apis/apiextensions/v1/defaults.go`, `pkg/apis/apiextensions/validation/validation.go`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{path::JsonPath, status, structure};
use crate::{
    kinds::{Field, child, child_opt, default_to, spec_of, webhooks},
    names, outbound,
    strategy::{Column, Strategy, carry},
};

/// What a group of Kubernetes' own needs so that it may be defined by others.
const APPROVED: &str = "api-approved.kubernetes.io";
const COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
        priority: 0,
    },
];

/// The kind of definitions.
#[derive(Debug)]
pub(crate) struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        if let Some(conversion) = child(spec, "conversion") {
            default_to(conversion, "strategy", "None");
            let config = child_opt(conversion, "webhook")
                .and_then(|webhook| child_opt(webhook, "clientConfig"));
            if let Some(service) = config.and_then(|config| child_opt(config, "service")) {
                default_to(service, "port", 443);
            }
        }
        if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
            default_names(names);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            carry(&mut new["metadata"], &old["metadata"], field);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        check(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = check(new);
        let (spec, before) = (Field::new(&new["spec"], "spec"), &old["spec"]);
        if status::is_true(old, "Established") {
            spec.immutable(before, "scope", &mut errors);
            spec.get("names").immutable(&before["names"], "kind", &mut errors);
        }
        spec.immutable(before, "group", &mut errors);
        spec.get("names").immutable(&before["names"], "plural", &mut errors);
        let versions: Vec<&str> = spec.items("versions").map(|v| v.str("name")).collect();
        let status = Field::new(&old["status"], "status");
        for (at, stored) in status.strs("storedVersions").enumerate() {
            if !versions.contains(&stored) {
                let path = format!("status.storedVersions[{at}]");
                errors.push(FieldError::invalid(path, stored, "must appear in spec.versions"));
            }
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let storage = new["spec"]["versions"].as_array().into_iter().flatten();
        let storage = storage.filter(|version| version["storage"] == true);
        let storage: Vec<&str> = storage.filter_map(|version| version["name"].as_str()).collect();
        let status = Field::new(&new["status"], "status");
        let mut errors = Vec::new();
        if !status.strs("storedVersions").any(|version| storage.contains(&version)) {
            let why = format!("must have the storage version {}", storage.join(""));
            errors.push(status.invalid("storedVersions", why));
        }
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let meta = &object["metadata"];
        vec![meta["name"].clone(), meta["creationTimestamp"].clone()]
    }
}

fn default_names(names: &mut Map<String, Value>) {
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() {
        return;
    }
    default_to(names, "singular", kind.to_lowercase());
    default_to(names, "listKind", format!("{kind}List"));
}

fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Field::new(&object["spec"], "spec");
    let (group, plural) = (spec.str("group"), spec.get("names").str("plural"));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    check_group(object, &spec, &mut errors);
    spec.one_of("scope", &["Cluster", "Namespaced"], false, &mut errors);
    if spec.bool("preserveUnknownFields") {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(spec.invalid("preserveUnknownFields", why));
    }
    check_names(&spec.get("names"), &mut errors);
    check_conversion(&spec.get("conversion"), &mut errors);
    check_versions(&spec, &mut errors);
    errors
}

fn check_group(object: &Value, spec: &Field<'_>, errors: &mut Vec<FieldError>) {
    let group = spec.str("group");
    if group.is_empty() {
        errors.push(spec.required("group", ""));
        return;
    }
    let wrong = names::dns_subdomain(group);
    if !wrong.is_empty() {
        errors.push(spec.invalid("group", wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(spec.invalid("group", "should be a domain with at least one dot"));
    }
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.ends_with(&format!(".{own}")));
    if protected && object["metadata"]["annotations"][APPROVED].as_str().is_none_or(str::is_empty) {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        let path = format!("metadata.annotations[{APPROVED}]");
        errors.push(FieldError::required(path, why));
    }
}

fn check_names(names: &Field<'_>, errors: &mut Vec<FieldError>) {
    let label = |name: &str, text: &str, errors: &mut Vec<FieldError>| {
        let wrong = names::dns1035_label(text);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(name, text, wrong.join(",")));
        }
    };
    for part in ["plural", "singular", "kind", "listKind"] {
        let text = names.str(part);
        if text.is_empty() {
            errors.push(names.required(part, ""));
        } else {
            label(&names.at(part), &text.to_lowercase(), errors);
        }
        if matches!(part, "plural" | "singular") && text != text.to_lowercase() {
            errors.push(names.invalid(part, "must be lower case"));
        }
    }
    for part in ["shortNames", "categories"] {
        for (at, text) in names.strs(part).enumerate() {
            label(&format!("{}[{at}]", names.at(part)), text, errors);
        }
    }
    if !names.str("kind").is_empty() && names.str("kind") == names.str("listKind") {
        errors.push(names.invalid("listKind", "kind and listKind may not be the same"));
    }
}

fn check_conversion(conversion: &Field<'_>, errors: &mut Vec<FieldError>) {
    conversion.one_of("strategy", &["None", "Webhook"], false, errors);
    let webhook = conversion.get("webhook");
    // Upstream names the fields as its internal version does.
    let told = format!("{}.webhookClientConfig", conversion.path);
    if conversion.str("strategy") != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if webhook.has("clientConfig") {
            errors.push(FieldError::forbidden(told, why));
        }
        if webhook.len("conversionReviewVersions") > 0 {
            errors.push(conversion.forbidden("conversionReviewVersions", why));
        }
        return;
    }
    if webhook.has("clientConfig") {
        let named = json!({"webhookClientConfig": webhook.raw("clientConfig")});
        let config = Field::new(&named, conversion.path.clone());
        webhooks::client_config(&config, "webhookClientConfig", errors);
        check_bundle(&config.get("webhookClientConfig"), errors);
    } else {
        errors.push(FieldError::required(told, "required when strategy is set to Webhook"));
    }
    let versions = Field::new(webhook.value, conversion.path.clone());
    webhooks::review_versions(&versions, "conversionReviewVersions", "", errors);
}

fn check_bundle(config: &Field<'_>, errors: &mut Vec<FieldError>) {
    let Ok(pem) = STANDARD.decode(config.str("caBundle")) else { return };
    if let Err(why) = outbound::check_bundle(&pem) {
        errors.push(config.invalid("caBundle", why));
    }
}

fn check_versions(spec: &Field<'_>, errors: &mut Vec<FieldError>) {
    let (mut seen, mut stored) = (Vec::new(), 0);
    for version in spec.items("versions") {
        let name = version.str("name");
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() {
            errors.push(version.invalid("name", wrong.join(",")));
        }
        if seen.contains(&name) {
            errors.push(spec.invalid("versions", "must contain unique version names"));
        }
        seen.push(name);
        stored += usize::from(version.bool("storage"));
        check_version(&version, errors);
    }
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(spec.invalid("versions", why));
    }
}

fn check_version(version: &Field<'_>, errors: &mut Vec<FieldError>) {
    if version.has("deprecationWarning") && !version.bool("deprecated") {
        let why = "can only be set for deprecated versions";
        errors.push(version.invalid("deprecationWarning", why));
    }
    let schema = version.get("schema").get("openAPIV3Schema");
    if schema.is_set() {
        structure::check(&schema, errors);
    } else {
        errors.push(version.get("schema").required("openAPIV3Schema", "schemas are required"));
    }
    for column in version.items("additionalPrinterColumns") {
        column.not_empty("name", errors);
        let kinds = ["boolean", "date", "integer", "number", "string"];
        column.one_of("type", &kinds, false, errors);
        json_path(&column, errors);
    }
    version.items("selectableFields").for_each(|field| json_path(&field, errors));
    if let Some(scale) = version.get("subresources").opt("scale") {
        check_scale(&scale, errors);
    }
}

fn json_path(field: &Field<'_>, errors: &mut Vec<FieldError>) {
    if field.str("jsonPath").is_empty() {
        errors.push(field.required("jsonPath", ""));
    } else if let Err(why) = JsonPath::parse(field.str("jsonPath")) {
        errors.push(field.invalid("jsonPath", format!("unable to parse JSON path: {why}")));
    }
}

fn check_scale(scale: &Field<'_>, errors: &mut Vec<FieldError>) {
    let paths = [
        ("specReplicasPath", ".spec."),
        ("statusReplicasPath", ".status."),
        ("labelSelectorPath", ""),
    ];
    for (name, root) in paths {
        let path = scale.str(name);
        if path.is_empty() {
            if !root.is_empty() {
                errors.push(scale.required(name, ""));
            }
            continue;
        }
        let simple = JsonPath::parse(path).ok().and_then(|path| path.pointer());
        if simple.is_none() {
            errors.push(scale.invalid(name, "should be a simple json path under .spec or .status"));
        } else if !path.starts_with(root) {
            errors.push(scale.invalid(name, format!("should be a json path under {root}")));
        }
    }
}
