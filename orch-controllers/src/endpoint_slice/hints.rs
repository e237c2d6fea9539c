//! For whom an endpoint is meant first: those in its zone, or on its node.
//!
//! Source: `k8s.io/endpointslice/trafficdist`.

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone},
};

/// What a service's `trafficDistribution` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    /// Nothing: every endpoint is for everybody.
    Everywhere,
    SameZone,
    SameNode,
}

impl Distribution {
    pub(super) fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        match spec.and_then(|spec| spec.traffic_distribution.as_deref()) {
            Some("PreferClose" | "PreferSameZone") => Self::SameZone,
            Some("PreferSameNode") => Self::SameNode,
            _ => Self::Everywhere,
        }
    }

    /// The hints of an endpoint; one that is not ready has none.
    pub(super) fn hints(self, endpoint: &Endpoint) -> Option<EndpointHints> {
        if self == Self::Everywhere || !is_ready(endpoint) {
            return None;
        }
        let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
        let for_nodes = endpoint
            .node_name
            .clone()
            .filter(|_| self == Self::SameNode)
            .map(|name| vec![ForNode { name }]);
        let has_any = for_zones.is_some() || for_nodes.is_some();
        has_any.then_some(EndpointHints { for_nodes, for_zones })
    }
}

pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}
