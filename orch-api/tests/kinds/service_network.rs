//! Addresses and node ports of Services, through servers over one store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    networking::v1::{IPAddress, ServiceCIDR},
};
use orch_api::{
    ApiServer, Bootstrap, ServerOptions,
    allocator::{Repaired, ServiceRanges},
    auth::UserInfo,
};
use orch_core::{
    Client, Environment, ResourceType, Target,
    client::{DeleteOptions, ListOptions, Read, ReadReply, Write, WriteOptions},
};
use orch_store::{
    KeyRange, MemoryOptions, MemoryStore, Operation, Precondition, RangeRequest, Store,
    StoreReader, Write as StoreWrite,
};
use serde_json::{Value, json};

use super::{complaints, yaml};

/// One of the servers of a cluster.
#[derive(Clone)]
struct Cluster {
    server: ApiServer,
    client: Arc<dyn Client>,
}

impl Cluster {
    /// A server over a store, with ranges, and time that the test decides.
    async fn over(store: &MemoryStore, environment: &Environment, ranges: &[&str]) -> Self {
        let cluster_ips = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let service_ranges = ServiceRanges { cluster_ips, ..ServiceRanges::default() };
        let options = ServerOptions { service_ranges, ..ServerOptions::default() };
        let server = ApiServer::builder(Arc::new(store.clone()))
            .environment(environment.clone())
            .options(options)
            .build();
        server.bootstrap(&Bootstrap::default()).await.unwrap();
        let client = server.client(UserInfo::master("test"));
        Self { server, client }
    }

    async fn with(ranges: &[&str]) -> Self {
        let (store, environment) = fresh();
        Self::over(&store, &environment, ranges).await
    }

    async fn write(&self, write: Write) -> Result<Value, String> {
        self.client.write(write).await.map(|object| object.to_value()).map_err(|e| e.to_string())
    }

    async fn create_as(&self, spec: Value, dry_run: bool, name: &str) -> Result<Value, String> {
        let target = Target::collection(ResourceType::of::<Service>(), Some("default"));
        let body = json!({"metadata": {"name": name}, "spec": spec});
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        self.write(Write::Create(target, body, options)).await
    }

    async fn create(&self, name: &str, spec: Value) -> Result<Value, String> {
        self.create_as(spec, false, name).await
    }

    async fn delete(&self, target: Target) {
        self.write(Write::Delete(target, DeleteOptions::default())).await.unwrap();
    }

    async fn list(&self, of: ResourceType) -> Vec<Value> {
        let list = Read::List(Target::collection(of, None), ListOptions::default());
        match self.client.read(list).await.unwrap() {
            ReadReply::List(list) => list.items.iter().map(|one| one.to_value()).collect(),
            _ => panic!("no list"),
        }
    }

    /// The addresses that are booked.
    async fn booked(&self) -> BTreeSet<String> {
        let all = self.list(ResourceType::of::<IPAddress>()).await;
        all.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn add_range(&self, name: &str, range: &str) -> Value {
        let target = Target::collection(ResourceType::of::<ServiceCIDR>(), None);
        let body = json!({"metadata": {"name": name}, "spec": {"cidrs": [range]}});
        self.write(Write::Create(target, body, WriteOptions::default())).await.unwrap()
    }

    async fn range(&self, name: &str) -> Option<Value> {
        let all = self.list(ResourceType::of::<ServiceCIDR>()).await;
        all.into_iter().find(|one| one["metadata"]["name"] == name)
    }
}

fn fresh() -> (MemoryStore, Environment) {
    let environment = Environment::seeded(Timestamp::UNIX_EPOCH, 7);
    (MemoryStore::new(environment.clone(), MemoryOptions::default()), environment)
}

fn service(name: &str) -> Target {
    Target::object(ResourceType::of::<Service>(), Some("default"), name)
}

fn ip(text: &str) -> Value {
    json!({"clusterIP": text, "ports": [{"port": 80}]})
}

fn any() -> Value {
    json!({"ports": [{"port": 80}]})
}

#[tokio::test]
async fn what_is_taken_or_out_of_range_is_refused() {
    let cluster = Cluster::with(&["10.0.0.0/24"]).await;
    let check = async |name: &str, spec: Value, wanted: &str| {
        let told = cluster.create(name, spec).await.err().unwrap_or_default();
        assert_eq!(told, wanted);
    };
    let ip_of = |text: &str, why: &str| {
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{text}\"]: failed to \
             allocate IP {text}: {why}"
        )
    };
    check("a", ip("10.0.0.5"), "").await;
    check("b", ip("10.0.0.5"), &ip_of("10.0.0.5", "provided IP is already allocated")).await;
    let outside = "the provided network does not match the current range";
    check("b", ip("10.1.0.5"), &ip_of("10.1.0.5", outside)).await;
    let end = "the provided IP (10.0.0.255) is not in the valid range. The range of valid IPs is \
               10.0.0.0/24";
    check("b", ip("10.0.0.255"), &ip_of("10.0.0.255", end)).await;

    let port = |port: u32| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let port_of = |port: u32, why: &str| {
        format!(
            "Service \"d\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided \
             port is {why}"
        )
    };
    check("c", port(30001), "").await;
    check("d", port(30001), &port_of(30001, "already allocated")).await;
    let range = "not in the valid range. The range of valid ports is 30000-32767";
    check("d", port(80), &port_of(80, range)).await;
    let families = "Service \"e\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not \
                    configured on this cluster";
    check("e", json!({"ipFamilies": ["IPv6"], "ports": [{"port": 80}]}), families).await;
    let policy = "Service \"e\" is invalid: spec.ipFamilyPolicy: Invalid value: \
                  \"RequireDualStack\": this cluster is not configured for dual-stack services";
    let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]});
    check("e", dual, policy).await;
    check("e", json!({"type": "ExternalName", "externalName": "x.y"}), "").await;
    // What was refused left nothing booked.
    assert_eq!(cluster.booked().await.len(), 2);
}

#[tokio::test]
async fn services_get_what_their_type_needs() {
    let cluster = Cluster::with(&["10.0.0.0/24", "fd00::/112"]).await;
    let ports = json!([{"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "u", "port": 53, "protocol": "UDP"}]);
    let made = cluster.create("a", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
    assert_eq!(spec["clusterIP"], spec["clusterIPs"][0]);
    assert_eq!(
        (&spec["ipFamilies"], &spec["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    let addresses = cluster.list(ResourceType::of::<IPAddress>()).await;
    assert_eq!(addresses[0]["metadata"]["name"], spec["clusterIP"]);
    assert_eq!(
        addresses[0]["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    let parent = json!({"resource": "services", "namespace": "default", "name": "a"});
    assert_eq!(addresses[0]["spec"], json!({"parentRef": parent}));

    let headless = json!({"clusterIP": "None", "selector": {"a": "b"}});
    let made = cluster.create("b", headless).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    let made = cluster.create("c", json!({"clusterIP": "None"})).await.unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let dual = json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]});
    let made = cluster.create("d", dual).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"].as_array().map(Vec::len), Some(2));
    assert_eq!(cluster.booked().await.len(), 3);
    for name in ["a", "b", "c", "d"] {
        cluster.delete(service(name)).await;
    }
    assert_eq!(cluster.booked().await.len(), 0);
}

#[tokio::test]
async fn a_trial_or_a_failure_takes_nothing() {
    let cluster = Cluster::with(&["10.0.0.0/24"]).await;
    let tried = cluster.create_as(ip("10.0.0.9"), true, "a").await.unwrap();
    assert_eq!(tried["spec"]["clusterIP"], "10.0.0.9");
    let node = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]});
    cluster.create_as(node.clone(), true, "a").await.unwrap();
    let both = json!({"type": "NodePort", "clusterIP": "10.0.0.9",
        "ports": [{"port": 80, "nodePort": 30005}, {"name": "b", "port": 81, "nodePort": 1}]});
    assert!(cluster.create("a", both).await.is_err());
    // Without a name for each of its ports a Service is refused after it was given an address.
    let unnamed = json!({"clusterIP": "10.0.0.9", "ports": [{"port": 80}, {"port": 81}]});
    assert!(cluster.create("a", unnamed).await.is_err());
    assert_eq!(cluster.booked().await.len(), 0);
    cluster.create("a", node).await.unwrap();
    cluster.create("b", ip("10.0.0.9")).await.unwrap();
    let taken = cluster.create_as(ip("10.0.0.9"), true, "c").await.unwrap_err();
    assert!(taken.contains("provided IP is already allocated"), "{taken}");
}

#[tokio::test]
async fn servers_on_one_store_share_the_books() {
    const EACH: usize = 60;
    let (store, environment) = fresh();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Cluster::over(&store, &environment, &["10.0.0.0/24"]).await);
    }
    let mut tasks = Vec::new();
    for (number, server) in servers.iter().cloned().enumerate() {
        tasks.push(tokio::spawn(async move {
            for one in 0..EACH {
                let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
                server.create(&format!("s-{number}-{one}"), spec).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let services = servers[0].list(ResourceType::of::<Service>()).await;
    let field = |of: fn(&Value) -> &Value| -> BTreeSet<String> {
        services.iter().map(|one| of(one).to_string().trim_matches('"').to_owned()).collect()
    };
    let addresses = field(|one| &one["spec"]["clusterIP"]);
    assert_eq!((services.len(), addresses.len()), (3 * EACH, 3 * EACH));
    assert_eq!(field(|one| &one["spec"]["ports"][0]["nodePort"]).len(), 3 * EACH);
    assert_eq!(servers[1].booked().await, addresses);

    // What one server fills and another empties is free again to the first.
    for number in 3 * EACH..254 {
        servers[0].create(&format!("t-{number}"), any()).await.unwrap();
    }
    let full = servers[0].create("u", any()).await.unwrap_err();
    assert!(full.ends_with("failed to allocate a serviceIP: range is full"), "{full}");
    servers[2].delete(service("s-0-0")).await;
    servers[0].create("u", any()).await.unwrap();
}

#[tokio::test]
async fn other_ranges_are_used_and_kept_while_they_are() {
    let cluster = Cluster::with(&["10.0.0.0/30"]).await;
    for name in ["a", "b"] {
        cluster.create(name, any()).await.unwrap();
    }
    assert!(cluster.create("c", any()).await.is_err());
    let made = cluster.add_range("more", "192.168.7.0/28").await;
    assert_eq!(made["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let condition = &made["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
    let given = cluster.create("c", any()).await.unwrap();
    let given = given["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(given.starts_with("192.168.7."), "{given}");
    cluster.create("d", ip("192.168.7.3")).await.unwrap();

    let more = || Target::object(ResourceType::of::<ServiceCIDR>(), None, "more");
    cluster.delete(more()).await;
    let leaving = cluster.range("more").await.expect("addresses need it");
    let condition = &leaving["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("Terminating"))
    );
    assert!(cluster.create("e", any()).await.is_err(), "a range that goes gives no more addresses");
    cluster.delete(service("c")).await;
    assert!(cluster.range("more").await.is_some());
    cluster.delete(service("d")).await;
    assert_eq!(cluster.range("more").await, None);

    // Another range around the same addresses lets the first one go.
    cluster.add_range("first", "192.168.8.0/28").await;
    cluster.create("f", ip("192.168.8.3")).await.unwrap();
    cluster.add_range("wider", "192.168.0.0/16").await;
    cluster.delete(Target::object(ResourceType::of::<ServiceCIDR>(), None, "first")).await;
    assert_eq!(cluster.range("first").await, None);
}

/// Takes an object out of the store, as a crash does that comes between two writes.
async fn lose(store: &MemoryStore, key: &str) {
    let write = StoreWrite {
        key: key.to_owned().into(),
        precondition: Precondition::None,
        operation: Operation::Delete,
    };
    store.write(write).await.unwrap();
    let gone = store.range(RangeRequest::new(KeyRange::key(key.to_owned()))).await.unwrap();
    assert_eq!(gone.entries.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_behind_is_mended() {
    let (store, environment) = fresh();
    let cluster = Cluster::over(&store, &environment, &["10.0.0.0/24"]).await;
    let node = json!({"type": "NodePort", "clusterIP": "10.0.0.5",
        "ports": [{"port": 80, "nodePort": 30007}]});
    cluster.create("orphaned", node.clone()).await.unwrap();
    cluster.create("unbooked", ip("10.0.0.6")).await.unwrap();
    lose(&store, "/registry/services/specs/default/orphaned").await;
    lose(&store, "/registry/ipaddresses/10.0.0.6").await;
    // A server that starts now may be beside one whose Service is just on its way.
    let other = Cluster::over(&store, &environment, &["10.0.0.0/24"]).await;
    let mended = other.server.repair_services().await.unwrap();
    assert_eq!(mended, Repaired { booked: 1, ..Repaired::default() });
    assert!(other.create("x", ip("10.0.0.5")).await.is_err());
    assert!(other.create("x", ip("10.0.0.6")).await.is_err());
    tokio::time::advance(Duration::from_secs(61)).await;
    let mended = other.server.repair_services().await.unwrap();
    assert_eq!(mended, Repaired { released: 1, ports_released: 1, ..Repaired::default() });
    other.create("x", node).await.unwrap();
    assert_eq!(other.server.repair_services().await.unwrap(), Repaired::default());
    assert_eq!(cluster.booked().await, BTreeSet::from(["10.0.0.5".into(), "10.0.0.6".into()]));
}

#[tokio::test]
async fn services_of_a_store_without_books_are_booked_at_first_use() {
    let (store, environment) = fresh();
    let cluster = Cluster::over(&store, &environment, &["10.0.0.0/24"]).await;
    let node = json!({"type": "NodePort", "clusterIP": "10.0.0.5",
        "ports": [{"port": 80, "nodePort": 30007}]});
    cluster.create("old", node.clone()).await.unwrap();
    lose(&store, "/registry/ipaddresses/10.0.0.5").await;
    lose(&store, "/registry/ranges/servicenodeports").await;
    let next = Cluster::over(&store, &environment, &["10.0.0.0/24"]).await;
    assert!(next.create("new", ip("10.0.0.5")).await.is_err());
    let same_port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]});
    assert!(next.create("new", same_port).await.is_err());
    assert_eq!(next.booked().await, BTreeSet::from(["10.0.0.5".into()]));
}

#[test]
fn ranges_and_addresses_are_checked() {
    let check = |plural: &str, text: &str, wanted: &[&str]| {
        assert_eq!(complaints("networking.k8s.io", plural, text), wanted.join("\n"), "{text}");
    };
    let ranges = "servicecidrs";
    check(ranges, "spec: {cidrs: [10.0.0.0/24]}", &[]);
    check(ranges, "spec: {cidrs: [10.0.0.0/24, 'fd00::/64']}", &[]);
    check(ranges, "spec: {}", &["spec.cidrs: Required value: at least one CIDR required"]);
    check(
        ranges,
        "spec: {cidrs: [a]}",
        &[
            "spec.cidrs[0]: Invalid value: \"a\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check(
        ranges,
        "spec: {cidrs: [10.0.0.1/24]}",
        &[
            "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length (/24)",
        ],
    );
    let two = complaints("networking.k8s.io", ranges, "spec: {cidrs: [10.0.0.0/24, 10.1.0.0/24]}");
    assert!(two.contains("may specify no more than one IP for each IP family"), "{two}");
    let three = "spec: {cidrs: [10.0.0.0/24, 'fd00::/64', 10.1.0.0/24]}";
    let three = complaints("networking.k8s.io", ranges, three);
    assert!(three.contains("may only hold up to 2 values"), "{three}");

    let addresses = "ipaddresses";
    check(addresses, "spec: {}", &["spec.parentRef: Required value"]);
    check(
        addresses,
        "spec: {parentRef: {group: A, resource: services}}",
        &[
            "spec.parentRef.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of \
         lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric \
         character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.parentRef.name: Required value",
        ],
    );
    let of = orch_api::kinds::strategy("networking.k8s.io", addresses);
    for (name, wanted) in [
        ("10.0.0.1", None),
        ("fd00::1", None),
        ("fd00:0::1", Some("must be a canonical format IP address")),
        ("x", Some("ParseAddr(\"x\"): unable to parse IP")),
    ] {
        assert_eq!(of.validate_name(name).first().map(String::as_str), wanted, "{name}");
    }
}

#[test]
fn ranges_do_not_change_but_for_a_second_family() {
    let of = orch_api::kinds::strategy("networking.k8s.io", "servicecidrs");
    let check = |old: &str, new: &str, wanted: &str| {
        let object = |list: &str| yaml(&format!("spec: {{cidrs: [{list}]}}"));
        let told = super::lines(&of.validate_update(&object(new), &object(old)));
        assert_eq!(told, wanted, "{old} {new}");
    };
    check("10.0.0.0/24", "10.0.0.0/24", "");
    check("10.0.0.0/24", "10.0.0.0/24, 'fd00::/64'", "");
    let first =
        |range: &str| format!("spec.cidrs[0]: Invalid value: \"{range}\": field is immutable");
    check("10.0.0.0/24", "10.1.0.0/24", &first("10.1.0.0/24"));
    check("10.0.0.0/24", "10.1.0.0/24, 'fd00::/64'", &first("10.1.0.0/24"));
    let whole = "spec.cidrs: Invalid value: [\"10.0.0.0/24\"]: field is immutable";
    check("10.0.0.0/24, 'fd00::/64'", "10.0.0.0/24", whole);
}

/// The namespace that the tests use is one of the system's.
#[tokio::test]
async fn the_default_range_is_an_object() {
    let cluster = Cluster::with(&["10.0.0.0/24", "fd00::/112"]).await;
    let default = cluster.range("kubernetes").await.unwrap();
    assert_eq!(default["spec"]["cidrs"], json!(["10.0.0.0/24", "fd00::/112"]));
    let message = &default["status"]["conditions"][0]["message"];
    assert_eq!(message, "Kubernetes default Service CIDR is ready");
    assert_eq!(cluster.list(ResourceType::of::<Namespace>()).await.len(), 4);
}
