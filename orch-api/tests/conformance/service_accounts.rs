//! ServiceAccounts: as objects, their tokens, and what pods get of them.
//!
//! Source: `test/e2e/auth/service_accounts.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, call, name, names, text},
    world::World,
};

const NAMESPACE: &str = "accounts";

/// A pod gets a token mounted where it says so itself, or else where its account does not say no.
pub(super) async fn should_allow_opting_out_of_api_token_automount() {
    let world = World::with_namespace(NAMESPACE).await;
    let accounts = world.of("v1", "ServiceAccount", NAMESPACE).await;
    for (name, mounts) in [("mount", true), ("nomount", false)] {
        let account = json!({"metadata": {"name": name}, "automountServiceAccountToken": mounts});
        accounts.create(account).await;
    }
    let pods = world.of("v1", "Pod", NAMESPACE).await;
    for (account, pod, expected) in [
        ("default", None, true),
        ("mount", None, true),
        ("nomount", None, false),
        ("default", Some(true), true),
        ("mount", Some(true), true),
        ("nomount", Some(true), true),
        ("default", Some(false), false),
        ("mount", Some(false), false),
        ("nomount", Some(false), false),
    ] {
        let containers = json!([{"name": "token-test", "image": "agnhost"}]);
        let made = pods.create(json!({
            "metadata": {"generateName": "pod-service-account-"},
            "spec": {"serviceAccountName": account, "containers": containers,
                "automountServiceAccountToken": pod},
        }));
        let made = made.await;
        let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array();
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let found = mounts.into_iter().flatten().any(|mount| mount["mountPath"] == path);
        assert_eq!(found, expected, "{account} {pod:?}");
    }
}

/// An account is seen by a watch as it comes and goes, patched, and found by its label.
pub(super) async fn should_run_through_the_lifecycle_of_a_serviceaccount() {
    let world = World::with_namespace(NAMESPACE).await;
    let accounts = world.of("v1", "ServiceAccount", NAMESPACE).await;
    let everywhere = world.all("v1", "ServiceAccount").await;
    let selector = "test-serviceaccount-static=true";
    let mut watch = accounts.watch(selector, "").await;
    let made = accounts
        .create(json!({"metadata": {"name": "testserviceaccount",
            "labels": {"test-serviceaccount-static": "true"}}}))
        .await;
    watch.expect_object("ADDED", &made).await;
    let patch = json!({"automountServiceAccountToken": false});
    let patched = accounts.patch(name(&made), STRATEGIC, patch).await;
    watch.expect_object("MODIFIED", &patched).await;
    let found = everywhere.list(selector).await;
    assert_eq!(names(&found), ["testserviceaccount"]);
    assert_eq!(found[0]["automountServiceAccountToken"], false);
    accounts.delete_all(selector).await;
    watch.expect("DELETED", "testserviceaccount").await;
}

/// What an update changes is read afterwards.
pub(super) async fn should_update_a_serviceaccount() {
    let world = World::with_namespace(NAMESPACE).await;
    let accounts = world.of("v1", "ServiceAccount", NAMESPACE).await;
    let account = json!({"metadata": {"name": "e2e-sa"}, "automountServiceAccountToken": false});
    let mut made = accounts.create(account).await;
    made["automountServiceAccountToken"] = json!(true);
    assert_eq!(accounts.replace(made).await["automountServiceAccountToken"], true);
    assert_eq!(accounts.get("e2e-sa").await["automountServiceAccountToken"], true);
}

/// A token that is asked for is believed by a review.
pub(super) async fn should_create_a_serviceaccounttoken_and_ensure_a_successful_tokenreview() {
    let world = World::with_namespace(NAMESPACE).await;
    let accounts = world.of("v1", "ServiceAccount", NAMESPACE).await;
    let made = accounts.create(json!({"metadata": {"name": "e2e-sa"}})).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600}});
    let path = format!("{}/e2e-sa/token", accounts.path);
    let answer = call(&world.client, "POST", &path, &[], Some(request.to_string())).await.unwrap();
    let token = text(&answer, "/status/token");
    assert!(!token.is_empty());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = call(&world.client, "POST", path, &[], Some(review.to_string())).await.unwrap();
    let status = &answer["status"];
    assert_eq!((&status["authenticated"], &status["error"]), (&json!(true), &Value::Null));
    assert_eq!(status["user"]["username"], format!("system:serviceaccount:{NAMESPACE}:e2e-sa"));
    assert_eq!(status["user"]["uid"], made["metadata"]["uid"]);
}
