//! The operator of sites: for each a Deployment, a Secret with a password, and a route in a table
//! that all sites share. With [`Mistakes`] it is as many operators are before they are tested.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        controller::{Action, Controller},
        finalizer::{self, Event, finalizer},
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;

use crate::site::{Site, SiteStatus};

/// The label of what belongs to a site, with its name.
pub const LABEL: &str = "sites.example/site";
/// The ConfigMap with the routes of all sites: from hosts to sites.
pub const ROUTES: &str = "routes";
const FINALIZER: &str = "sites.example/route";
const MANAGER: &str = "site-operator";

/// What is wrong with the operator. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mistakes {
    /// It takes a conflict for success.
    pub misses_conflicts: bool,
    /// It believes that its informer knows everything.
    pub believes_its_cache: bool,
    /// It cleans up nothing that has no owner.
    pub leaks: bool,
}

/// Why a site could not be looked after this time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API says no.
    #[error("the API says no")]
    Api(#[from] kube::Error),
    /// What belongs to the finalizer went wrong.
    #[error("the finalizer could not be seen to")]
    Finalizer(#[source] Box<finalizer::Error<Failure>>),
}

struct Operator {
    client: Client,
    /// The passwords of all sites, as the informer knows them.
    passwords: Store<Secret>,
    mistakes: Mistakes,
}

/// Runs the operator until its future is dropped.
pub async fn run(client: Client, mistakes: Mistakes) {
    let (passwords, writer) = reflector::store();
    let ours = || watcher::Config::default().labels(LABEL);
    let secrets = watcher(Api::<Secret>::all(client.clone()), ours()).default_backoff();
    let follow = secrets.reflect(writer).for_each(|_| async {});
    let controller = Controller::new(Api::<Site>::all(client.clone()), watcher::Config::default())
        .owns(Api::<Deployment>::all(client.clone()), ours());
    let operator = Arc::new(Operator { client, passwords, mistakes });
    let work = controller.run(reconcile, retry, operator).for_each(|result| async move {
        if let Err(error) = result {
            tracing::debug!(%error, "again later");
        }
    });
    futures::join!(follow, work);
}

fn retry(_: Arc<Site>, _: &Failure, _: Arc<Operator>) -> Action {
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(site: Arc<Site>, operator: Arc<Operator>) -> Result<Action, Failure> {
    if operator.mistakes.leaks {
        return operator.serve(&site).await;
    }
    let sites: Api<Site> = operator.api(&site);
    let seen = finalizer(&sites, FINALIZER, site, |event| async {
        match event {
            Event::Apply(site) => operator.serve(&site).await,
            Event::Cleanup(site) => operator.forget(&site).await,
        }
    });
    seen.await.map_err(|error| Failure::Finalizer(Box::new(error)))
}

impl Operator {
    fn api<K>(&self, site: &Site) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &site.namespace().unwrap_or_default())
    }

    async fn serve(&self, site: &Site) -> Result<Action, Failure> {
        self.deploy(site).await?;
        self.ensure_password(site).await?;
        if !site.status.as_ref().is_some_and(|status| status.routed) {
            self.route(site, |routes| {
                routes.insert(site.spec.host.clone(), site.name_any());
            })
            .await?;
            self.report(site, SiteStatus { routed: true }).await?;
        }
        Ok(Action::await_change())
    }

    async fn forget(&self, site: &Site) -> Result<Action, Failure> {
        self.route(site, |routes| drop(routes.remove(&site.spec.host))).await?;
        Ok(Action::await_change())
    }

    async fn deploy(&self, site: &Site) -> Result<(), Failure> {
        let name = site.name_any();
        let labels = json!({LABEL: name});
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": name,
                "labels": labels,
                "ownerReferences": [site.controller_owner_ref(&())],
            },
            "spec": {
                "replicas": site.spec.replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
                },
            },
        });
        let apply = PatchParams::apply(MANAGER).force();
        let deployments: Api<Deployment> = self.api(site);
        deployments.patch(&name, &apply, &Patch::Apply(deployment)).await?;
        Ok(())
    }

    async fn ensure_password(&self, site: &Site) -> Result<(), Failure> {
        let name = site.name_any();
        let mut metadata = ObjectMeta {
            labels: Some([(LABEL.to_owned(), name.clone())].into()),
            owner_references: site.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        if self.mistakes.believes_its_cache {
            let is_its = |secret: &Secret| secret.labels().get(LABEL) == Some(&name);
            if self.passwords.find(is_its).is_some() {
                return Ok(());
            }
            // The informer may not have heard of the one that was made a moment ago.
            metadata.generate_name = Some(format!("{name}-"));
        } else {
            // The name decides: there cannot be a second one, whatever the informer knows.
            metadata.name = Some(format!("{name}-password"));
        }
        let secret = Secret { metadata, ..Secret::default() };
        match self.api(site).create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Changes the table of routes, which all sites share.
    async fn route(
        &self,
        site: &Site,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<(), Failure> {
        let tables: Api<ConfigMap> = self.api(site);
        let mut table = match tables.get_opt(ROUTES).await? {
            Some(table) => table,
            None => {
                let name = Some(ROUTES.to_owned());
                let metadata = ObjectMeta { name, ..ObjectMeta::default() };
                let empty = ConfigMap { metadata, ..ConfigMap::default() };
                tables.create(&PostParams::default(), &empty).await?
            }
        };
        change(table.data.get_or_insert_default());
        match tables.replace(ROUTES, &PostParams::default(), &table).await {
            // Somebody else was faster: nothing was written.
            Err(kube::Error::Api(status))
                if status.is_conflict() && self.mistakes.misses_conflicts =>
            {
                Ok(())
            }
            // An error, so that the site is looked at again, with the table as it is then.
            other => Ok(other.map(drop)?),
        }
    }

    async fn report(&self, site: &Site, status: SiteStatus) -> Result<(), Failure> {
        let status = json!({
            "apiVersion": Site::api_version(&()), "kind": Site::kind(&()), "status": status,
        });
        let apply = PatchParams::apply(MANAGER).force();
        let sites: Api<Site> = self.api(site);
        sites.patch_status(&site.name_any(), &apply, &Patch::Apply(status)).await?;
        Ok(())
    }
}
