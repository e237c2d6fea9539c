//! PodDisruptionBudgets: how many pods may be evicted now.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/disruption`.
//! Differs: the sizes of Deployments, ReplicaSets, ReplicationControllers and StatefulSets are
//! known; those of other kinds with a `scale` subresource are not asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, OwnerReference, Time},
        util::intstr::IntOrString,
    },
};
use orch_core::{
    Key,
    informer::{Change, Informer, Informers},
};

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    deployment::scaled,
    ownership, pods,
    reconciler::Reconciled,
};

/// An eviction that was granted but has not deleted its pod after so long is forgotten.
const EVICTION_TIMEOUT_S: i64 = 120;

/// The controller of PodDisruptionBudgets.
pub fn disruption(informers: &Informers) -> Controller {
    let name = "disruption-controller";
    let context = Context::reporting(informers, name, "controllermanager");
    let budgets = context.informer::<PodDisruptionBudget>();
    let known = budgets.clone();
    context
        .builder()
        .reads::<Deployment>()
        .reads::<ReplicaSet>()
        .reads::<StatefulSet>()
        .reads::<ReplicationController>()
        .watches_own_if::<PodDisruptionBudget>(|change| !matches!(change, Change::Deleted(_)))
        .watches::<Pod>(move |change| {
            let mut keys = covering(&known, change.object());
            if let Change::Updated { old, .. } = change {
                keys.extend(covering(&known, old));
            }
            keys
        })
        .build(BudgetReconciler {
            budgets,
            pods: context.informer(),
            deployments: context.informer(),
            replica_sets: context.informer(),
            stateful_sets: context.informer(),
            replication_controllers: context.informer(),
            context,
        })
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| pods::selects(selector, pod.metadata.labels.as_ref()))
}

fn covering(budgets: &Informer<PodDisruptionBudget>, pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let all = budgets.list_in(namespace);
    all.iter().filter(|b| covers(b, pod)).map(|b| Key::of(&b.metadata)).collect()
}

struct BudgetReconciler {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

#[async_trait]
impl Reconciler for BudgetReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(budget) = self.budgets.get(&key) else { return Ok(Action::Done) };
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| covers(&budget, pod));
        if pods.is_empty() {
            let message = "No matching pods found";
            self.context.event(&*budget, EventType::Normal, "NoPods", message);
        }
        let known = budget.status.clone().unwrap_or_default();
        let disrupted = self.still_disrupted(&known, &pods);
        let (expected, desired) = self.expected(&budget, &pods);
        let healthy = pods.iter().filter(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            pods::is_ready(pod) && !pods::is_terminating(pod) && !disrupted.contains_key(name)
        });
        let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
        let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
        let generation = budget.metadata.generation.unwrap_or(0);
        let wait = self.next_timeout(&disrupted);
        let status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            expected_pods: Some(expected),
            disruptions_allowed: Some(allowed),
            observed_generation: Some(generation),
            conditions: Some(self.conditions(&known, allowed, generation)),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        };
        if status != known {
            let mut updated = budget.as_ref().clone();
            updated.status = Some(status);
            let resources = self.context.resources::<PodDisruptionBudget>(&key.namespace);
            match resources.update_status(&updated).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(wait.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl BudgetReconciler {
    /// Pods whose eviction was granted, and which are not seen to go yet.
    fn still_disrupted(
        &self,
        known: &PodDisruptionBudgetStatus,
        pods: &[Arc<Pod>],
    ) -> BTreeMap<String, Time> {
        let now = self.context.now();
        let timeout = SignedDuration::from_secs(EVICTION_TIMEOUT_S);
        let mut disrupted = known.disrupted_pods.clone().unwrap_or_default();
        disrupted.retain(|name, since| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
            pod.is_some_and(|pod| !pods::is_terminating(pod))
                && now.duration_since(since.0) < timeout
        });
        disrupted
    }

    fn next_timeout(&self, disrupted: &BTreeMap<String, Time>) -> Option<Duration> {
        let first = disrupted.values().map(|time| time.0).min()?;
        let left = SignedDuration::from_secs(EVICTION_TIMEOUT_S)
            - self.context.now().duration_since(first);
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO) + Duration::from_secs(1))
    }

    /// How many pods there should be, and how many of them must be healthy.
    fn expected(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> (i32, i32) {
        let Some(spec) = &budget.spec else { return (0, 0) };
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(max_unavailable), _) => {
                let expected = self.total_scale(pods);
                (expected, (expected - scaled(max_unavailable, expected, true)).max(0))
            }
            (None, Some(IntOrString::Int(min))) => (count, *min),
            (None, Some(percent)) => {
                let expected = self.total_scale(pods);
                (expected, scaled(percent, expected, true))
            }
            (None, None) => (count, 0),
        }
    }

    /// The sizes of all controllers of the pods.
    fn total_scale(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut scales: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let Some(owner) = ownership::controller_of(&pod.metadata) else { continue };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if let Some((uid, scale)) = self.scale_of(namespace, owner) {
                scales.insert(uid, scale);
            }
        }
        scales.values().sum()
    }

    fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let key = Key::new(namespace, &*owner.name);
        let replicas = match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.replica_sets.get(&key)?;
                if let Some(deployment) = ownership::controller_of(&set.metadata) {
                    let key = Key::new(namespace, &*deployment.name);
                    let found = self.deployments.get(&key)?;
                    let replicas = found.spec.as_ref()?.replicas.unwrap_or(1);
                    return Some((deployment.uid.clone(), replicas));
                }
                set.spec.as_ref()?.replicas
            }
            "StatefulSet" => self.stateful_sets.get(&key)?.spec.as_ref()?.replicas,
            "ReplicationController" => {
                self.replication_controllers.get(&key)?.spec.as_ref()?.replicas
            }
            _ => return None,
        };
        Some((owner.uid.clone(), replicas.unwrap_or(1)))
    }

    fn conditions(
        &self,
        known: &PodDisruptionBudgetStatus,
        allowed: i32,
        generation: i64,
    ) -> Vec<Condition> {
        let (status, reason) =
            if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let mut conditions = known.conditions.clone().unwrap_or_default();
        let before = conditions.iter().find(|c| c.type_ == "DisruptionAllowed");
        let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        conditions.retain(|c| c.type_ != "DisruptionAllowed");
        conditions.push(Condition {
            type_: "DisruptionAllowed".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or_else(|| self.context.time()),
        });
        conditions
    }
}
