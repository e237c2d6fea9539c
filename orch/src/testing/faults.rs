//! What goes wrong between a component under test and its cluster, on demand.

use std::{fmt, sync::Arc, time::Duration};

use orch_core::{
    random::SeededRandom,
    testing::{Fault, FaultRates},
};

use super::in_order;
use crate::sim::link::{Calls, Connection, Held, Life, Line, Pace, over_http};

/// A connection to a cluster that fails as it is told to: what a component under test gets its
/// client from.
///
/// Nothing goes wrong at first. What is told takes effect at once, for calls that are made and for
/// watches that are open. Only calls through [`client`](Self::client) are concerned, so that a test
/// can look at the cluster through another client meanwhile. A handle that is cloned is the same
/// connection.
///
/// ```
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use kube::{Api, api::{Patch, PatchParams}};
/// use orch::testing::{self, Calls, Fault};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), kube::Error> {
/// let cluster = testing::cluster().api_only().await;
/// let faults = cluster.faults();
/// // ... an operator is started with `faults.client()` ...
/// let maps: Api<ConfigMap> = Api::default_namespaced(faults.client());
///
/// faults.next(Calls::writes().of::<ConfigMap>()).fails_with(Fault::TransportAfter);
/// let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
/// let (apply, map) = (PatchParams::apply("test"), Patch::Apply(map));
/// maps.patch("settings", &apply, &map).await.expect_err("the answer is lost");
/// assert!(maps.get_opt("settings").await?.is_some(), "it was carried out all the same");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    inner: kube::Client,
    connection: Connection,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("line", &self.connection.line).finish_non_exhaustive()
    }
}

impl Faults {
    /// A connection to the cluster of this client, which may be any cluster. What is left to chance
    /// is drawn from the seed.
    pub fn between(client: kube::Client, seed: u64) -> Self {
        let line = Arc::new(Line::new(Arc::new(SeededRandom::new(seed))));
        Self { inner: client, connection: Connection { line, life: Life::new() } }
    }

    /// A client on this connection. Call it inside a tokio runtime.
    pub fn client(&self) -> kube::Client {
        over_http(self.inner.clone(), self.connection.clone())
    }

    /// The same, whose requests arrive in an order that depends on nothing but themselves: see
    /// [`OrderLayer`](super::OrderLayer).
    pub fn ordered_client(&self) -> kube::Client {
        in_order(&self.client())
    }

    /// How many faults were injected into calls and watches so far.
    pub fn injected(&self) -> u64 {
        self.connection.line.injected()
    }

    /// The next of these calls; of several rules about a call, the first one that was made.
    pub fn next(&self, calls: Calls) -> Planned<'_> {
        Planned { line: &self.connection.line, calls, count: Some(1) }
    }

    /// All of these calls, until [`calm`](Self::calm).
    pub fn every(&self, calls: Calls) -> Planned<'_> {
        Planned { line: &self.connection.line, calls, count: None }
    }

    /// The next of these calls waits until it is let go, before it reaches the server. What the
    /// test does meanwhile comes first: so somebody else is faster on purpose.
    pub fn hold(&self, calls: Calls) -> Held {
        self.connection.line.hold(calls)
    }

    /// Calls and watches fail by chance, so often. Default: never.
    pub fn by_chance(&self, rates: FaultRates) {
        let (pace, _) = self.connection.line.chances();
        self.connection.line.set_chances(pace, rates);
    }

    /// Each call takes up to so long on its way, and as long on its way back. Default: no time.
    pub fn slow(&self, latency_max: Duration) {
        let (pace, rates) = self.connection.line.chances();
        self.connection.line.set_chances(Pace { latency_max, ..pace }, rates);
    }

    /// The connections of these open watches break. Whatever the verbs say, watches are meant.
    pub fn drop_watches(&self, calls: Calls) {
        self.connection.line.interrupt(calls, Fault::TransportBefore);
    }

    /// These open watches end with 410: their clients must list again.
    pub fn expire_watches(&self, calls: Calls) {
        self.connection.line.interrupt(calls, Fault::Expired);
    }

    /// These watches, open ones and new ones, tell nothing for so long; then everything at once.
    pub fn stall_watches(&self, calls: Calls, length: Duration) {
        self.connection.line.stall(calls, Some(length));
    }

    /// These watches tell nothing until [`resume_watches`](Self::resume_watches): whoever believes
    /// them sees the cluster as it was.
    pub fn freeze_watches(&self, calls: Calls) {
        self.connection.line.stall(calls, None);
    }

    /// No watch stands still any more.
    pub fn resume_watches(&self) {
        self.connection.line.resume();
    }

    /// These watches are behind by so much from the next event on. With another delay for each
    /// resource, changes of different resources arrive in another order than that in which they
    /// took place, as they may: only within a watch there is an order.
    pub fn delay_watches(&self, calls: Calls, lag: Duration) {
        self.connection.line.delay(calls, lag);
    }

    /// These lists are told as they were so many revisions ago, if they accept any revision
    /// (`resourceVersion=0`, kube's `any_semantic`), as by a server whose cache is behind. Zero ends
    /// it.
    pub fn stale_lists(&self, calls: Calls, revisions: u64) {
        self.connection.line.be_stale(calls, revisions);
    }

    /// Cuts the connection: watches break, and calls hang for up to ten seconds and break.
    pub fn cut(&self) {
        self.connection.line.cut(true);
    }

    /// Mends a connection that was cut.
    pub fn mend(&self) {
        self.connection.line.cut(false);
    }

    /// Nothing goes wrong any more, whatever was said before. What is held is held.
    pub fn calm(&self) {
        self.connection.line.calm();
    }
}

/// Calls that something is planned for.
#[derive(Debug)]
#[must_use = "nothing goes wrong until it is said what"]
pub struct Planned<'f> {
    line: &'f Line,
    calls: Calls,
    count: Option<u32>,
}

impl Planned<'_> {
    /// So many of them instead of one, or of all.
    pub fn times(self, count: u32) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Lets them fail so.
    pub fn fails_with(self, fault: Fault) {
        if self.count != Some(0) {
            self.line.fail(self.calls, self.count, fault);
        }
    }
}
