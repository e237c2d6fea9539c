//! Runs a set of controllers together.

use std::{borrow::Cow, fmt, future::Future};

use futures::{FutureExt, future::BoxFuture};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Something with a name that runs until it is told to stop: a [`Controller`](crate::Controller),
/// or anything else that is a future, such as a controller of `kube::runtime`.
pub struct Runnable {
    name: Cow<'static, str>,
    run: Run,
}

impl Runnable {
    /// Something that runs as the future which `run` gives, and ends it soon after the token is
    /// cancelled.
    pub fn new<F, Fut>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { name: name.into(), run: Box::new(move |stop| run(stop).boxed()) }
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

    /// The names of what it manages, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.runnables.iter().map(Runnable::name)
    }

    /// Runs everything until `stop` is cancelled and all have come to their end. One that ends or
    /// panics by itself is logged and does not take the others with it. Dropping the future stops
    /// everything at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for runnable in self.runnables {
            let (name, stop) = (runnable.name.clone(), stop.clone());
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
