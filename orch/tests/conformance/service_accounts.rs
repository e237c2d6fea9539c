//! Source: `test/e2e/auth/service_accounts.go`.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use orch::{
    Cluster,
    api::serve::{Pki, PkiOptions},
    cluster::ServeSetup,
    core::Environment,
};
use serde_json::json;

use crate::world::{MINUTE, World, eventually, object};

const NAME: &str = "kube-root-ca.crt";

#[tokio::test(start_paused = true)]
async fn should_guarantee_kube_root_ca_crt_exist_in_any_namespace() {
    let clock = Environment::system().clock;
    let pki = Pki::in_memory(&PkiOptions::default(), clock).expect("certificates");
    let expected = pki.ca_pem().to_owned();
    let address = "127.0.0.1:0".parse().expect("an address");
    let cluster = Cluster::builder().serve(ServeSetup::tls([address], pki)).start().await;
    let world = World::over(cluster.expect("it starts")).await;
    let maps: Api<ConfigMap> = world.api();
    let there = async |what: &str| {
        eventually(what, MINUTE, async || {
            let map = maps.get_opt(NAME).await.expect("an answer")?;
            (map.data?.get("ca.crt")? == &expected).then_some(())
        })
        .await;
    };
    there("it is created").await;
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    maps.delete(NAME, &at_once).await.expect("it is deleted");
    there("it is created again").await;
    let emptied = object(json!({"metadata": {"name": NAME}, "data": {"ca.crt": ""}}));
    maps.replace(NAME, &PostParams::default(), &emptied).await.expect("it is changed");
    there("it is mended").await;
    world.shutdown().await;
}
