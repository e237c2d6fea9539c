//! Source: `test/e2e/network/endpoints.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference, Pod, Service};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};

use crate::world::{MINUTE, World, eventually, gone};

/// A Service that selects nothing.
pub(crate) fn unmatched() -> Value {
    json!({
        "metadata": {"name": "example-empty-selector"},
        "spec": {
            "selector": {
                "does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created",
            },
            "ports": [{"name": "example", "port": 80, "protocol": "TCP"}],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn should_create_and_delete_endpoints_for_a_service_with_a_selector_that_matches_no_pods() {
    let world = World::start(0).await;
    world.create::<Service>(unmatched()).await;
    let (name, endpoints) = ("example-empty-selector", world.api::<Endpoints>());
    let found = eventually("there are Endpoints", MINUTE / 2, async || {
        endpoints.get_opt(name).await.expect("an answer")
    })
    .await;
    assert_eq!(found.subsets, None);
    let services: Api<Service> = world.api();
    services.delete(name, &DeleteParams::default()).await.expect("it is deleted");
    gone(&endpoints, name, MINUTE / 2).await;
    world.shutdown().await;
}

/// Creates two pods, of which each has a port of one name and another number, and waits until they
/// have addresses.
pub(crate) async fn two_pods(world: &World) -> [Pod; 2] {
    let wanted = [
        ("pod1", json!([{"name": "example-name", "containerPort": 3000}])),
        (
            "pod2",
            json!([
                {"name": "example-name", "containerPort": 3001},
                {"name": "other-port", "containerPort": 3002},
            ]),
        ),
    ];
    let mut pods = Vec::new();
    for (name, ports) in wanted {
        let container =
            json!({"name": "container1", "image": "registry.example/nginx:v1", "ports": ports});
        let labels = json!({name: "on", "shared12": "on"});
        let metadata = json!({"name": name, "labels": labels});
        let spec = json!({"containers": [container]});
        world.create::<Pod>(json!({"metadata": metadata, "spec": spec})).await;
    }
    for name in ["pod1", "pod2"] {
        pods.push(
            eventually("the pod has an address", 3 * MINUTE, async || {
                let pod = world.api::<Pod>().get(name).await.expect("there");
                pod.status.as_ref()?.pod_ips.is_some().then_some(pod)
            })
            .await,
        );
    }
    pods.try_into().expect("two pods")
}

/// Creates a Service whose pods have this label and whose port leads to this target.
pub(crate) async fn service(world: &World, name: &str, label: &str, port: &str, target: Value) {
    let port = json!({"name": port, "port": 80, "targetPort": target, "protocol": "TCP"});
    let spec = json!({
        "selector": {label: "on"}, "publishNotReadyAddresses": true, "ports": [port],
    });
    world.create::<Service>(json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// The reference is to the pod.
pub(crate) fn check_target(pod: &Pod, target: Option<&ObjectReference>) {
    let target = target.expect("a reference");
    assert_eq!(target.kind.as_deref(), Some("Pod"));
    assert_eq!(target.namespace, pod.namespace());
    assert_eq!((target.name.as_ref(), target.uid.clone()), (Some(&pod.name_any()), pod.uid()));
}

/// Waits until there are so many subsets and as many addresses as pods; each address is a pod's,
/// whose subset has one port with this name and the number that belongs to the pod.
pub(crate) async fn check_endpoints(
    world: &World,
    service: &str,
    subsets: usize,
    port: &str,
    pods: &[(&Pod, i32)],
) {
    let all = |endpoints: &Endpoints| -> Vec<(String, i32, Option<ObjectReference>)> {
        let subsets = endpoints.subsets.iter().flatten();
        let addresses = subsets.flat_map(|subset| {
            let ports = subset.ports.clone().unwrap_or_default();
            assert_eq!(ports.len(), 1);
            assert_eq!(
                (ports[0].name.as_deref(), ports[0].protocol.as_deref()),
                (Some(port), Some("TCP"))
            );
            let both = subset.addresses.iter().chain(&subset.not_ready_addresses).flatten();
            let number = ports[0].port;
            both.map(move |address| (address.ip.clone(), number, address.target_ref.clone()))
        });
        addresses.collect()
    };
    let found = eventually(&format!("the Endpoints of {service}"), 2 * MINUTE, async || {
        let found = world.api::<Endpoints>().get_opt(service).await.expect("an answer")?;
        let as_many = found.subsets.as_ref().map_or(0, Vec::len) == subsets;
        (as_many && all(&found).len() == pods.len()).then_some(found)
    })
    .await;
    let by_address: BTreeMap<_, _> =
        pods.iter().map(|(pod, port)| (address(pod), (*pod, *port))).collect();
    for (ip, port, target) in all(&found) {
        let (pod, wanted) = by_address[&ip];
        assert_eq!(port, wanted);
        check_target(pod, target.as_ref());
    }
}

pub(crate) fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address")
}

#[tokio::test(start_paused = true)]
async fn should_create_endpoints_for_pods_matching_a_service() {
    let world = World::start(1).await;
    let [first, second] = two_pods(&world).await;
    service(&world, "example-int-port", "pod1", "example", json!(3000)).await;
    service(&world, "example-named-port", "shared12", "http", json!("example-name")).await;
    check_endpoints(&world, "example-int-port", 1, "example", &[(&first, 3000)]).await;
    let both = [(&first, 3000), (&second, 3001)];
    check_endpoints(&world, "example-named-port", 2, "http", &both).await;
    world.shutdown().await;
}
