//! The description of a run, and the run.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use orch_core::random::{Random, SeededRandom};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{
    faults::{Component, FaultPlan, Scene},
    invariant::Invariant,
    process::said,
    world::{Report, World},
};

/// How long a scenario lasts unless told otherwise.
const LENGTH_DEFAULT: Duration = Duration::from_secs(600);

/// How long a cluster is given to settle once nothing fails any more: keys that failed again and
/// again come back after up to 1000 s, and containers after up to five minutes.
const SETTLES_DEFAULT: Duration = Duration::from_secs(1800);

type Draw = dyn Fn(&dyn Random, &Scene) -> FaultPlan + Send + Sync;
type Invariants = dyn Fn(Duration) -> Vec<Box<dyn Invariant>> + Send + Sync;
/// One life of a component of the user.
pub(super) type UserStart = dyn Fn(kube::Client) -> BoxFuture<'static, ()> + Send + Sync;

/// Describes a run. Cheap to clone: one description with many seeds is many runs.
#[derive(Clone)]
pub struct Simulation {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    length: Duration,
    settles: Duration,
    draw: Arc<Draw>,
    invariants: Arc<Invariants>,
    pub(super) components: Vec<(String, Arc<UserStart>)>,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation(seed {}, {} nodes, {:?})", self.seed, self.nodes, self.length)
    }
}

impl Simulation {
    /// A run from a seed: three nodes, ten minutes, no faults, no invariants.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            length: LENGTH_DEFAULT,
            settles: SETTLES_DEFAULT,
            draw: Arc::new(|_, _| FaultPlan::none()),
            invariants: Arc::new(|_| Vec::new()),
            components: Vec::new(),
        }
    }

    /// Another seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
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

    /// How long the cluster has to settle, once nothing fails any more. A run ends earlier, when
    /// nothing has changed for a minute and every invariant accepts what there is. Default half an
    /// hour.
    #[must_use]
    pub fn settles_within(mut self, settles: Duration) -> Self {
        self.settles = settles;
        self
    }

    /// What goes wrong, drawn from the seed, such as by [`FaultPlan::drawn`].
    #[must_use]
    pub fn faults(
        mut self,
        draw: impl Fn(&dyn Random, &Scene) -> FaultPlan + Send + Sync + 'static,
    ) -> Self {
        self.draw = Arc::new(draw);
        self
    }

    /// What goes wrong, whatever the seed.
    #[must_use]
    pub fn plan(self, plan: FaultPlan) -> Self {
        self.faults(move |_, _| plan.clone())
    }

    /// What must hold, such as [`standard::all`](super::standard::all): made for components whose
    /// copies of the cluster may be so much older than it.
    #[must_use]
    pub fn invariants(
        mut self,
        invariants: impl Fn(Duration) -> Vec<Box<dyn Invariant>> + Send + Sync + 'static,
    ) -> Self {
        self.invariants = Arc::new(invariants);
        self
    }

    /// A component of yours, such as a `kube::runtime::Controller`: a process of its own with a
    /// client of its own, which fails as those of the others do, and that crashes and is started
    /// again. Each life begins with a call of `start`; when its future ends or is dropped, calls of
    /// that life have no effect any more. Plans know it as [`Component::Named`].
    ///
    /// ```
    /// use futures::StreamExt;
    /// use k8s_openapi::api::core::v1::ConfigMap;
    /// use kube::{Api, runtime::{Controller, controller::Action, watcher}};
    /// use orch::sim::{FaultPlan, Simulation};
    /// # use std::{convert::Infallible, sync::Arc, time::Duration};
    /// # async fn reconcile(_: Arc<ConfigMap>, _: Arc<()>) -> Result<Action, Infallible> {
    /// #     Ok(Action::await_change())
    /// # }
    ///
    /// let report = Simulation::new(7)
    ///     .length(Duration::from_secs(60))
    ///     .faults(FaultPlan::drawn)
    ///     .component("operator", |client| async move {
    ///         Controller::new(Api::<ConfigMap>::all(client), watcher::Config::default())
    ///             .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(()))
    ///             .for_each(|_| async {})
    ///             .await;
    ///     })
    ///     .run(|_world| async {});
    /// report.assert_holds();
    /// ```
    #[must_use]
    pub fn component<F, Fut>(mut self, name: impl Into<String>, start: F) -> Self
    where
        F: Fn(kube::Client) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.components.push((name.into(), Arc::new(move |client| start(client).boxed())));
        self
    }

    /// Every component that runs.
    fn everybody(&self) -> Vec<Component> {
        let named = self.components.iter().map(|(name, _)| Component::Named(name.clone()));
        [Component::Workloads, Component::Housekeeping, Component::Scheduler]
            .into_iter()
            .chain((1..=self.nodes).map(Component::Node))
            .chain(named)
            .collect()
    }

    /// What goes wrong in this run.
    pub fn drawn_plan(&self) -> FaultPlan {
        let scene = Scene { components: self.everybody(), length: self.length };
        (self.draw)(&SeededRandom::new(!self.seed), &scene)
    }

    /// Runs a scenario on a paused runtime of one thread of its own: what happens is a function
    /// of the seed. Do not call it inside of another runtime.
    ///
    /// The run ends as soon as something does not hold. A panic of the scenario, or of what a
    /// component's life consists of, counts as that.
    ///
    /// # Panics
    /// If the cluster cannot be started.
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
        let plan = self.drawn_plan();
        let invariants = (self.invariants)(plan.staleness());
        let world = World::start(&self, &plan, invariants).await;
        let troubles = AbortOnDropHandle::new(tokio::spawn(world.clone().troubles(plan.clone())));
        let start = Instant::now();
        let course = async {
            let scenario = AssertUnwindSafe(scenario(world.clone())).catch_unwind();
            if let Err(panic) = scenario.await {
                world.violate("the scenario", said(&*panic));
            }
            tokio::time::sleep_until(start + self.length).await;
            drop(troubles);
            world.calm();
            world.settle(self.settles).await;
        };
        tokio::select! {
            biased;
            () = world.violated() => {}
            () = course => {}
        }
        world.report(self.seed, plan)
    }
}
