//! The server's series as metrics.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType::{Counter, Gauge, Histogram},
};

use super::{CODES, Own};

const REQUEST: [&str; 8] =
    ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
const LONG_RUNNING: [&str; 7] =
    ["verb", "group", "version", "resource", "subresource", "scope", "component"];

#[derive(Debug)]
pub(super) struct Encoded(pub(super) Arc<Own>);

fn named<'a, const N: usize>(
    names: [&'a str; N],
    values: &'a [String; N],
) -> Vec<(&'a str, &'a str)> {
    names.into_iter().zip(values.iter().map(String::as_str)).collect()
}

impl Collector for Encoded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.requests(&mut encoder)?;
        self.running(&mut encoder)?;
        self.admission(&mut encoder)?;
        self.store(&mut encoder)
    }
}

impl Encoded {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let all = self.0.requests.all();
        let help = "Counter of apiserver requests broken out for each verb, dry run value, group, \
                    version, resource, scope, component, and HTTP response code";
        let mut family = encoder.encode_descriptor("apiserver_request", help, None, Counter)?;
        for (labels, series) in &all {
            for (code, count) in CODES.iter().zip(&series.codes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let code = code.to_string();
                    let mut labels = named(REQUEST, labels);
                    labels.push(("code", code.as_str()));
                    family
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        let help = "Response latency distribution in seconds for each verb, dry run value, group, \
                    version, resource, subresource, scope and component";
        let name = "apiserver_request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, Histogram)?;
        for (labels, series) in &all {
            series.duration.encode(family.encode_family(&named(REQUEST, labels))?)?;
        }
        let help = "Response size distribution in bytes for each group, version, verb, resource, \
                    subresource, scope and component";
        let name = "apiserver_response_sizes";
        let mut family = encoder.encode_descriptor(name, help, None, Histogram)?;
        // Only reads are measured, and reads are no dry runs.
        for (labels, series) in all.iter().filter(|(l, _)| matches!(&*l[0], "GET" | "LIST")) {
            let mut labels = named(REQUEST, labels);
            labels.remove(1);
            series.size.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn running(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Number of currently used inflight requests of this apiserver per request kind";
        let name = "apiserver_current_inflight_requests";
        let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
        for (kind, gauge) in ["readOnly", "mutating"].into_iter().zip(&self.0.in_flight) {
            let labels = [("request_kind", kind)];
            family.encode_family(&labels)?.encode_gauge(&gauge.load(Relaxed))?;
        }
        let help = "Gauge of all active long-running apiserver requests broken out by verb, group, \
                    version, resource, scope and component";
        let name = "apiserver_longrunning_requests";
        let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
        for (labels, gauge) in self.0.long_running.all() {
            let labels = named(LONG_RUNNING, &labels);
            family.encode_family(&labels)?.encode_gauge(&gauge.load(Relaxed))?;
        }
        let help = "Number of events sent in watch clients";
        let mut family =
            encoder.encode_descriptor("apiserver_watch_events", help, None, Counter)?;
        for (labels, count) in self.0.watch_events.all() {
            let labels = named(["group", "version", "resource"], &labels);
            let count = count.load(Relaxed);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn admission(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Admission sub-step latency in seconds, broken out for each operation and API \
                    resource and step type (validate or admit)";
        let name = "apiserver_admission_step_admission_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, Histogram)?;
        for (labels, histogram) in self.0.admission_steps.all() {
            let labels = named(["operation", "rejected", "type"], &labels);
            histogram.encode(family.encode_family(&labels)?)?;
        }
        let help = "Admission controller latency in seconds, identified by name and broken out for \
                    each operation and API resource and type (validate or admit)";
        let name = "apiserver_admission_controller_admission_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, Histogram)?;
        for (labels, histogram) in self.0.admission_plugins.all() {
            let labels = named(["name", "operation", "rejected", "type"], &labels);
            histogram.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let all = self.0.store.all();
        let help = "Etcd request latency in seconds for each operation and object type";
        let name = "etcd_request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, Histogram)?;
        const LABELS: [&str; 3] = ["operation", "group", "resource"];
        for (labels, series) in &all {
            series.duration.encode(family.encode_family(&named(LABELS, labels))?)?;
        }
        let help = "Etcd failed request counts for each operation and object type";
        let mut family = encoder.encode_descriptor("etcd_request_errors", help, None, Counter)?;
        for (labels, series) in &all {
            let labels = named(LABELS, labels);
            let errors = series.errors.load(Relaxed);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&errors, None)?;
        }
        let help = "Number of stored objects at the time of last check split by kind";
        let objects = self.0.objects.lock();
        let mut family =
            encoder.encode_descriptor("apiserver_storage_objects", help, None, Gauge)?;
        for ([group, resource], count) in objects.iter() {
            let name =
                if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            family.encode_family(&[("resource", name)])?.encode_gauge(&(*count as i64))?;
        }
        let name = "apiserver_resource_objects";
        let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
        for (names, count) in objects.iter() {
            let labels = named(["group", "resource"], names);
            family.encode_family(&labels)?.encode_gauge(&(*count as i64))?;
        }
        Ok(())
    }
}
