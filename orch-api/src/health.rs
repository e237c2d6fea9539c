//! Whether a server is well: what `/livez`, `/readyz` and `/healthz` ask.
//!
//! Source: `k8s.io/apiserver/pkg/server/healthz`.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use orch_store::{KeyRange, RangeRequest, Store};
use tokio_util::sync::CancellationToken;

/// How long the store may take to answer, as upstream's `--etcd-healthcheck-timeout`.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// The key that is asked for; nothing lies there.
const STORE_KEY: &str = "/registry/health";

/// One question about a server's health. Object-safe.
///
/// Checks are asked in turn by every request, so an answer should take milliseconds.
#[async_trait]
pub trait HealthCheck: Send + Sync + fmt::Debug + 'static {
    /// The name under which the check is listed, asked alone (`/readyz/<name>`) and excluded.
    fn name(&self) -> &str;

    /// # Errors
    /// What is wrong. It is shown to those only who ask for this check alone, and logged.
    async fn check(&self) -> Result<(), String>;
}

/// The three endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The deprecated sum of both.
    Healthz,
    /// Should the process be restarted?
    Livez,
    /// Should it get requests?
    Readyz,
}

impl Endpoint {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "healthz" => Self::Healthz,
            "livez" => Self::Livez,
            "readyz" => Self::Readyz,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }
}

/// The checks of a server besides its own.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Of all endpoints.
    pub(crate) all: Vec<Arc<dyn HealthCheck>>,
    /// Of `/readyz` only.
    pub(crate) readiness: Vec<Arc<dyn HealthCheck>>,
}

impl Checks {
    /// What an endpoint asks, in upstream's order; `shutdown` is that of whoever serves.
    pub(crate) fn of(
        &self,
        endpoint: Endpoint,
        store: &Arc<dyn Store>,
        shutdown: Option<CancellationToken>,
    ) -> Vec<Arc<dyn HealthCheck>> {
        let store = |name| Arc::new(StoreAnswers { name, store: store.clone() });
        let mut checks: Vec<Arc<dyn HealthCheck>> =
            vec![Arc::new(Always("ping")), Arc::new(Always("log")), store("etcd")];
        if endpoint == Endpoint::Readyz {
            checks.push(store("etcd-readiness"));
        }
        checks.extend(self.all.iter().cloned());
        if endpoint == Endpoint::Readyz {
            checks.extend(self.readiness.iter().cloned());
            checks.push(Arc::new(NotEnding(shutdown)));
        }
        checks
    }
}

/// The server answers at all.
#[derive(Debug)]
struct Always(&'static str);

#[async_trait]
impl HealthCheck for Always {
    fn name(&self) -> &str {
        self.0
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The store answers in time. Called `etcd` whatever the store is: that is what is asked for.
#[derive(Debug)]
struct StoreAnswers {
    name: &'static str,
    store: Arc<dyn Store>,
}

#[async_trait]
impl HealthCheck for StoreAnswers {
    fn name(&self) -> &str {
        self.name
    }

    async fn check(&self) -> Result<(), String> {
        let mut request = RangeRequest::new(KeyRange::key(STORE_KEY.as_bytes().to_vec()));
        request.count_only = true;
        match tokio::time::timeout(STORE_TIMEOUT, self.store.range(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("error getting data from etcd: {error}")),
            Err(_) => Err("error getting data from etcd: context deadline exceeded".into()),
        }
    }
}

/// Whoever serves has not begun to end.
#[derive(Debug)]
struct NotEnding(Option<CancellationToken>);

#[async_trait]
impl HealthCheck for NotEnding {
    fn name(&self) -> &str {
        "shutdown"
    }

    async fn check(&self) -> Result<(), String> {
        match &self.0 {
            Some(token) if token.is_cancelled() => Err("process is shutting down".into()),
            _ => Ok(()),
        }
    }
}
