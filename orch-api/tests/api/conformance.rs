//! Both clients of the server keep the contract.

use std::sync::Arc;

use orch_api::{ApiServer, auth::UserInfo};
use orch_core::testing::client_conformance;

use super::support::{kube, server};

async fn bootstrapped() -> ApiServer {
    let server = server();
    server.bootstrap(&Default::default()).await.unwrap();
    server
}

#[tokio::test]
async fn the_client_in_process_keeps_the_contract() {
    client_conformance(bootstrapped().await.client(UserInfo::master("test"))).await;
}

#[tokio::test]
async fn the_kube_client_keeps_the_contract() {
    client_conformance(Arc::new(kube(&bootstrapped().await))).await;
}
