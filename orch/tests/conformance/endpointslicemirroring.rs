//! Source: `test/e2e/network/endpointslicemirroring.go`.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::world::{World, eventually, object};

/// How long upstream's test waits for each step.
const PATIENCE: Duration = Duration::from_secs(12);
const NAME: &str = "example-custom-endpoints";

#[tokio::test(start_paused = true)]
async fn should_mirror_a_custom_endpoints_resource_through_create_update_and_delete() {
    let world = World::start(0).await;
    let groups = world.client.list_api_groups().await.expect("groups").groups;
    let group = groups.iter().find(|group| group.name == "discovery.k8s.io").expect("the group");
    assert!(group.versions.iter().any(|version| version.version == "v1"));
    let resources = world.client.list_api_group_resources("discovery.k8s.io/v1").await;
    let resources = resources.expect("resources").resources;
    assert!(resources.iter().any(|resource| resource.name == "endpointslices"));

    let ports = json!([{"name": "example", "port": 80, "protocol": "TCP"}]);
    let service = json!({"metadata": {"name": NAME}, "spec": {"ports": ports}});
    world.create::<Service>(service).await;
    let custom = |address: &str| {
        json!({
            "metadata": {"name": NAME},
            "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": address}]}],
        })
    };
    let slices: Api<EndpointSlice> = world.api();
    let own = ListParams::default().labels(&format!("kubernetes.io/service-name={NAME}"));
    let list = async || slices.list(&own).await.expect("a list").items;
    let mirrored = async |address: &str| {
        eventually(&format!("{address} is mirrored"), PATIENCE, async || {
            let slices = list().await;
            let [slice] = &slices[..] else { return None };
            let (ports, endpoints) = (slice.ports.as_ref()?, slice.endpoints.as_ref()?);
            let same = ports.len() == 1
                && ports[0].port == Some(80)
                && endpoints.len() == 1
                && endpoints[0].addresses == [address];
            same.then(|| slice.clone())
        })
        .await
    };
    world.create::<Endpoints>(custom("10.1.2.3")).await;
    let slice = mirrored("10.1.2.3").await;
    let manager = slice.labels().get("endpointslice.kubernetes.io/managed-by");
    assert_eq!(manager.map(String::as_str), Some("endpointslicemirroring-controller.k8s.io"));

    let endpoints: Api<Endpoints> = world.api();
    let changed =
        endpoints.replace(NAME, &PostParams::default(), &object(custom("10.2.3.4"))).await;
    changed.expect("it is changed");
    assert_eq!(mirrored("10.2.3.4").await.name_any(), slice.name_any());

    endpoints.delete(NAME, &DeleteParams::default()).await.expect("it is deleted");
    eventually("the mirrored slice is gone", PATIENCE, async || {
        list().await.is_empty().then_some(())
    })
    .await;
    world.shutdown().await;
}
