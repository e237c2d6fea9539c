//! Source: `test/e2e/apps/deployment.go`, `test/utils/deployment.go`.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};

use crate::{
    replica_set::replica_set,
    running::{all_run, selected},
    status_endpoints,
    watching::{Change, Watching, version},
    world::{MINUTE, World, eventually, update},
};

const WEB: &str = "registry.example/nginx:v1";
const AGNHOST: &str = "registry.example/agnhost:v2";
const REVISION: &str = "deployment.kubernetes.io/revision";

fn deployment(name: &str, replicas: i32, labels: &Value, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "agnhost", "image": image}],
                },
            },
        },
    })
}

async fn get(world: &World, name: &str) -> Deployment {
    world.api::<Deployment>().get(name).await.expect("there")
}

/// The numbers of replicas: wanted, all, updated, available.
fn counts(deployment: &Deployment) -> [i32; 4] {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let status = deployment.status.clone().unwrap_or_default();
    [wanted, status.replicas, status.updated_replicas, status.available_replicas]
        .map(Option::unwrap_or_default)
}

fn is_observed(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    seen >= deployment.metadata.generation
}

async fn observed(world: &World, name: &str) -> Deployment {
    eventually(&format!("{name} is observed"), MINUTE, async || {
        Some(get(world, name).await).filter(is_observed)
    })
    .await
}

/// The replica sets of a Deployment: the one of its template, and the others.
async fn replica_sets(world: &World, name: &str) -> (Option<ReplicaSet>, Vec<ReplicaSet>) {
    let deployment = get(world, name).await;
    let template = plain(deployment.spec.as_ref().map(|spec| &spec.template));
    let mut sets = selected(&world.api::<ReplicaSet>(), "").await;
    let uid = deployment.uid();
    sets.retain(|set| set.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref()));
    let is_new = |set: &ReplicaSet| {
        plain(set.spec.as_ref().and_then(|spec| spec.template.as_ref())) == template
    };
    let new = sets.iter().position(is_new).map(|at| sets.remove(at));
    (new, sets)
}

/// A template without the hash that the controller adds.
fn plain(template: Option<&PodTemplateSpec>) -> Value {
    let mut template = json!(template);
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

fn image_of(template: Option<&PodTemplateSpec>) -> Option<&str> {
    template?.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// Waits until Deployment and new replica set have the revision and the image.
async fn has_revision(world: &World, name: &str, revision: &str, image: &str) {
    eventually(&format!("{name} is at revision {revision}"), MINUTE, async || {
        let (Some(set), _) = replica_sets(world, name).await else { return None };
        let deployment = get(world, name).await;
        let at = |annotations: &std::collections::BTreeMap<String, String>| {
            annotations.get(REVISION).is_some_and(|at| at == revision)
        };
        assert_eq!(image_of(deployment.spec.as_ref().map(|s| &s.template)), Some(image));
        let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        assert_eq!(image_of(of_set), Some(image));
        (at(deployment.annotations()) && at(set.annotations())).then_some(())
    })
    .await;
}

/// Waits until all replicas are updated and available; `check` must hold on the way.
async fn completes(world: &World, name: &str, check: impl AsyncFn(&Deployment)) {
    eventually(&format!("{name} is complete"), 5 * MINUTE, async || {
        let deployment = get(world, name).await;
        check(&deployment).await;
        let [wanted, all, updated, available] = counts(&deployment);
        let done = [all, updated, available] == [wanted; 3] && is_observed(&deployment);
        done.then_some(())
    })
    .await;
}

async fn any(_: &Deployment) {}

async fn set_image(world: &World, name: &str, container: &str, image: &str) -> Deployment {
    update(&world.api(), name, |deployment: &mut Deployment| {
        let spec = deployment.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        let first = &mut spec.expect("a spec").containers[0];
        (first.name, first.image) = (container.to_owned(), Some(image.to_owned()));
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn rollingupdatedeployment_should_delete_old_pods_and_create_new_ones() {
    let (world, name) = (World::start(1).await, "test-rolling-update-deployment");
    let labels = json!({"name": "sample-pod", "pod": "httpd"});
    let mut set = replica_set("test-rolling-update-controller", 1, &labels);
    set["metadata"]["annotations"] = json!({REVISION: "3546343826724305832"});
    world.create::<ReplicaSet>(set).await;
    all_run(&world.api(), "name=sample-pod", 1).await;
    let labels = json!({"name": "sample-pod"});
    world.create::<Deployment>(deployment(name, 1, &labels, AGNHOST)).await;
    // One more than the revision of the set that it adopts.
    has_revision(&world, name, "3546343826724305833", AGNHOST).await;
    completes(&world, name, any).await;
    let (_, old) = replica_sets(&world, name).await;
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].name_any(), "test-rolling-update-controller");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn recreatedeployment_should_delete_old_pods_and_create_new_ones() {
    let (world, name) = (World::start(1).await, "test-recreate-deployment");
    let mut wanted = deployment(name, 1, &json!({"name": "sample-pod-3"}), AGNHOST);
    wanted["spec"]["strategy"] = json!({"type": "Recreate"});
    world.create::<Deployment>(wanted).await;
    has_revision(&world, name, "1", AGNHOST).await;
    completes(&world, name, any).await;
    let changed = set_image(&world, name, "httpd", WEB).await;
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let since = changed.resource_version().expect("a version");
    let mut watching = Watching::since(&world.api::<Deployment>(), only, &since).await;
    watching
        .until("the new pod has come", 2 * MINUTE, |_, seen| {
            let [wanted, all, updated, _] = counts(seen);
            assert!(updated == 0 || all == updated, "new pods beside old ones: {seen:?}");
            [all, updated] == [wanted; 2] && is_observed(seen)
        })
        .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deployment_should_delete_old_replica_sets() {
    let (world, name) = (World::start(1).await, "test-cleanup-deployment");
    let labels = json!({"name": "cleanup-pod", "pod": "httpd"});
    world.create::<ReplicaSet>(replica_set("test-cleanup-controller", 1, &labels)).await;
    let pods: Api<Pod> = world.api();
    all_run(&pods, "name=cleanup-pod", 1).await;
    let mut watching = Watching::since(&pods, WatchParams::default(), &version(&pods).await).await;
    let mut wanted = deployment(name, 1, &json!({"name": "cleanup-pod"}), AGNHOST);
    wanted["spec"]["revisionHistoryLimit"] = json!(0);
    world.create::<Deployment>(wanted).await;
    eventually("no old replica set is left", 5 * MINUTE, async || {
        let (new, old) = replica_sets(&world, name).await;
        (new.is_some() && old.is_empty()).then_some(())
    })
    .await;
    // The old set makes no pod when the controller adds the hash to its selector: there is one new
    // pod, before the old one is gone.
    let mut created = Vec::new();
    watching
        .until("the old pod goes", MINUTE, |change, pod| {
            if change == Change::Added {
                created.push(pod.spec.clone().expect("a spec").containers[0].name.clone());
            }
            change == Change::Deleted
        })
        .await;
    assert_eq!(created, ["agnhost"]);
    assert_eq!(selected(&pods, "name=cleanup-pod").await.len(), 1);
    world.shutdown().await;
}

/// How many replicas the set is to have and has.
async fn set_counts(world: &World, name: &str) -> (Option<i32>, Option<i32>) {
    let set = world.api::<ReplicaSet>().get(name).await.expect("there");
    let replicas = set.status.as_ref().map(|status| status.replicas);
    (set.spec.and_then(|spec| spec.replicas), replicas)
}

#[tokio::test(start_paused = true)]
async fn deployment_should_support_rollover() {
    let (world, name, old) =
        (World::start(1).await, "test-rollover-deployment", "test-rollover-controller");
    let labels = json!({"name": "rollover-pod", "pod": "httpd"});
    world.create::<ReplicaSet>(replica_set(old, 1, &labels)).await;
    all_run(&world.api(), "name=rollover-pod", 1).await;
    eventually("the set is ready", MINUTE, async || {
        let status = world.api::<ReplicaSet>().get(old).await.expect("there").status?;
        (status.ready_replicas == Some(1)).then_some(())
    })
    .await;
    // An image that cannot be had keeps the first update from coming to an end.
    let broken = "unpullable.example/redis:v1";
    let mut wanted = deployment(name, 1, &json!({"name": "rollover-pod"}), broken);
    wanted["spec"]["strategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": 1});
    wanted["spec"]["minReadySeconds"] = json!(10);
    world.create::<Deployment>(wanted).await;
    eventually("the update has begun", 5 * MINUTE, async || {
        let deployment = get(&world, name).await;
        (is_observed(&deployment) && counts(&deployment)[2] >= 1).then_some(())
    })
    .await;
    has_revision(&world, name, "1", broken).await;
    let stuck = replica_sets(&world, name).await.0.expect("a new set").name_any();
    for set in [old, &stuck] {
        assert_eq!(set_counts(&world, set).await, (Some(1), Some(1)));
    }
    set_image(&world, name, "agnhost", AGNHOST).await;
    observed(&world, name).await;
    has_revision(&world, name, "2", AGNHOST).await;
    completes(&world, name, async |deployment| {
        let (new, old) = replica_sets(&world, name).await;
        let sets: Vec<_> = new.into_iter().chain(old).collect();
        let wanted: i32 = sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).sum();
        let available: i32 =
            sets.iter().filter_map(|set| set.status.as_ref()?.available_replicas).sum();
        assert!(wanted <= 2 && available >= 1, "{wanted} and {available}: {deployment:?}");
    })
    .await;
    for set in [old, &stuck] {
        assert_eq!(set_counts(&world, set).await, (Some(0), Some(0)));
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deployment_should_support_proportional_scaling() {
    let (world, name) = (World::start(1).await, "webserver-deployment");
    let mut wanted = deployment(name, 10, &json!({"name": "httpd"}), WEB);
    wanted["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 3, "maxUnavailable": 2});
    world.create::<Deployment>(wanted).await;
    observed(&world, name).await;
    all_run(&world.api(), "name=httpd", 10).await;
    completes(&world, name, any).await;
    let first = replica_sets(&world, name).await.0.expect("a new set").name_any();
    // An image that cannot be had keeps the update from coming to an end.
    set_image(&world, name, "agnhost", "unpullable.example/webserver:v404").await;
    observed(&world, name).await;
    let has = async |set: &str, wanted: i32| {
        eventually(&format!("{set} has {wanted} replicas"), MINUTE, async || {
            (set_counts(&world, set).await == (Some(wanted), Some(wanted))).then_some(())
        })
        .await;
    };
    has(&first, 8).await;
    let second = replica_sets(&world, name).await.0.expect("a new set");
    let available = second.status.as_ref().and_then(|status| status.available_replicas);
    assert_eq!(available.unwrap_or_default(), 0);
    let second = second.name_any();
    has(&second, 5).await;
    assert!(counts(&get(&world, name).await)[3] >= 8);
    update(&world.api(), name, |deployment: &mut Deployment| {
        deployment.spec.as_mut().expect("a spec").replicas = Some(30);
    })
    .await;
    has(&first, 20).await;
    has(&second, 13).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deployment_should_have_a_working_scale_subresource() {
    let (world, name) = (World::start(1).await, "test-new-deployment");
    world.create::<Deployment>(deployment(name, 1, &json!({"name": "httpd"}), WEB)).await;
    completes(&world, name, any).await;
    let deployments: Api<Deployment> = world.api();
    let mut scale = deployments.get_scale(name).await.expect("a scale");
    assert_eq!(scale.spec.as_ref().and_then(|spec| spec.replicas), Some(1));
    assert_eq!(scale.status.as_ref().map(|status| status.replicas), Some(1));
    scale.metadata.resource_version = None;
    scale.spec.as_mut().expect("a spec").replicas = Some(2);
    let scaled = deployments.replace_scale(name, &PostParams::default(), &scale).await;
    assert_eq!(scaled.expect("it is scaled").spec.and_then(|spec| spec.replicas), Some(2));
    assert_eq!(counts(&get(&world, name).await)[0], 2);
    let four = Patch::Strategic(json!({"spec": {"replicas": 4}}));
    deployments.patch_scale(name, &PatchParams::default(), &four).await.expect("it is patched");
    assert_eq!(counts(&get(&world, name).await)[0], 4);
    completes(&world, name, any).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_validate_deployment_status_endpoints() {
    let (world, name) = (World::start(1).await, "test-deployment-status");
    let deployments: Api<Deployment> = world.api();
    let before = version(&deployments).await;
    let labels = json!({"name": "httpd", "e2e": "testing"});
    world.create::<Deployment>(deployment(name, 1, &labels, WEB)).await;
    has_revision(&world, name, "1", WEB).await;
    completes(&world, name, any).await;
    status_endpoints::check(&deployments, name, "e2e=testing", &before).await;
    world.shutdown().await;
}
