//! What a write does to an object besides storing it: `cargo bench -p orch-core`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orch_core::{
    Object, cbor,
    patch::{self, FieldSet, Writer},
    protobuf, schema,
};
use serde_json::{Value, json};

fn pod() -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": "registry/web:1", "args": ["--port", "80"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [container("a"), container("b")],
            "volumes": [{"name": "data", "emptyDir": {}}], "nodeName": "node-1",
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}})
}

fn bench(c: &mut Criterion) {
    let definition = schema::of("", "v1", "Pod");
    let known = definition.expect("the schema has pods");
    let ignored = FieldSet::of_names(&["status"]);
    let writer = |manager| Writer {
        manager,
        api_version: "v1",
        subresource: None,
        time: jiff::Timestamp::UNIX_EPOCH,
        ignored: &ignored,
    };
    let mut live = pod();
    patch::update(definition, None, &mut live, &writer("kubectl"));
    let bytes = protobuf::encode(&pod()).expect("a pod has a protobuf form");
    let change = json!({"spec": {"containers": [{"name": "b", "image": "registry/web:2"}]}});

    let mut group = c.benchmark_group("pod");
    group.throughput(Throughput::Elements(1));
    group.bench_function("check_types_and_unknown_fields", |b| {
        let pod = pod();
        b.iter(|| (schema::check_types(known, &pod), schema::unknown_fields(known, &pod)));
    });
    group.bench_function("strategic_merge_patch", |b| {
        b.iter(|| patch::strategic_merge_patch(definition, &mut live.clone(), &change));
    });
    group.bench_function("managed_fields_of_a_create", |b| {
        b.iter(|| patch::update(definition, None, &mut pod(), &writer("kubectl")));
    });
    group.bench_function("managed_fields_of_a_status_update", |b| {
        let mut new = live.clone();
        new["status"] = json!({"phase": "Running"});
        let none = FieldSet::default();
        let kubelet = Writer { ignored: &none, ..writer("kubelet") };
        b.iter(|| patch::update(definition, Some(&live), &mut new.clone(), &kubelet));
    });
    group.bench_function("apply_unchanged", |b| {
        let config = pod();
        let live = patch::apply(definition, None, &config, &writer("me"), false).expect("applies");
        b.iter(|| patch::apply(definition, Some(&live), &config, &writer("me"), false));
    });
    group.bench_function("apply_changed", |b| {
        let live = patch::apply(definition, None, &pod(), &writer("me"), false).expect("applies");
        let mut config = pod();
        config["spec"]["containers"][1]["image"] = "registry/web:2".into();
        b.iter(|| patch::apply(definition, Some(&live), &config, &writer("me"), false));
    });
    group.bench_function("apply_conflicting", |b| {
        let live = patch::apply(definition, None, &pod(), &writer("me"), false).expect("applies");
        let mut config = pod();
        config["spec"]["containers"][1]["image"] = "registry/web:2".into();
        b.iter(|| patch::apply(definition, Some(&live), &config, &writer("you"), false));
    });
    group.throughput(Throughput::Bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
    group.bench_function("protobuf_decode", |b| b.iter(|| protobuf::decode(&bytes)));
    group.bench_function("protobuf_encode", |b| {
        let pod = pod();
        b.iter(|| protobuf::encode(&pod));
    });
    let packed = cbor::encode(&pod());
    group.throughput(Throughput::Bytes(u64::try_from(packed.len()).unwrap_or(u64::MAX)));
    group.bench_function("cbor_decode", |b| b.iter(|| cbor::decode(&packed)));
    group.bench_function("cbor_encode", |b| {
        let pod = pod();
        b.iter(|| cbor::encode(&pod));
    });
    let stored = Object::encode_for_store(&mut pod()).expect("a pod");
    group.throughput(Throughput::Bytes(u64::try_from(stored.len()).unwrap_or(u64::MAX)));
    group.bench_function("encode_for_store", |b| {
        let mut pod = pod();
        b.iter(|| Object::encode_for_store(&mut pod));
    });
    group.bench_function("from_stored", |b| b.iter(|| Object::from_stored(stored.clone(), 7)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
