//! Which endpoints stand behind a service's port, from the informers' copies.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The index of slices by their service's key.
const BY_SERVICE: &str = "orch-net/slices-by-service";

/// The service that a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// The informer of slices, with the index that [`slices_of`] needs.
pub(crate) fn slices(informers: &Informers) -> Informer<EndpointSlice> {
    let slices = informers.of::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| {
        service_of(slice).map(|key| key.to_string()).into_iter().collect()
    });
    slices
}

/// The slices of a service.
pub(crate) fn slices_of(
    slices: &Informer<EndpointSlice>,
    service: &Key,
) -> Vec<std::sync::Arc<EndpointSlice>> {
    slices.by_index(BY_SERVICE, &service.to_string())
}

/// Whether an endpoint takes traffic in the ordinary way. Unknown counts as ready.
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// Whether an endpoint on its way out still answers: what is left if nothing is ready.
pub(crate) fn is_serving_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| {
        conditions.terminating == Some(true) && conditions.serving.unwrap_or(false)
    })
}

/// The addresses of a service within the cluster.
pub(crate) fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let several = spec.cluster_ips.iter().flatten();
    let one = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.iter().flatten().count() == 0);
    several.chain(one).filter_map(|ip| ip.parse().ok()).collect()
}

/// The port of a slice that a service's port leads to: the one of the same name and protocol.
fn slice_port<'a>(slice: &'a EndpointSlice, port: &ServicePort) -> Option<&'a EndpointPort> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == name
            && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
    })
}

/// An endpoint with its address for one port.
pub(crate) struct Backend<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: &'a Endpoint,
}

/// Every endpoint of a slice for a service's port, in whatever condition.
pub(crate) fn backends<'a>(
    slice: &'a EndpointSlice,
    port: &ServicePort,
) -> impl Iterator<Item = Backend<'a>> {
    let number = slice_port(slice, port).and_then(|port| u16::try_from(port.port?).ok());
    let endpoints = number.into_iter().flat_map(|number| {
        slice.endpoints.iter().flatten().map(move |endpoint| (number, endpoint))
    });
    endpoints.filter_map(|(number, endpoint)| {
        // The addresses of one endpoint are interchangeable; clients use the first.
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        Some(Backend { address: SocketAddr::new(address, number), endpoint })
    })
}

/// Those that take traffic: the ready ones, or if there are none those that still serve while
/// they end.
///
/// Source: KEP-1669 and `pkg/proxy/topology.go`.
pub(crate) fn usable<'a>(all: &[&Backend<'a>]) -> Vec<SocketAddr> {
    let choose = |wanted: fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        let chosen = all.iter().filter(|backend| wanted(backend.endpoint));
        chosen.map(|backend| backend.address).collect()
    };
    let mut chosen = choose(is_ready);
    if chosen.is_empty() {
        chosen = choose(is_serving_terminating);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}
