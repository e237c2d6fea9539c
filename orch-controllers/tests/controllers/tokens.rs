//! Tokens: by which machines join, and of ServiceAccounts.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret, ServiceAccount},
};
use orch_controllers::{
    bootstrap_token::{bootstrap_signer, token_cleaner},
    service_account::{TokenError, TokenGenerator, service_account_token},
};
use orch_core::Resources;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::world::World;

fn secret(id: &str, fields: &Value) -> Secret {
    let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef"});
    json_patch::merge(&mut data, fields);
    let data = data.as_object().unwrap().iter().map(|(name, value)| {
        (name.clone(), ByteString(value.as_str().unwrap().as_bytes().to_vec()))
    });
    Secret {
        metadata: serde_json::from_value(json!({"name": format!("bootstrap-token-{id}")})).unwrap(),
        type_: Some("bootstrap.kubernetes.io/token".into()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn of<K: orch_core::informer::Watchable>(world: &World, namespace: &str) -> Resources<K> {
    Resources::namespaced(Arc::new(world.cluster.clone()), namespace)
}

async fn signatures(world: &World) -> Vec<String> {
    let info = of::<ConfigMap>(world, "kube-public").get("cluster-info").await.unwrap();
    let data = info.data.clone().unwrap_or_default();
    data.into_keys().filter(|name| name != "kubeconfig").collect()
}

#[tokio::test(start_paused = true)]
async fn cluster_info_is_signed_with_every_token_that_may() {
    let world =
        World::start(|informers| vec![bootstrap_signer(informers), token_cleaner(informers)]);
    let secrets = of::<Secret>(&world, "kube-system");
    let signs = json!({"usage-bootstrap-signing": "true"});
    secrets.create(&secret("aaaaaa", &signs)).await.unwrap();
    secrets.create(&secret("bbbbbb", &json!({}))).await.unwrap();
    let mut soon = signs.clone();
    soon["expiration"] = json!("2026-01-01T00:10:00Z");
    secrets.create(&secret("cccccc", &soon)).await.unwrap();
    let info = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "one"}});
    let info: ConfigMap = serde_json::from_value(info).unwrap();
    let maps = of::<ConfigMap>(&world, "kube-public");
    maps.create(&info).await.unwrap();
    let are = async |names: &[&str]| {
        let wanted: Vec<String> =
            names.iter().map(|name| format!("jws-kubeconfig-{name}")).collect();
        let is = async |world: &World| (signatures(world).await == wanted).then_some(());
        world.eventually("the signatures", is).await;
    };
    are(&["aaaaaa", "cccccc"]).await;
    let first = maps.get("cluster-info").await.unwrap().data.clone().unwrap();
    let writes = world.writes();
    world.pass(300).await;
    assert_eq!(world.writes(), writes);

    // Another content has other signatures, and a token that goes takes its own along.
    let patch = json!({"data": {"kubeconfig": "two"}});
    let kind = orch_core::client::PatchKind::Merge;
    maps.patch("cluster-info", kind, patch).await.unwrap();
    let name = "jws-kubeconfig-aaaaaa";
    let changed = async |_: &World| {
        let data = maps.get("cluster-info").await.unwrap().data.clone()?;
        (data.get(name)? != &first[name]).then_some(())
    };
    world.eventually("another signature", changed).await;
    world.pass(600).await;
    are(&["aaaaaa"]).await;
    assert!(secrets.get_opt("bootstrap-token-cccccc").await.unwrap().is_none(), "it has expired");
    assert!(secrets.get_opt("bootstrap-token-bbbbbb").await.unwrap().is_some());
    secrets.delete("bootstrap-token-aaaaaa", Default::default()).await.unwrap();
    are(&[]).await;
}

/// Makes tokens that tell what they were made of.
struct Telling;

impl TokenGenerator for Telling {
    fn token(&self, account: &ServiceAccount, secret: &Secret) -> Result<String, TokenError> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let account = account.metadata.name.as_deref().unwrap_or_default();
        if name == "refused" {
            return Err(TokenError("not this one".into()));
        }
        Ok(format!("{account} in {name}"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_asks_for_a_token_gets_one_until_its_account_goes() {
    let world = World::start(|informers| {
        vec![service_account_token(informers, Arc::new(Telling), Some("CERTIFICATES"))]
    });
    let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "a"}, {"name": "b"}]});
    world.create::<ServiceAccount>(account).await;
    let ask = |name: &str, account: &str| {
        let annotations = json!({"kubernetes.io/service-account.name": account});
        json!({"metadata": {"name": name, "annotations": annotations},
            "type": "kubernetes.io/service-account-token"})
    };
    world.create::<Secret>(ask("a", "robot")).await;
    world.create::<Secret>(json!({"metadata": {"name": "other"}})).await;
    let filled = async |world: &World| {
        let secret = world.get::<Secret>("a").await?;
        let data = secret.data.as_ref()?;
        assert_eq!(data.get("token")?.0, b"robot in a");
        assert_eq!(data["namespace"].0, b"default");
        assert_eq!(data.get("ca.crt")?.0, b"CERTIFICATES");
        let annotations = secret.metadata.annotations.as_ref().unwrap();
        let account = annotations.get("kubernetes.io/service-account.uid");
        assert!(account.is_some_and(|uid| !uid.is_empty()));
        Some(())
    };
    world.eventually("a token", filled).await;
    assert!(world.get::<Secret>("other").await.unwrap().data.is_none());
    // Whoever takes something out gets it back.
    world.patch::<Secret>("a", json!({"data": {"ca.crt": null}})).await;
    world.eventually("a token", filled).await;
    let writes = world.writes();
    world.pass(600).await;
    assert_eq!(world.writes(), writes);

    // An account that does not exist has no tokens, and one that is gone keeps none.
    world.create::<Secret>(ask("lost", "nobody")).await;
    let gone = async |name: &str| {
        let is = async |world: &World| world.get::<Secret>(name).await.is_none().then_some(());
        world.eventually("the secret is gone", is).await;
    };
    gone("lost").await;
    world.create::<Secret>(ask("b", "robot")).await;
    world.delete::<Secret>("b").await;
    let unlisted = async |world: &World| {
        let account = world.get::<ServiceAccount>("robot").await?;
        let listed = account.secrets.as_ref()?;
        (listed.len() == 1 && listed[0].name.as_deref() == Some("a")).then_some(())
    };
    world.eventually("the account forgets it", unlisted).await;
    world.delete::<ServiceAccount>("robot").await;
    gone("a").await;
}
