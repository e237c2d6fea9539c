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

use crate::{
    client::{Client, ClientError, Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
    environment::Environment,
    random::Random,
    resource::{ResourceType, Target},
    status::{ApiError, Reason},
};

/// What is about to happen, for a rule to decide on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// A read.
    Read(&'a Read),
    /// A write.
    Write(&'a Write),
    /// The opening of a watch.
    Watch(&'a Target),
    /// The delivery of one event of an open watch.
    WatchEvent(&'a Target),
}

/// What goes wrong. On an event of a watch, [`Fault::Expired`] ends the stream with that error, and
/// every other fault ends it as a dropped connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 409: another writer was faster. The write does not take place.
    Conflict,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 503.
    Unavailable,
    /// The connection breaks before the request arrives.
    TransportBefore,
    /// The connection breaks after the request was carried out.
    TransportAfter,
    /// 410: the resource version is no longer available.
    Expired,
}

impl Fault {
    fn error(self) -> ClientError {
        match self {
            Self::Conflict => ApiError::new(Reason::Conflict, "injected conflict").into(),
            Self::TooManyRequests => ApiError::too_many_requests("injected overload", 1).into(),
            Self::InternalError => ApiError::internal("injected").into(),
            Self::Unavailable => {
                ApiError::new(Reason::ServiceUnavailable, "injected outage").into()
            }
            Self::Expired => ApiError::expired("injected compaction").into(),
            Self::TransportBefore | Self::TransportAfter => {
                ClientError::Transport("injected: connection reset".into())
            }
        }
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
    /// Dropped watches, of delivered events.
    pub watch_drop_permille: u32,
    /// Expired watches, of openings and of delivered events.
    pub expired_permille: u32,
}

impl FaultRates {
    /// What goes wrong with this call, by chance.
    pub fn draw(&self, call: &Call<'_>, random: &dyn Random) -> Option<Fault> {
        let hit = |permille: u32| permille > 0 && random.below(1000) < u64::from(permille);
        let event = matches!(call, Call::WatchEvent(_));
        if matches!(call, Call::Write(_)) && hit(self.conflict_permille) {
            return Some(Fault::Conflict);
        }
        if matches!(call, Call::Watch(_) | Call::WatchEvent(_)) && hit(self.expired_permille) {
            return Some(Fault::Expired);
        }
        if event {
            return hit(self.watch_drop_permille).then_some(Fault::TransportBefore);
        }
        if hit(self.server_error_permille) {
            let errors = [Fault::TooManyRequests, Fault::InternalError, Fault::Unavailable];
            return Some(errors[random.below(3) as usize]);
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
/// use orch_core::{Environment, client::Write, testing::{Call, Fault, FaultyClient, MemoryClient}};
/// let cluster = Arc::new(MemoryClient::new(Environment::system()));
/// let no_deletes = FaultyClient::by_rule(cluster, |call| {
///     matches!(call, Call::Write(Write::Delete(..))).then_some(Fault::Unavailable)
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
        match self.fault(&Call::Read(&read)) {
            Some(fault) => Err(fault.error()),
            None => self.inner.read(read).await,
        }
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        match self.fault(&Call::Write(&write)) {
            None => self.inner.write(write).await,
            Some(Fault::TransportAfter) => {
                // The caller cannot know how this went, which is the point.
                let _outcome_is_lost = self.inner.write(write).await;
                Err(Fault::TransportAfter.error())
            }
            Some(fault) => Err(fault.error()),
        }
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        if let Some(fault) = self.fault(&Call::Watch(&target)) {
            return Err(fault.error());
        }
        let inner = self.inner.watch(target.clone(), options).await?;
        let state = Some((inner, self.clone(), target));
        Ok(stream::unfold(state, |state| async move {
            let (mut inner, faulty, target) = state?;
            let item = inner.next().await?;
            match faulty.fault(&Call::WatchEvent(&target)) {
                None => Some((item, Some((inner, faulty, target)))),
                Some(Fault::Expired) => Some((Err(Fault::Expired.error()), None)),
                Some(_) => Some((Err(Fault::TransportBefore.error()), None)),
            }
        })
        .boxed())
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.inner.resource_types().await
    }
}
