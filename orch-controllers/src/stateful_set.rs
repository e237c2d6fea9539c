//! StatefulSets: pods with names, an order, and storage of their own.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/statefulset`.

mod claims;
mod identity;
mod revisions;
mod rolling;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, Pod},
};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};

use self::revisions::Revisions;
use crate::{
    Action, Controller, Expectations, Reconciler,
    context::Context,
    dependents::{self, PodSource},
    deployment::scaled,
    ownership::{self, Claim},
    pods::{self, Labels},
    reconciler::Reconciled,
};

/// The controller of StatefulSets.
pub fn stateful_set(informers: &Informers) -> Controller {
    let context = Context::new(informers, "statefulset-controller");
    let (sets, pods) = (context.informer::<StatefulSet>(), context.informer::<Pod>());
    let revisions = context.informer::<ControllerRevision>();
    ownership::index_by_controller(&pods);
    ownership::index_by_controller(&revisions);
    let expectations = Arc::new(Expectations::default());
    let source = PodSource {
        owners: sets.clone(),
        expectations: expectations.clone(),
        selects: |set: &StatefulSet, labels| selects(set, labels),
    };
    let forgets = expectations.clone();
    context
        .builder()
        .reads::<PersistentVolumeClaim>()
        .reads::<ControllerRevision>()
        .watches::<StatefulSet>(move |change| {
            let key = Key::of(&change.object().metadata);
            if dependents::is_over(change) {
                forgets.forget(&key);
            }
            vec![key]
        })
        .watches::<Pod>(move |change| source.keys(change))
        .build(SetReconciler {
            claims: context.informer(),
            context,
            sets,
            pods,
            revisions,
            expectations,
        })
}

fn selects(set: &StatefulSet, labels: Option<&Labels>) -> bool {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    pods::are_selected(selector, labels)
}

struct SetReconciler {
    context: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<PersistentVolumeClaim>,
    expectations: Arc<Expectations>,
}

/// One look at one set.
struct Look<'a> {
    context: &'a Context,
    expectations: &'a Expectations,
    claims: &'a Informer<PersistentVolumeClaim>,
    key: Key,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    pods: Vec<Arc<Pod>>,
    revisions: Revisions,
}

#[async_trait]
impl Reconciler for SetReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(set) = self.sets.get(&key) else { return Ok(Action::Done) };
        let Some(spec) = &set.spec else { return Ok(Action::Done) };
        // Asked before the pods are looked at: what shows up in between is not among them.
        let may_manage = self.expectations.satisfied(&key);
        let claim = Claim {
            owners: self.context.resources(&key.namespace),
            dependents: self.context.resources(&key.namespace),
            informer: &self.pods,
            owner: &*set,
            adopts: pods::is_active,
            finalizer: None,
        };
        let name = key.name.clone();
        let pods = claim
            .run(|pod: &Pod| {
                selects(&set, pod.metadata.labels.as_ref())
                    && identity::ordinal(&name, pod).is_some()
            })
            .await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        if !may_manage {
            return Ok(self.expectations.or_expiry(&key, Action::Done));
        }
        let revisions = self.sync_revisions(&key, &set).await?;
        let look = Look {
            context: &self.context,
            expectations: &self.expectations,
            claims: &self.claims,
            key,
            set: &set,
            spec,
            pods,
            revisions,
        };
        // Boxed: it holds two templates.
        Box::pin(look.run()).await
    }
}

impl Look<'_> {
    async fn run(&self) -> Reconciled {
        let result = self.advance().await;
        let status = self.status();
        if self.set.status.as_ref() != Some(&status) {
            let updated = StatefulSet { status: Some(status), ..self.set.clone() };
            let resources = self.context.resources::<StatefulSet>(&self.key.namespace);
            self.expectations.written(&self.key, resources.update_status(&updated).await)?;
        }
        result?;
        let (now, seconds) = (self.context.now(), self.min_ready_seconds());
        let waits = self.pods.iter().filter_map(|pod| pods::available_in(pod, seconds, now));
        let wait = waits.filter(|wait| !wait.is_zero()).min();
        let next = wait.map_or(Action::Done, Action::RequeueAfter);
        Ok(self.expectations.or_expiry(&self.key, next))
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn status(&self) -> StatefulSetStatus {
        let now = self.context.now();
        let count = |counts: &dyn Fn(&Pod) -> bool| {
            let pods = self.pods.iter().filter(|pod| !pods::is_terminal(pod));
            i32::try_from(pods.filter(|pod| counts(pod)).count()).unwrap_or(i32::MAX)
        };
        let some = |count: i32| (count != 0).then_some(count);
        let stays = |pod: &Pod| !pods::is_terminating(pod);
        let replicas = count(&|_| true);
        let updated = count(&|pod| stays(pod) && identity::revision(pod) == self.update_name());
        let current = count(&|pod| stays(pod) && identity::revision(pod) == self.current_name());
        let ready = count(&pods::is_ready);
        // A rollout is over when every pod has the new revision; it is the current one then.
        let partition = self.partition();
        let complete = partition == 0 && updated == self.replicas() && ready == updated;
        let done = complete || self.set.status.is_none();
        let current_name = if done { self.update_name() } else { self.current_name() };
        StatefulSetStatus {
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|pod| {
                pods::is_available(pod, self.min_ready_seconds(), now)
            })),
            current_replicas: some(if complete { updated } else { current }),
            updated_replicas: some(updated),
            current_revision: Some(current_name.to_owned()),
            update_revision: Some(self.update_name().to_owned()),
            observed_generation: self.set.metadata.generation,
            collision_count: Some(self.revisions.collisions),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }

    fn update_name(&self) -> &str {
        self.revisions.update.metadata.name.as_deref().unwrap_or_default()
    }

    fn current_name(&self) -> &str {
        self.revisions.current.metadata.name.as_deref().unwrap_or_default()
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    /// How many pods may be unavailable in an update: at least one.
    fn max_unavailable(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let max = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        max.map_or(1, |max| scaled(max, self.replicas(), false)).max(1)
    }

    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }
}
