//! Services of type `LoadBalancer`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Event, LoadBalancerStatus, Node, Service};
use orch_controllers::{
    Runnable,
    load_balancer::{
        AddressPool, BalancerError, FINALIZER, LoadBalancer, PoolRange, ServiceOptions,
        service_load_balancer,
    },
};
use orch_core::{client::DeleteOptions, informer::Informers};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::World;

fn pool(ranges: &'static [&'static str]) -> impl FnOnce(&Informers) -> Vec<Runnable> {
    move |informers| {
        let ranges = ranges.iter().map(|range| range.parse::<PoolRange>().unwrap());
        let pool = AddressPool::new(informers, ranges);
        vec![service_load_balancer(informers, ServiceOptions::default(), Arc::new(pool))]
    }
}

fn service(name: &str, spec: &Value) -> Value {
    let mut all = json!({
        "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
    });
    json_patch::merge(&mut all["spec"], spec);
    all
}

fn addresses(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.clone());
    let ingress = balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    assert!(ingress.iter().all(|ingress| ingress.ip_mode.as_deref() == Some("VIP")));
    ingress.into_iter().filter_map(|ingress| ingress.ip).collect()
}

async fn address_of(world: &World, name: &str) -> String {
    let assigned = async |world: &World| {
        let service = world.get::<Service>(name).await?;
        addresses(&service).first().cloned()
    };
    world.eventually("an address", assigned).await
}

async fn reasons(world: &World, name: &str) -> Vec<String> {
    let mut events = world.list::<Event>().await;
    events.retain(|event| event.involved_object.name.as_deref() == Some(name));
    let mut reasons: Vec<String> = events.iter().filter_map(|event| event.reason.clone()).collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

#[tokio::test(start_paused = true)]
async fn services_have_an_address_until_they_go() {
    let world = World::start(pool(&["10.0.0.1-10.0.0.2", "fd00::/64"]));
    world.create_cluster::<Node>(json!({"metadata": {"name": "node-1"}})).await;
    world.create::<Service>(service("a", &json!({}))).await;
    assert_eq!(address_of(&world, "a").await, "10.0.0.1");
    let two = json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"});
    world.create::<Service>(service("b", &two)).await;
    assert_eq!(address_of(&world, "b").await, "fd00::1");
    let a = world.get::<Service>("a").await.unwrap();
    assert_eq!(a.metadata.finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
    assert_eq!(addresses(&world.get::<Service>("b").await.unwrap()), ["fd00::1", "10.0.0.2"]);
    world.pass(30).await;
    assert_eq!(reasons(&world, "a").await, ["EnsuredLoadBalancer", "EnsuringLoadBalancer"]);
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    // None is left, and the Service waits until one is.
    world.create::<Service>(service("c", &json!({}))).await;
    let failed = async |world: &World| {
        let events = world.list::<Event>().await;
        let failed = "SyncLoadBalancerFailed";
        events.iter().find(|event| event.reason.as_deref() == Some(failed)).cloned()
    };
    let event = world.eventually("a failure that is told", failed).await;
    assert_eq!(
        (event.message.as_deref(), event.type_.as_deref()),
        (
            Some(
                "Error syncing load balancer: failed to ensure load balancer: the pool has no \
                 IPv4 address left"
            ),
            Some("Warning")
        )
    );
    let service = world.get::<Service>("c").await.unwrap();
    assert!(addresses(&service).is_empty());
    let before = world.writes();
    world.pass(2000).await;
    // 5, 10, 20, ... 300 s apart, two events each time.
    assert!(world.writes() - before < 40, "{}", world.writes() - before);
    world.delete::<Service>("a").await;
    assert_eq!(address_of(&world, "c").await, "10.0.0.1");
    assert!(world.get::<Service>("a").await.is_none());

    // One that wants none any more gives its address back.
    world.patch::<Service>("c", json!({"spec": {"type": "ClusterIP"}})).await;
    let given_back = async |world: &World| {
        let service = world.get::<Service>("c").await?;
        let finalizers = service.metadata.finalizers.as_ref();
        (finalizers.is_none_or(Vec::is_empty) && addresses(&service).is_empty()).then_some(())
    };
    world.eventually("no address", given_back).await;
    world.pass(30).await;
    let told = reasons(&world, "c").await;
    assert!(told.contains(&"DeletingLoadBalancer".to_owned()), "{told:?}");
    assert!(told.contains(&"DeletedLoadBalancer".to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_no_address() {
    let world = World::start(pool(&["10.0.0.1-10.0.0.9"]));
    for name in ["c", "b", "a"] {
        world.create::<Service>(service(name, &json!({}))).await;
        address_of(&world, name).await;
    }
    world.delete::<Service>("b").await;
    world
        .eventually("b is gone", async |world| {
            world.get::<Service>("b").await.is_none().then_some(())
        })
        .await;
    let cluster = world.cluster.clone();
    drop(world);
    let world = World::over(cluster, pool(&["10.0.0.1-10.0.0.9"]));
    world.create::<Service>(service("d", &json!({}))).await;
    world.create::<Service>(service("e", &json!({"loadBalancerIP": "10.0.0.7"}))).await;
    let mut all = Vec::new();
    for name in ["c", "d", "a", "e"] {
        all.push(address_of(&world, name).await);
    }
    assert_eq!(all, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.7"]);
    // Asked for, and somebody else's.
    world.create::<Service>(service("f", &json!({"loadBalancerIP": "10.0.0.1"}))).await;
    let told = async |world: &World| {
        let events = world.list::<Event>().await;
        let mut messages = events.iter().filter_map(|event| event.message.as_deref());
        let wanted = "10.0.0.1 is the address of service default/c";
        messages.any(|message| message.ends_with(wanted)).then_some(())
    };
    world.eventually("a refusal that is told", told).await;
    let options = DeleteOptions::default();
    world.resources::<Service>().delete("c", options).await.unwrap();
    assert_eq!(address_of(&world, "f").await, "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn a_service_of_another_class_is_left_alone() {
    let world = World::start(pool(&["10.0.0.1-10.0.0.9"]));
    let classed = service("a", &json!({"loadBalancerClass": "example.com/other"}));
    world.create::<Service>(classed).await;
    world.create::<Service>(service("b", &json!({}))).await;
    address_of(&world, "b").await;
    world.pass(30).await;
    let service = world.get::<Service>("a").await.unwrap();
    assert!(addresses(&service).is_empty() && service.metadata.finalizers.is_none());
    assert!(reasons(&world, "a").await.is_empty());
}

/// Notes which nodes it is told of, and fails as often as it is told to.
#[derive(Default)]
struct Noting {
    nodes: Mutex<Vec<Vec<String>>>,
    failures: Mutex<u32>,
}

fn names(nodes: &[Arc<Node>]) -> Vec<String> {
    nodes.iter().filter_map(|node| node.metadata.name.clone()).collect()
}

#[async_trait]
impl LoadBalancer for Noting {
    async fn find(&self, _: &Service) -> Result<Option<LoadBalancerStatus>, BalancerError> {
        Ok(Some(LoadBalancerStatus::default()))
    }

    async fn ensure(
        &self,
        _: &Service,
        nodes: &[Arc<Node>],
    ) -> Result<LoadBalancerStatus, BalancerError> {
        self.nodes.lock().push(names(nodes));
        Ok(LoadBalancerStatus::default())
    }

    async fn update(&self, _: &Service, nodes: &[Arc<Node>]) -> Result<(), BalancerError> {
        self.nodes.lock().push(names(nodes));
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Err(BalancerError::Failed("out of order".into()));
        }
        Ok(())
    }

    async fn remove(&self, _: &Service) -> Result<(), BalancerError> {
        Err(BalancerError::ImplementedElsewhere)
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_is_told_of_the_nodes_there_are() {
    let noting = Arc::new(Noting::default());
    let balancer = noting.clone();
    let world = World::start(move |informers| {
        vec![service_load_balancer(informers, ServiceOptions::default(), balancer)]
    });
    let told = async |nodes: &[&str]| {
        let last = async |_: &World| (noting.nodes.lock().last()? == nodes).then_some(());
        world.eventually("nodes that are told of", last).await;
    };
    world.create::<Service>(service("a", &json!({}))).await;
    told(&[]).await;
    world.create_cluster::<Node>(json!({"metadata": {"name": "n1"}})).await;
    told(&["n1"]).await;
    world.create_cluster::<Node>(json!({"metadata": {"name": "n2"}})).await;
    told(&["n1", "n2"]).await;
    let kind = orch_core::client::PatchKind::Merge;
    let excluded = json!({"metadata": {"labels":
        {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
    *noting.failures.lock() = 1;
    world.all::<Node>().patch("n1", kind, excluded).await.unwrap();
    told(&["n2"]).await;
    // The update failed, so that it was ensured.
    let again = async |_: &World| (noting.nodes.lock().len() == 5).then_some(());
    world.eventually("another try", again).await;
    world.pass(30).await;
    let all = reasons(&world, "a").await;
    for reason in ["UnAvailableLoadBalancer", "UpdatedLoadBalancer", "UpdateLoadBalancerFailed"] {
        assert!(all.contains(&reason.to_owned()), "{reason} is not among {all:?}");
    }
    // What changes of a node without concerning load balancers is not told.
    let count = noting.nodes.lock().len();
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    world.all::<Node>().patch("n2", kind, label).await.unwrap();
    world.pass(60).await;
    assert_eq!(noting.nodes.lock().len(), count);
    // The finalizer goes although somebody else removes the load balancer.
    world.delete::<Service>("a").await;
    let gone = async |world: &World| world.get::<Service>("a").await.is_none().then_some(());
    world.eventually("the Service is gone", gone).await;
}
