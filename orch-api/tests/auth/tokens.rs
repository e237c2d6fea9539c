//! Service account tokens: issued, believed, and no longer believed.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use orch_api::{
    auth::{
        Anonymous, Authenticator, Authenticators, StaticTokens, UserInfo,
        jwt::TokenKey,
        service_account::{DEFAULT_ISSUER, ServiceAccountTokens, TokenRequests, token_in_secret},
    },
    strategy::{VirtualResource, WriteContext},
};
use orch_core::{
    ApiError, Environment, ResourceType, Resources, Target, client::DeleteOptions,
    testing::MemoryClient,
};
use serde_json::{Value, json};

struct Setup {
    key: TokenKey,
    client: Arc<MemoryClient>,
    environment: Environment,
    tokens: ServiceAccountTokens,
}

fn setup() -> Setup {
    let epoch = Timestamp::from_second(1_700_000_000).unwrap();
    let environment = Environment::seeded(epoch, 1);
    let client = Arc::new(MemoryClient::new(environment.clone()));
    let key = TokenKey::generate().unwrap();
    let tokens = ServiceAccountTokens::new(key.clone(), client.clone(), environment.clone());
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "builder", "namespace": "a"}});
    client.seed(&ResourceType::of::<ServiceAccount>(), account).unwrap();
    Setup { key, client, environment, tokens }
}

impl Setup {
    async fn request(&self, spec: Value) -> Result<Value, ApiError> {
        let ctx = WriteContext {
            user: Arc::new(UserInfo::master("root")),
            client: self.client.clone(),
            environment: self.environment.clone(),
            dry_run: false,
        };
        let resource = ResourceType::of::<ServiceAccount>();
        let target = Target::object(resource, Some("a"), "builder").subresource("token");
        TokenRequests::new(self.tokens.clone()).create(&ctx, &target, json!({"spec": spec})).await
    }

    async fn token(&self, spec: Value) -> String {
        let answer = self.request(spec).await.unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn user(&self, token: &str) -> Option<UserInfo> {
        self.tokens.authenticate(&bearer(token)).await.unwrap_or_default()
    }
}

fn bearer(token: &str) -> http::request::Parts {
    let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0
}

#[tokio::test(start_paused = true)]
async fn a_token_names_its_account_until_it_expires() {
    let setup = setup();
    let token = setup.token(json!({"expirationSeconds": 600})).await;
    let user = setup.user(&token).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:a:builder");
    assert!(user.in_group("system:serviceaccounts:a") && user.in_group("system:authenticated"));
    assert!(user.uid.is_some());
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(setup.user(&token).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_token_dies_with_what_it_is_bound_to() {
    let setup = setup();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {"serviceAccountName": "builder", "containers": []}});
    let pod = setup.client.seed(&ResourceType::of::<Pod>(), pod).unwrap();
    let uid = pod.metadata().uid.clone().unwrap();
    let bound = |uid: &str| {
        json!({"boundObjectRef":
        {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}})
    };
    let other = setup.request(bound("another")).await.unwrap_err();
    assert_eq!(other.code(), 409);
    let token = setup.token(bound(&uid)).await;
    let user = setup.user(&token).await.unwrap();
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    let pods: Resources<Pod> = Resources::namespaced(setup.client.clone(), "a");
    let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    pods.delete("web", now).await.unwrap();
    assert_eq!(setup.user(&token).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_a_secret_is_good_while_the_secret_holds_it() {
    let setup = setup();
    let accounts: Resources<ServiceAccount> = Resources::namespaced(setup.client.clone(), "a");
    let account = accounts.get("builder").await.unwrap();
    let token = token_in_secret(&setup.key, &account, "builder-token").unwrap();
    assert_eq!(setup.user(&token).await, None, "no secret holds it");
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "builder-token", "namespace": "a"},
        "type": "kubernetes.io/service-account-token",
        "data": {"token": k8s_openapi::ByteString(token.clone().into_bytes())}});
    setup.client.seed(&ResourceType::of::<Secret>(), secret).unwrap();
    let user = setup.user(&token).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:a:builder");
    assert!(user.in_group("system:serviceaccounts:a") && user.extra.is_empty());
    // Its use is noted, and it does not expire.
    let secrets: Resources<Secret> = Resources::namespaced(setup.client.clone(), "a");
    let labels = secrets.get("builder-token").await.unwrap().metadata.labels.clone().unwrap();
    assert_eq!(labels["kubernetes.io/legacy-token-last-used"], "2023-11-14");
    tokio::time::advance(Duration::from_secs(10 * 365 * 86_400)).await;
    assert!(setup.user(&token).await.is_some());
    assert_eq!(setup.tokens.review(&token, &["vault".into()]).await.unwrap(), None);
    let invalid = json!({"metadata": {"labels": {
        "kubernetes.io/legacy-token-invalid-since": "2024-01-01"}}});
    let kind = orch_core::client::PatchKind::Merge;
    secrets.patch("builder-token", kind, invalid).await.unwrap();
    assert_eq!(setup.user(&token).await, None);
    let valid = json!({"metadata": {"labels": {
        "kubernetes.io/legacy-token-invalid-since": null}}});
    secrets.patch("builder-token", kind, valid).await.unwrap();
    assert!(setup.user(&token).await.is_some());
    let other = json!({"data": {"token": "b3RoZXI="}});
    secrets.patch("builder-token", kind, other).await.unwrap();
    assert_eq!(setup.user(&token).await, None);
}

#[tokio::test(start_paused = true)]
async fn audiences_are_kept_apart() {
    let setup = setup();
    let token = setup.token(json!({"audiences": ["vault"]})).await;
    assert_eq!(setup.user(&token).await, None, "not for the API");
    let (_, matching) = setup.tokens.review(&token, &["vault".into()]).await.unwrap().unwrap();
    assert_eq!(matching, ["vault"]);
    assert_eq!(setup.tokens.discovery()["issuer"], DEFAULT_ISSUER);
}

#[tokio::test(start_paused = true)]
async fn wrong_requests_name_the_field() {
    let setup = setup();
    let error = setup.request(json!({"expirationSeconds": 1})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: \
         Invalid value: 1: may not specify a duration less than 10 minutes"
    );
    let reference =
        json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}});
    assert_eq!(setup.request(reference).await.unwrap_err().code(), 400);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_is_refused_not_anonymous() {
    let setup = setup();
    let ann = UserInfo::authenticated("ann", &["dev"]);
    let known: Authenticators = Authenticators(vec![
        Arc::new(StaticTokens::new().with("secret", ann.clone())),
        Arc::new(setup.tokens.clone()),
    ]);
    assert_eq!(known.authenticate(&bearer("secret")).await.unwrap(), Some(ann));
    assert_eq!(known.authenticate(&bearer("guess")).await.unwrap_err().code(), 401);
    let plain = http::Request::new(()).into_parts().0;
    assert_eq!(known.authenticate(&plain).await.unwrap(), None);
    let anonymous = Anonymous.authenticate(&plain).await.unwrap().unwrap();
    assert_eq!(anonymous.name, "system:anonymous");
}
