//! DaemonSets: one pod on every node that suits.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/daemon`.

mod eligibility;
mod failed;
mod revisions;
mod rolling;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use orch_core::{
    ClientError, Key,
    informer::{Change, Informer, Informers},
};

use self::{
    eligibility::{Judge, Verdict},
    failed::FailedPods,
    rolling::Changes,
};
use crate::{
    Action, Controller, Expectations, Reconciler,
    context::{Context, EventType},
    dependents::{self, PodSource},
    ownership::{self, Claim},
    pods::{self, BURST, Labels, PodControl},
    reconciler::Reconciled,
};

const HASH_LABEL: &str = "controller-revision-hash";

/// The controller of DaemonSets.
pub fn daemon_set(informers: &Informers) -> Controller {
    let context = Context::new(informers, "daemonset-controller");
    let (sets, pods) = (context.informer::<DaemonSet>(), context.informer::<Pod>());
    let revisions = context.informer::<ControllerRevision>();
    ownership::index_by_controller(&pods);
    ownership::index_by_controller(&revisions);
    let expectations = Arc::new(Expectations::default());
    let source = PodSource {
        owners: sets.clone(),
        expectations: expectations.clone(),
        selects: |set: &DaemonSet, labels| selects(set, labels),
    };
    let (forgets, all) = (expectations.clone(), sets.clone());
    context
        .builder()
        .reads::<ControllerRevision>()
        .watches::<DaemonSet>(move |change| {
            let key = Key::of(&change.object().metadata);
            if dependents::is_over(change) {
                forgets.forget(&key);
            }
            vec![key]
        })
        .watches::<Pod>(move |change| source.keys(change))
        .watches::<Node>(move |change| {
            if let Change::Updated { old, new } = change
                && eligibility::same(old, new)
            {
                return Vec::new();
            }
            all.list().iter().map(|set| Key::of(&set.metadata)).collect()
        })
        .build(SetReconciler {
            nodes: context.informer(),
            context,
            sets,
            pods,
            revisions,
            expectations,
            failed: FailedPods::default(),
        })
}

fn selects(set: &DaemonSet, labels: Option<&Labels>) -> bool {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    pods::are_selected(selector, labels)
}

struct SetReconciler {
    context: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Arc<Expectations>,
    failed: FailedPods,
}

/// One look at one set.
struct Look<'a> {
    context: &'a Context,
    expectations: &'a Expectations,
    /// Whether everything that was done before is among what is seen.
    may_manage: bool,
    failed: &'a FailedPods,
    key: Key,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    hash: String,
    nodes: Vec<(Arc<Node>, Verdict)>,
    /// How many of them should have a pod.
    wanted: usize,
    by_node: HashMap<String, Vec<Arc<Pod>>>,
}

#[async_trait]
impl Reconciler for SetReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(set) = self.sets.get(&key) else { return Ok(Action::Done) };
        let Some(spec) = &set.spec else { return Ok(Action::Done) };
        if pods::is_empty_selector(&spec.selector) {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.context.event(&*set, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        if let Some(pause) = self.expectations.pause(&key, &set.metadata, self.pods.position()) {
            return Ok(Action::RequeueAfter(pause));
        }
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
        let owned = claim.run(|pod: &Pod| selects(&set, pod.metadata.labels.as_ref())).await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let hash = self.sync_revisions(&key, &set, spec, &owned).await?;
        let mut by_node: HashMap<String, Vec<Arc<Pod>>> = HashMap::new();
        for pod in owned {
            let Some(node) = eligibility::node_of(&pod) else { continue };
            match by_node.get_mut(node) {
                Some(pods) => pods.push(pod),
                None => {
                    by_node.insert(node.to_owned(), vec![pod]);
                }
            }
        }
        let judge = Judge::of(&spec.template);
        let judged = self.nodes.list().into_iter().map(|node| {
            let verdict = judge.verdict(&node);
            (node, verdict)
        });
        let nodes: Vec<(Arc<Node>, Verdict)> = judged.collect();
        let look = Look {
            context: &self.context,
            expectations: &self.expectations,
            may_manage,
            failed: &self.failed,
            hash,
            wanted: nodes.iter().filter(|(_, verdict)| *verdict == Verdict::Runs).count(),
            nodes,
            by_node,
            key,
            set: &set,
            spec,
        };
        look.run().await
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

impl Look<'_> {
    async fn run(&self) -> Reconciled {
        let mut result = Ok(None);
        if self.may_manage {
            result = self.manage().await;
        }
        self.write_status().await?;
        let retry = result?;
        let (now, seconds) = (self.context.now(), self.spec.min_ready_seconds.unwrap_or(0));
        let pods = self.by_node.values().flatten();
        let waits = pods.filter_map(|pod| pods::available_in(pod, seconds, now));
        let wait = waits.filter(|wait| !wait.is_zero()).chain(retry).min();
        let next = wait.map_or(Action::Done, Action::RequeueAfter);
        Ok(self.expectations.or_expiry(&self.key, next))
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(HASH_LABEL)) == Some(&self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let seconds = self.spec.min_ready_seconds.unwrap_or(0);
        !pods::is_terminating(pod) && pods::is_available(pod, seconds, self.context.now())
    }

    /// Gives when to look at failed pods again, if there are some that stay for now.
    async fn manage(&self) -> Result<Option<Duration>, ClientError> {
        let mut changes = self.needed();
        if changes.create.is_empty() && changes.delete.is_empty() {
            changes = Changes { wait: changes.wait, ..self.roll() };
        }
        let Changes { mut create, mut delete, wait } = changes;
        delete.truncate(BURST);
        create.truncate(BURST);
        let control = PodControl {
            context: self.context,
            expectations: self.expectations,
            owner: self.set,
            voice: pods::Voice::Common,
        };
        if !delete.is_empty() {
            control.delete(&delete).await?;
        }
        if !create.is_empty() {
            let reference = ownership::controller_reference(self.set);
            let pod = |at: usize| {
                let mut pod =
                    pods::from_template(&self.spec.template, &self.key, reference.clone());
                let labels = pod.metadata.labels.get_or_insert_default();
                labels.insert(HASH_LABEL.to_owned(), self.hash.clone());
                eligibility::bind(&mut pod, create.get(at).copied().unwrap_or_default());
                pod
            };
            control.create(create.len(), pod).await?;
        }
        Ok(wait)
    }

    /// What has to be done so that every node has the pods that it should have.
    fn needed(&self) -> Changes<'_> {
        let mut changes = Changes::default();
        for (node, verdict) in &self.nodes {
            let all = self.on(name(node));
            let mut alive: Vec<&Arc<Pod>> =
                all.iter().filter(|pod| !pods::is_terminating(pod)).collect();
            match verdict {
                Verdict::Runs if all.is_empty() => changes.create.push(name(node)),
                Verdict::Unsuitable => changes.delete.extend(alive.into_iter().cloned()),
                Verdict::Runs | Verdict::Stays => {
                    // What is over is replaced.
                    let over = alive.iter().filter(|pod| pods::is_terminal(pod));
                    for pod in over {
                        if let Some(wait) = self.failed_again(pod, name(node)) {
                            changes.wait = changes.wait.into_iter().chain([wait]).min();
                            continue;
                        }
                        self.tell_of_end(pod, name(node));
                        changes.delete.push(Arc::clone(pod));
                    }
                    alive.retain(|pod| !pods::is_terminal(pod));
                    changes.delete.extend(self.too_many(alive));
                }
            }
        }
        changes.delete.extend(self.of_gone_nodes());
        changes.delete.retain(|pod| !pods::is_terminating(pod));
        changes
    }

    /// The pods on nodes that are not there any more, by node.
    fn of_gone_nodes(&self) -> Vec<Arc<Pod>> {
        let known: HashSet<&str> = self.nodes.iter().map(|(node, _)| name(node)).collect();
        let mut gone: Vec<&String> =
            self.by_node.keys().filter(|node| !known.contains(node.as_str())).collect();
        gone.sort_unstable();
        gone.into_iter().flat_map(|node| self.on(node).iter().cloned()).collect()
    }

    /// How long a failed pod stays, because others failed on the node not long ago.
    fn failed_again(&self, pod: &Pod, node: &str) -> Option<Duration> {
        if pods::phase(pod) != "Failed" {
            return None;
        }
        let uid = self.set.metadata.uid.as_deref().unwrap_or_default();
        let seen = self.set.status.as_ref().and_then(|status| status.observed_generation);
        self.failed.wait((uid, seen.unwrap_or_default(), node), self.context.now())
    }

    fn tell_of_end(&self, pod: &Pod, node: &str) {
        let key = Key::of(&pod.metadata);
        let (kind, reason, what, will) = if pods::phase(pod) == "Failed" {
            (EventType::Warning, "FailedDaemonPod", "failed", "kill")
        } else {
            (EventType::Normal, "SucceededDaemonPod", "succeeded", "delete")
        };
        let message =
            format!("Found {what} daemon pod {key} on node {node}, will try to {will} it");
        self.context.event(self.set, kind, reason, message);
    }

    fn status(&self) -> DaemonSetStatus {
        let known = self.set.status.clone().unwrap_or_default();
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        let mut count = |what| *counts.entry(what).or_insert(0) += 1;
        for (node, verdict) in &self.nodes {
            let pod = self.on(name(node)).iter().find(|pod| !pods::is_terminal(pod));
            if *verdict != Verdict::Runs {
                if pod.is_some() {
                    count("misscheduled");
                }
                continue;
            }
            count("desired");
            let Some(pod) = pod else { continue };
            count("current");
            if self.is_updated(pod) {
                count("updated");
            }
            if pods::is_ready(pod) {
                count("ready");
            }
            if self.is_available(pod) {
                count("available");
            }
        }
        let of = |what| counts.get(what).copied().unwrap_or(0);
        let some = |count: i32| (count != 0).then_some(count);
        DaemonSetStatus {
            desired_number_scheduled: of("desired"),
            current_number_scheduled: of("current"),
            number_misscheduled: of("misscheduled"),
            number_ready: of("ready"),
            updated_number_scheduled: some(of("updated")),
            number_available: some(of("available")),
            number_unavailable: some(of("desired") - of("available")),
            observed_generation: self.set.metadata.generation,
            collision_count: known.collision_count,
            conditions: known.conditions,
        }
    }

    async fn write_status(&self) -> Result<(), ClientError> {
        let status = self.status();
        if self.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let updated = DaemonSet { status: Some(status), ..self.set.clone() };
        let resources = self.context.resources::<DaemonSet>(&self.key.namespace);
        let answer = resources.update_status(&updated).await;
        self.expectations.written(&self.key, answer).map(drop)
    }
}
