//! Groups, their preferred versions, and the resources of each version.
//!
//! Source: `test/e2e/apimachinery/discovery.go`.

use super::{aggregated_discovery::EVERYWHERE, world::World};

/// The preferred version of every group is one of its versions.
pub(super) async fn should_validate_preferredversion_for_each_apigroup() {
    let world = World::start().await;
    let list = world.get("/apis/").await;
    let groups = list["groups"].as_array().unwrap();
    assert!(!groups.is_empty());
    for group in groups {
        let path = format!("/apis/{}/", group["name"].as_str().unwrap());
        let group = world.get(&path).await;
        let versions = group["versions"].as_array().unwrap();
        let preferred = &group["preferredVersion"]["groupVersion"];
        assert!(versions.iter().any(|one| one["groupVersion"] == *preferred), "{group}");
    }
}

/// The list of each group and version names them and has a resource that is known to be there.
pub(super) async fn should_locate_the_groupversion_and_a_resource_within_each_apigroup() {
    let world = World::start().await;
    for (group, version, resource) in [("", "v1", "namespaces")].into_iter().chain(EVERYWHERE) {
        let (path, group_version) = match group {
            "" => (format!("/api/{version}"), version.to_owned()),
            group => (format!("/apis/{group}/{version}"), format!("{group}/{version}")),
        };
        let list = world.get(&path).await;
        assert_eq!(list["groupVersion"], group_version);
        let resources = list["resources"].as_array().unwrap();
        assert!(resources.iter().any(|one| one["name"] == resource), "{path}: {resource}");
    }
}
