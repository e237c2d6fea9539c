//! Deployments: replica sets over time, one per version of the template.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/deployment`.
//! Differs: it waits until its copy shows the sizes that it wrote itself. By an older copy upstream's
//! may start more pods than the surge allows.

mod hash;
mod replica_sets;
mod rollout;
mod scaling;
mod status;
mod strategy;

pub(crate) use hash::template_hash;
pub(crate) use strategy::scaled;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use orch_core::{
    ClientError, Key,
    client::PatchKind,
    informer::{Change, Informer, Informers},
};
use serde_json::json;

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    own_writes::OwnWrites,
    ownership::{self, Claim},
    pods,
    reconciler::Reconciled,
};

/// The annotation that counts the versions of a deployment's template.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

/// The controller of Deployments.
pub fn deployment(informers: &Informers) -> Controller {
    let context = Context::new(informers, "deployment-controller");
    let replica_sets = context.informer::<ReplicaSet>();
    let deployments = context.informer::<Deployment>();
    ownership::index_by_controller(&replica_sets);
    ownership::index_by_controller(&context.informer::<Pod>());
    let (adopters, recreated, sets) =
        (deployments.clone(), deployments.clone(), replica_sets.clone());
    context
        .builder()
        .watches_own::<Deployment>()
        .owns::<Deployment, ReplicaSet>()
        .watches::<ReplicaSet>(move |change| adopters_of(&adopters, change))
        .watches::<Pod>(move |change| recreated_by(&recreated, &sets, change))
        .build(DeploymentReconciler {
            context,
            deployments,
            replica_sets,
            own: OwnWrites::default(),
        })
}

/// The deployments that may adopt a replica set which nobody controls.
fn adopters_of(deployments: &Informer<Deployment>, change: &Change<ReplicaSet>) -> Vec<Key> {
    let orphan = match change {
        Change::Added(set) => set,
        Change::Updated { old, new }
            if old.metadata.labels != new.metadata.labels
                || ownership::controller_of(&old.metadata).is_some() =>
        {
            new
        }
        _ => return Vec::new(),
    };
    if ownership::controller_of(&orphan.metadata).is_some() {
        return Vec::new();
    }
    let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
    deployments
        .list_in(namespace)
        .iter()
        .filter(|deployment| selects(deployment, orphan))
        .map(|deployment| Key::of(&deployment.metadata))
        .collect()
}

/// A deployment that recreates waits for the last of its old pods to be over.
fn recreated_by(
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    change: &Change<Pod>,
) -> Vec<Key> {
    let over = match change {
        Change::Deleted(pod) => pod,
        Change::Updated { old, new } if pods::is_terminal(new) && !pods::is_terminal(old) => new,
        _ => return Vec::new(),
    };
    let namespace = over.metadata.namespace.clone().unwrap_or_default();
    let owner = ownership::controller_of(&over.metadata).filter(|owner| owner.kind == "ReplicaSet");
    let set = owner.and_then(|owner| sets.get(&Key::new(namespace.clone(), owner.name.clone())));
    let owner = set.and_then(|set| ownership::controller_of(&set.metadata).cloned());
    let key = owner.map(|owner| Key::new(namespace, owner.name));
    let recreates =
        |key: &Key| deployments.get(key).is_some_and(|deployment| strategy::recreates(&deployment));
    key.filter(recreates).into_iter().collect()
}

fn selects(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    pods::are_selected(selector, set.metadata.labels.as_ref())
}

struct DeploymentReconciler {
    context: Context,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    own: OwnWrites,
}

#[async_trait]
impl Reconciler for DeploymentReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(deployment) = self.deployments.get(&key) else {
            self.own.forget(&key);
            return Ok(Action::Done);
        };
        if let Some(wait) = self.own.unseen(&deployment.metadata, &self.replica_sets) {
            return Ok(Action::RequeueAfter(wait));
        }
        let Some(spec) = &deployment.spec else { return Ok(Action::Done) };
        if pods::is_empty_selector(&spec.selector) {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.context.event(&*deployment, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let claim = Claim {
            owners: self.context.resources(&key.namespace),
            dependents: self.context.resources(&key.namespace),
            informer: &self.replica_sets,
            owner: &*deployment,
            adopts: |_| true,
            finalizer: None,
        };
        let sets = claim.run(|set: &ReplicaSet| selects(&deployment, set)).await?;
        let sets = sets.into_iter().map(Arc::unwrap_or_clone).collect();
        let mut rollout = Rollout {
            context: &self.context,
            own: &self.own,
            stored: deployment.status.clone().unwrap_or_default(),
            deployment: Arc::unwrap_or_clone(deployment),
            sets,
        };
        // Boxed: it holds several replica sets at once.
        Box::pin(rollout.run()).await
    }
}

/// One look at one deployment, and what is done about it.
struct Rollout<'a> {
    context: &'a Context,
    own: &'a OwnWrites,
    /// The status as the cluster has it, to write it only when it changes.
    stored: DeploymentStatus,
    /// The deployment, its status as it is to become.
    deployment: Deployment,
    /// All of its replica sets.
    sets: Vec<ReplicaSet>,
}

impl Rollout<'_> {
    fn key(&self) -> Key {
        Key::of(&self.deployment.metadata)
    }

    fn status_mut(&mut self) -> &mut DeploymentStatus {
        self.deployment.status.get_or_insert_default()
    }

    /// Writes the working copy's status, if it differs from what the cluster has.
    async fn write_status(&mut self) -> Result<(), ClientError> {
        let status = self.status_mut().clone();
        if status == self.stored {
            return Ok(());
        }
        let resources = self.context.resources::<Deployment>(&self.key().namespace);
        let written = self.answered(resources.update_status(&self.deployment).await)?;
        self.deployment.metadata = written.metadata.clone();
        self.stored = status;
        Ok(())
    }

    /// Notes it if the cluster has the deployment otherwise than it is known here.
    fn answered(
        &self,
        answer: Result<Arc<Deployment>, ClientError>,
    ) -> Result<Arc<Deployment>, ClientError> {
        if answer.as_ref().is_err_and(|error| error.is_conflict() || error.is_not_found()) {
            self.own.outdated(&self.deployment.metadata);
        }
        answer
    }

    /// Tells the deployment which revision it is at.
    async fn write_revision(&mut self, revision: &str) -> Result<(), ClientError> {
        let annotations = self.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|a| a.get(REVISION)).is_some_and(|known| known == revision) {
            return Ok(());
        }
        let key = self.key();
        let patch = json!({"metadata": {
            "uid": self.deployment.metadata.uid,
            "resourceVersion": self.deployment.metadata.resource_version,
            "annotations": {REVISION: revision},
        }});
        let resources = self.context.resources::<Deployment>(&key.namespace);
        let written = self.answered(resources.patch(&key.name, PatchKind::Merge, patch).await)?;
        self.deployment.metadata = written.metadata.clone();
        Ok(())
    }
}
