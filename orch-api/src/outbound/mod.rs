//! How the API server calls others: the webhooks of admission and of conversion, and the API
//! servers that it stands before.
//!
//! [`Outbound`] is the contract. [`Https`] is its default: it finds a Service's endpoints, verifies
//! who answers and keeps connections. [`InProcess`] leads to tower services of this process, so
//! that an application that runs its webhook itself, or tests one, needs no port and no
//! certificate.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook/client.go`, `serviceresolver.go`.

mod call;
mod connect;
mod https;
mod in_process;
mod resolve;
mod trust;

use std::{fmt, io};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Response};
use orch_core::ApiError;
use serde_json::Value;

pub(crate) use call::{Json, send_json};
pub use https::Https;
pub use in_process::InProcess;
pub(crate) use in_process::InProcessFirst;

use crate::connect::BoxBody;

/// Where somebody is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The Service's port (not that of its endpoints).
        port: u16,
    },
    /// A host outside of the cluster's book-keeping, as a URL writes it: `name`, or `name:port`.
    Host(String),
}

/// By what the other side proves to be who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trust {
    /// A certificate that one of these authorities signed, in PEM.
    Bundle(Vec<u8>),
    /// A certificate that one of the machine's authorities signed.
    System,
    /// Nothing: whoever answers is believed.
    Anybody,
}

/// Somebody to be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// The path that every request begins with, `/` at least.
    pub path: String,
    /// How the answer is trusted.
    pub trust: Trust,
    /// Whether the server shows that it is the front proxy, so that the other side believes what
    /// it says of callers.
    pub front_proxy: bool,
}

impl Endpoint {
    /// A Service, by its namespace, name and port.
    pub fn service(namespace: &str, name: &str, port: u16, trust: Trust) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let address = Address::Service { namespace, name, port };
        Self { address, path: "/".into(), trust, front_proxy: false }
    }

    /// What a `clientConfig` names; `None` for one that validation would have refused.
    pub(crate) fn of_client_config(config: &Value) -> Option<Self> {
        let trust = trust_of(&config["caBundle"])?;
        if let Some(url) = config["url"].as_str() {
            let rest = url.strip_prefix("https://")?;
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let address = Address::Host(host.to_owned());
            return Some(Self { address, path: rooted(path), trust, front_proxy: false });
        }
        let service = &config["service"];
        let port = service["port"].as_u64().unwrap_or(443);
        let port = u16::try_from(port).ok()?;
        let (namespace, name) = (service["namespace"].as_str()?, service["name"].as_str()?);
        let path = rooted(service["path"].as_str().unwrap_or_default());
        Some(Self { path, ..Self::service(namespace, name, port, trust) })
    }

    /// Host and port, as a URL has them.
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Service { namespace, name, port } => format!("{name}.{namespace}.svc:{port}"),
            Address::Host(host) => host.clone(),
        }
    }

    /// The name that the other side's certificate has to bear.
    pub fn server_name(&self) -> String {
        match &self.address {
            Address::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            Address::Host(host) => split_port(host).0.to_owned(),
        }
    }

    /// The URL that requests begin with.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.authority(), self.path)
    }
}

fn rooted(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The authorities of a `caBundle`, whose bytes JSON carries in base64.
pub(crate) fn trust_of(bundle: &Value) -> Option<Trust> {
    let pem = STANDARD.decode(bundle.as_str().unwrap_or_default()).ok()?;
    Some(if pem.trim_ascii().is_empty() { Trust::System } else { Trust::Bundle(pem) })
}

/// The host and the port of an authority; 443 where it names none. Brackets of an IPv6 address
/// are taken off.
fn split_port(authority: &str) -> (&str, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(443)),
        _ => (authority, 443),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// Whether a `caBundle` can be used; says why not, as upstream does.
pub(crate) fn check_bundle(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    trust::roots(pem).map(drop)
}

/// Why no answer was had. Display is what upstream says after `Post "https://...": `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// Nobody stands at the address: there is no such Service, port or endpoint.
    #[error("{0}")]
    Unresolved(String),
    /// The other side did not take the connection.
    #[error("dial tcp {address}: {}", dial_text(.source))]
    Dial {
        /// Where it was tried.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The other side could not prove to be who it should be.
    #[error("tls: failed to verify certificate: {0}")]
    Untrusted(String),
    /// The other side does not speak as it should.
    #[error("{0}")]
    Broken(String),
    /// No answer came in time.
    #[error("context deadline exceeded")]
    TimedOut,
}

impl OutboundError {
    fn dial(address: impl fmt::Display, source: io::Error) -> Self {
        Self::Dial { address: address.to_string(), source }
    }
}

fn dial_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        _ => error.to_string(),
    }
}

impl From<OutboundError> for ApiError {
    fn from(error: OutboundError) -> Self {
        Self::new(orch_core::status::Reason::ServiceUnavailable, error.to_string())
    }
}

/// Carries requests of the API server to others. Object-safe; called from many tasks at once.
///
/// A request's target is the whole URL ([`Endpoint::url`] and what follows). The answer's body may
/// stream. An error means that the other side gave no answer; whether it saw the request is
/// unknown. How long to wait is the caller's matter: dropping the future gives up.
#[async_trait]
pub trait Outbound: Send + Sync + fmt::Debug + 'static {
    /// Sends a request and gives the beginning of the answer.
    ///
    /// # Errors
    /// [`OutboundError`] if there is no answer.
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, OutboundError>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn client_configs_become_urls_as_upstream_builds_them() {
        let check = |config: Value, url: &str, name: &str| {
            let endpoint = Endpoint::of_client_config(&config).unwrap();
            assert_eq!((endpoint.url().as_str(), endpoint.server_name().as_str()), (url, name));
        };
        let service = json!({"namespace": "a", "name": "b", "path": "/c", "port": 8443});
        check(json!({"service": service}), "https://b.a.svc:8443/c", "b.a.svc");
        let service = json!({"namespace": "a", "name": "b"});
        check(json!({"service": service}), "https://b.a.svc:443/", "b.a.svc");
        check(json!({"url": "https://h:1/x/"}), "https://h:1/x", "h");
        check(json!({"url": "https://[::1]:8443"}), "https://[::1]:8443/", "::1");
        assert!(Endpoint::of_client_config(&json!({"url": "http://h"})).is_none());
    }

    #[test]
    fn is_object_safe() {
        fn take(_: &dyn Outbound) {}
        take(&InProcess::default());
    }
}
