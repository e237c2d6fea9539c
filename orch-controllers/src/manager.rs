//! Runs a set of controllers together.

use std::{borrow::Cow, fmt, future::Future};

use futures::{FutureExt, future::BoxFuture};
use orch_core::lease::Election;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, queue::WorkQueue};

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Something with a name that runs until it is told to stop: a [`Controller`](crate::Controller),
/// or anything else that is a future, such as a controller of `kube::runtime`.
pub struct Runnable {
    name: Cow<'static, str>,
    run: Run,
    queue: Option<WorkQueue>,
}

impl Runnable {
    /// Something that runs as the future which `run` gives, and ends it soon after the token is
    /// cancelled.
    pub fn new<F, Fut>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { name: name.into(), run: Box::new(move |stop| run(stop).boxed()), queue: None }
    }

    /// The queue that it works on, for the numbers of a [`Manager::measured`]. A controller brings
    /// its own.
    #[must_use]
    pub fn queue(mut self, queue: WorkQueue) -> Self {
        self.queue = Some(queue);
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        (self.run)(stop).await;
    }
}

impl fmt::Debug for Runnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runnable({})", self.name)
    }
}

/// A set of controllers that start and stop together, alone or as the elected leader of several
/// processes.
#[derive(Debug, Default)]
pub struct Manager {
    runnables: Vec<Runnable>,
    metrics: Option<Metrics>,
}

impl Manager {
    /// A manager of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a controller.
    #[must_use]
    pub fn with(mut self, runnable: impl Into<Runnable>) -> Self {
        self.runnables.push(runnable.into());
        self
    }

    /// Counts what it manages. Default: nothing is counted.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// The names of what it manages, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.runnables.iter().map(Runnable::name)
    }

    /// Runs everything while this instance is the elected one: waits for its turn, runs until
    /// `stop` is cancelled, and hands the lead over at once then. If the lead is lost, everything
    /// is stopped and this returns; the caller decides whether to start anew, as a new process
    /// would.
    pub async fn run_elected(self, election: Election, stop: CancellationToken) {
        let (metrics, lease) = (self.metrics.clone(), election.name().to_owned());
        let leads = |leads| metrics.iter().for_each(|metrics| metrics.leads(&lease, leads));
        leads(false);
        let Some(leadership) = stop.run_until_cancelled(election.acquire()).await else { return };
        leads(true);
        let run = self.run(stop);
        tokio::pin!(run);
        tokio::select! {
            () = &mut run => {}
            () = leadership.lost() => {
                tracing::warn!("the lead was lost");
                leads(false);
                // Nobody may act for a leader that leads no more: not even to finish.
                return;
            }
        }
        leads(false);
        if let Err(error) = leadership.release().await {
            tracing::debug!(%error, "the lease runs out by itself");
        }
    }

    /// Runs everything until `stop` is cancelled and all have come to their end. One that ends or
    /// panics by itself is logged and does not take the others with it. Dropping the future stops
    /// everything at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for runnable in self.runnables {
            let (name, stop) = (runnable.name.clone(), stop.clone());
            if let (Some(metrics), Some(queue)) = (&self.metrics, &runnable.queue) {
                metrics.count(&name, queue);
            }
            tasks.spawn(async move {
                runnable.run(stop.clone()).await;
                if !stop.is_cancelled() {
                    tracing::error!(controller = %name, "ended by itself");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller failed");
            }
        }
    }
}

impl<R: Into<Runnable>> Extend<R> for Manager {
    fn extend<I: IntoIterator<Item = R>>(&mut self, iter: I) {
        self.runnables.extend(iter.into_iter().map(Into::into));
    }
}
