//! Source: `test/e2e/apimachinery/validatingadmissionpolicy.go`, `mutatingadmissionpolicy.go`: the
//! operations that the API has for policies and bindings.

use std::fmt::Debug;

use futures::TryStreamExt as _;
use k8s_openapi::{
    ClusterResourceScope,
    api::admissionregistration::v1::{
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding,
    },
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::support::{Cluster, cluster, typed};

const VERSION: &str = "admissionregistration.k8s.io/v1";

async fn discovered(cluster: &Cluster, resources: &[&str]) {
    let groups = cluster.client.list_api_groups().await.unwrap().groups;
    let group = groups.iter().find(|group| group.name == "admissionregistration.k8s.io").unwrap();
    assert!(group.versions.iter().any(|one| one.group_version == VERSION));
    let listed = cluster.client.list_api_group_resources(VERSION).await.unwrap().resources;
    for resource in resources {
        assert!(listed.iter().any(|one| one.name == *resource), "{resource}");
    }
}

/// Creates three, and reads, watches, changes and deletes them.
async fn operate<K>(cluster: &Cluster, spec: Value)
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>
        + k8s_openapi::Resource
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let all: Api<K> = Api::all(cluster.client.clone());
    let body = |name: &str| -> K {
        typed(json!({"metadata": {"name": name, "labels": {"test": "operations"}}, "spec": spec}))
    };
    let create = PostParams::default();
    for name in ["a", "b", "c"] {
        all.create(&create, &body(name)).await.unwrap();
    }
    let ours = ListParams::default().labels("test=operations");
    let list = all.list(&ours).await.unwrap();
    assert_eq!(list.items.len(), 3);
    let version = list.metadata.resource_version.unwrap();
    let watch =
        all.watch(&WatchParams::default().labels("test=operations"), &version).await.unwrap();
    let got = all.get("a").await.unwrap();
    assert!(got.uid().is_some());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"patched": "true"}}}));
    let patched = all.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.annotations()["patched"], "true");
    let mut updated = all.get("a").await.unwrap();
    updated.annotations_mut().insert("updated".into(), "true".into());
    let updated = all.replace("a", &create, &updated).await.unwrap();
    assert_eq!(updated.annotations()["updated"], "true");
    all.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(all.get_opt("a").await.unwrap().is_none());
    let events: Vec<WatchEvent<K>> = {
        let mut watch = std::pin::pin!(watch);
        let mut events = Vec::new();
        while events.len() < 3 {
            events.extend(watch.try_next().await.unwrap());
        }
        events
    };
    assert!(
        matches!(events[0], WatchEvent::Modified(_))
            && matches!(events[1], WatchEvent::Modified(_))
    );
    assert!(matches!(&events[2], WatchEvent::Deleted(object) if object.name_any() == "a"));
    assert_eq!(all.list(&ours).await.unwrap().items.len(), 2);
    all.delete_collection(&DeleteParams::default(), &ours).await.unwrap();
    assert!(all.list(&ours).await.unwrap().items.is_empty());
}

fn rules() -> Value {
    json!({"resourceRules": [{
        "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
        "resources": ["deployments"],
    }]})
}

#[tokio::test]
async fn should_support_validating_admission_policy_api_operations() {
    let cluster = cluster().await;
    discovered(&cluster, &["validatingadmissionpolicies", "validatingadmissionpolicies/status"])
        .await;
    let spec = json!({
        "matchConstraints": rules(), "validations": [{"expression": "object.spec.replicas <= 100"}],
    });
    operate::<ValidatingAdmissionPolicy>(&cluster, spec.clone()).await;
    let all: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client.clone());
    let body = typed(json!({"metadata": {"name": "s"}, "spec": spec}));
    all.create(&PostParams::default(), &body).await.unwrap();
    let condition = json!({
        "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    all.patch_status("s", &PatchParams::default(), &patch).await.unwrap();
    let read = all.get_status("s").await.unwrap();
    assert_eq!(read.status.unwrap().conditions.unwrap()[0].reason, "E2E");
}

#[tokio::test]
async fn should_support_validating_admission_policy_binding_api_operations() {
    let cluster = cluster().await;
    discovered(&cluster, &["validatingadmissionpolicybindings"]).await;
    let spec = json!({"policyName": "replicalimit", "validationActions": ["Deny"]});
    operate::<ValidatingAdmissionPolicyBinding>(&cluster, spec).await;
}

#[tokio::test]
async fn should_support_mutating_admission_policy_api_operations() {
    let cluster = cluster().await;
    discovered(&cluster, &["mutatingadmissionpolicies"]).await;
    let expression = "Object{spec: Object.spec{replicas: 3}}";
    let spec = json!({
        "matchConstraints": rules(), "reinvocationPolicy": "Never",
        "mutations": [{
            "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression},
        }],
    });
    operate::<MutatingAdmissionPolicy>(&cluster, spec).await;
}

#[tokio::test]
async fn should_support_mutating_admission_policy_binding_api_operations() {
    let cluster = cluster().await;
    discovered(&cluster, &["mutatingadmissionpolicybindings"]).await;
    operate::<MutatingAdmissionPolicyBinding>(&cluster, json!({"policyName": "replicas"})).await;
}
