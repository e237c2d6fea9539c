//! What webhooks are asked, and what their answers do.

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Namespace,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orch_api::admission::AuditAnnotations;
use serde_json::{Value, json};
use tower::Service as _;

use super::support::{
    Cluster, add_after, allowed, cluster, configuration, denied, for_maps, map, patched, refusal,
    typed, webhook, with,
};

fn deployment(replicas: u32) -> Deployment {
    let labels = json!({"a": "b"});
    typed(json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }))
}

#[tokio::test]
async fn a_review_has_what_upstreams_has() {
    let cluster = cluster().await;
    cluster.hook("see", |_| allowed());
    let all = ["CREATE", "UPDATE", "DELETE"];
    cluster.validate("see", vec![webhook("see", &all, "", "configmaps")]).await;
    let params = PostParams { dry_run: false, field_manager: Some("me".into()) };
    cluster.maps("default").create(&params, &map("m", json!({"a": "b"}))).await.unwrap();
    let review = &cluster.asked()[0];
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    let mut request = review["request"].clone();
    assert!(request["uid"].as_str().is_some_and(|uid| !uid.is_empty()));
    assert_eq!(request["object"]["data"], json!({"a": "b"}));
    assert_eq!(request["object"]["kind"], "ConfigMap");
    for field in ["uid", "object"] {
        request.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(
        request,
        json!({
            "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "requestResource": {"group": "", "version": "v1", "resource": "configmaps"},
            "name": "m", "namespace": "default", "operation": "CREATE",
            "userInfo": {"username": "test", "groups": ["system:masters", "system:authenticated"]},
            "oldObject": null, "dryRun": false,
            "options": {
                "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me",
            },
        })
    );
    let patch = Patch::Merge(json!({"data": {"a": "c"}}));
    cluster.maps("default").patch("m", &PatchParams::default(), &patch).await.unwrap();
    cluster.maps("default").delete("m", &DeleteParams::default()).await.unwrap();
    let asked = cluster.asked();
    let (update, delete) = (&asked[0]["request"], &asked[1]["request"]);
    assert_eq!(update["oldObject"]["data"], json!({"a": "b"}));
    assert_eq!(update["object"]["data"], json!({"a": "c"}));
    assert_eq!(update["options"]["kind"], "UpdateOptions");
    assert_eq!(delete["object"], Value::Null);
    assert_eq!(delete["oldObject"]["data"], json!({"a": "c"}));
    assert_eq!(delete["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn namespaces_are_in_themselves() {
    let cluster = cluster().await;
    cluster.hook("see", |_| denied("no"));
    let selector = json!({"matchLabels": {"watched": "yes"}});
    let hook = with(webhook("see", &["*"], "", "namespaces"), "namespaceSelector", selector);
    cluster.validate("see", vec![hook]).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace =
        |name: &str, labels: Value| typed(json!({"metadata": {"name": name, "labels": labels}}));
    let create = PostParams::default();
    namespaces.create(&create, &namespace("free", json!({}))).await.unwrap();
    let watched = namespace("watched", json!({"watched": "yes"}));
    refusal(namespaces.create(&create, &watched).await);
    let request = &cluster.asked()[0]["request"];
    assert_eq!((&request["name"], &request["namespace"]), (&json!("watched"), &json!("watched")));
}

#[tokio::test]
async fn other_versions_of_a_resource_are_equivalent() {
    let cluster = cluster().await;
    cluster.hook("see", |review| {
        let spec = &review["request"]["object"]["spec"];
        let percent = spec["targetCPUUtilizationPercentage"].as_i64().unwrap() + 1;
        let path = "/spec/targetCPUUtilizationPercentage";
        patched(&json!([{"op": "replace", "path": path, "value": percent}]))
    });
    let mut hook = webhook("see", &["CREATE"], "autoscaling", "horizontalpodautoscalers");
    hook["rules"][0]["apiVersions"] = json!(["v1"]);
    cluster.mutate("see", vec![hook.clone()]).await;
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let scaler = |name: &str| -> HorizontalPodAutoscaler {
        typed(json!({
            "metadata": {"name": name},
            "spec": {
                "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }))
    };
    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(cluster.client.clone());
    let made = scalers.create(&PostParams::default(), &scaler("a")).await.unwrap();
    let made = serde_json::to_value(made).unwrap();
    let used = "/spec/metrics/0/resource/target/averageUtilization";
    assert_eq!(made.pointer(used), Some(&json!(51)));
    let request = &cluster.asked()[0]["request"];
    assert_eq!(request["resource"]["version"], "v1");
    assert_eq!(request["requestResource"]["version"], "v2");
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    let exact = with(hook, "matchPolicy", json!("Exact"));
    let mut configuration = cluster.mutating().get("see").await.unwrap();
    configuration.webhooks = Some(vec![typed(exact)]);
    cluster.mutating().replace("see", &PostParams::default(), &configuration).await.unwrap();
    scalers.create(&PostParams::default(), &scaler("b")).await.unwrap();
    assert!(cluster.asked().is_empty());
}

#[tokio::test]
async fn subresources_are_shown_as_what_they_are() {
    let cluster = cluster().await;
    cluster.hook("see", |review| match review["request"]["kind"]["kind"].as_str() {
        Some("Scale") => patched(&json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
        _ => allowed(),
    });
    let mut hook = webhook("see", &["*"], "apps", "deployments/*");
    hook["rules"][0]["resources"] = json!(["deployments/scale", "deployments/status"]);
    cluster.mutate("see", vec![hook]).await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    deployments.create(&PostParams::default(), &deployment(1)).await.unwrap();
    assert!(cluster.asked().is_empty(), "the rule is about subresources only");
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let scale = deployments.patch_scale("d", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    assert_eq!(deployments.get("d").await.unwrap().spec.unwrap().replicas, Some(5));
    let request = &cluster.asked()[0]["request"];
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
    assert_eq!(request["subResource"], "scale");
    let status = Patch::Merge(json!({"status": {"replicas": 1}}));
    deployments.patch_status("d", &PatchParams::default(), &status).await.unwrap();
    let request = &cluster.asked()[0]["request"];
    assert_eq!(
        (&request["kind"]["kind"], &request["subResource"]),
        (&json!("Deployment"), &json!("status"))
    );
}

#[tokio::test]
async fn a_webhook_with_side_effects_is_not_asked_in_a_dry_run() {
    let cluster = cluster().await;
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    cluster.mutate("one", vec![for_maps("one")]).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let object = map("m", json!({"mutation-start": "yes"}));
    let made = cluster.maps("default").create(&dry, &object).await.unwrap();
    assert_eq!(made.data.unwrap().len(), 2);
    let request = &cluster.asked()[0]["request"];
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["options"]["dryRun"], json!(["All"]));
    let some = with(for_maps("one"), "sideEffects", json!("Some"));
    let bad = configuration("two", vec![some]);
    let (code, message) =
        refusal(cluster.mutating().create(&PostParams::default(), &typed(bad)).await);
    assert_eq!(code, 422);
    assert!(message.contains("supported values: \"None\", \"NoneOnDryRun\""), "{message}");
}

#[tokio::test]
async fn those_who_were_asked_before_a_change_are_asked_again_if_they_want() {
    let cluster = cluster().await;
    // Adds as many marks as it is asked.
    cluster.hook("first", |review| {
        let data = &review["request"]["object"]["data"];
        let key = if data["other"].is_null() { "before" } else { "after" };
        patched(&json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]))
    });
    cluster.hook("second", |_| {
        patched(&json!([{"op": "add", "path": "/data/other", "value": "yes"}]))
    });
    let again = |policy: &str| with(for_maps("first"), "reinvocationPolicy", json!(policy));
    cluster.mutate("again", vec![again("IfNeeded"), for_maps("second")]).await;
    let made = cluster.create_map("a", json!({})).await;
    let (code, message) = refusal(made);
    assert_eq!(code, 500, "there is no data to add to: {message}");
    cluster.asked();
    let made = cluster.create_map("a", json!({"x": "y"})).await.unwrap();
    let keys: Vec<String> = made.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["after", "before", "other", "x"]);
    assert_eq!(cluster.asked().len(), 3);
    let mut never = cluster.mutating().get("again").await.unwrap();
    never.webhooks = Some(vec![typed(again("Never")), typed(for_maps("second"))]);
    cluster.mutating().replace("again", &PostParams::default(), &never).await.unwrap();
    cluster.create_map("b", json!({"x": "y"})).await.unwrap();
    assert_eq!(cluster.asked().len(), 2);
}

async fn post(cluster: &Cluster, body: Value) -> http::Response<orch_api::connect::BoxBody> {
    let request = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    cluster.server.clone().call(request).await.unwrap()
}

#[tokio::test]
async fn warnings_and_annotations_reach_the_client_and_the_audit_layer() {
    let cluster = cluster().await;
    cluster.hook("tell", |_| {
        json!({
            "allowed": false, "warnings": ["think again"], "auditAnnotations": {"why": "because"},
            "status": {"code": 403, "reason": "Forbidden", "message": "no"},
        })
    });
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    cluster.validate("tell", vec![for_maps("tell")]).await;
    cluster.mutate("one", vec![for_maps("one")]).await;
    let body = json!({"metadata": {"name": "m"}, "data": {"mutation-start": "yes"}});
    let response = post(&cluster, body).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["warning"], "299 - \"think again\"");
    let told = response.extensions().get::<AuditAnnotations>().unwrap();
    assert_eq!(told.0["tell.example.com/why"], "because");
    assert_eq!(
        serde_json::from_str::<Value>(&told.0["mutation.webhook.admission.k8s.io/round_0_index_0"])
            .unwrap(),
        json!({"configuration": "one", "webhook": "one.example.com", "mutated": true})
    );
    assert!(told.0.contains_key("patch.webhook.admission.k8s.io/round_0_index_0"));
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_upstream_does() {
    let cluster = cluster().await;
    cluster.mutate("bad", vec![for_maps("bad")]).await;
    let check = async |response: Value, expected: &str| {
        cluster.hook("bad", move |_| response.clone());
        let (code, message) = refusal(cluster.create_map("m", json!({})).await);
        let whole = format!(
            "Internal error occurred: failed calling webhook \"bad.example.com\": {expected}"
        );
        assert_eq!((code, message), (500, whole));
    };
    let invalid = "received invalid webhook response: webhook returned response.patch but not response.patchType";
    check(json!({"allowed": true, "patch": "W10="}), invalid).await;
    let undecodable =
        "received undecodable patch in webhook response: expected value at line 1 column 1";
    check(json!({"allowed": true, "patch": "eHg=", "patchType": "JSONPatch"}), undecodable).await;
    let failing = tower::service_fn(|_: http::Request<orch_api::connect::BoxBody>| async {
        let mut response = http::Response::new("broken".to_owned());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        Ok::<_, std::convert::Infallible>(response)
    });
    cluster.services.serve("default", "bad", failing);
    let (_, message) = refusal(cluster.create_map("m", json!({})).await);
    let why = "failed to call webhook: an error on the server (\"broken\") has prevented the request from succeeding";
    assert!(message.ends_with(why), "{message}");
}
