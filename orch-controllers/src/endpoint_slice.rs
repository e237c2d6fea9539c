//! EndpointSlices: the addresses behind a Service, in pieces that stay small.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/endpointslice` and `k8s.io/endpointslice`.
//! Differs: gives no `last-change-trigger-time` annotation.

mod hints;
mod mirroring;
mod packing;
mod topology;
mod writing;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;

pub use mirroring::endpoint_slice_mirroring;

use crate::{
    Action, Controller, Expectations, Reconciler,
    context::{Context, EventType},
    endpoints::{
        pace::Pace,
        service_pods::{self, ServicePods},
        target_ref,
    },
    ownership, pods,
    reconciler::Reconciled,
};

/// The label that names a slice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "service";

/// The controller of EndpointSlices.
pub fn endpoint_slice(informers: &Informers) -> Controller {
    let name = "endpointslice-controller";
    let context = Context::reporting(informers, name, "endpoint-slice-controller");
    let services = ServicePods::new(&context);
    let slices = context.informer::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| {
        service_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect()
    });
    let expectations = Arc::new(Expectations::default());
    let (mapping, seen) = (services.clone(), expectations.clone());
    let nodes = context.informer::<Node>();
    let dealt = Arc::new(Mutex::new(Dealt::new()));
    let (of_zones, all_nodes) = (dealt.clone(), nodes.clone());
    context
        .builder()
        .watches::<Node>(move |change| overloaded(change, &of_zones, &all_nodes))
        .watches_own::<Service>()
        .watches::<EndpointSlice>(move |change| {
            let key = service_of(change.object(), MANAGER);
            if let (Change::Added(_), Some(key)) = (change, &key) {
                seen.creation_observed(key);
            }
            key.into_iter().collect()
        })
        .watches::<Pod>(move |change| mapping.services_of(change))
        .build(SliceReconciler {
            context,
            services,
            slices,
            nodes,
            expectations,
            dealt,
            pace: Pace::default(),
        })
}

/// The service of a slice that this manager makes.
fn service_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|known| known == manager);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// What is dealt out to zones of services that ask for it, by service and address family.
type Dealt = BTreeMap<Key, BTreeMap<String, topology::Allocated>>;

/// The services that have too few endpoints in a zone after a change of a node.
fn overloaded(change: &Change<Node>, dealt: &Mutex<Dealt>, nodes: &Informer<Node>) -> Vec<Key> {
    if let Change::Updated { old, new } = change
        && !topology::concerns_ratios(old, new)
    {
        return Vec::new();
    }
    let dealt = dealt.lock();
    if dealt.is_empty() {
        return Vec::new();
    }
    let ratios = topology::ratios(&nodes.list());
    let is_overloaded = |families: &BTreeMap<String, topology::Allocated>| {
        families.values().any(|allocated| topology::is_overloaded(allocated, &ratios))
    };
    let found = dealt.iter().filter(|(_, families)| is_overloaded(families));
    found.map(|(key, _)| key.clone()).collect()
}

struct SliceReconciler {
    context: Context,
    services: ServicePods,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    expectations: Arc<Expectations>,
    dealt: Arc<Mutex<Dealt>>,
    pace: Pace,
}

/// Endpoints with the same ports, which may share slices.
type Groups = BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)>;

#[async_trait]
impl Reconciler for SliceReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(service) = self.services.service(&key) else {
            // The slices go by garbage collection: the service owns them.
            self.expectations.forget(&key);
            self.dealt.lock().remove(&key);
            return Ok(Action::Done);
        };
        let going = service.metadata.deletion_timestamp.is_some();
        if going || !service_pods::is_selecting(&service) || !self.expectations.satisfied(&key) {
            return Ok(Action::Done);
        }
        if let Some(wait) = self.pace.wait(&key) {
            return Ok(Action::RequeueAfter(wait));
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let families = families(&service);
        let mut plan = packing::Plan::default();
        for family in &families {
            let slices: Vec<Arc<EndpointSlice>> =
                existing.iter().filter(|slice| slice.address_type == *family).cloned().collect();
            let mut groups = self.groups(&service, family);
            if topology::is_asked_for(&service) {
                topology::carry(&mut groups, &slices);
            }
            let mut of_family = packing::Plan::default();
            of_family.pack(groups, &slices, || describe(&service, family));
            self.deal_to_zones(&key, &service, family, &mut of_family);
            plan.merge(of_family);
        }
        plan.delete.extend(
            existing.iter().filter(|slice| !families.contains(&slice.address_type)).cloned(),
        );
        plan.relabel(&labels(&service));
        let all = plan.slices().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len));
        let count = all.sum();
        writing::carry_out(&self.context, &self.expectations, &key, plan).await?;
        self.pace.looked(&key, count);
        Ok(Action::Done)
    }
}

impl SliceReconciler {
    /// Gives the endpoints of a service that asks for it to zones, and tells when that begins,
    /// ends, or cannot be.
    fn deal_to_zones(&self, key: &Key, service: &Service, family: &str, plan: &mut packing::Plan) {
        let had_any = self.dealt.lock().contains_key(key);
        let result = if topology::is_asked_for(service) {
            topology::deal(plan, &topology::ratios(&self.nodes.list()))
        } else if had_any {
            Err("Topology Aware Hints has been disabled".to_owned())
        } else {
            return;
        };
        let tell = |kind, reason, message: &str| {
            let message = format!("{message}, addressType: {family}");
            self.context.event(service, kind, reason, message);
        };
        match result {
            Ok(allocated) => {
                let mut dealt = self.dealt.lock();
                dealt.entry(key.clone()).or_default().insert(family.to_owned(), allocated);
                if !had_any {
                    let message = "Topology Aware Hints has been enabled";
                    tell(EventType::Normal, "TopologyAwareHintsEnabled", message);
                }
            }
            Err(why) => {
                self.dealt.lock().remove(key);
                tell(EventType::Warning, "TopologyAwareHintsDisabled", &why);
            }
        }
    }

    fn groups(&self, service: &Service, family: &str) -> Groups {
        let mut groups = Groups::new();
        for pod in self.services.pods(service) {
            let Some(address) = service_pods::address(&pod, family == "IPv6") else { continue };
            let mut ports = service_pods::resolve_ports(service, &pod);
            if ports.is_empty() && !service_pods::is_headless(service) {
                continue;
            }
            ports.sort();
            let group = groups.entry(format!("{ports:?}")).or_insert_with(|| {
                let ports = ports.into_iter().map(|port| EndpointPort {
                    name: Some(port.name),
                    port: Some(port.port),
                    protocol: Some(port.protocol),
                    app_protocol: port.app_protocol,
                });
                (ports.collect(), Vec::new())
            });
            group.1.push(self.endpoint(service, &pod, address));
        }
        groups
    }

    fn endpoint(&self, service: &Service, pod: &Pod, address: String) -> Endpoint {
        let publish =
            service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
        let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = node_name.as_ref().and_then(|name| self.nodes.get(&Key::cluster(name.clone())));
        let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        let mut endpoint = Endpoint {
            addresses: vec![address],
            conditions: Some(EndpointConditions {
                ready: Some(publish || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: service_pods::hostname(service, pod),
            node_name,
            target_ref: Some(target_ref(pod)),
            zone,
            ..Endpoint::default()
        };
        if !topology::is_asked_for(service) {
            endpoint.hints = hints::Distribution::of(service).hints(&endpoint);
        }
        endpoint
    }
}

fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn describe(service: &Service, family: &str) -> EndpointSlice {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    EndpointSlice {
        address_type: family.to_owned(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![ownership::controller_reference(service)]),
            ..ObjectMeta::default()
        },
        endpoints: None,
        ports: None,
    }
}
