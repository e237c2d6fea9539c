//! The requests that `metrics.k8s.io` answers.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    ApiError, Key,
    clock::to_seconds,
    quantity::{Amount, Format},
    selector::{FieldSelector, Selector},
};
use serde_json::{Value, json};

use super::{GROUP, Shared, VERSION, rates::Rate};

/// What errors call the resources.
const NODES: &str = "nodemetrics";
const PODS: &str = "podmetrics";

type Answer = Result<Value, ApiError>;

/// What a request selects of a collection.
#[derive(Debug)]
struct Selection {
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    fn of(uri: &Uri, resource: &str) -> Result<Self, ApiError> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let query: BTreeMap<Cow<'_, str>, Cow<'_, str>> = form_urlencoded::parse(query).collect();
        if query.get("watch").is_some_and(|value| !matches!(&**value, "" | "0" | "false")) {
            return Err(ApiError::method_not_allowed(GROUP, resource, "watch"));
        }
        let text = |name: &str| query.get(name).map_or("", |value| value);
        let labels = text("labelSelector").parse();
        let fields = text("fieldSelector").parse();
        Ok(Self {
            labels: labels.map_err(|error| ApiError::bad_request(format!("{error}")))?,
            fields: fields.map_err(|error| ApiError::bad_request(format!("{error}")))?,
        })
    }

    fn takes(&self, meta: &ObjectMeta) -> bool {
        let field = |name: &str| match name {
            "metadata.name" => meta.name.as_deref().map(Cow::Borrowed),
            "metadata.namespace" => meta.namespace.as_deref().map(Cow::Borrowed),
            _ => None,
        };
        self.labels.matches_labels_of(meta) && self.fields.matches(field)
    }
}

impl Shared {
    pub(super) fn answer(&self, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        let answer = match *method {
            Method::GET => self.find(uri),
            _ => {
                let resource = if uri.path().contains("/pods") { PODS } else { NODES };
                let verb = method.as_str().to_ascii_lowercase();
                Err(ApiError::method_not_allowed(GROUP, resource, &verb))
            }
        };
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => {
                let code = StatusCode::from_u16(error.code());
                let mut body = serde_json::to_value(error.status()).unwrap_or_default();
                body["kind"] = "Status".into();
                body["apiVersion"] = "v1".into();
                (code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
            }
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    fn find(&self, uri: &Uri) -> Answer {
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        match path[..] {
            ["apis"] => {
                Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}))
            }
            ["apis", GROUP] => {
                let mut group = group();
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                Ok(group)
            }
            ["apis", GROUP, VERSION] => Ok(resources()),
            ["apis", GROUP, VERSION, "nodes"] => self.list_nodes(&Selection::of(uri, NODES)?),
            ["apis", GROUP, VERSION, "nodes", name] => self.get_node(name),
            ["apis", GROUP, VERSION, "pods"] => self.list_pods(None, &Selection::of(uri, PODS)?),
            ["apis", GROUP, VERSION, "namespaces", namespace, "pods"] => {
                self.list_pods(Some(namespace), &Selection::of(uri, PODS)?)
            }
            ["apis", GROUP, VERSION, "namespaces", namespace, "pods", name] => {
                self.get_pod(&Key::new(namespace, name))
            }
            _ => Err(ApiError::no_such_path()),
        }
    }

    fn list_nodes(&self, selection: &Selection) -> Answer {
        let nodes = self.nodes.list();
        let nodes = nodes.iter().filter(|node| selection.takes(&node.metadata));
        let items = nodes.filter_map(|node| self.node(node)).collect();
        Ok(list("NodeMetricsList", items))
    }

    fn get_node(&self, name: &str) -> Answer {
        let node = self.nodes.get(&Key::cluster(name));
        let found = node.and_then(|node| self.node(&node));
        found.ok_or_else(|| ApiError::not_found(GROUP, NODES, name))
    }

    fn list_pods(&self, namespace: Option<&str>, selection: &Selection) -> Answer {
        let pods = match namespace {
            Some(namespace) => self.pods.list_in(namespace),
            None => self.pods.list(),
        };
        let pods = pods.iter().filter(|pod| selection.takes(&pod.metadata));
        Ok(list("PodMetricsList", pods.filter_map(|pod| self.pod(pod)).collect()))
    }

    fn get_pod(&self, key: &Key) -> Answer {
        let found = self.pods.get(key).and_then(|pod| self.pod(&pod));
        found.ok_or_else(|| ApiError::not_found(GROUP, PODS, &key.name))
    }

    /// Metrics of a node, `None` while there are none.
    fn node(&self, node: &Node) -> Option<Value> {
        let measured = self.measured.lock();
        let measured = measured.get(node.metadata.name.as_deref()?)?;
        let rate = measured.node?;
        let mut metrics = self.head("NodeMetrics", &node.metadata);
        metrics["timestamp"] = to_seconds(measured.last.at).to_string().into();
        metrics["window"] = duration(rate.window).into();
        metrics["usage"] = usage(rate);
        Some(metrics)
    }

    /// Metrics of a pod, `None` while there are none.
    fn pod(&self, pod: &Pod) -> Option<Value> {
        let measured = self.measured.lock();
        let measured = measured.get(pod.spec.as_ref()?.node_name.as_deref()?)?;
        let rates = measured.pods.get(&Key::of(&pod.metadata))?;
        if pod.metadata.uid.as_deref() != Some(&rates.uid) {
            return None;
        }
        let containers: Vec<Value> = rates
            .containers
            .iter()
            .map(|(name, rate)| json!({"name": name, "usage": usage(*rate)}))
            .collect();
        let mut metrics = self.head("PodMetrics", &pod.metadata);
        metrics["timestamp"] = to_seconds(measured.last.at).to_string().into();
        metrics["window"] = duration(rates.window()).into();
        metrics["containers"] = containers.into();
        Some(metrics)
    }

    fn head(&self, kind: &str, of: &ObjectMeta) -> Value {
        let now = to_seconds(self.environment.clock.now()).to_string();
        let mut metadata = json!({"name": of.name, "creationTimestamp": now});
        if let Some(namespace) = &of.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        if let Some(labels) = &of.labels {
            metadata["labels"] = json!(labels);
        }
        json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata})
    }
}

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| {
        json!({
            "name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"],
        })
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

fn list(kind: &str, mut items: Vec<Value>) -> Value {
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        // Items of a typed list do not say what they are.
        item.remove("kind");
        item.remove("apiVersion");
    }
    json!({
        "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items,
    })
}

fn usage(rate: Rate) -> Value {
    let cpu = format!("{}n", rate.cpu_nano).parse().unwrap_or(Amount::ZERO);
    let bytes = i64::try_from(rate.memory_bytes).unwrap_or(i64::MAX);
    let memory = Amount::from_value(bytes, Format::BinarySI);
    json!({"cpu": cpu.to_string(), "memory": memory.to_string()})
}

/// A span of time as Go writes it, to the millisecond: `15s`, `14.998s`, `1m2.5s`.
fn duration(window: Duration) -> String {
    let minutes = window.as_secs() / 60;
    let (seconds, ms) = (window.as_secs() % 60, window.subsec_millis());
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    let seconds = format!("{seconds}{}s", fraction.trim_end_matches('0'));
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_written_as_go_writes_them() {
        let check = |ms: u64, text: &str| assert_eq!(duration(Duration::from_millis(ms)), text);
        check(15_000, "15s");
        check(14_998, "14.998s");
        check(62_500, "1m2.5s");
        check(120_000, "2m0s");
    }

    #[test]
    fn amounts_are_canonical() {
        let rate = |cpu_nano, memory_bytes| Rate { cpu_nano, memory_bytes, window: Duration::ZERO };
        assert_eq!(usage(rate(250_000_000, 64 << 20)), json!({"cpu": "250m", "memory": "64Mi"}));
        assert_eq!(usage(rate(1_234_567, 1025)), json!({"cpu": "1234567n", "memory": "1025"}));
        assert_eq!(usage(rate(0, 0)), json!({"cpu": "0", "memory": "0"}));
    }
}
