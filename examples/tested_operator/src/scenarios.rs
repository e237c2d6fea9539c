//! What must hold of the operator. Each scenario panics with what was seen instead if it does not.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orch::testing::{Calls, FaultRates, Faults, TestCluster, conditions};
use serde_json::json;

use crate::{
    operator::{self, Mistakes, ROUTES},
    site::{Site, SiteSpec},
};

/// Defines the kind, and starts the operator on a connection that fails as it is told to.
pub async fn start(cluster: &TestCluster, mistakes: Mistakes) -> Faults {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    definitions.create(&PostParams::default(), &Site::crd()).await.expect("it is defined");
    let faults = cluster.faults();
    tokio::spawn(operator::run(faults.ordered_client(), mistakes));
    faults
}

/// A site of this name, and its host.
pub async fn create(cluster: &TestCluster, name: &str) {
    let sites: Api<Site> = Api::default_namespaced(cluster.client());
    let site = Site::new(name, SiteSpec { host: format!("{name}.example"), replicas: 1 });
    sites.create(&PostParams::default(), &site).await.expect("it is created");
}

/// The site's replicas run, and its operator says that its host is routed.
pub async fn expect_served(cluster: &TestCluster, name: &str) {
    let sites: Api<Site> = Api::default_namespaced(cluster.client());
    let is_routed = |site: Option<&Site>| {
        site.and_then(|site| site.status.as_ref()).is_some_and(|status| status.routed)
    };
    cluster.expect(&sites, name).to("be routed", is_routed).await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    cluster.expect(&deployments, name).to("be available", conditions::is_available).await;
}

/// Exactly these sites have routes, now and after everything has come to rest.
pub async fn expect_routes(cluster: &TestCluster, names: &[&str]) {
    let tables: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let has_them = |table: Option<&ConfigMap>| {
        let routes = table.and_then(|table| table.data.clone()).unwrap_or_default();
        routes.len() == names.len() && routes.values().eq(names)
    };
    cluster.settle().await;
    cluster.expect(&tables, ROUTES).to(&format!("lead to {names:?}"), has_them).await;
}

/// Sites that are made at the same time write to the same table.
pub async fn every_site_gets_its_route(cluster: &TestCluster, mistakes: Mistakes) {
    start(cluster, mistakes).await;
    create(cluster, "docs").await;
    expect_served(cluster, "docs").await;
    join_all(["blog", "shop"].map(|name| create(cluster, name))).await;
    for name in ["blog", "shop"] {
        expect_served(cluster, name).await;
    }
    expect_routes(cluster, &["blog", "docs", "shop"]).await;
}

/// Informers are behind, sometimes for long.
pub async fn a_site_has_one_password(cluster: &TestCluster, mistakes: Mistakes) {
    let faults = start(cluster, mistakes).await;
    faults.delay_watches(Calls::watches().of::<Secret>(), Duration::from_secs(30));
    create(cluster, "blog").await;
    expect_served(cluster, "blog").await;
    cluster.settle().await;
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    let is_one = |secrets: &[Secret]| secrets.len() == 1;
    cluster.expect_all(&secrets).to("be one password", is_one).await;
}

/// What a site has goes with it.
pub async fn nothing_outlives_its_site(cluster: &TestCluster, mistakes: Mistakes) {
    start(cluster, mistakes).await;
    for name in ["blog", "docs"] {
        create(cluster, name).await;
        expect_served(cluster, name).await;
    }
    let sites: Api<Site> = Api::default_namespaced(cluster.client());
    sites.delete("blog", &DeleteParams::default()).await.expect("it is deleted");
    cluster.expect(&sites, "blog").to_be_gone().await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    cluster.expect(&deployments, "blog").to_be_gone().await;
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    cluster.expect_all(&secrets).to("be that of docs", |secrets| secrets.len() == 1).await;
    expect_routes(cluster, &["docs"]).await;
}

/// Sites come, change and go while one call in ten fails.
pub async fn whatever_happens_it_ends_well(cluster: &TestCluster, mistakes: Mistakes) {
    let faults = start(cluster, mistakes).await;
    faults.by_chance(FaultRates {
        conflict_permille: 50,
        server_error_permille: 50,
        timeout_permille: 20,
        transport_permille: 20,
        watch_drop_permille: 50,
        expired_permille: 20,
    });
    faults.slow(Duration::from_millis(500));
    let names = ["blog", "docs", "news", "shop"];
    join_all(names.map(|name| create(cluster, name))).await;
    let sites: Api<Site> = Api::default_namespaced(cluster.client());
    let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
    sites.patch("news", &PatchParams::default(), &two).await.expect("it is patched");
    cluster.advance(Duration::from_secs(60)).await;
    sites.delete("shop", &DeleteParams::default()).await.expect("it is deleted");
    faults.calm();
    for name in ["blog", "docs", "news"] {
        expect_served(cluster, name).await;
    }
    cluster.expect(&sites, "shop").to_be_gone().await;
    expect_routes(cluster, &["blog", "docs", "news"]).await;
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    cluster.expect_all(&secrets).to("be one for each", |secrets| secrets.len() == 3).await;
}
