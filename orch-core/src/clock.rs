//! Time as a contract: no component reads the wall clock by itself.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

/// Tells the time and waits.
///
/// `now` may jump (it is wall-clock time as objects carry it); intervals are measured with
/// `tokio::time::Instant`, which tokio's paused clock virtualises. `sleep` may be cancelled by
/// dropping it and never returns early. Object-safe.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The current time as written into objects.
    fn now(&self) -> Timestamp;

    /// Completes once `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        (**self).sleep(duration)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that starts at a chosen time and then follows tokio's: under a paused runtime it is
/// virtual, and moves only with `tokio::time::advance` or auto-advance.
#[derive(Clone, Debug)]
pub struct TokioClock {
    epoch: Timestamp,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `epoch` now. Call it inside a tokio runtime.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch.saturating_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that is wrong by the same amount all the time.
#[derive(Clone, Debug)]
pub struct WrongClock {
    /// What is right.
    pub right: Arc<dyn Clock>,
    /// By how much it is ahead; behind if that is negative.
    pub ahead: SignedDuration,
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        self.right.now().saturating_add(self.ahead).unwrap_or(Timestamp::MAX)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.right.sleep(duration)
    }
}

/// The time as most Kubernetes fields carry it: whole seconds.
pub fn to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tokio_clock_follows_virtual_time() {
        let epoch = Timestamp::from_second(1_700_000_000).unwrap();
        let clock = TokioClock::starting_at(epoch);
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().as_second(), 1_700_003_600);
    }
}
