//! Source: `test/e2e/apimachinery/webhook.go`, the behaviours about custom resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::support::{Cluster, add_after, allowed, cluster, denied, refusal, typed, webhook};

const GROUP: &str = "stable.example.com";

/// A definition whose objects have `data`: any, or only some keys.
pub(super) fn definition(versions: &[(&str, bool)], keys: Option<&[&str]>) -> Value {
    let data = match keys {
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        Some(keys) => {
            let fields: serde_json::Map<String, Value> =
                keys.iter().map(|key| ((*key).to_owned(), json!({"type": "string"}))).collect();
            json!({"type": "object", "properties": fields})
        }
    };
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"data": data}}});
    let versions: Vec<Value> = versions
        .iter()
        .map(|(name, storage)| {
            json!({"name": name, "served": true, "storage": storage, "schema": schema})
        })
        .collect();
    json!({
        "metadata": {"name": format!("widgets.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"}, "versions": versions,
        },
    })
}

pub(super) fn widget(version: &str, name: &str, data: impl Into<Value>) -> DynamicObject {
    let data: Value = data.into();
    typed(json!({
        "apiVersion": format!("{GROUP}/{version}"), "kind": "Widget",
        "metadata": {"name": name}, "data": data,
    }))
}

impl Cluster {
    pub(super) fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    pub(super) async fn define(&self, definition: Value) {
        self.definitions().create(&PostParams::default(), &typed(definition)).await.unwrap();
    }

    fn add_stages(&self) {
        self.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
        self.hook("two", |review| add_after(review, "mutation-stage-1", "mutation-stage-2"));
    }
}

#[tokio::test]
async fn should_be_able_to_deny_custom_resource_creation_update_and_deletion() {
    let cluster = cluster().await;
    cluster.define(definition(&[("v1", true)], None)).await;
    cluster.hook("deny", |review| {
        let object = match review["request"]["operation"].as_str() {
            Some("DELETE") => &review["request"]["oldObject"],
            _ => &review["request"]["object"],
        };
        match object["data"]["webhook-e2e-test"].as_str() {
            Some("webhook-disallow") => denied("the custom resource contains unwanted data"),
            _ => allowed(),
        }
    });
    let operations = ["CREATE", "UPDATE", "DELETE"];
    cluster.validate("deny", vec![webhook("deny", &operations, GROUP, "widgets")]).await;
    let objects = cluster.objects("v1", "Widget");
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let create = PostParams::default();
    let (_, message) = refusal(objects.create(&create, &widget("v1", "w", bad.clone())).await);
    assert!(message.ends_with("the custom resource contains unwanted data"), "{message}");
    let allowed = json!({"webhook-e2e-test": "webhook-allow"});
    objects.create(&create, &widget("v1", "w", allowed)).await.unwrap();
    let worse = Patch::Merge(json!({"data": bad}));
    refusal(objects.patch("w", &PatchParams::default(), &worse).await);
    // What is there already may be deleted only once it complies.
    cluster.validating().delete("deny", &DeleteParams::default()).await.unwrap();
    objects.patch("w", &PatchParams::default(), &worse).await.unwrap();
    cluster.validate("deny", vec![webhook("deny", &operations, GROUP, "widgets")]).await;
    let (_, message) = refusal(objects.delete("w", &DeleteParams::default()).await);
    assert!(message.contains("denied the request"), "{message}");
    let deleted = objects.delete_collection(&DeleteParams::default(), &Default::default()).await;
    refusal(deleted);
    let better = Patch::Merge(json!({"data": {"webhook-e2e-test": null}}));
    objects.patch("w", &PatchParams::default(), &better).await.unwrap();
    objects.delete("w", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn should_mutate_custom_resource() {
    let cluster = cluster().await;
    cluster.define(definition(&[("v1", true)], None)).await;
    cluster.add_stages();
    let hook = |name: &str| webhook(name, &["CREATE"], GROUP, "widgets");
    cluster.mutate("stages", vec![hook("one"), hook("two")]).await;
    let objects = cluster.objects("v1", "Widget");
    let object = widget("v1", "w", json!({"mutation-start": "yes"}));
    let made = objects.create(&PostParams::default(), &object).await.unwrap();
    let expected =
        json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(made.data["data"], expected);
}

#[tokio::test]
async fn should_mutate_custom_resource_with_pruning() {
    let cluster = cluster().await;
    let keys = ["mutation-start", "mutation-stage-1"];
    cluster.define(definition(&[("v1", true)], Some(&keys))).await;
    cluster.add_stages();
    let hook = |name: &str| webhook(name, &["CREATE"], GROUP, "widgets");
    cluster.mutate("stages", vec![hook("one"), hook("two")]).await;
    let objects = cluster.objects("v1", "Widget");
    let object = widget("v1", "w", json!({"mutation-start": "yes"}));
    let made = objects.create(&PostParams::default(), &object).await.unwrap();
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    assert_eq!(made.data["data"], expected);
    assert_eq!(cluster.asked().len(), 2, "nobody wants to be asked again");
}

#[tokio::test]
async fn should_mutate_custom_resource_with_different_stored_version() {
    let cluster = cluster().await;
    cluster.define(definition(&[("v1", true), ("v2", false)], None)).await;
    cluster.add_stages();
    let hook = |name: &str| webhook(name, &["CREATE", "UPDATE"], GROUP, "widgets");
    cluster.mutate("stages", vec![hook("one"), hook("two")]).await;
    let objects = cluster.objects("v1", "Widget");
    let object = widget("v1", "w", json!({"mutation-start": "yes"}));
    objects.create(&PostParams::default(), &object).await.unwrap();
    let storage = |version: usize, storage: bool| json!({"op": "replace", "path": format!("/spec/versions/{version}/storage"), "value": storage});
    let patch = Patch::<()>::Json(typed(json!([storage(0, false), storage(1, true)])));
    let name = format!("widgets.{GROUP}");
    cluster.definitions().patch(&name, &PatchParams::default(), &patch).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"dummy": "test"}}));
    let patched = objects.patch("w", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["data"]["dummy"], "test");
    let last = cluster.asked().pop().unwrap();
    assert_eq!(last["request"]["kind"]["version"], "v1");
    assert_eq!(last["request"]["object"]["apiVersion"], format!("{GROUP}/v1"));
}
