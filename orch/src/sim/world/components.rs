//! The processes of a simulated cluster.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use jiff::SignedDuration;
use orch_api::ApiServer;
use orch_controllers::{
    Manager,
    standard::{StandardOptions, standard},
    volumes::{LocalPath, LocalPathOptions},
};
use orch_core::{
    Client, Environment, clock::WrongClock, informer::Informers, random::SeededRandom,
};
use orch_node::{AgentOptions, NodeAgent, machine::Machine, runtime::simulated::SimulatedRuntime};
use orch_sched::Scheduler;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    sim::{
        faults::{Component, FaultPlan},
        journal::{Journal, noted, noted_over_http},
        link::{Link, over_http},
        machine::SimulatedMachine,
        process::Start,
        simulation::Simulation,
    },
    testing::in_order,
};

/// Of a thousand calls, a runtime that fails refuses so many.
const REFUSED_PERMILLE: u64 = 667;

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
pub(super) struct Machines(BTreeMap<Component, SimulatedMachine>);

impl Machines {
    pub(super) fn new(environment: &Environment, seed: u64, count: usize) -> Self {
        let random = Arc::new(SeededRandom::new(seed));
        let machine = || {
            let runtime = SimulatedRuntime::new(environment.clone());
            SimulatedMachine::new(runtime, random.clone())
        };
        Self((1..=count).map(|number| (Component::Node(number), machine())).collect())
    }

    /// Everything that runs on a machine is gone.
    pub(super) fn lose_power(&self, component: &Component) {
        if let Some(machine) = self.0.get(component) {
            machine.inside().lose_power();
        }
    }

    /// Whether a machine's runtime refuses most calls from now on.
    pub(super) fn fail(&self, component: &Component, fails: bool) {
        if let Some(machine) = self.0.get(component) {
            machine.refuse(if fails { REFUSED_PERMILLE } else { 0 });
        }
    }
}

/// What a component of this project does with its client, for one life.
type Life = Box<dyn Fn(Arc<dyn Client>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Every component, and how each of its lives begins.
pub(super) fn all(
    simulation: &Simulation,
    plan: &FaultPlan,
    environment: &Environment,
    api: &ApiServer,
    machines: &Machines,
    journal: &Arc<Mutex<Journal>>,
) -> Vec<(Component, Start)> {
    let with_clock = |component: &Component| skewed(environment, plan, component);
    let workloads = controllers(&with_clock(&Component::Workloads), true);
    let housekeeping = controllers(&with_clock(&Component::Housekeeping), false);
    let mut all = vec![
        (Component::Workloads, workloads),
        (Component::Housekeeping, housekeeping),
        (Component::Scheduler, scheduler(&with_clock(&Component::Scheduler))),
    ];
    for (component, machine) in &machines.0 {
        all.push((component.clone(), node(&with_clock(component), component, machine)));
    }
    let linked = |(component, life): (Component, Life)| {
        let inner = noted(api, &component.to_string(), journal);
        let start: Start =
            Box::new(move |connection| life(Arc::new(Link { inner: inner.clone(), connection })));
        (component, start)
    };
    let ours = all.into_iter().map(linked);
    let yours = simulation.components.iter().map(|(name, start)| {
        let (client, start) = (noted_over_http(api, name, journal), start.clone());
        // What runs several things at a time would ask in another order in every run.
        let start: Start =
            Box::new(move |connection| start(in_order(&over_http(client.clone(), connection))));
        (Component::Named(name.clone()), start)
    });
    ours.chain(yours).collect()
}

/// The environment of a component whose clock may be wrong.
fn skewed(environment: &Environment, plan: &FaultPlan, component: &Component) -> Environment {
    let Some(skew) = plan.skews.iter().find(|skew| skew.component == *component) else {
        return environment.clone();
    };
    let ahead = SignedDuration::from_millis(skew.ahead_ms);
    let clock = WrongClock { right: environment.clock.clone(), ahead };
    Environment { clock: Arc::new(clock), random: environment.random.clone() }
}

fn controllers(environment: &Environment, workloads: bool) -> Life {
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

fn scheduler(environment: &Environment) -> Life {
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

fn node(environment: &Environment, component: &Component, machine: &SimulatedMachine) -> Life {
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
