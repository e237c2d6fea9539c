//! Reviews of what somebody may do.
//!
//! Source: `test/e2e/auth/subjectreviews.go`.

use serde_json::{Value, json};

use super::{objects::call, world::World};

const NAMESPACE: &str = "review";

/// What a review of the account says about listing ConfigMaps.
async fn reviewed(world: &World, local: bool, user: &str, groups: &[String], uid: &Value) -> bool {
    let kind = if local { "LocalSubjectAccessReview" } else { "SubjectAccessReview" };
    let place = if local { format!("namespaces/{NAMESPACE}/") } else { String::new() };
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": kind,
        "metadata": if local { json!({"namespace": NAMESPACE}) } else { json!({}) },
        "spec": {"user": user, "groups": groups, "uid": uid, "resourceAttributes": {
            "verb": "list", "resource": "configmaps", "namespace": NAMESPACE, "version": "v1"}},
    });
    let plural = format!("{}s", kind.to_lowercase());
    let path = format!("/apis/authorization.k8s.io/v1/{place}{plural}");
    let answer = call(&world.client, "POST", &path, &[], Some(review.to_string())).await.unwrap();
    answer["status"]["allowed"].as_bool().unwrap()
}

/// Both kinds of review say of an account what it finds when somebody acts as it; as long as
/// nobody lets it, and when a binding does.
pub(super) async fn should_support_subjectreview_api_operations() {
    let world = World::with_namespace(NAMESPACE).await;
    let accounts = world.of("v1", "ServiceAccount", NAMESPACE).await;
    let made = accounts.create(json!({"metadata": {"name": "e2e"}})).await;
    let uid = &made["metadata"]["uid"];
    let user = format!("system:serviceaccount:{NAMESPACE}:e2e");
    let groups = [
        "system:authenticated".to_owned(),
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{NAMESPACE}"),
    ];
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let mut headers =
        vec![("impersonate-user", user.as_str()), ("impersonate-uid", uid.as_str().unwrap())];
    headers.extend(groups.iter().map(|group| ("impersonate-group", group.as_str())));
    let tried = async || match call(&world.client, "GET", &path, &headers, None).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
            false
        }
    };
    assert!(!tried().await);
    assert!(!reviewed(&world, false, &user, &groups, uid).await);
    assert!(!reviewed(&world, true, &user, &groups, uid).await);
    assert!(!reviewed(&world, true, "e2e", &groups, uid).await);

    let bindings = world.of("rbac.authorization.k8s.io/v1", "RoleBinding", NAMESPACE).await;
    bindings
        .create(json!({
            "metadata": {"name": "view"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "e2e", "namespace": NAMESPACE}],
        }))
        .await;
    // The authorizer learns of the binding by a watch of its own.
    while !reviewed(&world, false, &user, &groups, uid).await {
        tokio::task::yield_now().await;
    }
    assert!(tried().await);
    assert!(reviewed(&world, true, &user, &groups, uid).await);
    assert!(!reviewed(&world, true, "e2e", &groups, uid).await);
}
