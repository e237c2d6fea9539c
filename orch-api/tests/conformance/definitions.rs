//! Definitions of custom resources that several tests begin with.

use serde_json::{Value, json};

use super::{objects::Objects, world::World};

/// A definition with one schema for all of its versions; the first one is stored.
pub(super) fn definition(
    group: &str,
    kind: &str,
    scope: &str,
    versions: &[&str],
    schema: &Value,
) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(number, version)| {
            json!({"name": version, "served": true, "storage": number == 0,
                "schema": {"openAPIV3Schema": schema}})
        })
        .collect();
    json!({
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": scope, "versions": versions,
            "names": {"plural": plural, "singular": singular, "kind": kind,
                "listKind": format!("{kind}List")},
        },
    })
}

/// A schema that takes everything.
pub(super) fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

impl World {
    /// Creates a definition, and waits until it says that it is established.
    pub(super) async fn define(&self, definition: Value) -> Value {
        let definitions = self.definitions().await;
        let made = definitions.create(definition).await;
        let name = made["metadata"]["name"].as_str().unwrap();
        let from = format!("fieldSelector=metadata.name%3D{name}");
        let mut watch = definitions.watch_by(&from).await;
        watch.until(|_, object| established(object)).await
    }

    pub(super) async fn definitions(&self) -> Objects {
        self.all("apiextensions.k8s.io/v1", "CustomResourceDefinition").await
    }
}

fn established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    })
}
