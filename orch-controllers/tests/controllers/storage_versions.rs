//! In which version objects are stored.

use std::sync::Arc;

use k8s_openapi::api::{
    apiserverinternal::v1alpha1::StorageVersion, coordination::v1::Lease, core::v1::ConfigMap,
    storagemigration::v1beta1::StorageVersionMigration,
};
use orch_controllers::storage_version::{storage_version_gc, storage_version_migrator};
use orch_core::{ResourceType, Resources};
use serde_json::{Value, json};

use crate::world::World;

fn said(server: &str, version: &str) -> Value {
    json!({"apiServerID": server, "encodingVersion": version, "decodableVersions": [version]})
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_gone_are_forgotten() {
    let world = World::start(|informers| vec![storage_version_gc(informers)]);
    let leases: Resources<Lease> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "kube-system");
    for server in ["a", "b"] {
        let labels = json!({"apiserver.kubernetes.io/identity": "kube-apiserver"});
        let lease = json!({"metadata": {"name": server, "labels": labels}});
        leases.create(&serde_json::from_value(lease).unwrap()).await.unwrap();
    }
    let version = json!({
        "metadata": {"name": "apps.deployments"}, "spec": {},
        "status": {"storageVersions": [said("a", "v1"), said("b", "v2"), said("gone", "v1")]},
    });
    world.cluster.seed(&ResourceType::of::<StorageVersion>(), version).unwrap();
    let versions = world.all::<StorageVersion>();
    let servers = async |expected: &[&str], common: Option<&str>| {
        let is = async |_: &World| {
            let version = versions.get("apps.deployments").await.unwrap();
            let status = version.status.as_ref()?;
            let all = status.storage_versions.as_ref()?;
            let all: Vec<&str> = all.iter().map(|one| one.api_server_id.as_str()).collect();
            let condition = status.conditions.as_ref()?.first()?;
            let agreed = (condition.status == "True") == common.is_some();
            let same = status.common_encoding_version.as_deref() == common;
            (all == expected && agreed && same).then_some(())
        };
        world.eventually("the servers", is).await;
    };
    servers(&["a", "b"], None).await;
    leases.delete("b", Default::default()).await.unwrap();
    servers(&["a"], Some("v1")).await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);
    leases.delete("a", Default::default()).await.unwrap();
    let gone = async |_: &World| {
        versions.get_opt("apps.deployments").await.unwrap().is_none().then_some(())
    };
    world.eventually("nobody says anything", gone).await;
}

async fn ended(world: &World, name: &str) -> (String, String) {
    let conditions = async |world: &World| {
        let migration = world.all::<StorageVersionMigration>().get(name).await.unwrap();
        let conditions = migration.status.as_ref()?.conditions.clone()?;
        let last = conditions.last()?.clone();
        (last.type_ != "Running").then_some((last.type_, last.message))
    };
    world.eventually("an end", conditions).await
}

#[tokio::test(start_paused = true)]
async fn every_object_is_written_again() {
    let types = vec![ResourceType::of::<ConfigMap>()];
    let world =
        World::start(|informers| vec![storage_version_migrator(informers, Arc::new(types))]);
    for number in 0..3 {
        let map = json!({"metadata": {"name": format!("m{number}")}, "data": {"a": "b"}});
        world.create::<ConfigMap>(map).await;
    }
    let migration = |name: &str, plural: &str| json!({"metadata": {"name": name}, "spec": {"resource": {"group": "", "resource": plural}}});
    let before = world.writes();
    world.create_cluster::<StorageVersionMigration>(migration("maps", "configmaps")).await;
    assert_eq!(ended(&world, "maps").await, ("Succeeded".to_owned(), String::new()));
    // The version, that it runs, three objects, that it has succeeded.
    assert_eq!(world.writes() - before, 6);
    for map in world.list::<ConfigMap>().await {
        assert_eq!(map.data.as_ref().unwrap()["a"], "b");
    }
    world.create_cluster::<StorageVersionMigration>(migration("none", "widgets")).await;
    let expected = ("Failed".to_owned(), "resource does not exist in discovery".to_owned());
    assert_eq!(ended(&world, "none").await, expected);
}
