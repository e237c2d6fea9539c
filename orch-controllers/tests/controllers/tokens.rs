//! Tokens by which machines join.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use orch_controllers::bootstrap_token::{bootstrap_signer, token_cleaner};
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
