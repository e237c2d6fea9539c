//! Source: `test/e2e/apimachinery/crd_conversion_webhook.go`; and what goes wrong.

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::{Value, json};

use super::{
    custom_resources::{definition, widget},
    support::{Cluster, answer, cluster, refusal, typed},
};

/// Version 1 has `hostPort`, version 2 has `host` and `port`.
fn converted(object: &Value, to: &Value) -> Value {
    let mut object = object.clone();
    let data = object["data"].as_object_mut().unwrap();
    if to == "stable.example.com/v2" {
        if let Some(both) = data.remove("hostPort") {
            let (host, port) = both.as_str().unwrap().split_once(':').unwrap();
            data.insert("host".into(), host.into());
            data.insert("port".into(), port.into());
        }
    } else if let (Some(host), Some(port)) = (data.remove("host"), data.remove("port")) {
        let both = format!("{}:{}", host.as_str().unwrap(), port.as_str().unwrap());
        data.insert("hostPort".into(), both.into());
    }
    object["apiVersion"] = to.clone();
    object
}

fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let objects = request["objects"].as_array().unwrap().iter();
    let objects: Vec<Value> =
        objects.map(|object| converted(object, &request["desiredAPIVersion"])).collect();
    json!({"convertedObjects": objects, "result": {"status": "Success"}})
}

impl Cluster {
    /// Defines widgets that are stored in version 1 and converted by a webhook.
    async fn define_converted(&self) {
        let mut definition = definition(&[("v1", true), ("v2", false)], None);
        let service = json!({"namespace": "default", "name": "convert", "path": "/convert"});
        definition["spec"]["conversion"] = json!({
            "strategy": "Webhook",
            "webhook": {
                "clientConfig": {"service": service}, "conversionReviewVersions": ["v1", "v1beta1"],
            },
        });
        self.define(definition).await;
    }

    async fn store_in(&self, version: &str) {
        let mut definition = self.definitions().get("widgets.stable.example.com").await.unwrap();
        for one in &mut definition.spec.versions {
            one.storage = one.name == version;
        }
        let replace = PostParams::default();
        self.definitions()
            .replace("widgets.stable.example.com", &replace, &definition)
            .await
            .unwrap();
    }

    async fn create_widget(&self, version: &str, name: &str, data: Value) -> Value {
        let objects = self.objects(version, "Widget");
        let made = objects.create(&PostParams::default(), &widget(version, name, data)).await;
        made.unwrap().data["data"].clone()
    }
}

#[tokio::test]
async fn should_be_able_to_convert_from_cr_v1_to_cr_v2() {
    let cluster = cluster().await;
    cluster.hook("convert", convert);
    cluster.define_converted().await;
    let made = cluster.create_widget("v1", "w", json!({"hostPort": "localhost:8080"})).await;
    assert_eq!(made, json!({"hostPort": "localhost:8080"}));
    assert!(cluster.asked().is_empty(), "what is stored as it is spoken needs no webhook");
    let read = cluster.objects("v2", "Widget").get("w").await.unwrap();
    assert_eq!(read.data["data"], json!({"host": "localhost", "port": "8080"}));
    assert_eq!(read.types.unwrap().api_version, "stable.example.com/v2");
    let old = cluster.objects("v1", "Widget").get("w").await.unwrap();
    assert_eq!(old.metadata.resource_version, read.metadata.resource_version);
    assert_eq!(old.metadata.uid, read.metadata.uid);
}

#[tokio::test]
async fn should_be_able_to_convert_a_non_homogeneous_list_of_crs() {
    let cluster = cluster().await;
    cluster.hook("convert", convert);
    cluster.define_converted().await;
    cluster.create_widget("v1", "a", json!({"hostPort": "localhost:1"})).await;
    cluster.store_in("v2").await;
    cluster.create_widget("v2", "b", json!({"host": "localhost", "port": "2"})).await;
    cluster.asked();
    let list = cluster.objects("v2", "Widget").list(&ListParams::default()).await.unwrap();
    let data: Vec<&Value> = list.items.iter().map(|item| &item.data["data"]).collect();
    let one = |port: &str| json!({"host": "localhost", "port": port});
    assert_eq!(data, [&one("1"), &one("2")]);
    let asked = cluster.asked();
    assert_eq!(asked.len(), 1, "one call for the whole list");
    assert_eq!(asked[0]["request"]["objects"].as_array().unwrap().len(), 1);
    let list = cluster.objects("v1", "Widget").list(&ListParams::default()).await.unwrap();
    let data: Vec<&Value> = list.items.iter().map(|item| &item.data["data"]).collect();
    assert_eq!(data, [&json!({"hostPort": "localhost:1"}), &json!({"hostPort": "localhost:2"})]);
}

#[tokio::test]
async fn writes_and_watches_are_converted_too() {
    let cluster = cluster().await;
    cluster.hook("convert", convert);
    cluster.define_converted().await;
    let (one, two) = (cluster.objects("v1", "Widget"), cluster.objects("v2", "Widget"));
    let watch = two.watch(&WatchParams::default(), "0").await.unwrap();
    let made = cluster.create_widget("v2", "w", json!({"host": "h", "port": "1"})).await;
    assert_eq!(made, json!({"host": "h", "port": "1"}));
    let stored = one.get("w").await.unwrap();
    assert_eq!(stored.data["data"], json!({"hostPort": "h:1"}));
    let patch = Patch::Merge(json!({"data": {"port": "2"}}));
    let patched = two.patch("w", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["data"], json!({"host": "h", "port": "2"}));
    let mut replaced = one.get("w").await.unwrap();
    assert_eq!(replaced.data["data"], json!({"hostPort": "h:2"}));
    replaced.data["data"]["hostPort"] = "h:3".into();
    one.replace("w", &PostParams::default(), &replaced).await.unwrap();
    two.delete("w", &DeleteParams::default()).await.unwrap();
    let seen: Vec<(String, Value)> = watch
        .map_ok(|event| match event {
            WatchEvent::Added(object) => ("added".to_owned(), object.data["data"]["port"].clone()),
            WatchEvent::Modified(object) => {
                ("modified".into(), object.data["data"]["port"].clone())
            }
            WatchEvent::Deleted(object) => ("deleted".into(), object.data["data"]["port"].clone()),
            other => panic!("{other:?}"),
        })
        .take(4)
        .try_collect()
        .await
        .unwrap();
    let expected = [("added", "1"), ("modified", "2"), ("modified", "3"), ("deleted", "3")];
    let expected = expected.map(|(kind, port)| (kind.to_owned(), json!(port)));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_failed_conversion_is_told_as_upstream_does() {
    let cluster = cluster().await;
    cluster.define_converted().await;
    cluster.create_widget("v1", "w", json!({"hostPort": "localhost:8080"})).await;
    let read = async || refusal(cluster.objects("v2", "Widget").get("w").await);
    let prefix = "conversion webhook for stable.example.com/v1, Kind=Widget";
    let (code, message) = read().await;
    let why = "Post \"https://convert.default.svc:443/convert?timeout=30s\": service \"convert\" not found";
    assert_eq!((code, message), (500, format!("{prefix} failed: {why}")));
    cluster.hook("convert", |_| json!({"result": {"status": "Failure", "message": "cannot"}}));
    assert_eq!(read().await.1, format!("{prefix} failed: cannot"));
    cluster.hook("convert", |_| json!({"result": {"status": "Success"}}));
    assert_eq!(read().await.1, format!("{prefix} returned 0 objects, expected 1"));
    cluster.hook("convert", |review| {
        let mut response = convert(review);
        response["convertedObjects"][0]["metadata"]["name"] = "other".into();
        response
    });
    let why = "returned invalid converted object at index 0: must have the same name: w != other";
    assert_eq!(read().await.1, format!("{prefix} {why}"));
    let review: Value = json!({"apiVersion": "a", "kind": "b", "request": {"uid": "u"}});
    assert_eq!(answer(&review, json!({}))["response"]["uid"], "u");
}

#[tokio::test]
async fn conversions_are_checked_when_they_are_defined() {
    let cluster = cluster().await;
    let check = async |conversion: Value, expected: &str| {
        let mut definition = definition(&[("v1", true)], None);
        definition["spec"]["conversion"] = conversion;
        let made = cluster.definitions().create(&PostParams::default(), &typed(definition)).await;
        let (code, message) = refusal(made);
        assert_eq!((code, message.contains(expected)), (422, true), "{message}");
    };
    let webhook = |config: Value| {
        json!({
            "strategy": "Webhook",
            "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1"]},
        })
    };
    check(
        json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}}),
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
    )
    .await;
    check(
        webhook(json!({})),
        "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
    )
    .await;
    check(
        webhook(json!({"url": "https://h", "caBundle": "bm9uZQ=="})),
        "unable to load root certificates: unable to parse bytes as PEM block",
    )
    .await;
    check(
        json!({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}),
        "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
    )
    .await;
}
