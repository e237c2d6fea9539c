//! A cluster whose components are processes that can fail.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use orch_api::{ApiServer, auth::UserInfo};
use orch_core::{
    Client, ClientError, Environment, Key, ResourceType, Resources, Target,
    awaited::Awaited,
    client::{DeleteOptions, PatchKind, Propagation, Write, WriteOptions},
    informer::Watchable,
    random::{Random, SeededRandom},
};
use orch_store::{Control, MemoryOptions, MemoryStore};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::{
    faults::{Component, FaultPlan},
    invariant::{Invariant, Observer},
    journal::{Journal, noted},
    link::Line,
    process::Process,
    simulation::Simulation,
    view::View,
};
use components::Machines;

mod components;
mod follow;
mod report;
mod server;
mod troubles;

pub use report::Report;

/// When every simulation begins.
const EPOCH_S: i64 = 1_700_000_000;

/// How often the user asks again when the API has a bad moment, and how long it waits before.
const ASKED_MAX: u32 = 30;
const ASKED_EVERY: Duration = Duration::from_secs(1);

struct Parts {
    api: ApiServer,
    environment: Environment,
    /// What the user draws from: nobody else does, so that it asks the same whatever goes wrong.
    user: SeededRandom,
    store: MemoryStore,
    store_faults: Option<Control>,
    observer: Mutex<Observer>,
    violated: Awaited<bool>,
    journal: Arc<Mutex<Journal>>,
    processes: BTreeMap<Component, Arc<Process>>,
    machines: Machines,
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
    pub(super) async fn start(
        simulation: &Simulation,
        plan: &FaultPlan,
        invariants: Vec<Box<dyn Invariant>>,
    ) -> Self {
        let epoch = Timestamp::from_second(EPOCH_S).expect("a date");
        let environment = Environment::seeded(epoch, simulation.seed);
        // The back-offs of `kube::runtime` draw their jitter from it.
        fastrand::seed(simulation.seed);
        // Each has a generator of its own, so that a trouble that is left out leaves the others be.
        let seeds = SeededRandom::new(simulation.seed.rotate_left(32));
        let user = SeededRandom::new(seeds.next_u64());
        let store = MemoryStore::new(environment.clone(), MemoryOptions::default());
        let chances = Arc::new(SeededRandom::new(seeds.next_u64()));
        let of_store = Environment { clock: environment.clock.clone(), random: chances };
        let (faulty, store_faults) = server::faulty(&store, of_store, plan.store);
        let api = server::server(faulty, &environment).await;
        let machines = Machines::new(&environment, seeds.next_u64(), simulation.nodes);
        let journal: Arc<Mutex<Journal>> = Arc::default();
        let all = components::all(simulation, plan, &environment, &api, &machines, &journal);
        let (mut processes, mut starts) = (BTreeMap::new(), Vec::new());
        for (component, start) in all {
            let line = Line::new(Arc::new(SeededRandom::new(seeds.next_u64())));
            line.set_chances(plan.pace(), plan.rates);
            let process = Process::new(Arc::new(line));
            starts.push((process.clone(), start));
            processes.insert(component, process);
        }
        let world = Self(Arc::new(Parts {
            api,
            environment,
            user,
            store: store.clone(),
            store_faults,
            observer: Mutex::new(Observer::new(invariants)),
            violated: Awaited::new(false),
            journal,
            processes,
            machines,
            tasks: Mutex::default(),
        }));
        let mut tasks = vec![tokio::spawn(follow::follow(Arc::downgrade(&world.0), store))];
        tasks.extend(starts.into_iter().map(|(process, start)| tokio::spawn(process.run(start))));
        *world.0.tasks.lock() = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        if let Some(control) = &world.0.store_faults {
            control.spare(false);
        }
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

    /// What the scenario draws from. It gives the same whatever goes wrong in the cluster, so that a
    /// smaller plan of faults meets the same scenario.
    pub fn random(&self) -> &dyn Random {
        &self.0.user
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
        let write = Write::Create(target, object, WriteOptions::default());
        let client = self.client();
        self.ask(|| client.write(write.clone())).await
    }

    /// Patches an object by RFC 7386.
    pub async fn patch<K: Watchable>(&self, key: &Key, patch: Value) -> Option<Arc<K>> {
        let resources = Resources::<K>::namespaced(self.client(), &key.namespace);
        self.ask(|| resources.patch(&key.name, PatchKind::Merge, patch.clone())).await
    }

    /// Deletes an object.
    pub async fn delete<K: Watchable>(&self, key: &Key, propagation: Option<Propagation>) {
        let resources = Resources::<K>::namespaced(self.client(), &key.namespace);
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        self.ask(|| resources.delete(&key.name, options.clone())).await;
    }

    /// Makes a call of the user, again if the API has a bad moment. A refusal is noted.
    async fn ask<T, Fut>(&self, call: impl Fn() -> Fut) -> Option<T>
    where
        Fut: Future<Output = Result<T, ClientError>>,
    {
        for _ in 1..ASKED_MAX {
            match call().await {
                Err(error) if error.is_retryable() => tokio::time::sleep(ASKED_EVERY).await,
                Err(error) => {
                    self.note(&format!("the user was told: {error}"));
                    return None;
                }
                Ok(answer) => return Some(answer),
            }
        }
        self.note("the user has given up");
        None
    }

    async fn resource(&self, kind: &str, version: &str) -> Option<ResourceType> {
        let types = self.client().resource_types().await.ok()?;
        types.into_iter().find(|of| of.kind == kind && of.api_version() == version)
    }

    /// Adds a line to the timeline.
    pub fn note(&self, what: &str) {
        self.0.observer.lock().note(self.0.environment.clock.now(), what);
    }

    /// Says that something does not hold: the run ends.
    pub fn violate(&self, what: &str, message: String) {
        self.0.observer.lock().violate(what, message);
        self.0.violated.set(true);
    }

    /// Whether something does not hold: there is no use in going on.
    pub fn is_violated(&self) -> bool {
        self.0.violated.get()
    }

    pub(super) async fn violated(&self) {
        self.0.violated.wait_for(|violated| violated).await;
    }

    pub(super) fn report(&self, of: &Simulation, plan: FaultPlan) -> Report {
        let mut observer = self.0.observer.lock();
        for (component, process) in &self.0.processes {
            if let Some(panic) = process.panic() {
                observer.violate(&format!("{component} panics"), panic);
            }
        }
        if observer.violation().is_none() {
            observer.settled();
        }
        let journal = self.0.journal.lock();
        let violation = observer.violation().cloned();
        let told = of.tells || violation.is_some();
        Report {
            seed: of.seed,
            plan,
            violation,
            timeline: if told { observer.timeline().collect() } else { Vec::new() },
            steps: observer.steps(),
            requests: journal.requests(),
            idle_writes: journal.idle().clone(),
            faults: self.0.processes.values().map(|process| process.line.injected()).sum(),
        }
    }
}
