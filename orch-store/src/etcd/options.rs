//! How etcd is reached: addresses, trust, credentials and patience.

use std::{fmt, time::Duration};

use orch_core::Environment;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::StoreError;

/// etcd takes a client that pings more often than every 5 s for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// So much of a watch is kept for a watcher that does not read; etcd keeps the rest.
const STREAM_WINDOW: u32 = 1 << 20;

/// How an [`EtcdStore`](super::EtcdStore) reaches etcd.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members' client addresses, such as `http://127.0.0.1:2379`; at least one. Calls are
    /// spread over those that answer.
    pub endpoints: Vec<String>,
    /// Trust and identity for `https://` endpoints, which need it. Default: none.
    pub tls: Option<EtcdTls>,
    /// A user of etcd, where authentication is enabled. Default: none.
    pub credentials: Option<EtcdCredentials>,
    /// How long connecting may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a call may take; then its outcome is unknown. Default: 10 s.
    pub request_timeout: Duration,
    /// The longest pause before a broken watch is resumed or a member that failed is asked how it
    /// is; the first is 50 ms, and each is twice the one before. Default: 2 s.
    pub watch_retry_max: Duration,
    /// Time and randomness. Default: the machine's.
    pub environment: Environment,
}

impl EtcdOptions {
    /// The defaults with one endpoint.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            tls: None,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            watch_retry_max: Duration::from_secs(2),
            environment: Environment::system(),
        }
    }
}

/// Whom to trust, and who we are, over TLS. Only what is named here is trusted: the machine's own
/// certificate authorities are not.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The certificate authorities that etcd's certificate may be from, as PEM.
    pub ca_pem: Vec<u8>,
    /// Our certificate, where etcd asks for one (`--client-cert-auth`). Default: none.
    pub identity: Option<EtcdIdentity>,
    /// The name that etcd's certificate must bear. Default: the host of the endpoint.
    pub server_name: Option<String>,
}

impl EtcdTls {
    /// Trusts these certificate authorities and presents no certificate.
    pub fn new(ca_pem: impl Into<Vec<u8>>) -> Self {
        Self { ca_pem: ca_pem.into(), identity: None, server_name: None }
    }

    fn config(&self) -> ClientTlsConfig {
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem.clone()));
        if let Some(EtcdIdentity { certificate_pem, key_pem }) = &self.identity {
            config = config.identity(Identity::from_pem(certificate_pem, key_pem));
        }
        match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

/// A client certificate with its key.
#[derive(Clone)]
pub struct EtcdIdentity {
    /// The certificate, and those between it and the authority, as PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, as PEM. Never printed.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for EtcdIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdIdentity").finish_non_exhaustive()
    }
}

/// A user of etcd and its password.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// The user's name.
    pub user: String,
    /// Its password. Never printed.
    pub password: String,
}

impl fmt::Debug for EtcdCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdCredentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Every endpoint, ready to be connected to.
pub(super) fn endpoints(options: &EtcdOptions) -> Result<Vec<Endpoint>, StoreError> {
    if options.endpoints.is_empty() {
        return Err(StoreError::Invalid("no etcd endpoint was given".into()));
    }
    options.endpoints.iter().map(|address| endpoint(address, options)).collect()
}

fn endpoint(address: &str, options: &EtcdOptions) -> Result<Endpoint, StoreError> {
    let invalid = |what: &str| StoreError::Invalid(format!("etcd endpoint {address:?}: {what}"));
    let address = if address.contains("://") { address } else { &format!("http://{address}") };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| invalid("not a URL"))?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        // etcd takes pings on a connection without calls for an attack, too.
        .keep_alive_while_idle(false)
        // What a slow watcher does not read must not use up what the other calls share.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size((1u32 << 31) - 1)
        .tcp_nodelay(true);
    match (endpoint.uri().scheme_str(), &options.tls) {
        (Some("http"), _) => Ok(endpoint),
        (Some("https"), Some(tls)) if !holds_certificate(&tls.ca_pem) => {
            Err(invalid("`ca_pem` holds no certificate"))
        }
        (Some("https"), Some(tls)) => {
            endpoint.tls_config(tls.config()).map_err(|error| invalid(&error_chain(&error)))
        }
        (Some("https"), None) => Err(invalid("https needs the option `tls`")),
        _ => Err(invalid("neither http nor https")),
    }
}

/// TLS itself would take what holds none for nobody to be trusted.
fn holds_certificate(pem: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    pem.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// An error with its causes in one line.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let identity =
            EtcdIdentity { certificate_pem: b"cert".to_vec(), key_pem: b"hunter2".to_vec() };
        let options = EtcdOptions {
            tls: Some(EtcdTls { identity: Some(identity), ..EtcdTls::new("ca") }),
            credentials: Some(EtcdCredentials { user: "ann".into(), password: "hunter2".into() }),
            ..EtcdOptions::new("https://127.0.0.1:1")
        };
        let printed = format!("{options:?}");
        assert!(printed.contains("ann"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
        let bytes = format!("{:?}", b"hunter2");
        assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
    }

    #[test]
    fn addresses_are_checked() {
        let check = |address: &str, valid: bool| {
            let made = endpoints(&EtcdOptions::new(address));
            assert_eq!(made.is_ok(), valid, "{address}: {made:?}");
        };
        check("127.0.0.1:2379", true);
        check("http://localhost:2379", true);
        check("https://localhost:2379", false);
        check("ftp://localhost", false);
        check("http://a b", false);
        let none = EtcdOptions { endpoints: Vec::new(), ..EtcdOptions::new("") };
        assert!(matches!(endpoints(&none), Err(StoreError::Invalid(_))));
    }
}
