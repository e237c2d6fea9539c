//! Claims for devices.

use std::sync::atomic::Ordering;

use k8s_openapi::api::{
    core::v1::{Event, Pod},
    resource::v1::{ResourceClaim, ResourceClaimTemplate},
};
use orch_controllers::resource_claim::{ResourceClaimMetrics, resource_claim};
use orch_core::testing::{FaultRates, rounds};
use serde_json::{Value, json};

use crate::world::World;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// A world whose pods wait for a scheduler.
fn world() -> (World, ResourceClaimMetrics) {
    let metrics = ResourceClaimMetrics::default();
    let world = World::start(|informers| vec![resource_claim(informers, metrics.clone())]);
    world.ready.store(false, Ordering::Relaxed);
    (world, metrics)
}

fn devices(class: &str) -> Value {
    json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": class}}]}})
}

async fn template(world: &World, name: &str) {
    let meta = json!({"labels": {"team": "a"}, "annotations": {"note": "x"}});
    let template = json!({"metadata": {"name": name},
                          "spec": {"metadata": meta, "spec": devices("gpu")}});
    world.create::<ResourceClaimTemplate>(template).await;
}

async fn pod(world: &World, name: &str, claims: Value) {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}], "resourceClaims": claims},
    });
    world.create::<Pod>(pod).await;
}

fn from_template(name: &str) -> Value {
    json!([{"name": name, "resourceClaimTemplateName": "t"}])
}

/// The claims that a pod's status tells of, by their names within the pod.
async fn told(world: &World, pod: &str) -> Option<Vec<(String, String)>> {
    let pod = world.get::<Pod>(pod).await?;
    let statuses = pod.status.as_ref()?.resource_claim_statuses.clone()?;
    let told = statuses.into_iter().map(|one| Some((one.name, one.resource_claim_name?)));
    told.collect()
}

/// A claim that is allocated and kept for these pods.
async fn allocated(world: &World, name: &str, pods: &[&str]) {
    let mut users = Vec::new();
    for pod in pods {
        let pod = world.get::<Pod>(pod).await.expect("the pod");
        users.push(json!({"resource": "pods", "name": pod.metadata.name,
                          "uid": pod.metadata.uid}));
    }
    if world.get::<ResourceClaim>(name).await.is_none() {
        world
            .create::<ResourceClaim>(json!({"metadata": {"name": name}, "spec": devices("gpu")}))
            .await;
    }
    world.patch::<ResourceClaim>(name, json!({"metadata": {"finalizers": [FINALIZER]}})).await;
    let result = json!({"request": "r", "driver": "d", "pool": "p", "device": "x"});
    let status = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": users});
    let mut claim =
        serde_json::to_value(&*world.get::<ResourceClaim>(name).await.unwrap()).unwrap();
    claim["status"] = status;
    let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
    world.resources::<ResourceClaim>().update_status(&claim).await.unwrap();
}

fn users(claim: &ResourceClaim) -> Vec<String> {
    let users = claim.status.as_ref().and_then(|status| status.reserved_for.clone());
    users.into_iter().flatten().map(|user| user.name).collect()
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_a_claim_from_its_template() {
    let (world, metrics) = world();
    template(&world, "t").await;
    pod(&world, "web", from_template("gpu")).await;
    let told = world.eventually("the status tells", async |world| told(world, "web").await).await;
    let [(own, name)] = &*told else { panic!("{told:?}") };
    assert!(own == "gpu" && name.starts_with("web-gpu-") && name.len() == 13, "{name}");
    let claim = world.get::<ResourceClaim>(name).await.expect("the claim");
    let uid = world.get::<Pod>("web").await.unwrap().metadata.uid.clone();
    let owner = &claim.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((Some(&owner.uid), owner.controller), (uid.as_ref(), Some(true)));
    let labels = claim.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["team"], "a");
    let annotations = claim.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(annotations["note"], "x");
    let request = &claim.spec.devices.as_ref().unwrap().requests.as_ref().unwrap()[0];
    assert_eq!(request.exactly.as_ref().unwrap().device_class_name, "gpu");
    world.pass(60).await;
    assert_eq!(world.list::<ResourceClaim>().await.len(), 1);
    let text = metrics.encode();
    let made =
        "resourceclaim_controller_creates_total{status=\"success\",admin_access=\"false\"} 1";
    assert!(text.contains(made), "{text}");
    let there = "resourceclaim_controller_resource_claims{allocated=\"false\",\
                 admin_access=\"false\",source=\"resource_claim_template\"} 1";
    assert!(text.contains(there), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_missing_is_waited_for_and_told_of() {
    let (world, _) = world();
    pod(&world, "web", from_template("gpu")).await;
    let event = world
        .eventually("an event", async |world| {
            let events = world.list::<Event>().await;
            let failed =
                |event: &Event| event.reason.as_deref() == Some("FailedResourceClaimCreation");
            events.iter().find(|event| failed(event)).and_then(|event| event.message.clone())
        })
        .await;
    let words = "PodResourceClaim gpu: resource claim template \"t\": \
                 resourceclaimtemplate.resource.k8s.io \"t\" not found";
    assert_eq!(event, words);
    template(&world, "t").await;
    world.eventually("the claim", async |world| told(world, "web").await).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_deleted_is_made_again() {
    let (world, _) = world();
    template(&world, "t").await;
    let claims = json!([{"name": "a", "resourceClaimTemplateName": "t"},
                        {"name": "b", "resourceClaimTemplateName": "t"},
                        {"name": "c", "resourceClaimName": "mine"}]);
    pod(&world, "web", claims).await;
    let first = world.eventually("two claims", async |world| told(world, "web").await).await;
    assert_eq!(first.len(), 2, "{first:?}");
    let gone = first[0].1.clone();
    world.delete::<ResourceClaim>(&gone).await;
    let again = world
        .eventually("another claim", async |world| {
            let told = told(world, "web").await?;
            told.iter().all(|(_, name)| *name != gone).then_some(told)
        })
        .await;
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again.contains(&first[1]), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_uses_any_more_gives_its_devices_back() {
    let (world, _) = world();
    let by_name = || json!([{"name": "c", "resourceClaimName": "shared"}]);
    for name in ["a", "b"] {
        pod(&world, name, by_name()).await;
    }
    allocated(&world, "shared", &["a", "b"]).await;
    world.pass(10).await;
    let claim = world.get::<ResourceClaim>("shared").await.unwrap();
    assert_eq!(users(&claim), ["a", "b"]);
    world.delete::<Pod>("a").await;
    world
        .eventually("one user is left", async |world| {
            let claim = world.get::<ResourceClaim>("shared").await?;
            assert!(is_allocated(&claim));
            (users(&claim) == ["b"]).then_some(())
        })
        .await;
    world.delete::<Pod>("b").await;
    world
        .eventually("the devices are free", async |world| {
            let claim = world.get::<ResourceClaim>("shared").await?;
            let free = users(&claim).is_empty() && !is_allocated(&claim);
            let kept = claim.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER);
            (free && !kept).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_extended_resources_is_there_as_long_as_its_pod_needs_it() {
    let (world, metrics) = world();
    pod(&world, "job", json!(null)).await;
    let uid = world.get::<Pod>("job").await.unwrap().metadata.uid.clone();
    let owner =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "job", "uid": uid, "controller": true}]);
    let marked = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    let meta = json!({"name": "made", "annotations": marked, "ownerReferences": owner});
    world.create::<ResourceClaim>(json!({"metadata": meta, "spec": devices("gpu")})).await;
    // Its devices are on their way.
    world.pass(60).await;
    allocated(&world, "made", &["job"]).await;
    let mapping = json!({"containerName": "c", "resourceName": "example.com/gpu",
                         "requestName": "r"});
    let told = json!({"resourceClaimName": "made", "requestMappings": [mapping]});
    let pods = world.resources::<Pod>();
    let status = |status: Value| {
        let patch = json!({"status": status});
        pods.patch_status("job", orch_core::client::PatchKind::Merge, patch)
    };
    status(json!({"extendedResourceClaimStatus": told})).await.unwrap();
    world.pass(60).await;
    assert!(is_allocated(&world.get::<ResourceClaim>("made").await.unwrap()));
    let there = "resourceclaim_controller_resource_claims{allocated=\"true\",\
                 admin_access=\"false\",source=\"extended_resource\"} 1";
    assert!(metrics.encode().contains(there), "{}", metrics.encode());
    status(json!({"phase": "Succeeded"})).await.unwrap();
    world
        .eventually("the claim goes", async |world| {
            world.get::<ResourceClaim>("made").await.is_none().then_some(())
        })
        .await;
    assert!(world.get::<Pod>("job").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_pod_that_has_come_to_its_end_goes_before_the_pod() {
    let (world, _) = world();
    template(&world, "t").await;
    pod(&world, "job", from_template("gpu")).await;
    let told = world.eventually("the claim", async |world| told(world, "job").await).await;
    let name = told[0].1.as_str();
    allocated(&world, name, &["job"]).await;
    let done = json!({"status": {"phase": "Succeeded"}});
    let pods = world.resources::<Pod>();
    pods.patch_status("job", orch_core::client::PatchKind::Merge, done).await.unwrap();
    world
        .eventually("the claim goes", async |world| {
            world.get::<ResourceClaim>(name).await.is_none().then_some(())
        })
        .await;
    assert!(world.get::<Pod>("job").await.is_some());
    world.pass(60).await;
    assert!(world.list::<ResourceClaim>().await.is_empty(), "none is made again");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_deleted_goes_once_nobody_uses_it() {
    let (world, _) = world();
    pod(&world, "a", json!([{"name": "c", "resourceClaimName": "mine"}])).await;
    allocated(&world, "mine", &["a"]).await;
    world.delete::<ResourceClaim>("mine").await;
    world.pass(10).await;
    assert!(world.get::<ResourceClaim>("mine").await.is_some());
    world.delete::<Pod>("a").await;
    world
        .eventually("the claim goes", async |world| {
            world.get::<ResourceClaim>("mine").await.is_none().then_some(())
        })
        .await;
    // One that was allocated, but for nobody.
    allocated(&world, "idle", &[]).await;
    world.pass(10).await;
    let idle = world.get::<ResourceClaim>("idle").await.unwrap();
    assert!(is_allocated(&idle), "who allocates may reserve later");
    world.delete::<ResourceClaim>("idle").await;
    world
        .eventually("the idle claim goes", async |world| {
            world.get::<ResourceClaim>("idle").await.is_none().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_scheduler_placed_has_its_claim_kept_for_it() {
    let (world, _) = world();
    world.ready.store(true, Ordering::Relaxed);
    pod(&world, "web", json!([{"name": "c", "resourceClaimName": "mine"}])).await;
    allocated(&world, "mine", &[]).await;
    world
        .eventually("the claim is kept", async |world| {
            let claim = world.get::<ResourceClaim>("mine").await?;
            (users(&claim) == ["web"]).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn with_faults_every_pod_has_its_claims_and_no_others() {
    for seed in 0..u64::from(rounds(6)) {
        let rates = FaultRates {
            conflict_permille: 100,
            server_error_permille: 100,
            transport_permille: 100,
            watch_drop_permille: 30,
            expired_permille: 20,
            ..FaultRates::default()
        };
        let metrics = ResourceClaimMetrics::default();
        let world =
            World::with_faults(seed, rates, |informers| vec![resource_claim(informers, metrics)]);
        world.ready.store(false, Ordering::Relaxed);
        template(&world, "t").await;
        let claims = json!([{"name": "a", "resourceClaimTemplateName": "t"},
                            {"name": "b", "resourceClaimTemplateName": "t"}]);
        for n in 0..5 {
            pod(&world, &format!("p{n}"), claims.clone()).await;
        }
        let all = world
            .eventually("all claims are told of", async |world| {
                let mut all = Vec::new();
                for n in 0..5 {
                    let told = told(world, &format!("p{n}")).await?;
                    all.extend(told.into_iter().map(|(_, name)| name));
                }
                (all.len() == 10).then_some(all)
            })
            .await;
        for name in &all {
            assert!(world.get::<ResourceClaim>(name).await.is_some(), "seed {seed}: {name}");
        }
        allocated(&world, &all[0], &["p0"]).await;
        world.delete::<Pod>("p0").await;
        world
            .eventually("the devices are free", async |world| {
                let claim = world.get::<ResourceClaim>(&all[0]).await;
                claim.is_none_or(|claim| !is_allocated(&claim)).then_some(())
            })
            .await;
    }
}
