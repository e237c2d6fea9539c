//! Source: `test/e2e/network/endpointslice.go`.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};

use crate::{
    endpoints::unmatched,
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
