//! `/metrics/resource`: what the node, its pods and their containers use, for metrics servers.
//!
//! Source: `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use std::{collections::BTreeMap, fmt::Write as _};

use http::{Response, StatusCode, header};

use super::{Body, NodeServer, text};
use crate::{
    runtime::ContainerUsage,
    usage::{ContainerSample, NodeSample, RuntimeUsage, UsageSource as _},
};

/// One metric: its name, its help, its kind.
struct Family(&'static str, &'static str, &'static str);

const CONTAINER_CPU: Family = Family(
    "container_cpu_usage_seconds_total",
    "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    "counter",
);
const CONTAINER_MEMORY: Family = Family(
    "container_memory_working_set_bytes",
    "[STABLE] Current working set of the container in bytes",
    "gauge",
);
const CONTAINER_START: Family = Family(
    "container_start_time_seconds",
    "[STABLE] Start time of the container since unix epoch in seconds",
    "gauge",
);
const NODE_CPU: Family = Family(
    "node_cpu_usage_seconds_total",
    "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    "counter",
);
const NODE_MEMORY: Family = Family(
    "node_memory_working_set_bytes",
    "[STABLE] Current working set of the node in bytes",
    "gauge",
);
const POD_CPU: Family = Family(
    "pod_cpu_usage_seconds_total",
    "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    "counter",
);
const POD_MEMORY: Family = Family(
    "pod_memory_working_set_bytes",
    "[STABLE] Current working set of the pod in bytes",
    "gauge",
);
const SCRAPE_ERROR: Family = Family(
    "resource_scrape_error",
    "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    "gauge",
);

/// Answers with what is used now; if that cannot be measured, says so and nothing else.
pub(super) async fn respond(server: &NodeServer) -> Response<Body> {
    // The name is in no metric.
    let source = RuntimeUsage::new("", server.runtime.clone(), server.environment.clone());
    let sample = source.sample().await;
    if let Err(error) = &sample {
        tracing::warn!(%error, "the node could not be measured");
    }
    let mut page = Page::default();
    if let Ok(sample) = &sample {
        page.sample(sample);
    }
    let failed = i32::from(sample.is_err()).to_string();
    page.family(&SCRAPE_ERROR, [(String::new(), failed)], "");
    let mut response = text(StatusCode::OK, &page.0);
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(
        &mut self,
        Family(name, help, kind): &Family,
        values: impl IntoIterator<Item = (String, String)>,
        at: &str,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        // Writing to a string does not fail.
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _infallible = writeln!(self.0, "{name}{labels} {value}{at}");
        }
    }

    fn sample(&mut self, sample: &NodeSample) {
        let at = format!(" {}", sample.at.as_millisecond());
        let mut containers: Vec<&ContainerSample> = sample.containers.iter().collect();
        containers.sort_by_key(|one| (&one.name, &one.pod));
        let mut pods: BTreeMap<String, ContainerUsage> = BTreeMap::new();
        for one in &containers {
            let (namespace, pod) = (&one.pod.namespace, &one.pod.name);
            let labels = format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}}");
            let sum = pods.entry(labels).or_default();
            sum.cpu_ns += one.usage.cpu_ns;
            sum.working_set_bytes += one.usage.working_set_bytes;
        }
        let of_containers = |value: fn(&ContainerSample) -> String| {
            containers.iter().map(move |one| (labels(one), value(one)))
        };
        self.family(&CONTAINER_CPU, of_containers(|one| seconds(one.usage.cpu_ns)), &at);
        let memory = of_containers(|one| one.usage.working_set_bytes.to_string());
        self.family(&CONTAINER_MEMORY, memory, &at);
        let start = of_containers(|one| one.started_at.as_second().to_string());
        self.family(&CONTAINER_START, start, "");
        let node = |value: String| [(String::new(), value)];
        self.family(&NODE_CPU, node(seconds(sample.node.cpu_ns)), &at);
        self.family(&NODE_MEMORY, node(sample.node.working_set_bytes.to_string()), &at);
        let cpu = pods.iter().map(|(labels, one)| (labels.clone(), seconds(one.cpu_ns)));
        self.family(&POD_CPU, cpu, &at);
        let memory = pods.iter();
        let memory =
            memory.map(|(labels, one)| (labels.clone(), one.working_set_bytes.to_string()));
        self.family(&POD_MEMORY, memory, &at);
    }
}

fn labels(one: &ContainerSample) -> String {
    let (name, namespace, pod) = (&one.name, &one.pod.namespace, &one.pod.name);
    format!("{{container=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\"}}")
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use orch_core::Key;

    use super::*;

    #[test]
    fn the_page_is_what_metrics_servers_read() {
        let usage = ContainerUsage { cpu_ns: 1_500_000_000, working_set_bytes: 1024 };
        let container = |name: &str| ContainerSample {
            pod: Key::new("default", "web"),
            pod_uid: "1".into(),
            name: name.into(),
            started_at: "1970-01-01T00:01:00Z".parse().unwrap(),
            usage,
        };
        let sample = NodeSample {
            at: "1970-01-01T00:02:00.5Z".parse().unwrap(),
            node: usage,
            containers: vec![container("b"), container("a")],
        };
        let mut page = Page::default();
        page.sample(&sample);
        let lines: Vec<&str> = page.0.lines().filter(|line| !line.starts_with('#')).collect();
        let of = |name: &str| format!("{{container=\"{name}\",namespace=\"default\",pod=\"web\"}}");
        let pod = "{namespace=\"default\",pod=\"web\"}";
        let expected = [
            format!("container_cpu_usage_seconds_total{} 1.500000000 120500", of("a")),
            format!("container_cpu_usage_seconds_total{} 1.500000000 120500", of("b")),
            format!("container_memory_working_set_bytes{} 1024 120500", of("a")),
            format!("container_memory_working_set_bytes{} 1024 120500", of("b")),
            format!("container_start_time_seconds{} 60", of("a")),
            format!("container_start_time_seconds{} 60", of("b")),
            "node_cpu_usage_seconds_total 1.500000000 120500".into(),
            "node_memory_working_set_bytes 1024 120500".into(),
            format!("pod_cpu_usage_seconds_total{pod} 3.000000000 120500"),
            format!("pod_memory_working_set_bytes{pod} 2048 120500"),
        ];
        assert_eq!(lines, expected);
        assert!(page.0.contains("# TYPE pod_cpu_usage_seconds_total counter\n"));
    }
}
