//! The network parts against a cluster in memory and real sockets.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use orch_core::{
    Environment, Resources, client::DeleteOptions, informer::Informers, testing::MemoryClient,
};
use orch_net::{
    ProxyController, ProxyOptions, UserspaceOptions, UserspaceProxy,
    testing::{ConformanceNetwork, FaultyProxy, RecordingProxy, proxy_conformance},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

mod dns;
mod ingress;
mod proxy;

/// A cluster in memory and informers on it.
fn cluster() -> (Arc<MemoryClient>, Informers) {
    let client = Arc::new(MemoryClient::new(Environment::system()));
    let informers = Informers::new(client.clone(), Environment::system());
    (client, informers)
}

fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}
