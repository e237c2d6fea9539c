//! Each filter and each score, by data.

use std::{collections::BTreeMap, sync::Arc};

use orch_sched::{
    Candidates, CycleState, NodeInfo, Plugin, PodInfo, Snapshot, Verdict,
    plugins::{
        ImageLocality, InterPodAffinity, InterPodAffinityArguments, NodeAffinity, NodeName,
        NodePorts, NodeResourcesBalancedAllocation, NodeResourcesFit, NodeUnschedulable,
        PodTopologySpread, TaintToleration,
    },
};
use serde_json::{Value, json};

use crate::cluster::{cpu, node, pod};

fn pod_info(pod: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

/// Nodes by name, each with a patch and the pods on it.
type Nodes<'a> = &'a [(&'a str, Value, Vec<Value>)];

fn snapshot(nodes: Nodes<'_>) -> Snapshot {
    Snapshot::of(nodes.iter().map(|(name, patch, pods)| {
        let node = serde_json::from_value(node(name, patch.clone())).unwrap();
        NodeInfo::new(Arc::new(node), pods.iter().cloned().map(pod_info))
    }))
}

/// The verdict per node, as words: empty where the pod fits.
fn filtered(plugin: &dyn Plugin, pod: &PodInfo, snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut state = CycleState::default();
    let mut skip = false;
    let mut narrowed = None;
    if let Some(pre_filter) = plugin.as_pre_filter() {
        let outcome = pre_filter.pre_filter(&mut state, pod, snapshot).unwrap();
        skip = outcome.verdict == Verdict::Skip;
        narrowed = outcome.nodes;
    }
    let words = |node: &Arc<NodeInfo>| match plugin.as_filter() {
        _ if narrowed.as_ref().is_some_and(|names| !names.contains(&**node.name())) => {
            "narrowed out".to_owned()
        }
        Some(filter) if !skip => filter.filter(&state, pod, node).unwrap().message(),
        _ => String::new(),
    };
    snapshot.nodes().iter().map(|node| (node.name().to_string(), words(node))).collect()
}

/// The normalized score per node.
fn scored(plugin: &dyn Plugin, pod: &PodInfo, snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let mut state = CycleState::default();
    let nodes = snapshot.nodes();
    if let Some(pre_filter) = plugin.as_pre_filter() {
        pre_filter.pre_filter(&mut state, pod, snapshot).unwrap();
    }
    if let Some(pre_score) = plugin.as_pre_score()
        && pre_score.pre_score(&mut state, pod, &Candidates::each(nodes), snapshot).unwrap()
            == Verdict::Skip
    {
        return BTreeMap::new();
    }
    let score = plugin.as_score().unwrap();
    let mut scores: Vec<i64> =
        nodes.iter().map(|node| score.score(&state, pod, node).unwrap()).collect();
    score.normalize(&state, pod, nodes, &mut scores).unwrap();
    assert!(scores.iter().all(|score| (0..=100).contains(score)), "{scores:?}");
    nodes.iter().map(|node| node.name().to_string()).zip(scores).collect()
}

#[track_caller]
fn check(plugin: &dyn Plugin, pod: Value, nodes: Nodes<'_>, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(node, words)| ((*node).to_owned(), (*words).to_owned())).collect();
    assert_eq!(filtered(plugin, &pod_info(pod), &snapshot(nodes)), expected);
}

#[track_caller]
fn check_score(plugin: &dyn Plugin, pod: Value, nodes: Nodes<'_>, expected: &[(&str, i64)]) {
    let expected: BTreeMap<String, i64> =
        expected.iter().map(|(node, score)| ((*node).to_owned(), *score)).collect();
    assert_eq!(scored(plugin, &pod_info(pod), &snapshot(nodes)), expected);
}

fn plain(name: &str) -> (&str, Value, Vec<Value>) {
    (name, json!({}), vec![])
}

fn labelled<'a>(name: &'a str, key: &str, value: &str) -> (&'a str, Value, Vec<Value>) {
    (name, json!({"metadata": {"labels": {key: value}}}), vec![])
}

#[test]
fn node_name() {
    let nodes = [plain("a"), plain("b")];
    let wanted = pod("p", json!({"spec": {"nodeName": "a"}}));
    let reason = "node(s) didn't match the requested node name";
    check(&NodeName, wanted, &nodes, &[("a", ""), ("b", reason)]);
    check(&NodeName, pod("p", json!({})), &nodes, &[("a", ""), ("b", "")]);
}

#[test]
fn node_unschedulable() {
    let cordoned = ("b", json!({"spec": {"unschedulable": true}}), vec![]);
    let nodes = [plain("a"), cordoned];
    let reason = "node(s) were unschedulable";
    check(&NodeUnschedulable, pod("p", json!({})), &nodes, &[("a", ""), ("b", reason)]);
    let tolerates = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}});
    check(&NodeUnschedulable, pod("p", tolerates), &nodes, &[("a", ""), ("b", "")]);
}

fn tainted<'a>(name: &'a str, value: &str, effect: &str) -> (&'a str, Value, Vec<Value>) {
    let taint = json!({"key": "k", "value": value, "effect": effect});
    (name, json!({"spec": {"taints": [taint]}}), vec![])
}

#[test]
fn taint_toleration() {
    let nodes = [
        tainted("hard", "v", "NoSchedule"),
        tainted("gone", "v", "NoExecute"),
        tainted("soft", "v", "PreferNoSchedule"),
        tainted("five", "5", "NoSchedule"),
    ];
    let no = "node(s) had untolerated taint(s)";
    let all = |hard, gone, five| vec![("five", five), ("gone", gone), ("hard", hard), ("soft", "")];
    let with = |toleration: Value| pod("p", json!({"spec": {"tolerations": [toleration]}}));
    check(&TaintToleration, pod("p", json!({})), &nodes, &all(no, no, no));
    let equal = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
    check(&TaintToleration, with(equal), &nodes, &all("", no, no));
    check(&TaintToleration, with(json!({"operator": "Exists"})), &nodes, &all("", "", ""));
    check(&TaintToleration, with(json!({"key": "k", "value": "v"})), &nodes, &all("", "", no));
    let greater = json!({"key": "k", "operator": "Gt", "value": "4"});
    check(&TaintToleration, with(greater), &nodes, &all(no, no, ""));
    let nodes = [plain("a"), tainted("soft", "v", "PreferNoSchedule")];
    check_score(&TaintToleration, pod("p", json!({})), &nodes, &[("a", 100), ("soft", 0)]);
}

#[test]
fn node_affinity() {
    let nodes = [
        labelled("ssd", "disk", "ssd"),
        labelled("hdd", "disk", "hdd"),
        labelled("big", "size", "9"),
    ];
    let no = "node(s) didn't match Pod's node affinity/selector";
    let selector = pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    check(&NodeAffinity::default(), selector, &nodes, &[("big", no), ("hdd", no), ("ssd", "")]);
    let required = |term: Value| {
        let required = json!({"nodeSelectorTerms": [term]});
        pod(
            "p",
            json!({"spec": {"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": required}}}}),
        )
    };
    let expression = |key: &str, operator: &str, values: Value| {
        required(
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
        )
    };
    let rows = [
        (expression("disk", "In", json!(["hdd", "x"])), [no, "", no]),
        (expression("disk", "NotIn", json!(["hdd"])), ["", no, ""]),
        (expression("disk", "Exists", json!(null)), [no, "", ""]),
        (expression("disk", "DoesNotExist", json!(null)), ["", no, no]),
        (expression("size", "Gt", json!(["8"])), ["", no, no]),
        (expression("size", "Lt", json!(["8"])), [no, no, no]),
        (required(json!({})), [no, no, no]),
    ];
    for (pod, [big, hdd, ssd]) in rows {
        check(&NodeAffinity::default(), pod, &nodes, &[("big", big), ("hdd", hdd), ("ssd", ssd)]);
    }
    let field =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["ssd"]}]});
    let out = "narrowed out";
    check(
        &NodeAffinity::default(),
        required(field),
        &nodes,
        &[("big", out), ("hdd", out), ("ssd", "")],
    );

    let preference = |weight: i32, value: &str| {
        json!({"weight": weight, "preference": {"matchExpressions":
            [{"key": "disk", "operator": "In", "values": [value]}]}})
    };
    let preferred = pod(
        "p",
        json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [preference(80, "ssd"), preference(20, "hdd")]}}}}),
    );
    check_score(
        &NodeAffinity::default(),
        preferred,
        &nodes,
        &[("big", 0), ("hdd", 25), ("ssd", 100)],
    );
}

fn with_port(name: &str, port: i32, ip: &str, protocol: &str) -> Value {
    let port = json!({"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol});
    pod(name, json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}}))
}

#[test]
fn node_ports() {
    let taken = ("a", json!({}), vec![with_port("x", 80, "10.0.0.1", "TCP")]);
    let nodes = [taken, plain("b")];
    let no = "node(s) didn't have free ports for the requested pod ports";
    for (port, ip, protocol, a) in [
        (80, "10.0.0.1", "TCP", no),
        (80, "", "TCP", no),
        (80, "10.0.0.2", "TCP", ""),
        (80, "", "UDP", ""),
        (81, "", "TCP", ""),
    ] {
        check(&NodePorts, with_port("p", port, ip, protocol), &nodes, &[("a", a), ("b", "")]);
    }
}

#[test]
fn node_resources_fit() {
    let fit = NodeResourcesFit::default();
    let busy = ("busy", json!({}), vec![pod("x", cpu("3"))]);
    let full =
        ("full", json!({"status": {"allocatable": {"pods": "1"}}}), vec![pod("y", json!({}))]);
    let nodes = [plain("empty"), busy, full];
    check(
        &fit,
        pod("p", cpu("2")),
        &nodes,
        &[("busy", "Insufficient cpu"), ("empty", ""), ("full", "Too many pods")],
    );
    check(&fit, pod("p", cpu("1")), &nodes[..2], &[("busy", ""), ("empty", "")]);
    let extended = json!({"spec": {"containers": [{"name": "c", "resources":
        {"requests": {"example.com/gpu": "1", "memory": "9Gi", "ephemeral-storage": "1"}}}]}});
    check(
        &fit,
        pod("p", extended),
        &nodes[..1],
        &[(
            "empty",
            "Insufficient memory, Insufficient ephemeral-storage, Insufficient example.com/gpu",
        )],
    );
    // CPU: 1 of 4 free with the pod on the busy node, 3 of 4 on the empty one. Memory: 200 MiB each
    // pod, of 8 GiB.
    check_score(&fit, pod("p", cpu("1")), &nodes[..2], &[("busy", 47), ("empty", 86)]);
}

#[test]
fn balanced_allocation() {
    let balanced = NodeResourcesBalancedAllocation::default();
    let wants = |cpu: &str, memory: &str| {
        json!({"spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
    };
    let nodes = [plain("even"), ("odd", json!({}), vec![pod("x", wants("2", "0"))])];
    check_score(&balanced, pod("p", wants("1", "2Gi")), &nodes, &[("even", 100), ("odd", 75)]);
    check_score(&balanced, pod("p", json!({})), &nodes, &[]);
}

#[test]
fn image_locality() {
    let image = json!({"names": ["registry.example/app:v1"], "sizeBytes": 600 << 20});
    let nodes = [("has", json!({"status": {"images": [image]}}), vec![]), plain("lacks")];
    let wants =
        |image: &str| pod("p", json!({"spec": {"containers": [{"name": "c", "image": image}]}}));
    // One of two nodes has it, so that it counts as 300 MiB.
    check_score(
        &ImageLocality,
        wants("registry.example/app:v1"),
        &nodes,
        &[("has", 28), ("lacks", 0)],
    );
    check_score(&ImageLocality, wants("other"), &nodes, &[]);
}

fn app(name: &str, app: &str, spec: Value) -> Value {
    let mut pod = pod(name, json!({"spec": spec}));
    pod["metadata"]["labels"] = json!({"app": app});
    pod
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn required(kind: &str, term: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn inter_pod_affinity() {
    let plugin = InterPodAffinity::new(None, InterPodAffinityArguments::default());
    let zone = |name: &'static str, zone: &str, pods: Vec<Value>| {
        (name, json!({"metadata": {"labels": {"zone": zone}}}), pods)
    };
    let nodes = [
        zone("a1", "a", vec![app("db0", "db", json!({}))]),
        zone("a2", "a", vec![]),
        zone(
            "b1",
            "b",
            vec![app("lone", "lone", required("podAntiAffinity", term("web", "zone")))],
        ),
        plain("none"),
    ];
    let near = "node(s) didn't match pod affinity rules";
    let apart = "node(s) didn't match pod anti-affinity rules";
    let unwanted = "node(s) didn't satisfy existing pods anti-affinity rules";
    let with_db = app("p", "x", required("podAffinity", term("db", "zone")));
    check(&plugin, with_db, &nodes, &[("a1", ""), ("a2", ""), ("b1", near), ("none", near)]);
    let not_with_db =
        app("p", "x", required("podAntiAffinity", term("db", "kubernetes.io/hostname")));
    check(&plugin, not_with_db, &nodes, &[("a1", apart), ("a2", ""), ("b1", ""), ("none", "")]);
    let web = app("p", "web", json!({}));
    check(&plugin, web, &nodes, &[("a1", ""), ("a2", ""), ("b1", unwanted), ("none", "")]);
    let first = app("p", "new", required("podAffinity", term("new", "zone")));
    check(&plugin, first, &nodes, &[("a1", ""), ("a2", ""), ("b1", ""), ("none", near)]);
    let nobody = app("p", "x", required("podAffinity", term("nobody", "zone")));
    check(&plugin, nobody, &nodes, &[("a1", near), ("a2", near), ("b1", near), ("none", near)]);

    let preferred = |kind: &str| {
        let weighted = json!({"weight": 10, "podAffinityTerm": term("db", "zone")});
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}})
    };
    let towards = app("p", "x", preferred("podAffinity"));
    check_score(&plugin, towards, &nodes, &[("a1", 100), ("a2", 100), ("b1", 0), ("none", 0)]);
    let away = app("p", "x", preferred("podAntiAffinity"));
    check_score(&plugin, away, &nodes, &[("a1", 0), ("a2", 0), ("b1", 100), ("none", 100)]);
}

#[test]
fn pod_topology_spread() {
    let web = |name: &str| app(name, "web", json!({}));
    let zone = |name: &'static str, zone: &str, pods: Vec<Value>| {
        (name, json!({"metadata": {"labels": {"zone": zone}}}), pods)
    };
    let nodes = [
        zone("a1", "a", vec![web("w1"), web("w2")]),
        zone("b1", "b", vec![web("w3")]),
        plain("none"),
    ];
    let constraint = |when: &str, more: Value| {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}});
        for (key, value) in more.as_object().unwrap() {
            constraint[key] = value.clone();
        }
        app("p", "web", json!({"topologySpreadConstraints": [constraint]}))
    };
    let skewed = "node(s) didn't match pod topology spread constraints";
    let missing = "node(s) didn't match pod topology spread constraints (missing required label)";
    let hard = |more: Value| constraint("DoNotSchedule", more);
    check(
        &PodTopologySpread::default(),
        hard(json!({})),
        &nodes,
        &[("a1", skewed), ("b1", ""), ("none", missing)],
    );
    check(
        &PodTopologySpread::default(),
        hard(json!({"maxSkew": 2})),
        &nodes,
        &[("a1", ""), ("b1", ""), ("none", missing)],
    );
    check(
        &PodTopologySpread::default(),
        hard(json!({"minDomains": 3})),
        &nodes,
        &[("a1", skewed), ("b1", skewed), ("none", missing)],
    );
    let soft = constraint("ScheduleAnyway", json!({}));
    check_score(
        &PodTopologySpread::default(),
        soft,
        &nodes,
        &[("a1", 33), ("b1", 100), ("none", 0)],
    );
}
