//! A cluster in memory with controllers and a pretended node agent, in virtual time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use orch_controllers::{Action, Controller, Manager, Runnable};
use orch_core::{
    ApiError, Client, ClientError, Environment, Key, Object, ResourceType, Resources,
    awaited::Awaited,
    client::{
        DeleteOptions, ListOptions, PatchKind, Read, ReadReply, WatchOptions, WatchStream, Write,
        WriteReply,
    },
    informer::{Informers, Watchable},
    resource::Target,
    status::Reason,
    testing::{FaultRates, FaultyClient, MemoryClient},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Counts the writes that a client passes on, and refuses some as a webhook would.
pub(crate) struct CountingClient {
    inner: MemoryClient,
    writes: AtomicU64,
    calls: AtomicU64,
    /// Status writes that changed nothing of the status, and what they were about.
    repeated: Mutex<Vec<String>>,
    /// The plural of what cannot be created.
    refused: Mutex<Option<&'static str>>,
    /// The plural of what watches tell nothing of for now.
    hidden: Arc<Awaited<Option<&'static str>>>,
    /// The plural of what watches never tell of.
    lost: Arc<Mutex<Option<&'static str>>>,
}

/// What a webhook says that refuses everything.
pub(crate) const REFUSAL: &str = "admission webhook \"deny.example.com\" denied the request: no";

impl fmt::Debug for CountingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingClient")
    }
}

#[async_trait]
impl Client for CountingClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Write::Create(target, ..) = &write
            && *self.refused.lock() == Some(&target.resource.plural)
        {
            return Err(ApiError::new(Reason::Forbidden, REFUSAL).into());
        }
        let before = self.status_before(&write).await;
        let reply = match review_or(write) {
            Ok(review) => return Ok(Arc::new(Object::from_value(&review)?)),
            Err(write) => self.inner.write(write).await?,
        };
        if before.is_some_and(|before| before == reply.to_value()["status"]) {
            self.repeated.lock().push(format!("{} {}", reply.kind(), reply.key()));
        }
        Ok(reply)
    }

    async fn watch(&self, t: Target, options: WatchOptions) -> Result<WatchStream, ClientError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (plural, lost) = (t.resource.plural.clone(), self.lost.clone());
        let (of, hidden) = (plural.clone(), self.hidden.clone());
        let events = self.inner.watch(t, options).await?;
        let told = events.then(move |event| {
            let (of, hidden) = (of.clone(), hidden.clone());
            async move {
                hidden.wait_for(|hidden| hidden.is_none_or(|hidden| of != hidden)).await;
                event
            }
        });
        let told =
            told.filter(move |_| std::future::ready(lost.lock().is_none_or(|of| plural != of)));
        Ok(told.boxed())
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.inner.resource_types().await
    }
}

impl CountingClient {
    /// What a write of a status replaces.
    async fn status_before(&self, write: &Write) -> Option<Value> {
        let target = write.target();
        if target.subresource.as_deref() != Some("status") {
            return None;
        }
        let whole = Target { subresource: None, ..target.clone() };
        match self.inner.read(Read::Get(whole)).await.ok()? {
            ReadReply::Object(object) => Some(object.to_value()["status"].clone()),
            _ => None,
        }
    }
}

/// Answers an access review as an authorizer would that lets node agents renew their own
/// certificates, and bootstrapping ones ask for their first. Approvals are stored with the status.
#[expect(clippy::result_large_err, reason = "the other way is what goes on")]
fn review_or(write: Write) -> Result<Value, Write> {
    match write {
        Write::Create(target, mut review, _)
            if target.resource.plural == "subjectaccessreviews" =>
        {
            let groups = review["spec"]["groups"].as_array().cloned().unwrap_or_default();
            let may = match review["spec"]["resourceAttributes"]["subresource"].as_str() {
                Some("selfnodeclient") => groups.contains(&json!("system:nodes")),
                Some("nodeclient") => groups.contains(&json!("system:bootstrappers")),
                _ => false,
            };
            review["status"] = json!({"allowed": may});
            Ok(review)
        }
        Write::Update(mut target, body, options)
            if target.subresource.as_deref() == Some("approval") =>
        {
            target.subresource = Some("status".into());
            Err(Write::Update(target, body, options))
        }
        other => Err(other),
    }
}

pub(crate) struct World {
    pub(crate) cluster: MemoryClient,
    counting: Arc<CountingClient>,
    pub(crate) informers: Informers,
    /// Whether the pretended node agent makes pods ready.
    pub(crate) ready: Arc<AtomicBool>,
    _stop: DropGuard,
    _run: JoinHandle<()>,
}

impl World {
    /// A cluster in which these controllers run, and pods become ready at once.
    pub(crate) fn start<R: Into<Runnable>>(controllers: impl FnOnce(&Informers) -> Vec<R>) -> Self {
        Self::with_faults(1, FaultRates::default(), controllers)
    }

    /// The same, with faults on the controllers' calls, drawn from a seed.
    pub(crate) fn with_faults<R: Into<Runnable>>(
        seed: u64,
        rates: FaultRates,
        controllers: impl FnOnce(&Informers) -> Vec<R>,
    ) -> Self {
        let epoch = "2026-01-01T00:00:00Z".parse().unwrap();
        let environment = Environment::seeded(epoch, seed);
        let cluster = MemoryClient::new(environment.clone());
        Self::assemble(cluster, &environment, rates, controllers)
    }

    /// The controllers start anew over a cluster that is there.
    pub(crate) fn over<R: Into<Runnable>>(
        cluster: MemoryClient,
        controllers: impl FnOnce(&Informers) -> Vec<R>,
    ) -> Self {
        let epoch = "2026-01-02T00:00:00Z".parse().unwrap();
        let environment = Environment::seeded(epoch, 2);
        Self::assemble(cluster, &environment, FaultRates::default(), controllers)
    }

    fn assemble<R: Into<Runnable>>(
        cluster: MemoryClient,
        environment: &Environment,
        rates: FaultRates,
        controllers: impl FnOnce(&Informers) -> Vec<R>,
    ) -> Self {
        let counting = Arc::new(CountingClient {
            inner: cluster.clone(),
            writes: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            repeated: Mutex::default(),
            refused: Mutex::new(None),
            hidden: Arc::new(Awaited::new(None)),
            lost: Arc::default(),
        });
        let faulty = FaultyClient::seeded(counting.clone(), environment.clone(), rates);
        let informers = Informers::new(Arc::new(faulty), environment.clone());
        let ready = Arc::new(AtomicBool::new(true));
        let mut manager = Manager::new().with(node_agent(&cluster, environment, ready.clone()));
        manager.extend(controllers(&informers));
        let stop = CancellationToken::new();
        let run = tokio::spawn(manager.run(stop.clone()));
        let _stop = stop.drop_guard();
        Self { cluster, counting, informers, ready, _stop, _run: run }
    }

    /// From now on controllers can create nothing of this kind, or everything again.
    pub(crate) fn refuse(&self, plural: Option<&'static str>) {
        *self.counting.refused.lock() = plural;
    }

    /// From now on no watch tells of this kind, or what it has not told yet.
    pub(crate) fn hide(&self, plural: Option<&'static str>) {
        self.counting.hidden.set(plural);
    }

    /// From now on changes of this kind are lost on their way to the watches, or no more.
    pub(crate) fn lose(&self, plural: Option<&'static str>) {
        *self.counting.lost.lock() = plural;
    }

    /// How many writes the controllers made so far.
    pub(crate) fn writes(&self) -> u64 {
        self.counting.writes.load(Ordering::Relaxed)
    }

    /// How many calls of any kind the controllers made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.counting.calls.load(Ordering::Relaxed)
    }

    /// The objects whose status was written as it was already, once for each time.
    pub(crate) fn repeated(&self) -> Vec<String> {
        self.counting.repeated.lock().clone()
    }

    pub(crate) fn resources<K: Watchable>(&self) -> Resources<K> {
        Resources::namespaced(Arc::new(self.cluster.clone()), "default")
    }

    pub(crate) fn all<K: Watchable>(&self) -> Resources<K> {
        Resources::all(Arc::new(self.cluster.clone()))
    }

    pub(crate) async fn create<K: Watchable>(&self, value: Value) -> Arc<K> {
        let object: K = serde_json::from_value(value).expect("a valid object");
        self.resources::<K>().create(&object).await.expect("created")
    }

    pub(crate) async fn create_cluster<K: Watchable>(&self, value: Value) -> Arc<K> {
        let object: K = serde_json::from_value(value).expect("a valid object");
        self.all::<K>().create(&object).await.expect("created")
    }

    pub(crate) async fn patch<K: Watchable>(&self, name: &str, patch: Value) -> Arc<K> {
        self.resources::<K>().patch(name, PatchKind::Merge, patch).await.expect("patched")
    }

    pub(crate) async fn delete<K: Watchable>(&self, name: &str) {
        self.resources::<K>().delete(name, DeleteOptions::default()).await.expect("deleted");
    }

    pub(crate) async fn list<K: Watchable>(&self) -> Vec<Arc<K>> {
        self.resources::<K>().list(ListOptions::default()).await.expect("listed")
    }

    pub(crate) async fn get<K: Watchable>(&self, name: &str) -> Option<Arc<K>> {
        self.resources::<K>().get_opt(name).await.expect("answered")
    }

    /// What was told of an object, in no order: type, reason and message.
    pub(crate) async fn told(&self, name: &str) -> Vec<(String, String, String)> {
        let events = self.list::<Event>().await;
        let about = events.iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        about.map(|e| (text(&e.type_), text(&e.reason), text(&e.message))).collect()
    }

    /// Waits until an object was told of with this reason, and gives the message.
    pub(crate) async fn hears(&self, name: &str, reason: &str) -> String {
        let what = format!("{reason} about {name}");
        self.eventually(&what, async |world| {
            let told = world.told(name).await;
            told.into_iter().find(|(_, known, _)| known == reason).map(|(_, _, message)| message)
        })
        .await
    }

    /// Waits in virtual time until `check` gives something.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        check: impl AsyncFn(&World) -> Option<T>,
    ) -> T {
        for _ in 0..20_000 {
            if let Some(found) = check(self).await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never happened: {what}");
    }

    /// Lets so much virtual time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Assigns pods to a node, makes them ready, and lets those go that are asked to.
fn node_agent(
    cluster: &MemoryClient,
    environment: &Environment,
    ready: Arc<AtomicBool>,
) -> Runnable {
    let client: Arc<dyn Client> = Arc::new(cluster.clone());
    let informers = Informers::new(client.clone(), environment.clone());
    let pods = informers.of::<Pod>();
    let epoch = environment.clone();
    let controller = Controller::builder("node-agent", &informers).watches_own::<Pod>().build(
        move |key: Key| {
            let (client, ready) = (client.clone(), ready.load(Ordering::Relaxed));
            let (pod, now) = (pods.get(&key), epoch.clock.now());
            async move {
                let Some(pod) = pod else { return Ok(Action::Done) };
                let pods: Resources<Pod> = Resources::namespaced(client, &key.namespace);
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                if pod.metadata.deletion_timestamp.is_some() {
                    let grace = DeleteOptions { grace_period_s: Some(0), ..Default::default() };
                    let gone = pods.delete(&key.name, grace).await;
                    if gone.is_err_and(|error| !error.is_not_found()) {
                        return Ok(Action::RequeueAfter(Duration::from_secs(1)));
                    }
                } else if !ready {
                    return Ok(Action::RequeueAfter(Duration::from_secs(1)));
                } else if phase.is_none_or(|phase| phase == "Pending") {
                    let wanted = serde_json::to_value(&pod.spec).unwrap_or_default();
                    let path = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                        /nodeSelectorTerms/0/matchFields/0/values/0";
                    let node = wanted.pointer(path).cloned().unwrap_or(json!("node-1"));
                    let patch = json!({"spec": {"nodeName": node}});
                    pods.patch(&key.name, PatchKind::Merge, patch).await?;
                    let last = key.name.bytes().map(u32::from).sum::<u32>() % 250 + 1;
                    let status = json!({"status": {
                        "phase": "Running",
                        "startTime": orch_core::clock::to_seconds(now).to_string(),
                        "podIP": format!("10.0.0.{last}"), "podIPs": [{"ip": format!("10.0.0.{last}")}],
                        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime":
                            orch_core::clock::to_seconds(now).to_string()}],
                    }});
                    pods.patch_status(&key.name, PatchKind::Merge, status).await?;
                }
                Ok(Action::Done)
            }
        },
    );
    controller.into()
}

/// A template with one container.
pub(crate) fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image,
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
    })
}
