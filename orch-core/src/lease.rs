//! Leader election: of several instances of a component, one works.
//!
//! Source: `k8s.io/client-go/tools/leaderelection`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    client::{Client, ClientError, Resources},
    environment::Environment,
};

/// How leadership is claimed and kept. The defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last renewal before they take over. 15 s.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long stops. 10 s; must be below `lease_duration`.
    pub renew_deadline: Duration,
    /// The pause between tries, lengthened at random to at most 2.2 times as much. 2 s.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A candidate for the leadership that a `Lease` object stands for.
#[derive(Clone, Debug)]
pub struct Election {
    leases: Resources<Lease>,
    environment: Environment,
    name: String,
    identity: String,
    timing: Timing,
}

/// What the candidate last saw of the lease, and when by its own clock: others' clocks are not
/// trusted.
#[derive(Default)]
struct Observed {
    lease: Option<Arc<Lease>>,
    at: Option<Instant>,
}

impl Election {
    /// A candidate called `identity` (unique among the candidates) for the lease
    /// `namespace/name`.
    pub fn new(
        client: Arc<dyn Client>,
        environment: Environment,
        namespace: &str,
        name: &str,
        identity: &str,
    ) -> Self {
        Self {
            leases: Resources::namespaced(client, namespace),
            environment,
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing: Timing::default(),
        }
    }

    /// The name of the lease.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With other timing.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Waits until this candidate leads. From then on a task renews the lease; what the leader
    /// does must stop when [`Leadership::lost`] completes. Dropping the future gives up the
    /// candidacy. Errors are tried again: until the API answers, nobody leads.
    pub async fn acquire(&self) -> Leadership {
        let mut observed = Observed::default();
        loop {
            match self.try_lead(&mut observed).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = %self.name, %error, "lease not acquired"),
            }
            let jitter = 1.0 + 1.2 * self.environment.random.unit();
            self.environment.clock.sleep(self.timing.retry_period.mul_f64(jitter)).await;
        }
        let lost = watch::Sender::new(false);
        let receiver = lost.subscribe();
        let election = self.clone();
        let renewal = tokio::spawn(async move {
            election.renew(observed).await;
            lost.send_replace(true);
        });
        Leadership { election: self.clone(), lost: receiver, renewal }
    }

    /// Renews until that fails for longer than the deadline, or somebody else leads.
    async fn renew(&self, mut observed: Observed) {
        let mut renewed = Instant::now();
        loop {
            self.environment.clock.sleep(self.timing.retry_period).await;
            let deadline = renewed + self.timing.renew_deadline;
            match tokio::time::timeout_at(deadline, self.try_lead(&mut observed)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(lease = %self.name, %error, "lease not renewed"),
                Err(_) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Whether this candidate leads now: it renewed its lease, or took a free or an expired one.
    async fn try_lead(&self, observed: &mut Observed) -> Result<bool, ClientError> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let created = self.leases.create(&self.claim(None)).await;
            return self.took(observed, created);
        };
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if observed.lease.as_deref().map(version) != Some(version(&lease)) {
            *observed = Observed { lease: Some(lease.clone()), at: Some(Instant::now()) };
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity {
            let held = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0) as u64);
            if observed.at.is_some_and(|at| at + held > Instant::now()) {
                return Ok(false);
            }
        }
        let updated = self.leases.update(&self.claim(Some(&lease))).await;
        self.took(observed, updated)
    }

    fn took(
        &self,
        observed: &mut Observed,
        result: Result<Arc<Lease>, ClientError>,
    ) -> Result<bool, ClientError> {
        let lease = result?;
        *observed = Observed { lease: Some(lease), at: Some(Instant::now()) };
        Ok(true)
    }

    /// The lease as it looks when this candidate holds it.
    fn claim(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(self.environment.clock.now());
        let metadata = current.map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        let before = current.and_then(|lease| lease.spec.clone());
        let mut spec = before.clone().unwrap_or_default();
        let renewal = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        if !renewal {
            let transitions = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(if before.is_some() { transitions + 1 } else { 0 });
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(seconds(self.timing.lease_duration));
        spec.renew_time = Some(now);
        Lease { metadata, spec: Some(spec) }
    }

    async fn give_up(&self) -> Result<(), ClientError> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        let free = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(self.environment.clock.now())),
            ..spec
        };
        let lease = Lease { metadata: lease.metadata.clone(), spec: Some(free) };
        self.leases.update(&lease).await.map(drop)
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

/// Proof of leadership, while it lasts. Dropped, the lease is no longer renewed and runs out;
/// [`Leadership::release`] hands it over at once.
#[derive(Debug)]
pub struct Leadership {
    election: Election,
    lost: watch::Receiver<bool>,
    renewal: JoinHandle<()>,
}

impl Leadership {
    /// Completes when the leadership is lost. Whoever leads must stop then, at once.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the renewal is gone, and with it the leadership.
        let _lost_either_way = lost.wait_for(|lost| *lost).await;
    }

    /// Gives the leadership up, so that another candidate need not wait for the lease to run out.
    ///
    /// # Errors
    /// [`ClientError`] if the lease could not be written; it runs out then.
    pub async fn release(self) -> Result<(), ClientError> {
        self.renewal.abort();
        self.election.give_up().await
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use parking_lot::Mutex;

    use super::*;
    use crate::testing::{Fault, FaultyClient, MemoryClient};

    fn environment() -> Environment {
        Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), 1)
    }

    fn candidate(client: &Arc<dyn Client>, identity: &str) -> Election {
        Election::new(client.clone(), environment(), "kube-system", "scheduler", identity)
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_hands_over() {
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(environment()));
        let first = candidate(&client, "a").acquire().await;
        let second = candidate(&client, "b");
        let waiting = tokio::time::timeout(Duration::from_secs(120), second.acquire()).await;
        assert!(waiting.is_err(), "a renewed lease is not taken");
        first.release().await.unwrap();
        let started = Instant::now();
        let second = second.acquire().await;
        assert!(started.elapsed() < Duration::from_secs(5), "a released lease is free");
        let lease = second.election.leases.get("scheduler").await.unwrap();
        let spec = lease.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_lease_runs_out() {
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(environment()));
        drop(candidate(&client, "a").acquire().await);
        let started = Instant::now();
        let _second = candidate(&client, "b").acquire().await;
        assert!(started.elapsed() >= Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_before_another_starts() {
        let memory: Arc<dyn Client> = Arc::new(MemoryClient::new(environment()));
        let broken = Arc::new(Mutex::new(false));
        let rule = broken.clone();
        let faulty: Arc<dyn Client> =
            Arc::new(FaultyClient::by_rule(memory.clone(), move |call| {
                (*rule.lock() && call.verb.writes()).then_some(Fault::TransportBefore)
            }));
        let leader = candidate(&faulty, "a").acquire().await;
        *broken.lock() = true;
        let second = candidate(&memory, "b");
        tokio::select! {
            biased;
            () = leader.lost() => {}
            _ = second.acquire() => panic!("two leaders"),
        }
    }
}
