//! What it takes to compile and to evaluate a typical rule of a custom resource.

use criterion::{Criterion, criterion_group, criterion_main};
use orch_cel::{Budget, Declared, DeclaredSizes, Environment, Value, Variables};
use serde_json::json;

const RULE: &str = "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas \
                    && self.hosts.all(h, h.matches('^[a-z0-9.-]+$') && h.size() < 64)";

fn declared() -> Declared {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"},
        "hosts": {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 64}},
    }});
    Declared::of_schema(&schema, false).expect("the schema is visible").named("spec")
}

fn rules(c: &mut Criterion) {
    let declared = declared();
    let environment = Environment::kubernetes().variable("self", &declared).build();
    let program = environment.compile(RULE).expect("the rule is correct");
    let object = json!({
        "replicas": 3, "minReplicas": 1, "maxReplicas": 5,
        "hosts": ["a.example.com", "b.example.com", "c.example.com", "d.example.com"],
    });
    c.bench_function("compile", |b| {
        b.iter(|| environment.compile(RULE).expect("the rule is correct"));
    });
    c.bench_function("evaluate", |b| {
        b.iter(|| {
            let value = Value::declared(&object, &declared).expect("the object fits");
            let variables = Variables::new().with("self", value);
            program.evaluate(&variables, &mut Budget::default()).expect("the rule holds")
        });
    });
    c.bench_function("estimate", |b| b.iter(|| program.estimate(&DeclaredSizes(&declared))));
}

criterion_group!(benches, rules);
criterion_main!(benches);
