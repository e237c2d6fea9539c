//! What writes do: metadata, subresources, deletion.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{filter::Filter, key_of, store::Store};
use crate::{
    client::{
        ClientError, DeleteOptions, ListOptions, PatchKind, Propagation, Write, WriteOptions,
        WriteReply,
    },
    clock::to_seconds,
    environment::Environment,
    object::{DecodeError, Object},
    patch,
    resource::{Key, ResourceType, Scope, Target},
    schema,
    status::{ApiError, FieldError},
};

pub(super) fn write(
    store: &mut Store,
    environment: &Environment,
    write: Write,
) -> Result<WriteReply, ClientError> {
    match write {
        Write::Create(target, body, options) => match target.subresource.as_deref() {
            None => create(store, environment, &target, body, &options),
            Some("binding") => bind(store, environment, &target, &body),
            Some("eviction") => evict(store, environment, &target, &body),
            Some(_) => Err(ApiError::no_such_path().into()),
        },
        Write::Update(target, body, options) => {
            update(store, &target, Some(&options), |_| Ok(body))
        }
        Write::Patch(target, kind, patch, options) => {
            apply_patch(store, environment, &target, kind, patch, &options)
        }
        Write::Delete(target, options) => {
            delete(store, environment, &target.resource, &key_of(&target)?, &options)
        }
        Write::DeleteCollection(target, options, selection) => {
            delete_collection(store, environment, &target, &options, &selection)
        }
    }
}

fn metadata(value: &mut Value) -> Result<&mut Map<String, Value>, ClientError> {
    let object = value.as_object_mut().ok_or(DecodeError::NoMetadata)?;
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    Ok(meta.as_object_mut().ok_or(DecodeError::NoMetadata)?)
}

fn text<'a>(meta: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    meta.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn now(environment: &Environment) -> String {
    to_seconds(environment.clock.now()).to_string()
}

/// What a server sets on a new object, where it is missing.
fn stamp(
    value: &mut Value,
    environment: &Environment,
    resource: &ResourceType,
) -> Result<(), ClientError> {
    let object = value.as_object_mut().ok_or(DecodeError::NoMetadata)?;
    object.entry("apiVersion").or_insert_with(|| resource.api_version().into());
    object.entry("kind").or_insert_with(|| resource.kind.as_ref().into());
    let has_spec = object.contains_key("spec");
    let meta = metadata(value)?;
    meta.entry("uid").or_insert_with(|| environment.random.uuid().into());
    meta.entry("creationTimestamp").or_insert_with(|| now(environment).into());
    if has_spec {
        meta.entry("generation").or_insert_with(|| 1.into());
    }
    Ok(())
}

pub(super) fn seed(
    store: &mut Store,
    environment: &Environment,
    resource: &ResourceType,
    mut value: Value,
) -> Result<Arc<Object>, ClientError> {
    stamp(&mut value, environment, resource)?;
    store.put(resource, Object::encode_for_store(&mut value)?)
}

fn create(
    store: &mut Store,
    environment: &Environment,
    target: &Target,
    mut value: Value,
    options: &WriteOptions,
) -> Result<WriteReply, ClientError> {
    let resource = &target.resource;
    let key = name_new_object(&mut value, environment, target)?;
    if store.find(resource, &key).is_some() {
        let (group, plural) = (&resource.group, &resource.plural);
        return Err(ApiError::already_exists(group, plural, &key.name).into());
    }
    let meta = metadata(&mut value)?;
    for set_by_server in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
        meta.remove(set_by_server);
    }
    prepare_new(&mut value, resource);
    stamp(&mut value, environment, resource)?;
    let json = Object::encode_for_store(&mut value)?;
    if options.dry_run {
        return Ok(Arc::new(Object::from_json(json)?));
    }
    store.put(resource, json)
}

fn name_new_object(
    value: &mut Value,
    environment: &Environment,
    target: &Target,
) -> Result<Key, ClientError> {
    let resource = &target.resource;
    let meta = metadata(value)?;
    if text(meta, "name").is_none() {
        let Some(prefix) = text(meta, "generateName") else {
            let missing = FieldError::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&resource.group, &resource.kind, "", &[missing]).into());
        };
        let name = format!("{prefix}{}", environment.random.name_suffix(5));
        meta.insert("name".into(), name.into());
    }
    if resource.scope == Scope::Namespaced {
        let asked = target.namespace.as_deref();
        let own = text(meta, "namespace").map(str::to_owned);
        if let (Some(asked), Some(own)) = (asked, own.as_deref())
            && asked != own
        {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            )
            .into());
        }
        let namespace = asked.map(str::to_owned).or(own).unwrap_or_else(|| "default".into());
        meta.insert("namespace".into(), namespace.into());
    } else {
        meta.remove("namespace");
    }
    Ok(Key::new(
        text(meta, "namespace").unwrap_or_default(),
        text(meta, "name").unwrap_or_default(),
    ))
}

/// The status of a new object is the server's to set. Nodes are the exception: an agent registers
/// its node status included.
fn prepare_new(value: &mut Value, resource: &ResourceType) {
    let plural = (resource.group.as_ref(), resource.plural.as_ref());
    match plural {
        ("", "nodes") => {}
        ("", "pods") => value["status"] = json!({"phase": "Pending"}),
        ("", "namespaces") => {
            value["spec"] = json!({"finalizers": ["kubernetes"]});
            value["status"] = json!({"phase": "Active"});
        }
        ("", "persistentvolumes" | "persistentvolumeclaims") => {
            value["status"] = json!({"phase": "Pending"});
        }
        // The status of these is written with the object, there is no subresource.
        ("apiregistration.k8s.io" | "storage.k8s.io", _) => {}
        _ => {
            value.as_object_mut().and_then(|object| object.remove("status"));
        }
    }
}

/// Replaces an object, or the part of it that a subresource shows, by what `change` makes of it.
fn update(
    store: &mut Store,
    target: &Target,
    options: Option<&WriteOptions>,
    change: impl FnOnce(Value) -> Result<Value, ClientError>,
) -> Result<WriteReply, ClientError> {
    let (resource, key) = (&target.resource, key_of(target)?);
    let object = store.get(resource, &key)?.clone();
    let old = object.to_value();
    let subresource = target.subresource.as_deref();
    let shown = if subresource == Some("scale") { scale_of(&object)? } else { old.clone() };
    let body = change(shown)?;
    check_preconditions(&body, &object, resource, &key)?;
    let mut new = match subresource {
        None => replace(&old, body),
        Some("status") => with_status(&old, &body),
        Some("scale") => with_replicas(&old, &body),
        Some("finalize") => with_field(&old, &body, "spec"),
        Some(_) => return Err(ApiError::no_such_path().into()),
    };
    keep_server_fields(&old, &mut new)?;
    let dry_run = options.is_some_and(|options| options.dry_run);
    let stored = if new == old {
        object
    } else if dry_run {
        Arc::new(Object::from_value(&new)?)
    } else {
        store.put(resource, Object::encode_for_store(&mut new)?)?
    };
    if !dry_run && is_finished(&new) {
        return store.remove(resource, &key);
    }
    if subresource == Some("scale") {
        return Ok(Arc::new(Object::from_value(&scale_of(&stored)?)?));
    }
    Ok(stored)
}

fn check_preconditions(
    body: &Value,
    object: &Object,
    resource: &ResourceType,
    key: &Key,
) -> Result<(), ClientError> {
    let empty = Map::new();
    let meta = body.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    if let Some(name) = text(meta, "name")
        && name != key.name
    {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        ))
        .into());
    }
    if text(meta, "resourceVersion").is_some_and(|version| version != object.resource_version()) {
        return Err(ApiError::stale(&resource.group, &resource.plural, &key.name).into());
    }
    let uid = object.metadata().uid.as_deref().unwrap_or_default();
    if let Some(asked) = text(meta, "uid").filter(|asked| *asked != uid) {
        return Err(uid_conflict(resource, key, asked, uid).into());
    }
    Ok(())
}

fn uid_conflict(resource: &ResourceType, key: &Key, asked: &str, uid: &str) -> ApiError {
    let why =
        format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
    ApiError::conflict(&resource.group, &resource.plural, &key.name, &why)
}

fn replace(old: &Value, mut body: Value) -> Value {
    if let Some(object) = body.as_object_mut() {
        for field in ["apiVersion", "kind", "status"] {
            match old.get(field) {
                Some(value) => object.insert(field.into(), value.clone()),
                None if field == "status" => object.remove(field),
                None => None,
            };
        }
    }
    body
}

fn with_field(old: &Value, body: &Value, field: &str) -> Value {
    let mut new = old.clone();
    new[field] = body.get(field).cloned().unwrap_or_else(|| json!({}));
    new
}

/// Status writes may also change labels and annotations: upstream resets only the rest.
fn with_status(old: &Value, body: &Value) -> Value {
    let mut new = with_field(old, body, "status");
    if new["status"] == json!({}) && old.get("status").is_none() {
        new.as_object_mut().and_then(|object| object.remove("status"));
    }
    for field in ["labels", "annotations"] {
        let wanted = body.pointer(&format!("/metadata/{field}")).filter(|value| !value.is_null());
        let Some(meta) = new.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        match wanted {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    new
}

fn with_replicas(old: &Value, body: &Value) -> Value {
    let mut new = old.clone();
    new["spec"]["replicas"] = body.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
    new
}

/// Puts back what only the server may set and counts the generation.
fn keep_server_fields(old: &Value, new: &mut Value) -> Result<(), ClientError> {
    let before = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let changed = {
        let body = |value: &Value| {
            let object = value.as_object().cloned().unwrap_or_default();
            let kept = |(field, _): &(String, Value)| field != "metadata" && field != "status";
            object.into_iter().filter(kept).collect::<Map<_, _>>()
        };
        body(old) != body(new)
    };
    let meta = metadata(new)?;
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match before.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    if changed && let Some(generation) = before.get("generation").and_then(Value::as_i64) {
        meta.insert("generation".into(), (generation + 1).into());
    }
    Ok(())
}

/// Whether an object that is being deleted has nothing left to wait for.
fn is_finished(value: &Value) -> bool {
    let empty =
        |path: &str| value.pointer(path).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    value.pointer("/metadata/deletionTimestamp").is_some()
        && empty("/metadata/finalizers")
        && grace.unwrap_or(0) == 0
        && (value["kind"] != "Namespace" || empty("/spec/finalizers"))
}

fn apply_patch(
    store: &mut Store,
    environment: &Environment,
    target: &Target,
    kind: PatchKind,
    body: Value,
    options: &WriteOptions,
) -> Result<WriteReply, ClientError> {
    let key = key_of(target)?;
    if kind == PatchKind::Apply
        && target.subresource.is_none()
        && store.find(&target.resource, &key).is_none()
    {
        return create(store, environment, target, body, options);
    }
    update(store, target, Some(options), |mut value| {
        let kind_of = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let definition = schema::of_api_version(kind_of("apiVersion"), kind_of("kind"));
        let patched = match kind {
            PatchKind::Json => patch::json_patch(&mut value, &body),
            PatchKind::Strategic => patch::strategic_merge_patch(definition, &mut value, &body),
            PatchKind::Apply if definition.is_some() => {
                patch::strategic_merge_patch(definition, &mut value, &body)
            }
            PatchKind::Apply | PatchKind::Merge => patch::merge_patch(&mut value, &body),
        };
        patched.map_err(ApiError::from)?;
        Ok(value)
    })
}

pub(super) fn scale_of(object: &Object) -> Result<Value, ClientError> {
    let value = object.to_value();
    let replicas = value.pointer("/spec/replicas").cloned().ok_or_else(ApiError::no_such_path)?;
    let meta = object.metadata();
    let selector = value.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector: Vec<String> = selector
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    Ok(json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "creationTimestamp": meta.creation_timestamp,
        },
        "spec": {"replicas": replicas},
        "status": {
            "replicas": value.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into()),
            "selector": selector.join(","),
        },
    }))
}

fn success() -> Result<WriteReply, ClientError> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(Arc::new(Object::from_value(&status)?))
}

fn bind(
    store: &mut Store,
    environment: &Environment,
    target: &Target,
    binding: &Value,
) -> Result<WriteReply, ClientError> {
    let key = key_of(target)?;
    let object = store.get(&target.resource, &key)?.clone();
    let mut pod = object.to_value();
    let refuse = |why: String| ApiError::conflict("", "pods/binding", &key.name, &why);
    let uid = object.metadata().uid.as_deref().unwrap_or_default();
    if let Some(asked) = binding.pointer("/metadata/uid").and_then(Value::as_str)
        && !asked.is_empty()
        && asked != uid
    {
        return Err(uid_conflict(&target.resource, &key, asked, uid).into());
    }
    if object.metadata().deletion_timestamp.is_some() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", key.name);
        return Err(refuse(why).into());
    }
    if let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str) {
        let why = format!("pod {} is already assigned to node \"{node}\"", key.name);
        return Err(refuse(why).into());
    }
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        let missing = FieldError::required("target.name", "");
        return Err(ApiError::invalid("", "Binding", &key.name, &[missing]).into());
    }
    let condition = json!({"type": "PodScheduled", "status": "True",
        "lastProbeTime": null, "lastTransitionTime": now(environment)});
    let bound = json!({
        "spec": {"nodeName": node},
        "status": {"conditions": [condition], "nominatedNodeName": null},
    });
    let definition = schema::of_api_version("v1", "Pod");
    patch::strategic_merge_patch(definition, &mut pod, &bound).map_err(ApiError::from)?;
    store.put(&target.resource, Object::encode_for_store(&mut pod)?)?;
    success()
}

fn evict(
    store: &mut Store,
    environment: &Environment,
    target: &Target,
    eviction: &Value,
) -> Result<WriteReply, ClientError> {
    let key = key_of(target)?;
    let pod = store.get(&target.resource, &key)?.clone();
    let budgets = ResourceType::new(
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        Scope::Namespaced,
    );
    for budget in store.all(&budgets, Some(&key.namespace)) {
        let budget = budget.to_value();
        let selector = serde_json::from_value(budget["spec"]["selector"].clone()).ok();
        let selector = crate::selector::Selector::from_label_selector(selector.as_ref());
        let allowed = budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64);
        if selector.is_ok_and(|s| s.matches_labels_of(pod.metadata())) && allowed.unwrap_or(0) < 1 {
            return Err(ApiError::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                0,
            )
            .into());
        }
    }
    let grace = eviction.pointer("/deleteOptions/gracePeriodSeconds").and_then(Value::as_i64);
    let options = DeleteOptions { grace_period_s: grace, ..DeleteOptions::default() };
    delete(store, environment, &target.resource, &key, &options)?;
    success()
}

fn delete(
    store: &mut Store,
    environment: &Environment,
    resource: &ResourceType,
    key: &Key,
    options: &DeleteOptions,
) -> Result<WriteReply, ClientError> {
    let object = store.get(resource, key)?.clone();
    let uid = object.metadata().uid.as_deref().unwrap_or_default();
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        return Err(uid_conflict(resource, key, asked, uid).into());
    }
    if let Some(asked) = &options.resource_version
        && asked != object.resource_version()
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in \
             object meta: {}",
            object.resource_version()
        );
        let conflict = ApiError::conflict(&resource.group, &resource.plural, &key.name, &why);
        return Err(conflict.into());
    }
    let old = object.to_value();
    let new = marked_for_deletion(&old, environment, resource, options)?;
    if options.dry_run {
        return Ok(object);
    }
    if is_finished(&new) {
        return store.remove(resource, key);
    }
    if new == old {
        return Ok(object);
    }
    let mut new = new;
    store.put(resource, Object::encode_for_store(&mut new)?)
}

/// The object as it is while it waits for its finalizers, its grace period or its dependents.
fn marked_for_deletion(
    old: &Value,
    environment: &Environment,
    resource: &ResourceType,
    options: &DeleteOptions,
) -> Result<Value, ClientError> {
    let mut new = old.clone();
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let grace = if is_pod { pod_grace(old, options.grace_period_s) } else { 0 };
    let meta = metadata(&mut new)?;
    let finalizer = match options.propagation {
        Some(Propagation::Orphan) => Some("orphan"),
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
        _ => None,
    };
    let deleting = meta.contains_key("deletionTimestamp");
    if let (Some(finalizer), false) = (finalizer, deleting) {
        let list = meta.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut().filter(|l| !l.contains(&finalizer.into())) {
            list.push(finalizer.into());
        }
    }
    let before = meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    if !deleting || before.is_some_and(|before| grace < before) {
        let at = environment.clock.now();
        let at = at.saturating_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(at);
        meta.insert("deletionTimestamp".into(), to_seconds(at).to_string().into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        if let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
            meta.insert("generation".into(), (generation + 1).into());
        }
    }
    if resource.group.is_empty() && resource.plural == "namespaces" {
        new["status"]["phase"] = "Terminating".into();
    }
    Ok(new)
}

/// A pod that runs nowhere, or no more, goes at once.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() || matches!(phase, "Failed" | "Succeeded") {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    asked.or(own).unwrap_or(30).clamp(0, 10 * 365 * 86_400)
}

fn delete_collection(
    store: &mut Store,
    environment: &Environment,
    target: &Target,
    options: &DeleteOptions,
    selection: &ListOptions,
) -> Result<WriteReply, ClientError> {
    let filter = Filter::of_list(target, selection)?;
    let selected = store.all(&target.resource, filter.namespace());
    for object in selected.iter().filter(|object| filter.matches(object)) {
        delete(store, environment, &target.resource, &object.key(), options)?;
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(Arc::new(Object::from_value(&status)?))
}
