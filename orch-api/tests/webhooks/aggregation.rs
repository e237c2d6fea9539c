//! Source: `test/e2e/apimachinery/aggregator.go`; and what an aggregated API server is told.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::TryStreamExt as _;
use http::{HeaderMap, Request, Response};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{
    Api,
    api::{
        DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
};
use orch_api::{ApiServer, Bootstrap, auth::UserInfo, connect::BoxBody};
use orch_store::MemoryStore;
use serde_json::{Value, json};

use super::{
    custom_resources::{definition, widget},
    support::{Cluster, cluster, refusal, typed},
};

const NAME: &str = "v1.stable.example.com";

/// A server of its own that has widgets, as somebody's extension API server might.
async fn sample() -> ApiServer {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    server.bootstrap(&Bootstrap::default()).await.unwrap();
    let client = server.kube_client(UserInfo::master("test"), "default");
    let definitions: Api<DynamicObject> = Api::all_with(
        client,
        &kube::api::ApiResource {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "CustomResourceDefinition".into(),
            plural: "customresourcedefinitions".into(),
        },
    );
    let mut body = definition(&[("v1", true)], None);
    body["apiVersion"] = "apiextensions.k8s.io/v1".into();
    body["kind"] = "CustomResourceDefinition".into();
    definitions.create(&PostParams::default(), &typed(body)).await.unwrap();
    server
}

fn api_service(priority: i32) -> APIService {
    typed(json!({
        "metadata": {"name": NAME},
        "spec": {
            "group": "stable.example.com", "version": "v1",
            "groupPriorityMinimum": priority, "versionPriority": 200,
            "insecureSkipTLSVerify": true,
            "service": {"namespace": "default", "name": "sample-api", "port": 7443},
        },
    }))
}

impl Cluster {
    fn api_services(&self) -> Api<APIService> {
        Api::all(self.client.clone())
    }

    /// Waits until the condition has a reason; gives its status and message.
    pub(super) async fn condition(&self, reason: &str) -> (String, String) {
        let params = WatchParams::default().fields(&format!("metadata.name={NAME}"));
        let events = self.api_services().watch(&params, "0").await.unwrap();
        let found = events.try_filter_map(|event| {
            let object = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(object),
                _ => None,
            };
            let conditions = object.and_then(|object| object.status?.conditions);
            let found = conditions.unwrap_or_default().into_iter().find(|condition| {
                condition.type_ == "Available" && condition.reason.as_deref() == Some(reason)
            });
            std::future::ready(Ok(found))
        });
        let found = std::pin::pin!(found).try_next().await.unwrap().unwrap();
        (found.status, found.message.unwrap_or_default())
    }

    async fn aggregate(&self) {
        self.api_services().create(&PostParams::default(), &api_service(2000)).await.unwrap();
        self.condition("Passed").await;
    }

    async fn raw(&self, path: &str, accept: &str) -> Value {
        let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        self.client.request(request).await.unwrap()
    }
}

#[tokio::test]
async fn should_be_able_to_support_the_sample_api_server_using_the_current_aggregator() {
    let cluster = cluster().await;
    cluster.services.serve("default", "sample-api", sample().await);
    cluster.aggregate().await;
    let objects = cluster.objects("v1", "Widget");
    let create = PostParams::default();
    let made = objects.create(&create, &widget("v1", "flunder", json!({"a": "b"}))).await.unwrap();
    assert!(made.metadata.uid.is_some());
    let events = objects.watch(&WatchParams::default(), "0").await.unwrap();
    let first = std::pin::pin!(events).try_next().await.unwrap();
    assert!(matches!(first, Some(WatchEvent::Added(object)) if object.data["data"]["a"] == "b"));
    let patch = Patch::Merge(json!({"data": {"a": "c"}}));
    let patched = objects.patch("flunder", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["data"]["a"], "c");
    assert_eq!(objects.list(&ListParams::default()).await.unwrap().items.len(), 1);
    objects.delete("flunder", &DeleteParams::default()).await.unwrap();
    let (code, message) = refusal(objects.get("flunder").await);
    assert_eq!((code, message.as_str()), (404, "widgets.stable.example.com \"flunder\" not found"));

    let discovered =
        cluster.client.list_api_group_resources("stable.example.com/v1").await.unwrap();
    assert_eq!(discovered.resources[0].name, "widgets");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"test": "list"}}}));
    cluster.api_services().patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    let listed = ListParams::default().labels("test=list");
    assert_eq!(cluster.api_services().list(&listed).await.unwrap().items.len(), 1);
    cluster.api_services().delete_collection(&DeleteParams::default(), &listed).await.unwrap();
    assert_eq!(refusal(objects.get("flunder").await).0, 404);
    let groups = cluster.client.list_api_groups().await.unwrap().groups;
    assert!(groups.iter().all(|group| group.name != "stable.example.com"));
}

#[tokio::test]
async fn groups_of_others_are_discovered_among_ours() {
    let cluster = cluster().await;
    cluster.services.serve("default", "sample-api", sample().await);
    let mut other = definition(&[("v1", true)], None);
    other["metadata"]["name"] = "widgets.other.example.com".into();
    other["spec"]["group"] = "other.example.com".into();
    cluster.define(other).await;
    cluster.aggregate().await;
    let groups = cluster.client.list_api_groups().await.unwrap().groups;
    let at = |name: &str| groups.iter().position(|group| group.name == name).unwrap();
    assert!(at("apps") < at("stable.example.com"), "by its priority");
    assert!(at("stable.example.com") < at("other.example.com"), "before what definitions make");
    let group = cluster.raw("/apis/stable.example.com", "application/json").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "stable.example.com/v1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.raw("/apis", accept).await;
    let items = all["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["metadata"]["name"] == "stable.example.com").unwrap();
    let version = &found["versions"][0];
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][0]["resource"], "widgets");
    assert_eq!(version["resources"][0]["scope"], "Namespaced");
    let index = cluster.raw("/openapi/v3", "application/json").await;
    let url = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = cluster.raw(url, "application/json").await;
    assert!(document["paths"]["/apis/stable.example.com/v1/widgets"].is_object());
}

#[tokio::test]
async fn the_other_server_is_told_who_asks() {
    let cluster = cluster().await;
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let kept = seen.clone();
    cluster.services.serve(
        "default",
        "sample-api",
        tower::service_fn(move |request: Request<BoxBody>| {
            kept.lock().unwrap().push(request.headers().clone());
            std::future::ready(Ok::<_, Infallible>(Response::new("{}".to_owned())))
        }),
    );
    cluster.aggregate().await;
    let checks = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(checks[0]["x-remote-user"], "system:kube-aggregator");
    assert_eq!(checks[0]["x-remote-group"], "system:masters");
    let mut user = UserInfo::authenticated("ann", &["dev"]);
    user.extra.insert("team".into(), vec!["blue".into()]);
    let client = cluster.server.kube_client(user, "default");
    let request = Request::get("/apis/stable.example.com/v1/things?limit=1")
        .header("x-remote-user", "root")
        .header("authorization", "Bearer secret")
        .body(Vec::new())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    let headers = seen.lock().unwrap().pop().unwrap();
    let users: Vec<_> = headers.get_all("x-remote-user").iter().collect();
    assert_eq!(users, ["ann"]);
    let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
    assert_eq!(groups, ["dev", "system:authenticated"]);
    assert_eq!(headers["x-remote-extra-team"], "blue");
    assert!(!headers.contains_key("authorization"));
}

#[tokio::test]
async fn who_is_not_available_is_not_asked() {
    let cluster = cluster().await;
    cluster.api_services().create(&PostParams::default(), &api_service(2000)).await.unwrap();
    let (status, message) = cluster.condition("ServiceNotFound").await;
    assert_eq!(status, "False");
    assert_eq!(message, "service/sample-api in \"default\" is not present");
    let asked = cluster.objects("v1", "Widget").get("w").await;
    let error = asked.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 503), "{error}");
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::default_namespaced(cluster.client.clone());
    let service = json!({"metadata": {"name": "sample-api"}, "spec": {"ports": [{"port": 1}]}});
    services.create(&PostParams::default(), &typed(service)).await.unwrap();
    let (_, message) = cluster.condition("ServicePortError").await;
    assert_eq!(message, "service/sample-api in \"default\" is not listening on port 7443");
    // It comes up, and is found without being asked for.
    cluster.services.serve("default", "sample-api", sample().await);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"look": "again"}}}));
    services.patch("sample-api", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(cluster.condition("Passed").await, ("True".into(), "all checks passed".into()));
}

#[tokio::test]
async fn what_is_served_here_has_api_services_too() {
    let cluster = cluster().await;
    let bootstrap = Bootstrap { api_services: true, ..Bootstrap::default() };
    cluster.server.bootstrap(&bootstrap).await.unwrap();
    let apps = cluster.api_services().get("v1.apps").await.unwrap();
    let labels = apps.metadata.labels.unwrap();
    assert_eq!(labels["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let spec = apps.spec.unwrap();
    assert_eq!((spec.group_priority_minimum, spec.version_priority), (17800, 15));
    let condition = &apps.status.unwrap().conditions.unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("True", Some("Local")));
    assert!(cluster.api_services().get_opt("v1.").await.unwrap().is_some());
    assert!(cluster.api_services().get_opt(NAME).await.unwrap().is_none());
    cluster.define(definition(&[("v1", true)], None)).await;
    let custom = cluster.api_services().get(NAME).await.unwrap();
    let labels = custom.metadata.labels.unwrap();
    assert_eq!(labels["kube-aggregator.kubernetes.io/automanaged"], "true");
    let name = "widgets.stable.example.com";
    cluster.definitions().delete(name, &DeleteParams::default()).await.unwrap();
    let gone = cluster.api_services().watch(&WatchParams::default(), "0").await.unwrap();
    let gone = gone.try_filter(|event| {
        let own = |object: &APIService| object.metadata.name.as_deref() == Some(NAME);
        std::future::ready(matches!(event, WatchEvent::Deleted(object) if own(object)))
    });
    let still = cluster.api_services().get_opt(NAME).await.unwrap();
    if still.is_some() {
        std::pin::pin!(gone).try_next().await.unwrap();
    }
    assert!(cluster.api_services().get_opt(NAME).await.unwrap().is_none());
}

#[tokio::test]
async fn api_services_are_checked_as_upstream_does() {
    let cluster = cluster().await;
    let check = async |change: Value, expected: &str| {
        let mut body = serde_json::to_value(api_service(2000)).unwrap();
        for (name, value) in change.as_object().unwrap() {
            body["spec"][name] = value.clone();
        }
        let made = cluster.api_services().create(&PostParams::default(), &typed(body)).await;
        let (code, message) = refusal(made);
        assert_eq!((code, message.contains(expected)), (422, true), "{message}");
    };
    check(
        json!({"version": "v2"}),
        "must be `spec.version+\".\"+spec.group`: \"v2.stable.example.com\"",
    )
    .await;
    check(
        json!({"groupPriorityMinimum": 0}),
        "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
    )
    .await;
    check(json!({"service": null}), "local APIServices may not have insecureSkipTLSVerify").await;
    check(
        json!({"caBundle": "eA=="}),
        "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
    )
    .await;
}
