//! A component's connection to the API: slow, broken, cut off, or gone with the component.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::pending, stream};
use orch_core::{
    Client, ClientError, ResourceType, Target,
    awaited::Awaited,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
    random::Random,
};
use parking_lot::Mutex;

/// How long a call hangs before a connection that is cut off counts as broken, at most.
const BREAKS_AFTER_MAX: Duration = Duration::from_secs(10);

/// What is wrong with a component's connection at the moment. Shared by all lives of a component.
#[derive(Debug)]
pub(super) struct Line {
    random: Arc<dyn Random>,
    state: Mutex<State>,
    cut: Awaited<bool>,
}

#[derive(Debug, Default)]
struct State {
    latency_max: Duration,
    stall_permille: u32,
    stall_max: Duration,
    crash: Option<(u64, bool)>,
}

impl Line {
    pub(super) fn new(random: Arc<dyn Random>) -> Self {
        Self { random, state: Mutex::default(), cut: Awaited::new(false) }
    }

    /// How slow calls and watches are from now on.
    pub(super) fn set_pace(&self, latency_max: Duration, stall_permille: u32, stall_max: Duration) {
        let mut state = self.state.lock();
        *state = State { latency_max, stall_permille, stall_max, crash: state.crash };
    }

    /// Cuts the connection, or mends it.
    pub(super) fn cut(&self, cut: bool) {
        self.cut.set(cut);
    }

    /// Lets the component crash at its n-th call from now on.
    pub(super) fn crash_at(&self, call: u64, carried_out: bool) {
        self.state.lock().crash = Some((call, carried_out));
    }

    /// Nobody crashes any more.
    pub(super) fn calm(&self) {
        self.state.lock().crash = None;
    }

    /// Counts a call. Gives whether the component crashes at it, and if so, after it.
    fn count(&self) -> Option<bool> {
        let mut state = self.state.lock();
        let (left, carried_out) = state.crash.as_mut().map(|(left, after)| {
            *left = left.saturating_sub(1);
            (*left, *after)
        })?;
        if left > 0 {
            return None;
        }
        state.crash = None;
        Some(carried_out)
    }

    fn below(&self, most: Duration) -> Duration {
        if most.is_zero() { most } else { most.mul_f64(self.random.unit()) }
    }

    async fn travel(&self) {
        let most = self.state.lock().latency_max;
        if !most.is_zero() {
            tokio::time::sleep(self.below(most)).await;
        }
    }

    async fn stand_still(&self) {
        let (permille, most) = {
            let state = self.state.lock();
            (state.stall_permille, state.stall_max)
        };
        if permille > 0 && self.random.below(1000) < u64::from(permille) {
            tokio::time::sleep(self.below(most)).await;
        }
    }

    /// The error of a call on a connection that is cut, after some time.
    async fn if_cut(&self) -> Result<(), ClientError> {
        if !self.cut.get() {
            return Ok(());
        }
        tokio::time::sleep(self.below(BREAKS_AFTER_MAX)).await;
        Err(broken())
    }
}

fn broken() -> ClientError {
    ClientError::Transport("injected: cut off".into())
}

/// The connection of one life of a component: calls of a life that has ended come to nothing.
#[derive(Clone)]
pub struct Link {
    pub(super) inner: Arc<dyn Client>,
    pub(super) line: Arc<Line>,
    pub(super) life: Arc<Life>,
}

/// Whether a component still lives.
#[derive(Debug)]
pub(super) struct Life {
    over: AtomicBool,
    crashed: Awaited<bool>,
}

impl Life {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { over: AtomicBool::new(false), crashed: Awaited::new(false) })
    }

    /// Ends it: what it still does has no effect.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.crashed.set(true);
    }

    /// Waits until it has crashed at one of its calls.
    pub(super) async fn crashed(&self) {
        self.crashed.wait_for(|crashed| crashed).await;
    }

    async fn stop_if_over(&self) {
        if self.over.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Link {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> Result<T, ClientError> {
        self.life.stop_if_over().await;
        self.line.travel().await;
        self.life.stop_if_over().await;
        let crash = self.line.count();
        if crash == Some(false) {
            self.life.end();
            self.life.stop_if_over().await;
        }
        self.line.if_cut().await?;
        let answer = call.await;
        if crash.is_some() {
            self.life.end();
        }
        self.life.stop_if_over().await;
        self.line.travel().await;
        self.life.stop_if_over().await;
        answer
    }
}

#[async_trait]
impl Client for Link {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.call(self.inner.read(read)).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.call(self.inner.write(write)).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        let inner = self.call(self.inner.watch(target, options)).await?;
        let state = Some((inner, self.clone()));
        Ok(stream::unfold(state, |state| async move {
            let (mut inner, link) = state?;
            let item = tokio::select! {
                biased;
                _ = link.line.cut.wait_for(|cut| cut) => return Some((Err(broken()), None)),
                item = inner.next() => item?,
            };
            link.line.stand_still().await;
            link.life.stop_if_over().await;
            let last = item.is_err();
            Some((item, (!last).then_some((inner, link))))
        })
        .boxed())
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.call(self.inner.resource_types()).await
    }
}
