//! Priority and fairness: who is served when there is more to do than the server takes at once.
//!
//! FlowSchemas sort requests into flows and priority levels; each level has a share of the server's
//! seats, queues that share it fairly between flows, and may borrow what other levels leave. The
//! mandatory and suggested objects of upstream are made and kept.
//!
//! A server without [`FlowControl`] takes whatever comes. In-process clients are never held up.
//!
//! Source: KEP-1040; `k8s.io/apiserver/pkg/util/flowcontrol`, `pkg/server/filters`.
//!
//! Differs: queues are served in the order of start-time fair queueing, where upstream simulates
//! packet-wise fair queueing; the width of a list is estimated by the number of objects alone; writes
//! take one seat.

mod borrow;
mod config;
mod keeper;
mod level;
mod matching;
mod objects;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use orch_core::{
    Client, Environment,
    informer::{Informer, Informers},
};
use parking_lot::RwLock;
use tokio::task::AbortHandle;

use config::Configuration;
use level::Level;
pub(crate) use level::Seats;

use crate::{auth::UserInfo, http::request_info::RequestInfo};

/// What can be chosen about [`FlowControl`].
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions {
    /// How many seats there are, which is about how many requests are worked on at once. Default:
    /// 600, the sum of upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
    pub seats: u32,
    /// How long a request waits for its seat. Default: 15 s, a quarter of upstream's
    /// `--request-timeout`.
    pub wait_max: Duration,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { seats: 600, wait_max: Duration::from_secs(15) }
    }
}

/// Decides when a request is worked on. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct FlowControl(Arc<Inner>);

struct Inner {
    options: FlowOptions,
    environment: Environment,
    schemas: Informer<FlowSchema>,
    priorities: Informer<PriorityLevelConfiguration>,
    state: RwLock<State>,
    tasks: parking_lot::Mutex<Vec<AbortHandle>>,
}

#[derive(Default)]
struct State {
    configuration: Configuration,
    levels: HashMap<String, Arc<Level>>,
}

impl fmt::Debug for FlowControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowControl({} seats)", self.0.options.seats)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

/// Where a request was sorted to.
#[derive(Clone)]
pub(crate) struct Flow {
    pub(crate) schema_uid: String,
    pub(crate) level_uid: String,
    level: Arc<Level>,
    hash: u64,
}

/// Why a request is not worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl FlowControl {
    /// Follows the cluster's configuration, and keeps the objects that every cluster has. Call it
    /// inside a tokio runtime; the client must have all rights.
    pub fn new(informers: &Informers, options: FlowOptions) -> Self {
        let inner = Arc::new(Inner {
            options,
            environment: informers.environment().clone(),
            schemas: informers.of(),
            priorities: informers.of(),
            state: RwLock::default(),
            tasks: parking_lot::Mutex::default(),
        });
        inner.digest();
        let client: Arc<dyn Client> = informers.client().clone();
        let keeper = tokio::spawn(keeper::run(Arc::downgrade(&inner), client)).abort_handle();
        let borrower = tokio::spawn(borrow::run(Arc::downgrade(&inner))).abort_handle();
        inner.tasks.lock().extend([keeper, borrower]);
        Self(inner)
    }

    /// Waits until the configuration was read once.
    pub async fn synced(&self) {
        self.0.schemas.synced().await;
        self.0.priorities.synced().await;
        self.0.digest();
    }

    /// Sorts a request.
    pub(crate) fn classify(&self, info: &RequestInfo, user: &UserInfo) -> Option<Flow> {
        let state = self.0.state.read();
        let (schema, flow) = state.configuration.classify(info, user)?;
        let level = state.levels.get(&schema.level)?.clone();
        Some(Flow {
            schema_uid: schema.uid.clone(),
            level_uid: level.uid(),
            level,
            hash: matching::flow_hash(&schema.name, &flow),
        })
    }

    /// Waits for so many seats, which are free again when what is returned is dropped.
    pub(crate) async fn seat(&self, flow: &Flow, width: u32) -> Result<Seats, Refused> {
        let wait = self.0.environment.clock.sleep(self.0.options.wait_max);
        level::seat(&flow.level, flow.hash, width, wait).await
    }
}

impl Inner {
    /// Takes in the configuration as it is now.
    fn digest(&self) {
        let configuration = Configuration::of(&self.schemas.list(), &self.priorities.list());
        let shares: f64 = configuration.levels.iter().map(|one| f64::from(one.shares)).sum();
        let mut state = self.state.write();
        let mut levels = HashMap::with_capacity(configuration.levels.len());
        for one in &configuration.levels {
            let known = state.levels.remove(&one.name);
            let level = known.unwrap_or_else(|| Arc::new(Level::new(&one.name)));
            level.configure(one, f64::from(self.options.seats), shares);
            levels.insert(one.name.clone(), level);
        }
        // Requests of a level that is gone keep it until they have been served.
        *state = State { configuration, levels };
    }
}
