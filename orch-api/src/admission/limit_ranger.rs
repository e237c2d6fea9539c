//! LimitRanges: defaults and bounds for what containers, pods and claims ask for.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/limitranger`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem},
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{ApiError, Client, Resources, client::ListOptions, quantity::Amount};
use serde_json::{Map, Value, json};

use super::{Admission, AdmissionRequest, Operation, pod_shape};
use crate::auth::service_account::into_api_error;
use pod_shape::Amounts;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives containers the namespace's default requests and limits, and refuses pods and claims
/// outside its bounds.
#[derive(Debug)]
pub struct LimitRanger {
    client: Arc<dyn Client>,
}

impl LimitRanger {
    /// Looks LimitRanges up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }

    async fn items(&self, namespace: &str) -> Result<Vec<LimitRangeItem>, ApiError> {
        let ranges: Resources<LimitRange> = Resources::namespaced(self.client.clone(), namespace);
        let list = ranges.list_objects(ListOptions::default()).await.map_err(into_api_error)?;
        let mut items = Vec::new();
        for object in list.items {
            let range = object.decode::<LimitRange>().map_err(ApiError::internal)?;
            items.extend(range.spec.iter().flat_map(|spec| spec.limits.clone()));
        }
        Ok(items)
    }
}

type Quantities = std::collections::BTreeMap<String, Quantity>;

fn parsed(map: Option<&Quantities>) -> Amounts {
    let entries = map.into_iter().flatten();
    entries.filter_map(|(name, q)| Some((name.clone(), q.0.parse().ok()?))).collect()
}

/// Sets what is missing of a container's `requests` or `limits`; gives the names that were set.
fn fill(resources: &mut Map<String, Value>, field: &str, defaults: &Amounts) -> Vec<String> {
    let map = resources.entry(field).or_insert_with(|| json!({}));
    if map.is_null() {
        *map = json!({});
    }
    let Some(map) = map.as_object_mut() else { return Vec::new() };
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if !map.contains_key(name) {
            map.insert(name.clone(), json!(amount.to_string()));
            set.push(name.clone());
        }
    }
    set
}

fn set_defaults(spec: &mut Value, items: &[LimitRangeItem]) -> Vec<String> {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for item in items.iter().filter(|item| item.type_ == "Container") {
        requests.extend(parsed(item.default_request.as_ref()));
        limits.extend(parsed(item.default.as_ref()));
    }
    let mut notes = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let own_limits = pod_shape::amounts(&container["resources"]["limits"]);
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let Some(container) = container.as_object_mut() else { continue };
            let resources = container.entry("resources").or_insert_with(|| json!({}));
            if resources.is_null() {
                *resources = json!({});
            }
            let Some(resources) = resources.as_object_mut() else { continue };
            if !requests.is_empty() {
                // A limit that the author set is the request too, before any default.
                fill(resources, "requests", &own_limits);
            }
            for (field, noun, defaults) in
                [("requests", "request", &requests), ("limits", "limit", &limits)]
            {
                if defaults.is_empty() {
                    continue;
                }
                let set = fill(resources, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {noun} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    notes
}

/// The complaints about one consumer of resources.
struct Bounds<'a> {
    item: &'a LimitRangeItem,
    requests: &'a Amounts,
    limits: &'a Amounts,
}

impl Bounds<'_> {
    fn minimum(&self, name: &str, least: Amount) -> Option<String> {
        let start = format!("minimum {name} usage per {} is {least}", self.item.type_);
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => Some(format!("{start}.  No request is specified")),
            (Some(r), _) if *r < least => Some(format!("{start}, but request is {r}")),
            (_, Some(l)) if *l < least => Some(format!("{start}, but limit is {l}")),
            _ => None,
        }
    }

    fn maximum(&self, name: &str, most: Amount) -> Option<String> {
        let start = format!("maximum {name} usage per {} is {most}", self.item.type_);
        match (self.requests.get(name), self.limits.get(name)) {
            (_, None) => Some(format!("{start}.  No limit is specified")),
            (_, Some(l)) if *l > most => Some(format!("{start}, but limit is {l}")),
            (Some(r), _) if *r > most => Some(format!("{start}, but request is {r}")),
            _ => None,
        }
    }

    fn ratio(&self, name: &str, most: Amount) -> Option<String> {
        let start = format!("{name} max limit to request ratio per {} is {most}", self.item.type_);
        let there = |amounts: &Amounts| amounts.get(name).copied().filter(|a| !a.is_zero());
        let Some(request) = there(self.requests) else {
            return Some(format!("{start}, but no request is specified or request is 0"));
        };
        let Some(limit) = there(self.limits) else {
            return Some(format!("{start}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.as_f64() / request.as_f64();
        (ratio > most.as_f64()).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
    }

    fn complaints(&self) -> Vec<String> {
        let item = self.item;
        let minimum = parsed(item.min.as_ref()).into_iter();
        let maximum = parsed(item.max.as_ref()).into_iter();
        let ratio = parsed(item.max_limit_request_ratio.as_ref()).into_iter();
        minimum
            .filter_map(|(name, least)| self.minimum(&name, least))
            .chain(maximum.filter_map(|(name, most)| self.maximum(&name, most)))
            .chain(ratio.filter_map(|(name, most)| self.ratio(&name, most)))
            .collect()
    }
}

fn pod_complaints(spec: &Value, items: &[LimitRangeItem]) -> Vec<String> {
    let mut complaints = Vec::new();
    for item in items {
        match item.type_.as_str() {
            "Container" => {
                for list in ["containers", "initContainers"] {
                    for container in pod_shape::containers(spec, list) {
                        let requests = pod_shape::requirement(container, "requests");
                        let limits = pod_shape::requirement(container, "limits");
                        let bounds = Bounds { item, requests: &requests, limits: &limits };
                        complaints.extend(bounds.complaints());
                    }
                }
            }
            "Pod" => {
                let requests = pod_shape::pod_total(spec, "requests");
                let limits = pod_shape::pod_total(spec, "limits");
                let bounds = Bounds { item, requests: &requests, limits: &limits };
                complaints.extend(bounds.complaints());
            }
            _ => {}
        }
    }
    complaints
}

fn claim_complaints(claim: &Value, items: &[LimitRangeItem]) -> Vec<String> {
    let requests = pod_shape::amounts(&claim["spec"]["resources"]["requests"]);
    let mut complaints = Vec::new();
    for item in items.iter().filter(|item| item.type_ == "PersistentVolumeClaim") {
        let bounds = Bounds { item, requests: &requests, limits: &requests };
        for (name, least) in parsed(item.min.as_ref()) {
            complaints.extend(bounds.minimum(&name, least));
        }
        for (name, most) in parsed(item.max.as_ref()) {
            let start = format!("maximum {name} usage per {} is {most}", item.type_);
            match requests.get(&name) {
                None => complaints.push(format!("{start}.  No request is specified")),
                Some(r) if *r > most => complaints.push(format!("{start}, but request is {r}")),
                Some(_) => {}
            }
        }
    }
    complaints
}

/// Several errors as upstream prints an aggregate of them.
pub(super) fn aggregate(mut complaints: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    complaints.retain(|complaint| seen.insert(complaint.clone()));
    match complaints.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let items = self.items(request.namespace()).await?;
        let Some(pod) = request.object.as_mut().filter(|pod| pod["spec"].is_object()) else {
            return Ok(());
        };
        let notes = set_defaults(&mut pod["spec"], &items);
        if !notes.is_empty() && pod["metadata"].is_object() {
            if !pod["metadata"]["annotations"].is_object() {
                pod["metadata"]["annotations"] = json!({});
            }
            pod["metadata"]["annotations"][ANNOTATION] =
                json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let claim = request.is_for("", "persistentvolumeclaims")
            && matches!(request.operation, Operation::Create | Operation::Update);
        if !claim && !request.creates("", "pods") {
            return Ok(());
        }
        let Some(object) = &request.object else { return Ok(()) };
        let items = self.items(request.namespace()).await?;
        let complaints = if claim {
            claim_complaints(object, &items)
        } else {
            pod_complaints(&object["spec"], &items)
        };
        aggregate(complaints).map_or(Ok(()), |why| Err(request.refuse(&why)))
    }
}
