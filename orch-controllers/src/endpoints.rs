//! Endpoints: the addresses behind a Service, in one object.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/endpoint`.

pub(crate) mod pace;
pub(crate) mod service_pods;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{
        EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    ClientError, Key,
    client::DeleteOptions,
    informer::{Informer, Informers},
};

use self::{
    pace::Pace,
    service_pods::{ResolvedPort, ServicePods},
};
use crate::{Action, Controller, Reconciler, context::Context, pods, reconciler::Reconciled};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// How many addresses one Endpoints object holds; more are cut off, and an annotation says so.
const CAPACITY: usize = 1000;

/// The controller of Endpoints.
pub fn endpoints(informers: &Informers) -> Controller {
    let context = Context::reporting(informers, "endpoints-controller", "endpoint-controller");
    let services = ServicePods::new(&context);
    let mapping = services.clone();
    let existing = context.informer::<Endpoints>();
    context
        .builder()
        .watches_own::<Service>()
        .watches_own::<Endpoints>()
        .watches::<Pod>(move |change| mapping.services_of(change))
        .build(EndpointsReconciler { context, services, existing, pace: Pace::default() })
}

struct EndpointsReconciler {
    context: Context,
    services: ServicePods,
    existing: Informer<Endpoints>,
    pace: Pace,
}

#[async_trait]
impl Reconciler for EndpointsReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(service) = self.services.service(&key) else {
            self.clean_up(&key).await?;
            return Ok(Action::Done);
        };
        if !service_pods::is_selecting(&service) {
            return Ok(Action::Done);
        }
        if let Some(wait) = self.pace.wait(&key) {
            return Ok(Action::RequeueAfter(wait));
        }
        let (subsets, truncated) = self.subsets(&service);
        let all = |subset: &EndpointSubset| {
            let both = [&subset.addresses, &subset.not_ready_addresses];
            both.iter().map(|addresses| addresses.as_ref().map_or(0, Vec::len)).sum::<usize>()
        };
        let count = subsets.iter().map(all).sum();
        self.write(&key, &service, subsets, truncated).await?;
        self.pace.looked(&key, count);
        Ok(Action::Done)
    }
}

impl EndpointsReconciler {
    /// The service is gone, and its endpoints go too; those that somebody else made stay.
    async fn clean_up(&self, key: &Key) -> Result<(), ClientError> {
        let Some(existing) = self.existing.get(key) else { return Ok(()) };
        let labels = existing.metadata.labels.as_ref();
        if labels.is_none_or(|labels| !labels.contains_key(MANAGED_BY)) {
            return Ok(());
        }
        let options =
            DeleteOptions { uid: existing.metadata.uid.clone(), ..DeleteOptions::default() };
        match self.context.resources::<Endpoints>(&key.namespace).delete(&key.name, options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn subsets(&self, service: &Service) -> (Vec<EndpointSubset>, bool) {
        let spec = service.spec.clone().unwrap_or_default();
        let not_ready_too = spec.publish_not_ready_addresses == Some(true);
        let family = spec.ip_families.as_deref().and_then(|f| f.first());
        let v6 = family.is_some_and(|family| family == "IPv6");
        let mut by_ports: BTreeMap<
            Vec<ResolvedPort>,
            (Vec<EndpointAddress>, Vec<EndpointAddress>),
        > = BTreeMap::new();
        let mut pods = self.services.pods(service);
        pods.retain(|pod| not_ready_too || !pods::is_terminating(pod));
        // Those that are ready are the last to be cut off.
        pods.sort_by_key(|pod| !pods::is_ready(pod));
        let truncated = pods.len() > CAPACITY;
        for pod in pods.iter().take(CAPACITY) {
            let Some(ip) = service_pods::address(pod, v6) else { continue };
            let mut ports = service_pods::resolve_ports(service, pod);
            if ports.is_empty() && !service_pods::is_headless(service) {
                continue;
            }
            ports.sort();
            let (ready, not_ready) = by_ports.entry(ports).or_default();
            let address = address(service, pod, ip);
            if not_ready_too || pods::is_ready(pod) {
                ready.push(address);
            } else {
                not_ready.push(address);
            }
        }
        let subsets = by_ports.into_iter().map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: sorted(ready),
            not_ready_addresses: sorted(not_ready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(endpoint_port).collect()),
        });
        (subsets.collect(), truncated)
    }

    async fn write(
        &self,
        key: &Key,
        service: &Service,
        subsets: Vec<EndpointSubset>,
        truncated: bool,
    ) -> Result<(), ClientError> {
        let existing = self.existing.get(key);
        let mut wanted = existing.as_deref().cloned().unwrap_or_default();
        wanted.subsets = (!subsets.is_empty()).then_some(subsets);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
        if service_pods::is_headless(service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        wanted.metadata.labels = Some(labels);
        let mut annotations = wanted.metadata.annotations.take().unwrap_or_default();
        annotations.remove(OVER_CAPACITY);
        if truncated {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        }
        wanted.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        if existing.as_deref() == Some(&wanted) {
            return Ok(());
        }
        let resources = self.context.resources::<Endpoints>(&key.namespace);
        if existing.is_some() {
            return resources.update(&wanted).await.map(drop);
        }
        wanted.metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            ..wanted.metadata
        };
        match resources.create(&wanted).await {
            Err(error) if pods::is_namespace_terminating(&error) => Ok(()),
            result => result.map(drop),
        }
    }
}

fn sorted(mut addresses: Vec<EndpointAddress>) -> Option<Vec<EndpointAddress>> {
    addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    (!addresses.is_empty()).then_some(addresses)
}

fn address(service: &Service, pod: &Arc<Pod>, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: service_pods::hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target_ref(pod)),
    }
}

/// The pod behind an address.
pub(crate) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn endpoint_port(port: ResolvedPort) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
