//! EndpointSlices for Endpoints that somebody else than a controller writes.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/endpointslicemirroring`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{self as core, EndpointAddress, EndpointSubset, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers},
};

use super::{Groups, MANAGED_BY, SERVICE_NAME, packing, packing::Plan, writing};
use crate::{
    Action, Controller, Expectations, Reconciler,
    context::{Context, EventType},
    endpoints::service_pods,
    ownership,
    reconciler::Reconciled,
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that hold a lock of old.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const BY_ENDPOINTS: &str = "mirrored";

/// How many addresses of each subset are mirrored.
///
/// Source: `--mirroring-max-endpoints-per-subset`.
const PER_SUBSET: usize = 1000;

/// Annotations that are about the Endpoints and nothing else.
const OWN_ANNOTATIONS: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// The controller that mirrors Endpoints of Services without a selector.
pub fn endpoint_slice_mirroring(informers: &Informers) -> Controller {
    let name = "endpointslice-mirroring-controller";
    let context = Context::reporting(informers, name, "endpoint-slice-mirroring-controller");
    let (endpoints, services) = (context.informer::<Endpoints>(), context.informer::<Service>());
    let slices = context.informer::<EndpointSlice>();
    slices.add_index(BY_ENDPOINTS, |slice| {
        super::service_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect()
    });
    let expectations = Arc::new(Expectations::default());
    let seen = expectations.clone();
    context
        .builder()
        .watches::<Endpoints>(|change| {
            // Those that are not to be mirrored, and never were, concern nobody.
            let mirrored = match change {
                Change::Updated { old, new } => is_mirrored(old) || is_mirrored(new),
                _ => is_mirrored(change.object()),
            };
            if mirrored { vec![Key::of(&change.object().metadata)] } else { Vec::new() }
        })
        .watches_own::<Service>()
        .watches::<EndpointSlice>(move |change| {
            let key = super::service_of(change.object(), MANAGER);
            if let (Change::Added(_), Some(key)) = (change, &key) {
                seen.creation_observed(key);
            }
            key.into_iter().collect()
        })
        .build(MirroringReconciler { context, endpoints, services, slices, expectations })
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|labels| labels.get(SKIP));
    let locks = meta.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER));
    skipped.is_none_or(|value| value != "true") && !locks
}

struct MirroringReconciler {
    context: Context,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations>,
}

#[async_trait]
impl Reconciler for MirroringReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        if !self.expectations.satisfied(&key) {
            return Ok(Action::Done);
        }
        let existing = self.slices.by_index(BY_ENDPOINTS, &key.to_string());
        let mut plan = Plan::default();
        match self.to_mirror(&key) {
            Some(endpoints) => {
                let mirrored = mirror(&endpoints);
                self.report(&endpoints, &mirrored);
                mirrored.plan(&endpoints, &existing, &mut plan);
            }
            None => plan.delete.extend(existing),
        }
        writing::carry_out(&self.context, &self.expectations, &key, plan).await?;
        Ok(Action::Done)
    }
}

impl MirroringReconciler {
    fn to_mirror(&self, key: &Key) -> Option<Arc<Endpoints>> {
        let endpoints = self.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints))?;
        let service = self.services.get(key)?;
        (!service_pods::is_selecting(&service)).then_some(endpoints)
    }

    fn report(&self, endpoints: &Endpoints, mirrored: &Mirrored) {
        let warn = |reason: &str, message: String| {
            self.context.event(endpoints, EventType::Warning, reason, message);
        };
        if mirrored.invalid > 0 {
            let count = mirrored.invalid;
            let message =
                format!("Skipped {count} invalid IP addresses when mirroring to EndpointSlices");
            warn("InvalidIPAddress", message);
        }
        if mirrored.skipped > 0 {
            let count = mirrored.skipped;
            let message = format!(
                "A max of {PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints \
                 subset. {count} addresses were skipped"
            );
            warn("TooManyAddressesToMirror", message);
        }
    }
}

/// The endpoints of each address family, and what is not among them.
#[derive(Default)]
struct Mirrored {
    v4: Groups,
    v6: Groups,
    /// No addresses.
    invalid: usize,
    /// Too many.
    skipped: usize,
}

fn mirror(endpoints: &Endpoints) -> Mirrored {
    let mut mirrored = Mirrored::default();
    for subset in endpoints.subsets.iter().flatten() {
        mirrored.take(subset);
    }
    mirrored
}

impl Mirrored {
    fn take(&mut self, subset: &EndpointSubset) {
        let mut ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        ports.sort_by_key(packing::order);
        let mut room = PER_SUBSET;
        let lists = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
        for (addresses, ready) in lists {
            for address in addresses.iter().flatten() {
                let groups = match address.ip.parse() {
                    _ if room == 0 => {
                        self.skipped += 1;
                        continue;
                    }
                    Ok(IpAddr::V4(_)) => &mut self.v4,
                    Ok(IpAddr::V6(_)) => &mut self.v6,
                    Err(_) => {
                        self.invalid += 1;
                        continue;
                    }
                };
                room -= 1;
                let name = format!("{:?}", ports.iter().map(packing::order).collect::<Vec<_>>());
                let group = groups.entry(name).or_insert_with(|| (ports.clone(), Vec::new()));
                group.1.push(endpoint(address, ready));
            }
        }
    }

    fn plan(self, endpoints: &Endpoints, existing: &[Arc<EndpointSlice>], plan: &mut Plan) {
        for (family, groups) in [("IPv4", self.v4), ("IPv6", self.v6)] {
            let own = existing.iter().filter(|slice| slice.address_type == family);
            let own: Vec<Arc<EndpointSlice>> = own.cloned().collect();
            plan.pack_all(groups, &own, PER_SUBSET, || describe(endpoints, family));
        }
        let described = describe(endpoints, "IPv4").metadata;
        plan.relabel(&described.labels.unwrap_or_default());
        plan.annotate(&described.annotations.unwrap_or_default());
    }
}

fn port(port: &core::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn describe(endpoints: &Endpoints, family: &str) -> EndpointSlice {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations: BTreeMap<String, String> = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    EndpointSlice {
        address_type: family.to_owned(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![ownership::controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        endpoints: None,
        ports: None,
    }
}
