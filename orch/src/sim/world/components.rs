//! The processes of a simulated cluster.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt;
use orch_controllers::{
    Manager,
    standard::{StandardOptions, standard},
    volumes::{LocalPath, LocalPathOptions},
};
use orch_core::{Client, Environment, informer::Informers, random::Random};
use orch_node::{
    AgentOptions, NodeAgent,
    machine::Machine,
    runtime::{RuntimeError, simulated::SimulatedRuntime},
    testing::FaultyRuntime,
};
use orch_sched::Scheduler;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::sim::{faults::Component, process::Start};

/// The controllers of the process [`Component::Workloads`]: pods of workloads are created and
/// deleted by the controller of their owner only, so that a step by this process says which of
/// them it was.
const WORKLOADS: [&str; 8] = [
    "deployment-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "horizontal-pod-autoscaler-controller",
];

/// Informers that end with the life of the process that they belong to.
struct OwnInformers(Informers);

impl Drop for OwnInformers {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The machines of the nodes.
#[derive(Debug, Clone)]
pub(super) struct Machines {
    all: BTreeMap<Component, Arc<SimulatedMachine>>,
}

#[derive(Debug)]
struct SimulatedMachine {
    runtime: Mutex<Arc<SimulatedRuntime>>,
    fails: Arc<AtomicBool>,
    random: Arc<dyn Random>,
}

impl Machines {
    pub(super) fn new(environment: &Environment, random: &Arc<dyn Random>, count: usize) -> Self {
        let machine = || {
            Arc::new(SimulatedMachine {
                runtime: Mutex::new(Arc::new(SimulatedRuntime::new(environment.clone()))),
                fails: Arc::default(),
                random: random.clone(),
            })
        };
        Self { all: (1..=count).map(|number| (Component::Node(number), machine())).collect() }
    }

    /// Everything that runs on a machine is gone.
    pub(super) fn lose_power(&self, component: &Component, environment: &Environment) {
        if let Some(machine) = self.all.get(component) {
            *machine.runtime.lock() = Arc::new(SimulatedRuntime::new(environment.clone()));
        }
    }

    /// Whether a machine's runtime refuses most calls from now on.
    pub(super) fn fail(&self, component: &Component, fails: bool) {
        if let Some(machine) = self.all.get(component) {
            machine.fails.store(fails, Ordering::Relaxed);
        }
    }
}

impl SimulatedMachine {
    fn runtime(&self) -> FaultyRuntime {
        let (fails, random) = (self.fails.clone(), self.random.clone());
        FaultyRuntime::new(self.runtime.lock().clone(), move |_| {
            let refused = fails.load(Ordering::Relaxed) && random.below(3) > 0;
            refused.then(|| RuntimeError::Refused("injected".to_owned()))
        })
    }
}

/// Every component, and how each of its lives begins.
pub(super) fn all(environment: &Environment, machines: &Machines) -> Vec<(Component, Start)> {
    let mut all = vec![
        (Component::Workloads, controllers(environment, true)),
        (Component::Housekeeping, controllers(environment, false)),
        (Component::Scheduler, scheduler(environment)),
    ];
    for (component, machine) in &machines.all {
        all.push((component.clone(), node(environment, component, machine)));
    }
    all
}

fn controllers(environment: &Environment, workloads: bool) -> Start {
    let environment = environment.clone();
    Box::new(move |client| {
        let informers = OwnInformers(Informers::new(client.clone(), environment.clone()));
        let mut options = StandardOptions::new(client);
        let folder = LocalPathOptions { deletes_folders: false, ..LocalPathOptions::new("/srv") };
        options.provisioners.push(Arc::new(LocalPath::new(folder)));
        options.controllers = if workloads {
            WORKLOADS.iter().map(|name| (*name).to_owned()).collect()
        } else {
            let without = WORKLOADS.iter().map(|name| format!("-{name}"));
            std::iter::once("*".to_owned()).chain(without).collect()
        };
        async move {
            let mut manager = Manager::new();
            manager.extend(standard(&informers.0, &options).expect("names of controllers"));
            manager.run(CancellationToken::new()).await;
        }
        .boxed()
    })
}

fn scheduler(environment: &Environment) -> Start {
    let environment = environment.clone();
    Box::new(move |client: Arc<dyn Client>| {
        let informers = OwnInformers(Informers::new(client, environment.clone()));
        async move {
            let scheduler = Scheduler::builder(&informers.0).build().expect("the default profile");
            scheduler.run(CancellationToken::new()).await;
        }
        .boxed()
    })
}

fn node(
    environment: &Environment,
    component: &Component,
    machine: &Arc<SimulatedMachine>,
) -> Start {
    let (environment, name, machine) =
        (environment.clone(), component.to_string(), machine.clone());
    Box::new(move |client| {
        let options = AgentOptions { machine: Machine::simulated(4, 8), ..AgentOptions::default() };
        let runtime = Arc::new(machine.runtime());
        let agent = NodeAgent::builder(client, environment.clone(), name.clone(), runtime);
        let agent = agent.options(options);
        async move { agent.build().run(CancellationToken::new()).await }.boxed()
    })
}
