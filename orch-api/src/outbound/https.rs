//! The default: HTTPS over connections that are kept.

use std::{collections::HashMap, error::Error as _, fmt, sync::Arc};

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use orch_core::{Client, Environment, node::Dialer};
use parking_lot::Mutex;
use tokio_rustls::TlsConnector;

use super::{
    Address, Endpoint, Outbound, OutboundError, Trust,
    connect::{Connector, Way},
    trust::{self, Identity},
};
use crate::{connect::BoxBody, serve::Credentials};

/// For how many endpoints connections are kept; past that all are closed and begun anew.
const ENDPOINTS_MAX: usize = 64;

type Kept = legacy::Client<Connector, BoxBody>;

/// Calls over HTTPS. A Service is reached at one of its ready endpoints, under the server name
/// `<name>.<namespace>.svc`; connections are kept and used again.
///
/// `Differs:` upstream dials the Service's cluster IP unless `--enable-aggregator-routing` is set;
/// endpoints are reached without a service proxy on the API server's machine.
pub struct Https {
    way: Way,
    identity: Option<Identity>,
    clients: Mutex<HashMap<(Address, Trust, bool), Kept>>,
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Https({} endpoints)", self.clients.lock().len())
    }
}

impl Https {
    /// Finds Services and their endpoints through `client`, and dials over TCP.
    pub fn new(client: Arc<dyn Client>, environment: Environment) -> Self {
        let way = Way { client, environment, dialer: None };
        Self { way, identity: None, clients: Mutex::default() }
    }

    /// Reaches endpoints of the cluster through `dialer` instead.
    #[must_use]
    pub fn dialer(mut self, dialer: Arc<dyn Dialer>) -> Self {
        self.way.dialer = Some(dialer);
        self
    }

    /// Shows a certificate to aggregated API servers, which believe what the server says of
    /// callers because of it: upstream's `--proxy-client-cert-file`.
    ///
    /// # Errors
    /// [`OutboundError::Broken`] if the credentials are no certificate and key.
    pub fn front_proxy(mut self, credentials: &Credentials) -> Result<Self, OutboundError> {
        self.identity = Some(trust::identity(credentials)?);
        Ok(self)
    }

    fn kept(&self, endpoint: &Endpoint) -> Result<Kept, OutboundError> {
        let key = (endpoint.address.clone(), endpoint.trust.clone(), endpoint.front_proxy);
        let mut clients = self.clients.lock();
        if let Some(kept) = clients.get(&key) {
            return Ok(kept.clone());
        }
        if clients.len() >= ENDPOINTS_MAX {
            clients.clear();
        }
        let identity = self.identity.as_ref().filter(|_| endpoint.front_proxy);
        let config = trust::client_config(&endpoint.trust, identity)?;
        let tls = TlsConnector::from(Arc::new(config));
        let connector = Connector { way: self.way.clone(), tls, endpoint: endpoint.clone() };
        let kept = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        clients.insert(key, kept.clone());
        Ok(kept)
    }
}

/// What stands behind an error of the client: ours where it came from a connection of ours.
fn inner(error: &legacy::Error) -> OutboundError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<OutboundError>() {
            return match own {
                OutboundError::Dial { address, source } => {
                    let source = std::io::Error::new(source.kind(), source.to_string());
                    OutboundError::Dial { address: address.clone(), source }
                }
                OutboundError::Untrusted(why) => OutboundError::Untrusted(why.clone()),
                other => OutboundError::Broken(other.to_string()),
            };
        }
        source = cause.source();
    }
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    OutboundError::Broken(why)
}

#[async_trait]
impl Outbound for Https {
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, OutboundError> {
        let kept = self.kept(endpoint)?;
        let response = kept.request(request).await.map_err(|error| inner(&error))?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}
