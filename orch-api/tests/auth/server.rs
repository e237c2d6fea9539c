//! The whole of access control around a server, by HTTP requests.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use orch_api::{
    ApiServer,
    admission::LateClient,
    auth::{
        StaticTokens, UserInfo,
        access_control::{AccessControl, AccessOptions, bootstrap_cluster},
    },
};
use orch_core::{Client, Environment};
use orch_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt as _;

async fn server() -> ApiServer {
    let environment = Environment::system();
    let late = LateClient::new();
    let client: Arc<dyn Client> = late.clone();
    let options = AccessOptions {
        static_tokens: StaticTokens::new()
            .with("root", UserInfo::master("root"))
            .with("ann", UserInfo::authenticated("ann", &["dev"])),
        ..AccessOptions::default()
    };
    let access = AccessControl::new(&client, &environment, options).unwrap();
    let server = ApiServer::builder(Arc::new(MemoryStore::default()))
        .environment(environment)
        .access_control(&access)
        .late_client(late)
        .build();
    bootstrap_cluster(&server.client(UserInfo::master("setup"))).await.unwrap();
    server
}

/// A request as the holder of a token (empty: nobody); gives the code and the JSON.
async fn call(
    server: &ApiServer,
    token: &str,
    request: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> (u16, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = request.body(Full::<Bytes>::from(body)).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

const PODS: &str = "GET /api/v1/namespaces/default/pods";

#[tokio::test]
async fn who_may_not_is_told_as_upstream_tells_it() {
    let server = server().await;
    let check = async |token: &str, request: &str, code: u16, message: &str| {
        let (found, answer) = call(&server, token, request, &[], None).await;
        let text = answer["message"].as_str().unwrap_or_default();
        assert_eq!((found, text), (code, message), "{token} {request}");
    };
    check(
        "ann",
        PODS,
        403,
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\"",
    )
    .await;
    check("root", PODS, 200, "").await;
    check("guess", PODS, 401, "Unauthorized").await;
    check("", "GET /version", 200, "").await;
    check("", "GET /apis", 403, "forbidden: User \"system:anonymous\" cannot get path \"/apis\"")
        .await;
    check("ann", "GET /apis", 200, "").await;
}

#[tokio::test]
async fn kubectl_auth_works() {
    let server = server().await;
    let can_i = async |token: &str| {
        let spec = json!({"resourceAttributes":
            {"verb": "list", "resource": "pods", "namespace": "default"}});
        let body = json!({"apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": spec});
        let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (code, answer) = call(&server, token, path, &[], Some(body)).await;
        assert_eq!(code, 201, "{answer}");
        answer["status"]["allowed"].as_bool().unwrap()
    };
    assert!(!can_i("ann").await);
    assert!(can_i("root").await);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "dev"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}]});
    let path = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let (code, answer) = call(&server, "ann", path, &[], Some(binding.clone())).await;
    assert_eq!(code, 403, "{answer}");
    let (code, answer) = call(&server, "root", path, &[], Some(binding)).await;
    assert_eq!(code, 201, "{answer}");
    while !can_i("ann").await {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&server, "ann", PODS, &[], None).await.0, 200);

    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, answer) = call(&server, "ann", path, &[], Some(body)).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "ann", "groups": ["dev", "system:authenticated"]})
    );
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"}});
    let path = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let (code, answer) = call(&server, "ann", path, &[], Some(rules)).await;
    assert_eq!(code, 201, "{answer}");
    assert!(answer["status"]["resourceRules"].as_array().unwrap().len() > 5, "{answer}");
}

#[tokio::test]
async fn a_service_account_calls_with_the_token_it_was_given() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}});
    let (code, answer) =
        call(&server, "root", &format!("POST {accounts}"), &[], Some(account)).await;
    assert_eq!(code, 201, "{answer}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": []}});
    let path = format!("POST {accounts}/bot/token");
    let (code, answer) = call(&server, "root", &path, &[], Some(request)).await;
    assert_eq!(code, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let (code, answer) = call(&server, &token, PODS, &[], None).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("\"system:serviceaccount:default:bot\""), "{message}");
    let (code, keys) = call(&server, &token, "GET /openid/v1/jwks", &[], None).await;
    assert_eq!((code, &keys["keys"][0]["alg"]), (200, &json!("ES256")));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}});
    let path = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    let (code, answer) = call(&server, "root", path, &[], Some(review)).await;
    assert_eq!((code, &answer["status"]["authenticated"]), (201, &json!(true)), "{answer}");
    let (code, _) = call(&server, "root", &format!("DELETE {accounts}/bot"), &[], None).await;
    assert_eq!(code, 200);
    assert_eq!(call(&server, &token, PODS, &[], None).await.0, 401);
}

#[tokio::test]
async fn impersonation_is_by_header() {
    let server = server().await;
    let (code, answer) = call(&server, "root", PODS, &[("impersonate-user", "bob")], None).await;
    assert_eq!(code, 403);
    assert!(answer["message"].as_str().unwrap().contains("User \"bob\" cannot list"), "{answer}");
    let (code, answer) = call(&server, "ann", PODS, &[("impersonate-user", "root")], None).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("User \"ann\" cannot impersonate resource \"users\""), "{message}");
}

#[tokio::test]
async fn what_is_created_is_admitted() {
    let server = server().await;
    let pods = "POST /api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default"}});
    let path = "POST /api/v1/namespaces/default/serviceaccounts";
    assert_eq!(call(&server, "root", path, &[], Some(account)).await.0, 201);
    let (code, answer) = call(&server, "root", pods, &[], Some(pod.clone())).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["spec"]["serviceAccountName"], "default");
    assert_eq!(answer["spec"]["priority"], 0);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "1"}}});
    let path = "POST /api/v1/namespaces/default/resourcequotas";
    assert_eq!(call(&server, "root", path, &[], Some(quota)).await.0, 201);
    let mut second = pod;
    second["metadata"]["name"] = json!("second");
    let (code, answer) = call(&server, "root", pods, &[], Some(second)).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "pods \"second\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, \
         limited: pods=1"
    );
    let (code, answer) =
        call(&server, "root", "DELETE /api/v1/namespaces/kube-system", &[], None).await;
    assert_eq!(code, 403, "{answer}");
}
