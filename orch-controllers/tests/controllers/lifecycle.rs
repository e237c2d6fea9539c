//! Namespaces, ownership, and what every namespace has.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
    rbac::v1::ClusterRole,
};
use orch_controllers::{
    Manager, Metrics, Runnable,
    cluster_role_aggregation::cluster_role_aggregation,
    deployment::deployment,
    garbage::garbage_collector,
    namespace::namespace,
    pod_gc::{PodGcOptions, pod_garbage_collector},
    replicas::replica_set,
    service_account::{root_ca_publisher, service_account},
    standard::{StandardOptions, UnknownController, standard},
};
use orch_core::{
    ResourceType, Resources,
    client::{DeleteOptions, Propagation},
    informer::Informers,
    lease::Election,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{World, template};

fn types() -> Vec<ResourceType> {
    vec![
        ResourceType::of::<Pod>(),
        ResourceType::of::<ConfigMap>(),
        ResourceType::of::<ServiceAccount>(),
        ResourceType::of::<ReplicaSet>(),
        ResourceType::of::<Deployment>(),
    ]
}

fn owned_world() -> World {
    World::start(|informers: &Informers| -> Vec<Runnable> {
        vec![
            deployment(informers).into(),
            replica_set(informers).into(),
            garbage_collector(informers, Arc::new(types())),
        ]
    })
}

async fn deploy(world: &World, replicas: usize) {
    world
        .create::<Deployment>(json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": template("web", "v1")},
        }))
        .await;
    world
        .eventually("pods", async |world| {
            (world.list::<Pod>().await.len() == replicas).then_some(())
        })
        .await;
    world.pass(1).await;
}

async fn delete_deployment(world: &World, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    world.resources::<Deployment>().delete("web", options).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_owned_goes_after_its_owner_in_the_background() {
    let world = owned_world();
    deploy(&world, 20).await;
    delete_deployment(&world, Propagation::Background).await;
    world
        .eventually("all gone", async |world| {
            let sets = world.list::<ReplicaSet>().await.len();
            (sets == 0 && world.list::<Pod>().await.is_empty()).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_leaves_that_came_and_went_unseen_goes_too() {
    let world = owned_world();
    world.pass(1).await;
    world.lose(Some("configmaps"));
    let owner = world.create::<ConfigMap>(json!({"metadata": {"name": "owner"}})).await;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner.metadata.uid});
    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!("owned");
    pod["metadata"]["ownerReferences"] = json!([reference]);
    world.create::<Pod>(pod).await;
    world.pass(10).await;
    assert!(world.get::<Pod>("owned").await.is_some(), "its owner is there");
    world.delete::<ConfigMap>("owner").await;
    let gone = async |world: &World| world.get::<Pod>("owned").await.is_none().then_some(());
    world.eventually("the pod is gone", gone).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_owned_goes_before_its_owner_in_the_foreground() {
    let world = owned_world();
    deploy(&world, 5).await;
    delete_deployment(&world, Propagation::Foreground).await;
    world
        .eventually("all gone", async |world| {
            let deployment = world.get::<Deployment>("web").await;
            if deployment.is_none() {
                assert!(world.list::<ReplicaSet>().await.is_empty(), "the owner went first");
                assert!(world.list::<Pod>().await.is_empty(), "the owner went first");
            }
            deployment.is_none().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_lose_their_owner() {
    let world = owned_world();
    deploy(&world, 3).await;
    delete_deployment(&world, Propagation::Orphan).await;
    world
        .eventually("the set is free", async |world| {
            let gone = world.get::<Deployment>("web").await.is_none();
            let sets = world.list::<ReplicaSet>().await;
            let free = sets[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
            (gone && free).then_some(())
        })
        .await;
    world.pass(60).await;
    assert_eq!(world.list::<Pod>().await.len(), 3);
}

fn map(name: &str, owners: &Value) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": owners}})
}

#[tokio::test(start_paused = true)]
async fn absent_owners_are_verified_and_those_of_other_namespaces_are_none() {
    let world = owned_world();
    let real = world.create::<ConfigMap>(map("real", &json!([]))).await;
    let reference = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let uid = real.metadata.uid.as_deref().unwrap();
    world.create::<ConfigMap>(map("kept", &json!([reference("real", uid)]))).await;
    world
        .create::<ConfigMap>(map("both", &json!([reference("real", uid), reference("no", "x")])))
        .await;
    world.create::<ConfigMap>(map("dangling", &json!([reference("real", "other-uid")]))).await;
    let other: Resources<ConfigMap> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "other");
    let misplaced: ConfigMap =
        serde_json::from_value(map("misplaced", &json!([reference("real", uid)]))).unwrap();
    other.create(&misplaced).await.unwrap();
    let unknown = json!([{"apiVersion": "x.dev/v1", "kind": "X", "name": "x", "uid": "x1"}]);
    world.create::<ConfigMap>(map("unknown-kind", &unknown)).await;
    world
        .eventually("only what has no owner goes", async |world| {
            let dangling = world.get::<ConfigMap>("dangling").await;
            let misplaced = other.get_opt("misplaced").await.unwrap();
            (dangling.is_none() && misplaced.is_none()).then_some(())
        })
        .await;
    world.pass(60).await;
    let both = world.get::<ConfigMap>("both").await.unwrap();
    assert!(world.get::<ConfigMap>("kept").await.is_some());
    assert!(world.get::<ConfigMap>("unknown-kind").await.is_some());
    assert_eq!(both.metadata.owner_references.as_ref().unwrap().len(), 1, "one is absent");
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_owners_does_not_block() {
    let world = owned_world();
    let mut uids = Vec::new();
    for name in ["a", "b", "c"] {
        let created = world.create::<ConfigMap>(map(name, &json!([]))).await;
        uids.push((name, created.metadata.uid.clone().unwrap()));
    }
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (owner, uid) = &uids[(at + 2) % 3];
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid,
            "controller": true, "blockOwnerDeletion": true}]);
        world.patch::<ConfigMap>(name, json!({"metadata": {"ownerReferences": owners}})).await;
    }
    world.pass(1).await;
    let options =
        DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    world.resources::<ConfigMap>().delete("a", options).await.unwrap();
    world
        .eventually("the whole circle is gone", async |world| {
            world.list::<ConfigMap>().await.is_empty().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_before_it_goes() {
    let world = World::start(|informers| vec![namespace(informers, Arc::new(types()))]);
    world.create_cluster::<Namespace>(json!({"metadata": {"name": "default"}})).await;
    for number in 0..20 {
        let mut pod = template("web", "v1");
        pod["metadata"]["name"] = json!(format!("web-{number}"));
        world.create::<Pod>(pod).await;
    }
    world.create::<ConfigMap>(json!({"metadata": {"name": "settings"}})).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    world.create::<ConfigMap>(held).await;
    world.all::<Namespace>().delete("default", DeleteOptions::default()).await.unwrap();
    world
        .eventually("one object remains", async |world| {
            let namespace = world.all::<Namespace>().get("default").await.ok()?;
            let conditions = namespace.status.as_ref()?.conditions.as_ref()?;
            let remaining =
                conditions.iter().find(|c| c.type_ == "NamespaceFinalizersRemaining")?;
            let message = remaining.message.as_deref()?;
            message.contains("example.com/hold in 1 resource instances").then_some(())
        })
        .await;
    assert!(world.list::<Pod>().await.is_empty());
    world.patch::<ConfigMap>("held", json!({"metadata": {"finalizers": null}})).await;
    world
        .eventually("the namespace is gone", async |world| {
            world.all::<Namespace>().get_opt("default").await.ok()?.is_none().then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn every_namespace_has_an_account_and_the_root_certificate() {
    let world = World::start(|informers| {
        vec![service_account(informers), root_ca_publisher(informers, "PEM")]
    });
    world.create_cluster::<Namespace>(json!({"metadata": {"name": "default"}})).await;
    let present = async |world: &World| {
        let map = world.get::<ConfigMap>("kube-root-ca.crt").await?;
        let right = map.data.as_ref()?.get("ca.crt")? == "PEM";
        (right && world.get::<ServiceAccount>("default").await.is_some()).then_some(())
    };
    world.eventually("both", present).await;
    world.delete::<ServiceAccount>("default").await;
    world.patch::<ConfigMap>("kube-root-ca.crt", json!({"data": {"ca.crt": "changed"}})).await;
    world.eventually("both again", present).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_nodes_that_are_gone_go_too() {
    let world =
        World::start(|informers| vec![pod_garbage_collector(informers, PodGcOptions::default())]);
    let mut pod = template("web", "v1");
    pod["metadata"]["name"] = json!("lost");
    world.create::<Pod>(pod).await;
    world.pass(30).await;
    assert!(world.get::<Pod>("lost").await.is_some(), "the node may come back");
    world.pass(61).await;
    assert!(world.get::<Pod>("lost").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_fails_when_the_controllers_are_built() {
    let world = World::start(|_| Vec::<Runnable>::new());
    let mut options = StandardOptions::new(types());
    options.controllers.push("-no-such-controller".into());
    let error = standard(&world.informers, &options).unwrap_err();
    assert_eq!(error, UnknownController("no-such-controller".into()));
    assert!(error.to_string().contains("deployment-controller"));
}

#[tokio::test(start_paused = true)]
async fn of_two_managers_only_the_elected_one_works() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let world = World::start(|_| Vec::<Runnable>::new());
    let working = Arc::new(AtomicUsize::new(0));
    let mut stops = Vec::new();
    let mut ends = Vec::new();
    let metrics = [Metrics::new(), Metrics::new()];
    for (identity, metrics) in ["a", "b"].into_iter().zip(&metrics) {
        let (working, stop) = (working.clone(), CancellationToken::new());
        let worker = Runnable::new("worker", move |stop: CancellationToken| async move {
            working.fetch_add(1, Ordering::SeqCst);
            stop.cancelled().await;
            working.fetch_sub(1, Ordering::SeqCst);
        });
        let client = Arc::new(world.cluster.clone());
        let environment = world.informers.environment().clone();
        let election = Election::new(client, environment, "kube-system", "manager", identity);
        let manager = Manager::new().with(worker).measured(metrics);
        ends.push(tokio::spawn(manager.run_elected(election, stop.clone())));
        stops.push(stop);
    }
    world.pass(60).await;
    assert_eq!(working.load(Ordering::SeqCst), 1);
    let leases: Resources<Lease> =
        Resources::namespaced(Arc::new(world.cluster.clone()), "kube-system");
    let holder = async || {
        let lease = leases.get("manager").await.unwrap();
        lease.spec.as_ref().unwrap().holder_identity.clone().unwrap()
    };
    let first = usize::from(holder().await == "b");
    let leads = |at: usize, leads: u8| {
        let line = format!("leader_election_master_status{{name=\"manager\"}} {leads}");
        assert!(metrics[at].encode().contains(&line), "{}", metrics[at].encode());
    };
    leads(first, 1);
    leads(1 - first, 0);
    stops[first].cancel();
    world.pass(10).await;
    assert_eq!(working.load(Ordering::SeqCst), 1, "the other took over");
    assert_eq!(holder().await, ["b", "a"][first]);
    leads(first, 0);
    leads(1 - first, 1);
    stops[1 - first].cancel();
    for end in ends {
        end.await.unwrap();
    }
    assert_eq!(working.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_role_has_the_rules_of_its_parts() {
    let world = World::start(|informers| vec![cluster_role_aggregation(informers)]);
    let rule =
        |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
    let part = |name: &str, resources: &[&str]| {
        let rules: Vec<_> = resources.iter().map(|resource| rule(resource)).collect();
        json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": rules})
    };
    let selectors = json!([{"matchLabels": {"to": "view"}}]);
    world
        .create_cluster::<ClusterRole>(json!({
            "metadata": {"name": "view", "labels": {"to": "view"}},
            "aggregationRule": {"clusterRoleSelectors": selectors},
        }))
        .await;
    world.create_cluster::<ClusterRole>(part("b", &["pods", "secrets"])).await;
    world.create_cluster::<ClusterRole>(part("a", &["nodes", "pods"])).await;
    let has = async |wanted: &[&str]| {
        world
            .eventually(&format!("{wanted:?}"), async |world| {
                let role = world.all::<ClusterRole>().get("view").await.ok()?;
                let rules = role.rules.iter().flatten();
                let resources: Vec<String> =
                    rules.flat_map(|rule| rule.resources.clone().unwrap_or_default()).collect();
                (resources == wanted).then_some(())
            })
            .await;
    };
    has(&["nodes", "pods", "secrets"]).await;
    world.all::<ClusterRole>().delete("a", DeleteOptions::default()).await.unwrap();
    has(&["pods", "secrets"]).await;
    let writes = world.writes();
    world.pass(60).await;
    assert_eq!(world.writes(), writes);
}
