//! A cluster whose components are processes that can fail, and a run of it from a seed.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use orch_api::{
    ApiServer, Bootstrap, ServerOptions, admission::StorageObjectInUseProtection, auth::UserInfo,
};
use orch_controllers::volumes::{LocalPath, ensure_storage_class};
use orch_core::{
    Client, ClientError, Environment, Key, ResourceType, Resources, Target,
    client::{DeleteOptions, PatchKind, Propagation, Write, WriteOptions},
    informer::Watchable,
    random::{Random, SeededRandom},
};
use orch_store::{KeyRange, MemoryOptions, MemoryStore, StoreReader, WatchItem, WatchRequest};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::{
    faults::{Component, FaultPlan, Trouble},
    invariant::{Invariant, Observer, Violation},
    journal::{Journal, Noted},
    link::Line,
    process::Process,
    view::View,
};

mod components;

/// When every simulation begins.
const EPOCH_S: i64 = 1_700_000_000;

/// How long a scenario lasts unless told otherwise.
const LENGTH_DEFAULT: Duration = Duration::from_secs(600);

/// How long a cluster is given to settle once nothing fails any more: keys that failed again and
/// again come back after up to 1000 s, and containers after up to five minutes.
const SETTLES_DEFAULT: Duration = Duration::from_secs(1800);

type Draw = fn(&dyn Random, usize, Duration) -> FaultPlan;
type Invariants = fn(Duration) -> Vec<Box<dyn Invariant>>;

/// Describes a run.
#[derive(Debug)]
pub struct Simulation {
    seed: u64,
    nodes: usize,
    length: Duration,
    settles: Duration,
    draw: Draw,
    invariants: Invariants,
}

impl Simulation {
    /// A run from a seed: three nodes, ten minutes, no faults, no invariants.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            length: LENGTH_DEFAULT,
            settles: SETTLES_DEFAULT,
            draw: |_, _, _| FaultPlan::none(),
            invariants: |_| Vec::new(),
        }
    }

    /// How many simulated nodes there are. Default 3.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How long things may fail, in virtual time. A scenario that ends earlier waits for the rest.
    /// Default ten minutes.
    #[must_use]
    pub fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// How long the cluster has to settle, once nothing fails any more. Default half an hour.
    #[must_use]
    pub fn settles_within(mut self, settles: Duration) -> Self {
        self.settles = settles;
        self
    }

    /// What goes wrong, such as [`FaultPlan::drawn`].
    #[must_use]
    pub fn faults(mut self, draw: Draw) -> Self {
        self.draw = draw;
        self
    }

    /// What must hold, such as [`standard::all`](super::standard::all): made for components whose
    /// copies of the cluster may be so much older than it.
    #[must_use]
    pub fn invariants(mut self, invariants: Invariants) -> Self {
        self.invariants = invariants;
        self
    }

    /// Runs a scenario on a paused runtime of one thread of its own: what happens is a function
    /// of the seed. Do not call it inside of another runtime.
    ///
    /// # Panics
    /// If the cluster cannot be started, or the scenario panics.
    pub fn run<F, Fut>(self, scenario: F) -> Report
    where
        F: FnOnce(World) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(self.run_here(scenario))
    }

    async fn run_here<F, Fut>(self, scenario: F) -> Report
    where
        F: FnOnce(World) -> Fut,
        Fut: Future<Output = ()>,
    {
        let faults: Arc<dyn Random> = Arc::new(SeededRandom::new(!self.seed));
        let plan = (self.draw)(&*faults, self.nodes, self.length);
        let invariants = (self.invariants)(plan.staleness());
        let world = World::start(&self, plan.clone(), faults, invariants).await;
        let troubles = tokio::spawn(world.clone().troubles(plan.clone()));
        let troubles = AbortOnDropHandle::new(troubles);
        let start = tokio::time::Instant::now();
        scenario(world.clone()).await;
        tokio::time::sleep_until(start + self.length).await;
        drop(troubles);
        world.calm();
        tokio::time::sleep(self.settles).await;
        world.report(self.seed, plan)
    }
}

struct Parts {
    api: ApiServer,
    environment: Environment,
    observer: Mutex<Observer>,
    journal: Arc<Mutex<Journal>>,
    processes: BTreeMap<Component, Arc<Process>>,
    machines: components::Machines,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// A cluster that runs. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Parts>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("observer", &*self.0.observer.lock()).finish_non_exhaustive()
    }
}

impl World {
    async fn start(
        simulation: &Simulation,
        plan: FaultPlan,
        faults: Arc<dyn Random>,
        invariants: Vec<Box<dyn Invariant>>,
    ) -> Self {
        let epoch = Timestamp::from_second(EPOCH_S).expect("a date");
        let environment = Environment::seeded(epoch, simulation.seed);
        let store = MemoryStore::new(environment.clone(), MemoryOptions::default());
        let api = server(store.clone(), &environment).await;
        let journal: Arc<Mutex<Journal>> = Arc::default();
        let machines = components::Machines::new(&environment, &faults, simulation.nodes);
        let mut processes = BTreeMap::new();
        for (component, start) in components::all(&environment, &machines) {
            let client = noted(&api, &component.to_string(), &journal);
            let line = Line::new(faults.clone());
            line.set_chances(plan.pace(), plan.rates);
            processes.insert(component, Process::new(line, client, start));
        }
        let observer = Mutex::new(Observer::new(invariants));
        let tasks = Mutex::default();
        let parts = Parts { api, environment, observer, journal, processes, machines, tasks };
        let world = Self(Arc::new(parts));
        let mut tasks = vec![tokio::spawn(follow(Arc::downgrade(&world.0), store))];
        let processes = world.0.processes.values();
        tasks.extend(processes.map(|process| tokio::spawn(process.clone().run())));
        *world.0.tasks.lock() = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        world
    }

    /// A client that nothing goes wrong with: the user's.
    pub fn client(&self) -> Arc<dyn Client> {
        noted(&self.0.api, "user", &self.0.journal)
    }

    /// The same as a `kube::Client`. What it writes has no known writer.
    pub fn kube(&self) -> kube::Client {
        self.0.api.kube_client(UserInfo::master("system:admin"), "default")
    }

    /// Clock and randomness of the cluster.
    pub fn environment(&self) -> &Environment {
        &self.0.environment
    }

    /// Looks at the cluster as it was observed last.
    pub fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(self.0.observer.lock().view())
    }

    /// Creates an object of a built-in kind, which says by itself what and where it is. What is
    /// refused is noted in the timeline, and not a failure of the scenario.
    pub async fn create(&self, object: Value) -> Option<Arc<orch_core::Object>> {
        let (kind, version) = (object["kind"].clone(), object["apiVersion"].clone());
        let resource = self.resource(kind.as_str()?, version.as_str()?).await?;
        let namespace = object["metadata"]["namespace"].as_str();
        let target = Target::collection(resource, namespace);
        self.note_of(self.client().write(Write::Create(target, object, WriteOptions::default())))
            .await
    }

    /// Patches an object by RFC 7386.
    pub async fn patch<K: Watchable>(&self, key: &Key, patch: Value) -> Option<Arc<K>> {
        let resources = Resources::<K>::namespaced(self.client(), &key.namespace);
        self.note_of(resources.patch(&key.name, PatchKind::Merge, patch)).await
    }

    /// Deletes an object.
    pub async fn delete<K: Watchable>(&self, key: &Key, propagation: Option<Propagation>) {
        let resources = Resources::<K>::namespaced(self.client(), &key.namespace);
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        self.note_of(resources.delete(&key.name, options)).await;
    }

    async fn note_of<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Option<T> {
        match call.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.note(&format!("the user was told: {error}"));
                None
            }
        }
    }

    async fn resource(&self, kind: &str, version: &str) -> Option<ResourceType> {
        let types = self.client().resource_types().await.ok()?;
        types.into_iter().find(|of| of.kind == kind && of.api_version() == version)
    }

    /// Adds a line to the timeline.
    pub fn note(&self, what: &str) {
        self.0.observer.lock().note(self.0.environment.clock.now(), what);
    }

    /// Whether an invariant has been violated: there is no use in going on.
    pub fn is_violated(&self) -> bool {
        self.0.observer.lock().violation().is_some()
    }

    async fn troubles(self, plan: FaultPlan) {
        let start = tokio::time::Instant::now();
        let mut pending: Vec<AbortOnDropHandle<()>> = Vec::new();
        for disturbance in plan.disturbances {
            tokio::time::sleep_until(start + disturbance.at).await;
            self.note(&format!("{}: {:?}", disturbance.component, disturbance.trouble));
            let (world, component) = (self.clone(), disturbance.component);
            let task = tokio::spawn(world.befall(component, disturbance.trouble));
            pending.push(AbortOnDropHandle::new(task));
        }
        std::future::pending::<()>().await;
    }

    /// Lets a trouble befall a component, and waits until it is over.
    async fn befall(self, component: Component, trouble: Trouble) {
        let Some(process) = self.0.processes.get(&component) else { return };
        match trouble {
            Trouble::Crash { calls, carried_out, restart } => {
                process.set_restart(restart);
                process.line.crash_at(calls, carried_out);
            }
            Trouble::CutOff { length } => {
                process.line.cut(true);
                tokio::time::sleep(length).await;
                process.line.cut(false);
            }
            Trouble::PowerLoss { restart } => {
                process.set_restart(restart);
                self.0.machines.lose_power(&component, &self.0.environment);
                process.kill();
            }
            Trouble::RuntimeFails { length } => {
                self.0.machines.fail(&component, true);
                tokio::time::sleep(length).await;
                self.0.machines.fail(&component, false);
            }
        }
    }

    /// Nothing fails any more.
    fn calm(&self) {
        self.note("nothing fails any more");
        for (component, process) in &self.0.processes {
            process.line.calm();
            self.0.machines.fail(component, false);
        }
    }

    fn report(&self, seed: u64, plan: FaultPlan) -> Report {
        let mut observer = self.0.observer.lock();
        observer.settled();
        let journal = self.0.journal.lock();
        Report {
            seed,
            plan,
            violation: observer.violation().cloned(),
            timeline: observer.timeline().collect(),
            steps: observer.steps(),
            requests: journal.requests(),
            idle_writes: journal.idle().clone(),
            faults: self.0.processes.values().map(|process| process.line.injected()).sum(),
        }
    }
}

fn noted(api: &ApiServer, writer: &str, journal: &Arc<Mutex<Journal>>) -> Arc<dyn Client> {
    let inner = api.client(UserInfo::master(format!("system:{writer}")));
    Arc::new(Noted { inner, writer: writer.into(), journal: journal.clone() })
}

async fn server(store: MemoryStore, environment: &Environment) -> ApiServer {
    let api = ApiServer::builder(Arc::new(store))
        .environment(environment.clone())
        .options(ServerOptions::default())
        // Quotas are kept by admission, and claims get their class from it.
        .default_admission()
        .admission(Arc::new(StorageObjectInUseProtection))
        .build();
    let bootstrap =
        Bootstrap { roles: false, api_services: false, client_authority: None, address: None };
    api.bootstrap(&bootstrap).await.expect("the server starts");
    let client = api.client(UserInfo::master("system:orch"));
    let class = LocalPath::storage_class();
    ensure_storage_class(client, &class).await.expect("a storage class");
    api
}

/// Hands every revision to the observer, once everybody who wrote it has been told so.
async fn follow(parts: std::sync::Weak<Parts>, store: MemoryStore) {
    let request = WatchRequest { range: KeyRange::prefix("/"), from: Some(1) };
    let mut items = store.watch(request).await.expect("a watch");
    while let Some(item) = items.next().await {
        let Ok(WatchItem::Events(events)) = item else { continue };
        let Some(time) = parts.upgrade().map(|parts| parts.environment.clock.now()) else { return };
        let mut waiting = vec![(time, events)];
        // Virtual time moves when everything that can run has run: who wrote what is noted then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(parts) = parts.upgrade() else { return };
        while let Some(Some(Ok(item))) = items.next().now_or_never() {
            if let WatchItem::Events(events) = item {
                waiting.push((time, events));
            }
        }
        let (mut observer, mut journal) = (parts.observer.lock(), parts.journal.lock());
        for (time, events) in waiting {
            for step in events.chunk_by(|a, b| a.entry.mod_revision == b.entry.mod_revision) {
                let revision = step[0].entry.mod_revision;
                let of = key_of(&step[0].entry.key);
                let writer = journal.writer(revision, &of.0, &of.1).map(str::to_owned);
                observer.step(step, time, writer.as_deref());
                journal.forget(revision);
            }
        }
    }
}

/// Kind and key of what lies under a key of the store, as far as it matters for deletions.
fn key_of(key: &[u8]) -> (String, Key) {
    let text = String::from_utf8_lossy(key);
    let mut parts = text.rsplitn(3, '/');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or_default();
    let place = parts.next().unwrap_or_default();
    let kind = if place.ends_with("/pods") { "Pod" } else { place };
    (kind.to_owned(), Key::new(namespace, name))
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed, which replays it.
    pub seed: u64,
    /// What went wrong.
    pub plan: FaultPlan,
    /// What did not hold, if something did not.
    pub violation: Option<Violation>,
    /// The last steps before the violation, or of the run.
    pub timeline: Vec<String>,
    /// How many revisions were looked at.
    pub steps: u64,
    /// How many calls the components and the user made.
    pub requests: u64,
    /// Writes of the components that changed nothing: who wrote what, and how often.
    pub idle_writes: BTreeMap<String, u64>,
    /// How many faults of calls and watches were injected.
    pub faults: u64,
}

impl Report {
    /// Says that everything held.
    ///
    /// # Panics
    /// If something did not: with what it was, what went wrong before, and the last steps.
    pub fn assert_holds(&self) {
        if let Some(violation) = &self.violation {
            panic!(
                "seed {}: {violation}\nwhat went wrong: {:#?}\nthe last steps:\n{}\n\
                 Simulation::new({}) replays it",
                self.seed,
                self.plan,
                self.timeline.join("\n"),
                self.seed,
            );
        }
    }
}
