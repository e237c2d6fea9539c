//! Service proxies and their controller.

use orch_net::{
    ServiceProxy,
    service::{Changes, PortFailure, ProxyError},
};

use super::*;

fn loopback(third: u8) -> IpAddr {
    Ipv4Addr::new(127, 96, third, 1).into()
}

#[tokio::test]
async fn userspace_conforms() {
    let proxy = UserspaceProxy::new(Environment::system(), UserspaceOptions::default());
    let node = Ipv4Addr::LOCALHOST.into();
    let network = ConformanceNetwork { service: loopback(0), endpoint: node, node };
    proxy_conformance(Arc::new(proxy), network).await;
}

fn service(name: &str, port: u16) -> Service {
    typed(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"clusterIP": "127.96.9.9", "clusterIPs": ["127.96.9.9"],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}]},
    }))
}

fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
    typed(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-x"), "namespace": "a",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
}

#[tokio::test(start_paused = true)]
async fn the_controller_follows_the_cluster_through_faults() {
    let (client, informers) = cluster();
    let environment = Environment::seeded(Default::default(), 7);
    let proxy = Arc::new(FaultyProxy::new(RecordingProxy::default(), environment, 0.5));
    let mut rules = proxy.inner().rules();
    let controller = ProxyController::new(&informers, proxy, ProxyOptions::default());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(controller.run(cancel.clone()));

    let services = Resources::<Service>::namespaced(client.clone(), "a");
    let slices = Resources::<EndpointSlice>::namespaced(client, "a");
    services.create(&service("web", 80)).await.unwrap();
    let created = slices.create(&slice("web", &["10.0.0.1", "10.0.0.2"])).await.unwrap();
    let endpoints = |count: usize| {
        move |rules: &std::collections::BTreeMap<_, orch_net::service::PortRules>| {
            rules.len() == 1 && rules.values().all(|rules| rules.endpoints.len() == count)
        }
    };
    rules.wait_for(endpoints(2)).await.unwrap();
    let mut fewer = slice("web", &["10.0.0.1"]);
    fewer.metadata.resource_version = created.metadata.resource_version.clone();
    slices.update(&fewer).await.unwrap();
    rules.wait_for(endpoints(1)).await.unwrap();
    services.delete("web", DeleteOptions::default()).await.unwrap();
    rules.wait_for(|rules| rules.is_empty()).await.unwrap();
    services.create(&service("web", 80)).await.unwrap();
    rules.wait_for(endpoints(1)).await.unwrap();
    cancel.cancel();
    running.await.unwrap();
    assert!(rules.borrow().is_empty(), "the rules go with the controller");
}

/// Tells after each change whether all of it is in force.
#[derive(Debug)]
struct Telling(UserspaceProxy, tokio::sync::mpsc::UnboundedSender<bool>);

#[async_trait::async_trait]
impl ServiceProxy for Telling {
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError> {
        let failures = self.0.apply(changes).await?;
        let _ = self.1.send(failures.is_empty());
        Ok(failures)
    }

    async fn stop(&self) -> Result<(), ProxyError> {
        self.0.stop().await
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_told_and_mended() {
    let (client, informers) = cluster();
    let taken = tokio::net::TcpListener::bind("127.96.9.9:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = UserspaceOptions { node_addresses: vec![], ..UserspaceOptions::default() };
    let (applied, mut in_force) = tokio::sync::mpsc::unbounded_channel();
    let proxy = UserspaceProxy::new(Environment::system(), options);
    let proxy = Arc::new(Telling(proxy, applied));
    let retry_period = std::time::Duration::from_millis(20);
    let options = ProxyOptions { retry_period, ..ProxyOptions::default() };
    let controller = ProxyController::new(&informers, proxy, options);
    let running = tokio::spawn(controller.run(CancellationToken::new()));
    let events = informers.of::<k8s_openapi::api::core::v1::Event>();
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    events.on_change(move |change| drop(told.send(change.object().message.clone())));
    let services = Resources::<Service>::namespaced(client.clone(), "a");
    services.create(&service("web", port)).await.unwrap();
    let message = seen.recv().await.unwrap().unwrap();
    assert!(message.contains("another program listens"), "{message}");
    drop(taken);
    while !in_force.recv().await.unwrap() {}
    // It is accepted, and then refused: the service has no endpoints.
    tokio::net::TcpStream::connect(("127.96.9.9", port)).await.unwrap();
    running.abort();
}
