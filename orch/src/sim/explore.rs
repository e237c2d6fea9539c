//! Many seeds on all cores, and what fails made small.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    faults::FaultPlan,
    invariant::Invariant,
    shrink::shrink,
    simulation::Simulation,
    world::{Report, World},
};

/// How many runs one failing seed may take to be made small, unless told otherwise.
const SHRINKING_RUNS: u32 = 200;
/// How many failing seeds are made small, unless told otherwise.
const SHRUNK: usize = 3;
/// How often it is told how far an exploration is.
const TOLD: usize = 10;

/// Runs a scenario from many seeds, with everything going wrong that
/// [`FaultPlan::drawn`] draws, on all cores.
///
/// ```no_run
/// use orch::sim::{World, explore, standard};
/// # async fn scenario(_: World) {}
///
/// explore(scenario, standard::all, 0..1000).assert_holds();
/// ```
///
/// [`Exploration`] has everything else that can be chosen.
///
/// # Panics
/// If a cluster cannot be started.
pub fn explore<F, Fut, I>(
    scenario: F,
    invariants: I,
    seeds: impl IntoIterator<Item = u64>,
) -> Explored
where
    F: Fn(World) -> Fut + Sync,
    Fut: Future<Output = ()>,
    I: Fn(Duration) -> Vec<Box<dyn Invariant>> + Send + Sync + 'static,
{
    let simulation = Simulation::new(0).faults(FaultPlan::drawn).invariants(invariants);
    Exploration::of(simulation).run(scenario, seeds)
}

/// A search through many seeds.
#[derive(Clone, Debug)]
pub struct Exploration {
    simulation: Simulation,
    threads: Option<NonZeroUsize>,
    first_only: bool,
    shrunk: usize,
    shrinking_runs: u32,
    tells: bool,
}

impl Exploration {
    /// A search with this description of a run, whose seed does not matter.
    pub fn of(simulation: Simulation) -> Self {
        Self {
            simulation,
            threads: None,
            first_only: false,
            shrunk: SHRUNK,
            shrinking_runs: SHRINKING_RUNS,
            tells: true,
        }
    }

    /// How many runs there are at the same time. Default: as many as there are cores.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Begins no run any more once one has failed. Default: all seeds are run.
    #[must_use]
    pub fn stop_at_first(mut self) -> Self {
        self.first_only = true;
        self
    }

    /// How many of the failing seeds are made small, and how many runs each may take. Default: three
    /// with 200 runs.
    #[must_use]
    pub fn shrink(mut self, seeds: usize, runs: u32) -> Self {
        (self.shrunk, self.shrinking_runs) = (seeds, runs);
        self
    }

    /// Does not tell on standard error how far it is. Default: it does, ten times.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.tells = false;
        self
    }

    /// Runs the scenario from every seed, each on a paused runtime of one thread of its own. Do not
    /// call it inside of a runtime.
    ///
    /// # Panics
    /// If a cluster cannot be started.
    pub fn run<F, Fut>(&self, scenario: F, seeds: impl IntoIterator<Item = u64>) -> Explored
    where
        F: Fn(World) -> Fut + Sync,
        Fut: Future<Output = ()>,
    {
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let stopped = AtomicBool::new(false);
        let told = Told { all: seeds.len(), done: AtomicUsize::new(0), tells: self.tells };
        let reports = self.each(&seeds, |seed| {
            if self.first_only && stopped.load(Ordering::Relaxed) {
                return None;
            }
            let report = self.simulation.clone().seed(*seed).run(&scenario);
            stopped.fetch_or(report.violation.is_some(), Ordering::Relaxed);
            told.one_more(&report);
            Some(report)
        });
        let mut explored = Explored::default();
        let mut failed = Vec::new();
        for report in reports.into_iter().flatten() {
            explored.count(&report);
            failed.extend(report.violation.is_some().then_some(report));
        }
        let (small, rest) = failed.split_at(failed.len().min(self.shrunk));
        explored.failures = self.each(small, |report| self.shrink_one(report, &scenario));
        let as_found = |report: &Report| Failure { found: report.clone(), smallest: None, runs: 0 };
        explored.failures.extend(rest.iter().map(as_found));
        explored
    }

    /// Does something for each, on several threads. The results are in the order of the input.
    fn each<T: Sync, R: Send>(&self, all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = self.threads.map_or_else(cores, NonZeroUsize::get).min(all.len());
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(all.len())));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(one) = all.get(at) else { return };
                        let result = work(one);
                        results.lock().push((at, result));
                    }
                });
            }
        });
        let mut results = results.into_inner();
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn shrink_one<F, Fut>(&self, found: &Report, scenario: &F) -> Failure
    where
        F: Fn(World) -> Fut + Sync,
        Fut: Future<Output = ()>,
    {
        let of = |report: &Report| report.violation.as_ref().map(|found| found.invariant.clone());
        let mut smallest = None;
        let (_, runs) = shrink(found.plan.clone(), self.shrinking_runs, |plan| {
            let simulation = self.simulation.clone().seed(found.seed).plan(plan.clone());
            let report = simulation.run(scenario);
            let same = of(&report) == of(found);
            if same {
                smallest = Some(report);
            }
            same
        });
        Failure { found: found.clone(), smallest, runs }
    }
}

/// How far it is.
struct Told {
    all: usize,
    done: AtomicUsize,
    tells: bool,
}

impl Told {
    fn one_more(&self, report: &Report) {
        let (done, all) = (self.done.fetch_add(1, Ordering::Relaxed) + 1, self.all);
        if !self.tells {
            return;
        }
        if let Some(violation) = &report.violation {
            eprintln!("seed {} fails: {violation}", report.seed);
        }
        if all >= TOLD && done * TOLD / all != (done - 1) * TOLD / all {
            eprintln!("{done} of {all} seeds");
        }
    }
}

/// A seed that fails.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run as it was found.
    pub found: Report,
    /// The run with the smallest plan of faults that still fails the same invariant; `None` if
    /// nothing could be left out, or nobody tried.
    pub smallest: Option<Report>,
    /// How many runs were made to find that.
    pub runs: u32,
}

impl Failure {
    /// The run that says it best.
    pub fn report(&self) -> &Report {
        self.smallest.as_ref().unwrap_or(&self.found)
    }
}

/// What came of an exploration.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// How many seeds were run.
    pub seeds: u64,
    /// Those that failed, in the order of the seeds.
    pub failures: Vec<Failure>,
    /// How many revisions were looked at.
    pub steps: u64,
    /// How many calls the components and the users made.
    pub requests: u64,
    /// How many faults of calls and watches were injected.
    pub faults: u64,
}

impl Explored {
    fn count(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.requests += report.requests;
        self.faults += report.faults;
    }

    /// Says that everything held.
    ///
    /// # Panics
    /// If something did not: with every seed that fails, what replays each of them, and the last
    /// steps of the first one.
    pub fn assert_holds(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, failures, steps, requests, faults } = self;
        writeln!(
            f,
            "{seeds} seeds, {steps} steps, {requests} calls, {faults} calls and watches failed"
        )?;
        let Some(first) = failures.first() else { return write!(f, "everything held") };
        writeln!(
            f,
            "{} of {seeds} seeds fail; the first one:\n{}",
            failures.len(),
            first.report()
        )?;
        for failure in failures {
            let Some(violation) = &failure.found.violation else { continue };
            writeln!(
                f,
                "\nseed {}: {violation}\n  {}",
                failure.found.seed,
                failure.report().replay()
            )?;
        }
        Ok(())
    }
}
