//! The kinds of dynamic resource allocation: classes of devices, claims for them, and the slices
//! that drivers tell of.
//!
//! Source: `pkg/apis/resource/v1/defaults.go`, `pkg/apis/resource/validation`,
//! `pkg/registry/resource`.

use async_trait::async_trait;
use orch_cel::device::{SELECTOR_BYTES_MAX, SELECTOR_COST_MAX, Selector, SelectorError};
use orch_core::{ApiError, clock::to_seconds, extended_resource::is_extended, status::FieldError};
use serde_json::{Map, Value};

use super::{
    field::{Errors, Field, IMMUTABLE, child_opt, children, default_nonzero, default_to, same},
    metadata,
    plain::{Plain, empty_status},
    pod_spec::named,
};
use crate::{
    names,
    strategy::{Hook, WriteContext},
};

const SELECTORS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const DEVICES_MAX: usize = 128;
const USERS_MAX: usize = 256;
const DRIVER_BYTES_MAX: usize = 63;

pub(super) static DEVICE_CLASSES: Plain = Plain {
    validate: |object| {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        selectors(&spec, &mut errors);
        configs(&spec, &mut errors);
        let resource = spec.raw("extendedResourceName").as_str();
        if resource.is_some_and(|resource| !is_extended(resource)) {
            let why = "must be a valid extended resource name";
            errors.push(spec.invalid("extendedResourceName", why));
        }
        errors
    },
    generation: true,
    ..Plain::DATA
};

pub(super) static CLAIMS: Plain = Plain {
    defaults: |object| {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            claim_defaults(spec);
        }
        if let Some(fields) = object.as_object_mut() {
            default_to(fields, "status", Map::new());
        }
    },
    validate: |object| claim(&Field::root(object).get("spec")),
    update: |new, old| unchanged(new, old, "/spec", "spec"),
    status_update: claim_status,
    status: Some(empty_status),
    generation: false,
    ..Plain::ANY
};

pub(super) static CLAIM_TEMPLATES: Plain = Plain {
    defaults: |object| {
        let spec = object.pointer_mut("/spec/spec").and_then(Value::as_object_mut);
        if let Some(spec) = spec {
            claim_defaults(spec);
        }
    },
    validate: |object| {
        let template = Field::root(object).get("spec");
        let mut errors = Vec::new();
        let meta = template.get("metadata");
        metadata::labels(&meta, "labels", &mut errors);
        metadata::annotations(&meta, "annotations", &mut errors);
        errors.extend(claim(&template.get("spec")));
        errors
    },
    update: |new, old| unchanged(new, old, "/spec", "spec"),
    ..Plain::DATA
};

pub(super) static SLICES: Plain = Plain {
    validate: |object| slice(&Field::root(object).get("spec")),
    update: |new, old| {
        let mut errors = Vec::new();
        let spec = Field::new(&new["spec"], "spec");
        spec.immutable(&old["spec"], "nodeName", &mut errors);
        spec.immutable(&old["spec"], "driver", &mut errors);
        spec.get("pool").immutable(&old["spec"]["pool"], "name", &mut errors);
        errors
    },
    selectable: &["spec.driver", "spec.nodeName"],
    generation: true,
    ..Plain::DATA
};

/// Notes of a slice's taints when they were added, where their writer does not say. Install it as
/// the hook of `resourceslices`.
#[derive(Debug)]
pub struct TaintTimes;

impl TaintTimes {
    fn fill(ctx: &WriteContext, slice: &mut Value) {
        let now = to_seconds(ctx.environment.clock.now()).to_string();
        let devices = slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
        let devices = devices.into_iter().flatten().filter_map(Value::as_object_mut);
        for taint in devices.flat_map(|device| children(device, "taints")) {
            default_to(taint, "timeAdded", now.as_str());
        }
    }
}

#[async_trait]
impl Hook for TaintTimes {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        Self::fill(ctx, new);
        Ok(())
    }

    async fn before_update(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        Self::fill(ctx, new);
        Ok(())
    }
}

fn unchanged(new: &Value, old: &Value, pointer: &str, path: &str) -> Errors {
    let of = |object: &Value| object.pointer(pointer).cloned().unwrap_or_default();
    let (new, old) = (of(new), of(old));
    if same(&new, &old) { Vec::new() } else { vec![FieldError::invalid(path, new, IMMUTABLE)] }
}

fn claim_defaults(spec: &mut Map<String, Value>) {
    let Some(devices) = child_opt(spec, "devices") else { return };
    for request in children(devices, "requests") {
        if let Some(exactly) = child_opt(request, "exactly") {
            request_defaults(exactly);
        }
        for alternative in children(request, "firstAvailable") {
            request_defaults(alternative);
        }
    }
}

fn request_defaults(request: &mut Map<String, Value>) {
    default_to(request, "allocationMode", "ExactCount");
    if request.get("allocationMode").is_some_and(|mode| mode == "ExactCount") {
        default_nonzero(request, "count", 1);
    }
    for toleration in children(request, "tolerations") {
        default_to(toleration, "operator", "Equal");
    }
}

fn at_most(parent: &Field<'_>, list: &str, max: usize, errors: &mut Errors) {
    if parent.len(list) > max {
        errors.push(FieldError::too_many(parent.at(list), parent.len(list), max));
    }
}

fn selectors(parent: &Field<'_>, errors: &mut Errors) {
    at_most(parent, "selectors", SELECTORS_MAX, errors);
    for selector in parent.items("selectors") {
        match selector.opt("cel") {
            None => errors.push(selector.required("cel", "")),
            Some(cel) if cel.str("expression").is_empty() => {
                errors.push(cel.required("expression", ""));
            }
            Some(cel) => errors.extend(compiled(&cel)),
        }
    }
}

/// What is wrong with a selector's expression, if anything.
fn compiled(cel: &Field<'_>) -> Option<FieldError> {
    let (path, expression) = (cel.at("expression"), cel.str("expression"));
    if expression.len() > SELECTOR_BYTES_MAX {
        return Some(FieldError::too_long(path, SELECTOR_BYTES_MAX));
    }
    match Selector::compile(expression) {
        Ok(selector) => (selector.cost_max() > SELECTOR_COST_MAX)
            .then(|| FieldError::forbidden(path, "too complex, exceeds cost limit")),
        Err(SelectorError::Internal(words)) => Some(FieldError::internal(path, words)),
        Err(invalid) => Some(FieldError::invalid(path, expression, invalid.to_string())),
    }
}

fn configs(parent: &Field<'_>, errors: &mut Errors) {
    at_most(parent, "config", CONFIGS_MAX, errors);
    for config in parent.items("config") {
        let Some(opaque) = config.opt("opaque") else {
            errors.push(config.required("opaque", ""));
            continue;
        };
        driver(&opaque, "driver", errors);
        match opaque.raw("parameters") {
            Value::Null => errors.push(opaque.required("parameters", "")),
            Value::Object(_) => {}
            other => {
                let why = "must be a valid JSON object";
                errors.push(FieldError::invalid(opaque.at("parameters"), other.clone(), why));
            }
        }
    }
}

fn driver(parent: &Field<'_>, name: &str, errors: &mut Errors) {
    let text = parent.str(name);
    if text.is_empty() {
        errors.push(parent.required(name, ""));
        return;
    }
    if text.len() > DRIVER_BYTES_MAX {
        errors.push(FieldError::too_long(parent.at(name), DRIVER_BYTES_MAX));
    }
    named(parent, name, names::dns_subdomain, errors);
}

fn claim(spec: &Field<'_>) -> Errors {
    let mut errors = Vec::new();
    let devices = spec.get("devices");
    at_most(&devices, "requests", REQUESTS_MAX, &mut errors);
    let mut known: Vec<String> = Vec::new();
    for request in devices.items("requests") {
        let name = request.str("name");
        request_name(&request, name, &known, &mut errors);
        known.push(name.to_owned());
        one_request(&request, &mut known, &mut errors);
    }
    at_most(&devices, "constraints", CONSTRAINTS_MAX, &mut errors);
    for constraint in devices.items("constraints") {
        references(&constraint, &known, &mut errors);
        if constraint.str("matchAttribute").is_empty()
            && constraint.str("distinctAttribute").is_empty()
        {
            errors.push(constraint.required("matchAttribute", ""));
        }
    }
    configs(&devices, &mut errors);
    for config in devices.items("config") {
        references(&config, &known, &mut errors);
    }
    errors
}

fn request_name(request: &Field<'_>, name: &str, known: &[String], errors: &mut Errors) {
    if name.is_empty() {
        errors.push(request.required("name", ""));
    } else {
        named(request, "name", names::dns_label, errors);
        if known.iter().any(|one| one == name) {
            errors.push(FieldError::duplicate(request.at("name"), name));
        }
    }
}

fn one_request(request: &Field<'_>, known: &mut Vec<String>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = request.len("firstAvailable");
    match (request.opt("exactly"), alternatives) {
        (None, 0) => errors.push(FieldError::required(&request.path, ONE)),
        (Some(_), 1..) => {
            let why = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid(&request.path, Value::Null, why));
        }
        (Some(exactly), 0) => devices_of(&exactly, errors),
        (None, _) => {
            at_most(request, "firstAvailable", ALTERNATIVES_MAX, errors);
            let parent = request.str("name");
            for alternative in request.items("firstAvailable") {
                let name = alternative.str("name");
                let whole = format!("{parent}/{name}");
                if known.contains(&whole) {
                    errors.push(FieldError::duplicate(alternative.at("name"), name));
                } else {
                    request_name(&alternative, name, &[], errors);
                }
                known.push(whole);
                devices_of(&alternative, errors);
            }
        }
    }
}

fn devices_of(request: &Field<'_>, errors: &mut Errors) {
    if request.str("deviceClassName").is_empty() {
        errors.push(request.required("deviceClassName", ""));
    } else {
        named(request, "deviceClassName", names::dns_subdomain, errors);
    }
    selectors(request, errors);
    let count = request.int("count").unwrap_or_default();
    match request.str("allocationMode") {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(request.at("count"), count, why));
        }
        "All" => {}
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(
                request.at("count"),
                count,
                "must be greater than zero",
            ));
        }
        "ExactCount" => {}
        other => errors.push(FieldError::not_supported(
            request.at("allocationMode"),
            other,
            &["All", "ExactCount"],
        )),
    }
}

/// The requests that a constraint or a configuration is about must be there.
fn references(parent: &Field<'_>, known: &[String], errors: &mut Errors) {
    let mut seen = Vec::new();
    for (at, name) in parent.strs("requests").enumerate() {
        let path = format!("{}[{at}]", parent.at("requests"));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path, name));
        } else if !known.iter().any(|one| one == name) {
            let why = "must be the name of a request in the claim or the name of a request and a \
                       subrequest separated by '/'";
            errors.push(FieldError::invalid(path, name, why));
        }
        seen.push(name);
    }
}

fn claim_status(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let status = Field::new(&new["status"], "status");
    let before = &old["status"];
    if status.has("allocation") && !before["allocation"].is_null() {
        status.immutable(before, "allocation", &mut errors);
    }
    if status.len("reservedFor") > 0 && !status.has("allocation") {
        let why = "may not be specified when `allocated` is not set";
        errors.push(status.forbidden("reservedFor", why));
    }
    at_most(&status, "reservedFor", USERS_MAX, &mut errors);
    let mut seen = Vec::new();
    for user in status.items("reservedFor") {
        for field in ["resource", "name", "uid"] {
            user.not_empty(field, &mut errors);
        }
        if seen.contains(&user.str("uid")) {
            errors.push(FieldError::duplicate(&user.path, user.value.clone()));
        }
        seen.push(user.str("uid"));
    }
    let results = status.get("allocation").get("devices");
    for result in results.items("results") {
        result.not_empty("request", &mut errors);
        driver(&result, "driver", &mut errors);
        result.not_empty("pool", &mut errors);
        result.not_empty("device", &mut errors);
    }
    errors
}

fn slice(spec: &Field<'_>) -> Errors {
    let mut errors = Vec::new();
    driver(spec, "driver", &mut errors);
    let pool = spec.get("pool");
    if pool.str("name").is_empty() {
        errors.push(pool.required("name", ""));
    } else {
        for part in pool.str("name").split('/') {
            let wrong = names::dns_subdomain(part);
            errors.extend(wrong.into_iter().map(|why| pool.invalid("name", why)));
        }
    }
    if pool.int("resourceSliceCount").unwrap_or_default() <= 0 {
        let count = pool.int("resourceSliceCount").unwrap_or_default();
        let path = pool.at("resourceSliceCount");
        errors.push(FieldError::invalid(path, count, "must be greater than zero"));
    }
    if pool.int("generation").is_some_and(|generation| generation < 0) {
        errors.push(pool.invalid("generation", "must be greater than or equal to zero"));
    }
    placed(spec, &mut errors);
    at_most(spec, "devices", DEVICES_MAX, &mut errors);
    let mut seen = Vec::new();
    for device in spec.items("devices") {
        let name = device.str("name");
        named(&device, "name", names::dns_label, &mut errors);
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(device.at("name"), name));
        }
        seen.push(name);
    }
    errors
}

/// A slice says in one way which nodes reach its devices.
fn placed(spec: &Field<'_>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                       `perDeviceNodeSelection` is required";
    let mut set = Vec::new();
    if !spec.str("nodeName").is_empty() {
        named(spec, "nodeName", names::dns_subdomain, errors);
        set.push("`nodeName`");
    }
    if let Some(selector) = spec.opt("nodeSelector") {
        if selector.len("nodeSelectorTerms") != 1 {
            let why = "must have exactly one node selector term";
            let terms = selector.raw("nodeSelectorTerms").clone();
            errors.push(FieldError::invalid(selector.at("nodeSelectorTerms"), terms, why));
        }
        set.push("`nodeSelector`");
    }
    for (field, shown) in
        [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match spec.raw(field).as_bool() {
            Some(true) => set.push(shown),
            Some(false) => {
                errors.push(spec.invalid(field, "must be either unset or set to true"));
            }
            None => {}
        }
    }
    match set.as_slice() {
        [] => errors.push(FieldError::required(&spec.path, ONE)),
        [_] => {}
        many => {
            let shown = format!("{{{}}}", many.join(", "));
            let why = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid(&spec.path, shown, why));
        }
    }
}
