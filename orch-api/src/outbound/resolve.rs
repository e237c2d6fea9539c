//! From a Service to an address that can be dialed.
//!
//! Source: `k8s.io/apiserver/pkg/util/proxy/proxy.go`, `ResolveEndpoint`.

use std::{net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::Service;
use orch_core::{Client, ClientError, Resources, random::Random};

use super::OutboundError;
use crate::proxy::ready_addresses;

fn unresolved(error: impl std::fmt::Display) -> OutboundError {
    OutboundError::Unresolved(error.to_string())
}

/// Where a Service is found.
pub(super) enum Found {
    Address(SocketAddr),
    /// A name outside of the cluster, and the port there.
    Name(String, u16),
}

/// Checks that a Service is there, has the port and may be called; gives the port's name.
pub(crate) fn check_service(service: &Service, port: u16) -> Result<String, String> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        return Err(format!("unsupported service type {kind:?}"));
    }
    if kind == "ExternalName" {
        return Ok(String::new());
    }
    let ports = spec.ports.unwrap_or_default();
    let found = ports.into_iter().find(|one| one.port == i32::from(port));
    let found =
        found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    Ok(found.name.unwrap_or_default())
}

/// One of the endpoints that are ready, drawn anew for each connection.
pub(super) async fn resolve(
    client: &Arc<dyn Client>,
    random: &dyn Random,
    (namespace, name, port): (&str, &str, u16),
) -> Result<Found, OutboundError> {
    let services: Resources<Service> = Resources::namespaced(client.clone(), namespace);
    let service = match services.get(name).await {
        Ok(service) => service,
        Err(ClientError::Api(error)) if error.code() == 404 => {
            return Err(unresolved(format!("service {name:?} not found")));
        }
        Err(error) => return Err(unresolved(error)),
    };
    let port_name = check_service(&service, port).map_err(unresolved)?;
    let external = service.spec.as_ref().and_then(|spec| spec.external_name.clone());
    let is_external =
        service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    if let Some(host) = external.filter(|_| is_external) {
        return Ok(Found::Name(host, port));
    }
    let found = ready_addresses(client, namespace, name, &port_name).await;
    let addresses = found.map_err(unresolved)?;
    if addresses.is_empty() {
        return Err(unresolved(format!("no endpoints available for service {name:?}")));
    }
    let index = random.below(addresses.len() as u64);
    Ok(Found::Address(addresses[usize::try_from(index).unwrap_or_default()]))
}
