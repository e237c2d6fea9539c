//! From changes in the cluster and in the runtime to the workers of the pods concerned.
//!
//! Source: `pkg/kubelet/kubelet.go` (`syncLoop`), `pkg/kubelet/pleg/generic.go`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::{Change, Informer};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::{Id, JoinSet},
};

use super::{
    Context, spec,
    worker::{Desired, PodWorker},
};
use crate::runtime::{ContainerState, RuntimeError, RuntimeEvent, SandboxState};

/// What changed since the dispatcher looked last: the newest of each pod, so that it holds at most
/// one entry per pod.
#[derive(Debug, Default)]
struct Inbox {
    changed: Mutex<BTreeMap<String, Desired>>,
    signal: Notify,
}

impl Inbox {
    fn put(&self, pod: &Arc<Pod>, removed: bool) {
        let desired = Desired { pod: pod.clone(), removed };
        self.changed.lock().insert(spec::uid(pod).to_owned(), desired);
        self.signal.notify_one();
    }
}

struct Handle {
    desired: watch::Sender<Desired>,
    changed: Arc<Notify>,
}

struct Dispatcher<'a> {
    context: &'a Arc<Context>,
    /// In order, so that a seed gives the same order of wakes.
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<()>,
    uids: HashMap<Id, String>,
}

/// Dispatches for ever. Dropping it ends the workers; what they run goes on.
pub(super) async fn run(context: &Arc<Context>, pods: &Informer<Pod>) {
    let inbox = Arc::new(Inbox::default());
    let told = inbox.clone();
    pods.on_change(move |change| match change {
        Change::Added(pod) => told.put(pod, false),
        Change::Updated { old, new } => {
            if spec::uid(old) != spec::uid(new) {
                told.put(old, true);
            }
            told.put(new, false);
        }
        Change::Deleted(pod) => told.put(pod, true),
    });
    pods.synced().await;
    let known: BTreeSet<String> = pods.list().iter().map(|p| spec::uid(p).to_owned()).collect();
    adopt(context, pods).await;
    let mut dispatcher = Dispatcher {
        context,
        workers: BTreeMap::new(),
        tasks: JoinSet::new(),
        uids: HashMap::new(),
    };
    let wakes = Arc::new(Mutex::new(Wakes::default()));
    let wake = Arc::new(Notify::new());
    tokio::join!(
        remove_orphans(context, &known),
        follow_runtime(context, &wakes, &wake),
        dispatcher.run(&inbox, &wakes, &wake),
    );
}

/// The pods that the runtime has told something about.
#[derive(Debug, Default)]
struct Wakes {
    all: bool,
    uids: BTreeSet<String>,
}

impl Dispatcher<'_> {
    async fn run(&mut self, inbox: &Inbox, wakes: &Mutex<Wakes>, wake: &Notify) {
        loop {
            tokio::select! {
                // In a fixed order, so that a seed gives the same history.
                biased;
                () = inbox.signal.notified() => {
                    let changed = std::mem::take(&mut *inbox.changed.lock());
                    for (uid, desired) in changed {
                        self.tell(uid, desired);
                    }
                }
                () = wake.notified() => {
                    let woken = std::mem::take(&mut *wakes.lock());
                    self.wake(&woken);
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    if let Some(uid) = self.uids.remove(&id) {
                        self.workers.remove(&uid);
                    }
                    if let Err(error) = ended {
                        tracing::error!(%error, "a pod's worker broke");
                    }
                }
            }
        }
    }

    fn tell(&mut self, uid: String, desired: Desired) {
        if let Some(handle) = self.workers.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let (sender, receiver) = watch::channel(desired);
        let changed = Arc::new(Notify::new());
        let worker = PodWorker::new(self.context.clone(), receiver, changed.clone());
        let task = self.tasks.spawn(worker.run());
        self.uids.insert(task.id(), uid.clone());
        self.workers.insert(uid, Handle { desired: sender, changed });
    }

    fn wake(&self, woken: &Wakes) {
        if woken.all {
            self.workers.values().for_each(|handle| handle.changed.notify_one());
            return;
        }
        let known = woken.uids.iter().filter_map(|uid| self.workers.get(uid));
        known.for_each(|handle| handle.changed.notify_one());
    }
}

/// Passes on what the runtime tells, and lists it from time to time where it does not tell.
async fn follow_runtime(context: &Context, wakes: &Mutex<Wakes>, wake: &Notify) {
    let clock = &context.environment.clock;
    let mut seen = BTreeMap::new();
    let mut events = context.runtime.events();
    loop {
        let relist = async {
            if context.info.tells_events {
                std::future::pending::<()>().await;
            }
            clock.sleep(context.options.relist).await;
        };
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(RuntimeEvent::PodChanged { pod_uid }) => {
                    wakes.lock().uids.insert(pod_uid);
                }
                Some(_) => wakes.lock().all = true,
                None => {
                    clock.sleep(context.options.relist).await;
                    events = context.runtime.events();
                    wakes.lock().all = true;
                }
            },
            () = relist => match snapshot(context).await {
                Ok(now) => {
                    let changed = difference(&seen, &now);
                    if changed.is_empty() {
                        seen = now;
                        continue;
                    }
                    wakes.lock().uids.extend(changed);
                    seen = now;
                }
                Err(error) => {
                    tracing::debug!(%error, "the runtime could not be listed");
                    continue;
                }
            },
        }
        wake.notify_one();
    }
}

/// Per pod, the states of what it has in the runtime.
type Snapshot = BTreeMap<String, BTreeMap<String, State>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sandbox(SandboxState),
    Container(ContainerState),
}

async fn snapshot(context: &Context) -> Result<Snapshot, RuntimeError> {
    let mut snapshot = Snapshot::new();
    let mut owners = HashMap::new();
    for sandbox in context.runtime.sandboxes(None).await? {
        let uid = sandbox.metadata.uid;
        owners.insert(sandbox.id.clone(), uid.clone());
        snapshot.entry(uid).or_default().insert(sandbox.id.0, State::Sandbox(sandbox.state));
    }
    for container in context.runtime.containers(None).await? {
        if let Some(uid) = owners.get(&container.sandbox) {
            let states = snapshot.entry(uid.clone()).or_default();
            states.insert(container.id.0, State::Container(container.state));
        }
    }
    Ok(snapshot)
}

fn difference(old: &Snapshot, new: &Snapshot) -> BTreeSet<String> {
    let uids = old.keys().chain(new.keys());
    uids.filter(|uid| old.get(*uid) != new.get(*uid)).cloned().collect()
}

/// Notes what the pods that run already have taken, before any other pod can take it.
async fn adopt(context: &Context, pods: &Informer<Pod>) {
    let sandboxes = loop {
        match context.runtime.sandboxes(None).await {
            Ok(sandboxes) => break sandboxes,
            Err(error) => {
                tracing::warn!(%error, "the runtime could not be listed");
                context.environment.clock.sleep(context.options.relist).await;
            }
        }
    };
    for sandbox in sandboxes.iter().filter(|s| s.state == SandboxState::Ready) {
        let (uid, address) = (sandbox.metadata.uid.as_str(), sandbox.ips.first());
        if let (Some(addresses), Some(address)) = (&context.options.pod_addresses, address) {
            addresses.adopt(uid, *address);
        }
    }
    for pod in pods.list().iter().filter(|pod| !spec::is_terminal(pod)) {
        if sandboxes.iter().any(|s| s.metadata.uid == spec::uid(pod)) {
            context.admitted.lock().keep(pod);
        }
    }
}

/// Removes what pods that are gone have left behind.
async fn remove_orphans(context: &Context, known: &BTreeSet<String>) {
    match context.runtime.sandboxes(None).await {
        Ok(sandboxes) => {
            for sandbox in sandboxes.iter().filter(|s| !known.contains(&s.metadata.uid)) {
                tracing::info!(pod = sandbox.metadata.name, "removing a pod that is gone");
                if let Err(error) = context.runtime.remove_sandbox(&sandbox.id).await {
                    tracing::warn!(%error, "it stays behind");
                    continue;
                }
                if let Some(addresses) = &context.options.pod_addresses {
                    addresses.release(&sandbox.metadata.uid);
                }
                context.volumes.remove(&sandbox.metadata.uid).await;
                let meta = &sandbox.metadata;
                super::stop::remove_logs(context, &meta.namespace, &meta.name, &meta.uid).await;
            }
        }
        Err(error) => tracing::warn!(%error, "the runtime could not be listed"),
    }
}
