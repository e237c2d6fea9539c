//! Faults on demand between a component and its cluster.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream};

use super::{Call, Verb};
use crate::{
    client::{Client, ClientError, Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
    environment::Environment,
    random::Random,
    resource::{ResourceType, Target},
    status::{ApiError, Reason},
};

/// What goes wrong. On an event of a watch, [`Fault::Expired`] ends the stream with that error, and
/// every other fault ends it as a dropped connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 409: another writer was faster. The write does not take place.
    Conflict,
    /// 429, with the advice to come back in a second.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 503.
    Unavailable,
    /// 504: the server did not get to it in time, and has not carried it out.
    TimeoutBefore,
    /// 504: the server did not answer in time, and has carried it out.
    TimeoutAfter,
    /// The connection breaks before the request arrives.
    TransportBefore,
    /// The connection breaks after the request was carried out.
    TransportAfter,
    /// 410: the resource version is no longer available.
    Expired,
}

impl Fault {
    /// Whether the server carries the call out all the same.
    pub fn is_carried_out(self) -> bool {
        matches!(self, Self::TimeoutAfter | Self::TransportAfter)
    }

    /// What the server answers; `None` if there is no answer.
    pub fn answer(self, call: &Call<'_>) -> Option<ApiError> {
        Some(match self {
            Self::Conflict => ApiError::stale(&call.group, &call.resource, &call.name),
            Self::TooManyRequests => ApiError::too_many_requests("injected overload", 1),
            Self::InternalError => ApiError::internal("injected"),
            Self::Unavailable => ApiError::new(Reason::ServiceUnavailable, "injected outage"),
            Self::TimeoutBefore | Self::TimeoutAfter => ApiError::new(
                Reason::Timeout,
                "Timeout: request did not complete within requested timeout (injected)",
            ),
            Self::Expired => ApiError::expired("injected compaction"),
            Self::TransportBefore | Self::TransportAfter => return None,
        })
    }

    /// What the caller is told.
    pub fn error(self, call: &Call<'_>) -> ClientError {
        let broken = || ClientError::Transport("injected: connection reset".into());
        self.answer(call).map_or_else(broken, ClientError::Api)
    }

    /// Lets a call go through, unless something is wrong with it: then its caller is told what
    /// comes with the fault.
    pub async fn through<T>(fault: Option<(Self, T)>, call: impl Future<Output = T>) -> T {
        let Some((fault, told)) = fault else { return call.await };
        if fault.is_carried_out() {
            // The caller cannot know how this went, which is the point.
            let _outcome_is_lost = call.await;
        }
        told
    }
}

/// How often what goes wrong, in thousandths of the calls; the default is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Conflicts, of writes.
    pub conflict_permille: u32,
    /// Overload, internal errors and outages, of all calls.
    pub server_error_permille: u32,
    /// Broken connections, of all calls; half of them after the request was carried out.
    pub transport_permille: u32,
    /// Calls that the server does not answer in time, of all calls; half of them were carried out.
    pub timeout_permille: u32,
    /// Dropped watches, of delivered events.
    pub watch_drop_permille: u32,
    /// Expired watches, of openings and of delivered events.
    pub expired_permille: u32,
}

impl FaultRates {
    /// What goes wrong with this call, by chance.
    pub fn draw(&self, call: &Call<'_>, random: &dyn Random) -> Option<Fault> {
        let hit = |permille: u32| permille > 0 && random.below(1000) < u64::from(permille);
        if call.verb.writes() && hit(self.conflict_permille) {
            return Some(Fault::Conflict);
        }
        if call.verb == Verb::Watch && hit(self.expired_permille) {
            return Some(Fault::Expired);
        }
        if call.is_event {
            return hit(self.watch_drop_permille).then_some(Fault::TransportBefore);
        }
        if hit(self.server_error_permille) {
            let errors = [Fault::TooManyRequests, Fault::InternalError, Fault::Unavailable];
            return Some(errors[random.below(3) as usize]);
        }
        if hit(self.timeout_permille) {
            return Some([Fault::TimeoutBefore, Fault::TimeoutAfter][random.below(2) as usize]);
        }
        let broken = [Fault::TransportBefore, Fault::TransportAfter];
        hit(self.transport_permille).then(|| broken[random.below(2) as usize])
    }
}

type Rule = dyn Fn(&Call<'_>) -> Option<Fault> + Send + Sync;

/// Wraps a client and makes calls fail, by a rule or by a seed.
///
/// ```
/// # use std::sync::Arc;
/// use orch_core::{Environment, testing::{Fault, FaultyClient, MemoryClient, Verb}};
/// let cluster = Arc::new(MemoryClient::new(Environment::system()));
/// let no_deletes = FaultyClient::by_rule(cluster, |call| {
///     (call.verb == Verb::Delete).then_some(Fault::Unavailable)
/// });
/// assert_eq!(no_deletes.injected(), 0);
/// ```
#[derive(Clone)]
pub struct FaultyClient {
    inner: Arc<dyn Client>,
    rule: Arc<Rule>,
    injected: Arc<AtomicU64>,
}

impl fmt::Debug for FaultyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyClient({} faults so far, {:?})", self.injected(), self.inner)
    }
}

impl FaultyClient {
    /// Fails what `rule` says.
    pub fn by_rule(
        inner: Arc<dyn Client>,
        rule: impl Fn(&Call<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, rule: Arc::new(rule), injected: Arc::default() }
    }

    /// Fails at random, drawn from the environment's generator.
    pub fn seeded(inner: Arc<dyn Client>, environment: Environment, rates: FaultRates) -> Self {
        Self::by_rule(inner, move |call| rates.draw(call, &*environment.random))
    }

    /// How many faults were injected so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    fn fault(&self, call: &Call<'_>) -> Option<Fault> {
        let fault = (self.rule)(call)?;
        self.injected.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }
}

#[async_trait]
impl Client for FaultyClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        let call = Call::read(&read);
        match self.fault(&call) {
            Some(fault) => Err(fault.error(&call)),
            None => self.inner.read(read).await,
        }
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        let call = Call::write(&write);
        let fault = self.fault(&call).map(|fault| (fault, Err(fault.error(&call))));
        Fault::through(fault, self.inner.write(write)).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        let call = Call::watch(&target);
        if let Some(fault) = self.fault(&call) {
            return Err(fault.error(&call));
        }
        let call = call.event().into_owned();
        let inner = self.inner.watch(target, options).await?;
        let state = Some((inner, self.clone(), call));
        Ok(stream::unfold(state, |state| async move {
            let (mut inner, faulty, call) = state?;
            let item = inner.next().await?;
            match faulty.fault(&call) {
                None => Some((item, Some((inner, faulty, call)))),
                Some(Fault::Expired) => Some((Err(Fault::Expired.error(&call)), None)),
                Some(_) => Some((Err(Fault::TransportBefore.error(&call)), None)),
            }
        })
        .boxed())
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.inner.resource_types().await
    }
}
