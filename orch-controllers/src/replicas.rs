//! ReplicaSet and ReplicationController: so many pods of one template, no more and no less.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/replicaset`.

mod kinds;
mod ranking;
mod status;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, ReplicationController},
};
use orch_core::{
    ClientError, Key,
    informer::{Informer, Informers},
};

pub(crate) use kinds::Replicated;

use crate::{
    Action, Controller, Expectations, Reconciler,
    context::Context,
    dependents::{self, PodSource},
    ownership::{self, Claim},
    pods::{self, BURST, PodControl},
    reconciler::Reconciled,
};

/// The controller of ReplicaSets.
pub fn replica_set(informers: &Informers) -> Controller {
    ReplicaReconciler::<ReplicaSet>::controller(Context::new(informers, "replicaset-controller"))
}

/// The controller of ReplicationControllers.
pub fn replication_controller(informers: &Informers) -> Controller {
    let name = "replicationcontroller-controller";
    let context = Context::reporting(informers, name, "replication-controller");
    ReplicaReconciler::<ReplicationController>::controller(context)
}

/// One implementation for both kinds, which differ in their selector and nothing else.
struct ReplicaReconciler<K> {
    context: Context,
    owners: Informer<K>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
}

impl<K: Replicated> ReplicaReconciler<K> {
    fn controller(context: Context) -> Controller {
        let (owners, pods) = (context.informer::<K>(), context.informer::<Pod>());
        ownership::index_by_controller(&owners);
        ownership::index_by_controller(&pods);
        let expectations = Arc::new(Expectations::default());
        let source = PodSource {
            owners: owners.clone(),
            expectations: expectations.clone(),
            selects: |owner: &K, labels| owner.selects(labels),
        };
        let forgets = expectations.clone();
        context
            .builder()
            .watches::<K>(move |change| {
                let key = Key::of(change.object().metadata());
                if dependents::is_over(change) {
                    forgets.forget(&key);
                }
                vec![key]
            })
            .watches::<Pod>(move |change| source.keys(change))
            .build(Self { context, owners, pods, expectations })
    }

    /// The difference between pods and wanted replicas, and what came of mending it.
    async fn manage(&self, owner: &K, active: &[Arc<Pod>]) -> (i64, Result<(), ClientError>) {
        let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
        let difference = active.len() as i64 - wanted as i64;
        let control = PodControl {
            context: &self.context,
            expectations: &self.expectations,
            owner,
            voice: pods::Voice::Common,
        };
        let result = if active.len() < wanted {
            self.create(&control, owner, (wanted - active.len()).min(BURST)).await
        } else if active.len() > wanted {
            let count = (active.len() - wanted).min(BURST);
            let mut ranked = active.to_vec();
            let related = self.related_pods(owner, active);
            ranking::first_to_go(&mut ranked, &related, self.context.now());
            ranked.truncate(count);
            control.delete(&ranked).await
        } else {
            Ok(())
        };
        (difference, result)
    }

    async fn create(
        &self,
        control: &PodControl<'_, K>,
        owner: &K,
        count: usize,
    ) -> Result<(), ClientError> {
        let Some(template) = owner.template() else { return Ok(()) };
        let key = Key::of(owner.metadata());
        let reference = ownership::controller_reference(owner);
        let pod = |_| pods::from_template(template, &key, reference.clone());
        control.create(count, pod).await.map(drop)
    }

    /// The active pods of this owner and of those that share its controller: a new pod of a
    /// Deployment goes where old ones are, and those that stand together go first.
    fn related_pods(&self, owner: &K, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(controller) = ownership::controller_of(owner.metadata()) else {
            return own.to_vec();
        };
        let siblings = self.owners.by_index(ownership::BY_CONTROLLER, &controller.uid);
        let uids = siblings.iter().filter_map(|sibling| sibling.metadata().uid.as_deref());
        uids.flat_map(|uid| self.pods.by_index(ownership::BY_CONTROLLER, uid))
            .filter(|pod| pods::is_active(pod))
            .collect()
    }

    async fn sync(&self, key: &Key, owner: &K) -> Reconciled {
        if let Some(pause) = self.expectations.pause(key, owner.metadata(), self.pods.position()) {
            return Ok(Action::RequeueAfter(pause));
        }
        let may_manage = self.expectations.satisfied(key);
        let claim = Claim {
            owners: self.context.resources(&key.namespace),
            dependents: self.context.resources(&key.namespace),
            informer: &self.pods,
            owner,
            adopts: pods::is_active,
            finalizer: None,
        };
        let all = claim.run(|pod: &Pod| owner.selects(pod.metadata.labels.as_ref())).await?;
        let terminating = all.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p));
        let terminating = terminating.count();
        let active: Vec<Arc<Pod>> = all.into_iter().filter(|pod| pods::is_active(pod)).collect();

        let mut managed = (0, Ok(()));
        if may_manage && owner.metadata().deletion_timestamp.is_none() {
            managed = self.manage(owner, &active).await;
        }
        let failure = managed.1.as_ref().err().map(|error| (managed.0, error.to_string()));
        let counted = status::Counted { active: &active, terminating, failure };
        self.write_status(key, owner, &counted).await?;
        managed.1?;
        let next = self.next_available(owner, &active);
        Ok(self.expectations.or_expiry(key, next.map_or(Action::Done, Action::RequeueAfter)))
    }

    async fn write_status(
        &self,
        key: &Key,
        owner: &K,
        counted: &status::Counted<'_>,
    ) -> Result<(), ClientError> {
        let status = status::calculate(owner, counted, self.context.now());
        if status == owner.status() {
            return Ok(());
        }
        let updated = owner.with_status(status);
        let answer = self.context.resources::<K>(&key.namespace).update_status(&updated).await;
        self.expectations.written(key, answer).map(drop)
    }

    /// When the next ready pod becomes available: nothing in the cluster changes then.
    fn next_available(&self, owner: &K, active: &[Arc<Pod>]) -> Option<Duration> {
        let (seconds, now) = (owner.min_ready_seconds(), self.context.now());
        let waits = active.iter().filter_map(|pod| pods::available_in(pod, seconds, now));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}

#[async_trait]
impl<K: Replicated> Reconciler for ReplicaReconciler<K> {
    async fn reconcile(&self, key: Key) -> Reconciled {
        match self.owners.get(&key) {
            Some(owner) => self.sync(&key, &owner).await,
            None => Ok(Action::Done),
        }
    }
}
