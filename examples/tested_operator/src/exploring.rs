//! Sites come and go while everything fails, from many seeds.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::{Api, CustomResourceExt, ResourceExt, api::DeleteParams};
use orch::sim::{FaultPlan, Invariant, Simulation, Step, View, World};
use serde_json::json;

use crate::{
    operator::{self, LABEL, Mistakes, ROUTES},
    site::Site,
};

/// A run with the operator, in which everything goes wrong that a seed draws.
pub fn simulation(mistakes: Mistakes) -> Simulation {
    Simulation::new(0)
        .nodes(1)
        .length(Duration::from_secs(180))
        .faults(FaultPlan::drawn)
        .invariants(|_| vec![Box::new(EverySiteHasWhatIsItsOwn)])
        .component("site-operator", move |client| operator::run(client, mistakes))
}

/// What the users do.
pub async fn sites_come_and_go(world: World) {
    let definition = serde_json::to_value(Site::crd()).unwrap_or_default();
    world.create(definition).await;
    let create = |name: &'static str| {
        world.create(json!({
            "apiVersion": "sites.example/v1", "kind": "Site",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"host": format!("{name}.example"), "replicas": 1},
        }))
    };
    create("docs").await;
    tokio::time::sleep(Duration::from_secs(world.random().below(60))).await;
    join_all(["blog", "news", "shop"].map(create)).await;
    tokio::time::sleep(Duration::from_secs(30 + world.random().below(60))).await;
    let sites: Api<Site> = Api::default_namespaced(world.kube());
    // The API server may have a bad moment, too.
    while matches!(sites.delete("shop", &DeleteParams::default()).await, Err(error) if again(&error))
    {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn again(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// In the end every site has a Deployment, one password and a route, and nobody else has.
#[derive(Debug)]
pub struct EverySiteHasWhatIsItsOwn;

impl Invariant for EverySiteHasWhatIsItsOwn {
    fn name(&self) -> &str {
        "every site has what is its own"
    }

    fn step(&mut self, _: &Step<'_>) -> Result<(), String> {
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        let sites = view.objects().filter(|object| object.kind() == "Site");
        let sites: Vec<String> = sites.map(|site| site.name().to_owned()).collect();
        let wanted = once_each(sites);
        let tables = view.list::<ConfigMap>();
        let table = tables.iter().find(|table| table.name_any() == ROUTES);
        let routes = table.and_then(|table| table.data.clone()).unwrap_or_default();
        let labels = |secret: &Secret| secret.labels().get(LABEL).cloned();
        let secrets = view.list::<Secret>();
        let has = [
            ("routes", once_each(routes.into_values().collect())),
            ("passwords", once_each(secrets.iter().filter_map(|one| labels(one)).collect())),
            (
                "Deployments",
                once_each(view.list::<Deployment>().iter().map(|one| one.name_any()).collect()),
            ),
        ];
        match has.into_iter().find(|(_, found)| *found != wanted) {
            None => Ok(()),
            Some((what, found)) => Err(format!("{what} are {found:?}, of the sites {wanted:?}")),
        }
    }
}

/// How often each of them is there.
fn once_each(names: Vec<String>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for name in names {
        *found.entry(name).or_default() += 1;
    }
    found
}
