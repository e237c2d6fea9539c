//! Source: `test/e2e/apimachinery/webhook.go`.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::Pod,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::support::{
    Cluster, add_after, allowed, cluster, configuration, denied, for_maps, map, patched, refusal,
    typed, webhook, with,
};

fn pod(name: &str, container: &str) -> Pod {
    typed(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": container, "image": "pause"}]},
    }))
}

impl Cluster {
    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn deny_data(&self) {
        self.hook("deny", |review| match review["request"]["object"]["data"]["webhook-e2e-test"] {
            Value::Null => allowed(),
            _ => denied("the configmap contains unwanted key and value"),
        });
    }
}

#[tokio::test]
async fn should_include_webhook_resources_in_discovery_documents() {
    let cluster = cluster().await;
    let groups = cluster.client.list_api_groups().await.unwrap().groups;
    let group = groups.iter().find(|group| group.name == "admissionregistration.k8s.io").unwrap();
    let version = "admissionregistration.k8s.io/v1";
    assert!(group.versions.iter().any(|one| one.group_version == version));
    let listed = cluster.client.list_api_group_resources(version).await.unwrap().resources;
    for name in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        assert!(listed.iter().any(|one| one.name == name), "{name}");
    }
}

#[tokio::test]
async fn should_be_able_to_deny_pod_and_configmap_creation() {
    let cluster = cluster().await;
    cluster.deny_data();
    cluster.serve("pods", |review| async move {
        let object = &review["request"]["object"];
        match object["spec"]["containers"][0]["name"].as_str() {
            Some("webhook-disallow") => denied("the pod contains unwanted container name"),
            Some("sleepy") => std::future::pending().await,
            _ => allowed(),
        }
    });
    let selector = json!({"matchExpressions": [
        {"key": "skip", "operator": "NotIn", "values": ["yes"]},
    ]});
    let maps = webhook("deny", &["CREATE", "UPDATE", "DELETE"], "", "configmaps");
    let pods = with(webhook("pods", &["CREATE"], "", "pods"), "timeoutSeconds", json!(1));
    cluster.validate("deny", vec![with(maps, "namespaceSelector", selector), pods]).await;

    let create = PostParams::default();
    let (_, message) =
        refusal(cluster.pods().create(&create, &pod("bad", "webhook-disallow")).await);
    assert_eq!(
        message,
        "admission webhook \"pods.example.com\" denied the request: the pod contains unwanted container name"
    );
    let (code, message) = refusal(cluster.pods().create(&create, &pod("slow", "sleepy")).await);
    assert_eq!((code, message.contains("context deadline exceeded")), (500, true), "{message}");
    assert!(cluster.pods().get_opt("slow").await.unwrap().is_none());

    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let (_, message) = refusal(cluster.create_map("bad", bad.clone()).await);
    assert!(message.ends_with("the configmap contains unwanted key and value"), "{message}");
    cluster.create_map("good", json!({"a": "b"})).await.unwrap();
    let mut changed = cluster.maps("default").get("good").await.unwrap();
    changed.data = typed(bad.clone());
    let (_, message) = refusal(cluster.maps("default").replace("good", &create, &changed).await);
    assert!(message.contains("denied the request"), "{message}");
    let patch = Patch::Merge(json!({"data": bad}));
    let patched = cluster.maps("default").patch("good", &PatchParams::default(), &patch).await;
    assert!(refusal(patched).1.contains("denied the request"));

    cluster.maps("marked").create(&create, &map("bad", bad)).await.unwrap();
}

#[tokio::test]
async fn should_be_able_to_deny_attaching_pod() {
    let cluster = cluster().await;
    cluster.hook("attach", |review| match review["request"]["object"]["stdin"] {
        Value::Bool(true) => denied("attaching to pod 'to-be-attached-pod' is not allowed"),
        _ => allowed(),
    });
    cluster.validate("attach", vec![webhook("attach", &["CONNECT"], "", "pods/attach")]).await;
    cluster.pods().create(&PostParams::default(), &pod("to-be-attached-pod", "c")).await.unwrap();
    let params = AttachParams::default().stdin(true).container("c");
    let attached = cluster.pods().attach("to-be-attached-pod", &params).await;
    let error = attached.err().unwrap().to_string();
    // The upgrade was refused, whatever the client makes of the refusal's body.
    assert!(error.contains("400"), "{error}");
    let request = &cluster.asked()[0]["request"];
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(request["kind"]["kind"], "PodAttachOptions");
    assert_eq!(request["subResource"], "attach");
    assert_eq!(request["object"]["container"], "c");
    assert_eq!(request["options"], Value::Null);
}

#[tokio::test]
async fn should_unconditionally_reject_operations_on_fail_closed_webhook() {
    let cluster = cluster().await;
    let hook = with(for_maps("nobody"), "failurePolicy", json!("Fail"));
    cluster.validate("closed", vec![hook]).await;
    let (code, message) = refusal(cluster.create_map("any", json!({})).await);
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "Internal error occurred: failed calling webhook \"nobody.example.com\": failed to call \
         webhook: Post \"https://nobody.default.svc:443/ask?timeout=10s\": service \"nobody\" not found"
    );
}

#[tokio::test]
async fn should_mutate_configmap() {
    let cluster = cluster().await;
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    cluster.hook("two", |review| add_after(review, "mutation-stage-1", "mutation-stage-2"));
    cluster.mutate("maps", vec![for_maps("one"), for_maps("two")]).await;
    let made = cluster.create_map("map", json!({"mutation-start": "yes"})).await.unwrap();
    let expected =
        json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(made.data, typed(expected));
}

#[tokio::test]
async fn should_mutate_pod_and_apply_defaults_after_mutation() {
    let cluster = cluster().await;
    cluster.hook("pods", |_| {
        let container = json!({"name": "webhook-added-init-container", "image": "webhook-image"});
        patched(&json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    });
    cluster.mutate("pods", vec![webhook("pods", &["CREATE"], "", "pods")]).await;
    let made = cluster.pods().create(&PostParams::default(), &pod("p", "c")).await.unwrap();
    let containers = made.spec.unwrap().init_containers.unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].name, "webhook-added-init-container");
    assert_eq!(containers[0].termination_message_policy.as_deref(), Some("File"));
}

#[tokio::test]
async fn should_not_be_able_to_mutate_or_prevent_deletion_of_webhook_configuration_objects() {
    let cluster = cluster().await;
    let both = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    cluster.hook("never", |_| denied("nobody may"));
    cluster.hook("label", |_| {
        patched(&json!([{"op": "add", "path": "/metadata/labels/added", "value": "yes"}]))
    });
    let rules = |operations: &[&str]| json!([{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": both}]);
    let never = with(webhook("never", &["*"], "*", "*"), "rules", rules(&["DELETE"]));
    let label = with(webhook("label", &["*"], "*", "*"), "rules", rules(&["CREATE"]));
    cluster.validate("never", vec![never]).await;
    cluster.mutate("label", vec![label]).await;
    let dummy = configuration("dummy", vec![for_maps("nobody")]);
    let create = PostParams::default();
    let made = cluster.validating().create(&create, &typed(dummy.clone())).await.unwrap();
    assert_eq!(made.metadata.labels, typed(json!({"test": "list"})));
    let made = cluster.mutating().create(&create, &typed(dummy)).await.unwrap();
    assert_eq!(made.metadata.labels, typed(json!({"test": "list"})));
    cluster.validating().delete("dummy", &DeleteParams::default()).await.unwrap();
    cluster.mutating().delete("dummy", &DeleteParams::default()).await.unwrap();
    assert!(cluster.asked().is_empty());
}

#[tokio::test]
async fn should_deny_crd_creation() {
    let cluster = cluster().await;
    cluster.hook("crd", |review| {
        match review["request"]["object"]["metadata"]["labels"]["webhook-e2e-test"].as_str() {
            Some("webhook-disallow") => denied("the crd contains unwanted label"),
            _ => allowed(),
        }
    });
    let group = "apiextensions.k8s.io";
    let hook = webhook("crd", &["CREATE"], group, "customresourcedefinitions");
    cluster.validate("crd", vec![hook]).await;
    let definition: CustomResourceDefinition = typed(json!({
        "metadata": {"name": "widgets.example.com", "labels": {"webhook-e2e-test": "webhook-disallow"}},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                          "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }));
    let all: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let (_, message) = refusal(all.create(&PostParams::default(), &definition).await);
    assert!(message.ends_with("denied the request: the crd contains unwanted label"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn should_honor_timeout() {
    let cluster = cluster().await;
    cluster.serve("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        allowed()
    });
    let configure = async |timeout: Value, policy: &str| {
        let hook = with(for_maps("slow"), "timeoutSeconds", timeout);
        cluster.validate("slow", vec![with(hook, "failurePolicy", json!(policy))]).await;
    };
    let clear =
        async || cluster.validating().delete("slow", &DeleteParams::default()).await.unwrap();
    configure(json!(1), "Fail").await;
    let (code, message) = refusal(cluster.create_map("a", json!({})).await);
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call \
         webhook: Post \"https://slow.default.svc:443/ask?timeout=1s\": context deadline exceeded"
    );
    clear().await;
    for (timeout, policy) in [(json!(1), "Ignore"), (json!(10), "Fail"), (Value::Null, "Fail")] {
        configure(timeout, policy).await;
        cluster.create_map("a", json!({})).await.unwrap();
        clear().await;
        cluster.maps("default").delete("a", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn patching_updating_a_validating_webhook_should_work() {
    let cluster = cluster().await;
    cluster.deny_data();
    cluster.validate("deny", vec![for_maps("deny")]).await;
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    refusal(cluster.create_map("bad", bad.clone()).await);
    let mut configuration = cluster.validating().get("deny").await.unwrap();
    let hooks = configuration.webhooks.as_mut().unwrap();
    hooks[0].rules.as_mut().unwrap()[0].operations = Some(vec!["UPDATE".into()]);
    cluster.validating().replace("deny", &PostParams::default(), &configuration).await.unwrap();
    cluster.create_map("bad", bad.clone()).await.unwrap();
    let path = "/webhooks/0/rules/0/operations";
    let patch = json!([{"op": "replace", "path": path, "value": ["CREATE"]}]);
    let patch = Patch::<()>::Json(typed(patch));
    cluster.validating().patch("deny", &PatchParams::default(), &patch).await.unwrap();
    refusal(cluster.create_map("worse", bad).await);
}

#[tokio::test]
async fn patching_updating_a_mutating_webhook_should_work() {
    let cluster = cluster().await;
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    cluster.mutate("one", vec![for_maps("one")]).await;
    let mutated = async |name: &str| {
        let made = cluster.create_map(name, json!({"mutation-start": "yes"})).await.unwrap();
        made.data.unwrap().contains_key("mutation-stage-1")
    };
    let mut configuration = cluster.mutating().get("one").await.unwrap();
    let hooks = configuration.webhooks.as_mut().unwrap();
    hooks[0].rules.as_mut().unwrap()[0].operations = Some(vec!["UPDATE".into()]);
    cluster.mutating().replace("one", &PostParams::default(), &configuration).await.unwrap();
    assert!(!mutated("a").await);
    let path = "/webhooks/0/rules/0/operations";
    let patch = json!([{"op": "replace", "path": path, "value": ["CREATE"]}]);
    let patch = Patch::<()>::Json(typed(patch));
    cluster.mutating().patch("one", &PatchParams::default(), &patch).await.unwrap();
    assert!(mutated("b").await);
}

#[tokio::test]
async fn listing_validating_webhooks_should_work() {
    let cluster = cluster().await;
    cluster.deny_data();
    for index in 0..10 {
        cluster.validate(&format!("deny-{index}"), vec![for_maps("deny")]).await;
    }
    let listed = ListParams::default().labels("test=list");
    assert_eq!(cluster.validating().list(&listed).await.unwrap().items.len(), 10);
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    refusal(cluster.create_map("bad", bad.clone()).await);
    cluster.validating().delete_collection(&DeleteParams::default(), &listed).await.unwrap();
    cluster.create_map("bad", bad).await.unwrap();
}

#[tokio::test]
async fn listing_mutating_webhooks_should_work() {
    let cluster = cluster().await;
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    for index in 0..10 {
        cluster.mutate(&format!("one-{index}"), vec![for_maps("one")]).await;
    }
    let listed = ListParams::default().labels("test=list");
    assert_eq!(cluster.mutating().list(&listed).await.unwrap().items.len(), 10);
    let data = json!({"mutation-start": "yes"});
    let made = cluster.create_map("a", data.clone()).await.unwrap();
    assert_eq!(made.data.unwrap().len(), 2);
    cluster.mutating().delete_collection(&DeleteParams::default(), &listed).await.unwrap();
    assert_eq!(cluster.create_map("b", data).await.unwrap().data.unwrap().len(), 1);
}
