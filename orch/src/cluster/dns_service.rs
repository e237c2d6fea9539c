//! The `kube-dns` service of a DNS server in this process.
//!
//! The service has no selector: its EndpointSlice names the server, wherever it listens, and the
//! service proxy leads there as to any other service.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{Client, ClientError, Resources, client::PatchKind, informer::Watchable};
use serde_json::json;

const NAMESPACE: &str = "kube-system";
/// The name that every tool looks for.
const NAME: &str = "kube-dns";
const PORT: u16 = 53;

/// Makes the service lead to `server`.
pub(super) async fn publish(
    client: &Arc<dyn Client>,
    address: Ipv4Addr,
    server: SocketAddr,
) -> Result<(), ClientError> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {
            "name": NAME,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [
                {"name": "dns", "port": PORT, "protocol": "UDP", "targetPort": server.port()},
                {"name": "dns-tcp", "port": PORT, "protocol": "TCP", "targetPort": server.port()},
            ],
        },
    }))
    .map_err(orch_core::object::DecodeError::Shape)?;
    ensure(client, &service).await?;
    ensure(client, &slice(server)).await
}

fn slice(server: SocketAddr) -> EndpointSlice {
    let port = |name: &str, protocol: &str| EndpointPort {
        name: Some(name.to_owned()),
        port: Some(server.port().into()),
        protocol: Some(protocol.to_owned()),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([("kubernetes.io/service-name".to_owned(), NAME.to_owned())].into()),
            ..ObjectMeta::default()
        },
        address_type: if server.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![server.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }]),
        ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
    }
}

/// Creates the object, or brings the one that an earlier run left up to date.
async fn ensure<K: Watchable>(client: &Arc<dyn Client>, object: &K) -> Result<(), ClientError> {
    let objects = Resources::<K>::namespaced(client.clone(), NAMESPACE);
    // Asked for first: creating the Service once more would fail for its address.
    if objects.get_opt(NAME).await?.is_none() {
        return objects.create(object).await.map(drop);
    }
    let patch = serde_json::to_value(object).map_err(orch_core::object::DecodeError::Shape)?;
    objects.patch(NAME, PatchKind::Merge, patch).await.map(drop)
}
