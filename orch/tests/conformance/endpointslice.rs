//! Source: `test/e2e/network/endpointslice.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use crate::{
    endpoints::{address, check_endpoints, check_target, service, two_pods, unmatched},
    running::selected,
    world::{MINUTE, World, eventually},
};

#[tokio::test(start_paused = true)]
async fn should_create_and_delete_endpointslices_for_a_service_with_a_selector_that_matches_no_pods()
 {
    let world = World::start(0).await;
    world.create::<Service>(unmatched()).await;
    let slices: Api<EndpointSlice> = world.api();
    let own = ListParams::default().labels("kubernetes.io/service-name=example-empty-selector");
    let list = async || slices.list(&own).await.expect("a list").items;
    let slice = eventually("there is a slice", MINUTE / 2, async || list().await.pop()).await;
    let manager = slice.labels().get("endpointslice.kubernetes.io/managed-by");
    assert_eq!(manager.map(String::as_str), Some("endpointslice-controller.k8s.io"));
    assert_eq!(slice.endpoints.unwrap_or_default().len(), 0);
    let services: Api<Service> = world.api();
    let deleted = services.delete("example-empty-selector", &DeleteParams::default()).await;
    deleted.expect("it is deleted");
    eventually("the slices are gone", MINUTE * 3 / 2, async || {
        list().await.is_empty().then_some(())
    })
    .await;
    world.shutdown().await;
}

async fn slices_of(world: &World, service: &str) -> Vec<EndpointSlice> {
    let own = format!("kubernetes.io/service-name={service}");
    selected(&world.api::<EndpointSlice>(), &own).await
}

/// Waits until there are at least so many slices with at least as many endpoints as pods; each
/// endpoint is a pod's, whose slice has one port with this name and the number that belongs to the
/// pod.
async fn check_slices(
    world: &World,
    service: &str,
    count: usize,
    port: &str,
    pods: &[(&Pod, i32)],
) {
    let slices = eventually(&format!("the slices of {service}"), 2 * MINUTE, async || {
        let slices = slices_of(world, service).await;
        let endpoints: usize =
            slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum();
        (slices.len() >= count && endpoints >= pods.len()).then_some(slices)
    })
    .await;
    if pods.is_empty() {
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].ports.as_ref().map_or(0, Vec::len), 0);
    }
    let by_address: BTreeMap<_, _> =
        pods.iter().map(|(pod, port)| (address(pod), (*pod, *port))).collect();
    let mut seen = BTreeMap::new();
    for slice in &slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        for endpoint in slice.endpoints.iter().flatten() {
            let (pod, wanted) = by_address[&endpoint.addresses[0]];
            assert_eq!(ports.len(), 1);
            let told = (ports[0].name.as_deref(), ports[0].protocol.as_deref(), ports[0].port);
            assert_eq!(told, (Some(port), Some("TCP"), Some(wanted)));
            check_target(pod, endpoint.target_ref.as_ref());
            seen.insert(endpoint.addresses[0].clone(), ());
        }
    }
    assert_eq!(seen.len(), pods.len());
}

#[tokio::test(start_paused = true)]
async fn should_create_endpoints_and_endpointslices_for_pods_matching_a_service() {
    let world = World::start(1).await;
    let [first, second] = two_pods(&world).await;
    let (one, named, none) = ("example-int-port", "example-named-port", "example-no-match");
    service(&world, one, "pod1", "example", json!(3000)).await;
    service(&world, named, "shared12", "http", json!("example-name")).await;
    service(&world, none, "pod3", none, json!(8080)).await;
    let both = [(&first, 3000), (&second, 3001)];
    check_endpoints(&world, one, 1, "example", &both[..1]).await;
    check_slices(&world, one, 1, "example", &both[..1]).await;
    check_endpoints(&world, named, 2, "http", &both).await;
    check_slices(&world, named, 2, "http", &both).await;
    check_endpoints(&world, none, 0, none, &[]).await;
    check_slices(&world, none, 1, none, &[]).await;

    let api: Api<EndpointSlice> = world.api();
    for slice in slices_of(&world, named).await {
        api.delete(&slice.name_any(), &DeleteParams::default()).await.expect("it is deleted");
    }
    check_endpoints(&world, named, 2, "http", &both).await;
    check_slices(&world, named, 2, "http", &both).await;
    world.shutdown().await;
}
