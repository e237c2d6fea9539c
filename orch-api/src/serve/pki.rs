//! The cluster's own certificate authority, and what it signs.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use orch_core::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig, server::WebPkiClientVerifier, time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};

use super::private_file;

const DAY_S: i64 = 86_400;
const CA_VALIDITY_DAYS: i64 = 3650;
const VALIDITY_DAYS: i64 = 365;
/// Certificates that would expire within so many days are replaced when they are loaded.
const RENEWAL_DAYS: i64 = 30;
/// Clients whose clock is slow still accept a fresh certificate.
const BACKDATE_S: i64 = 3600;

/// Why certificates could not be made or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file of the data folder cannot be read or written.
    #[error("{0}: cannot be read or written")]
    File(PathBuf, #[source] io::Error),
    /// A file of the data folder does not hold what it should.
    #[error("{0}: not a certificate or key in PEM")]
    Content(PathBuf),
    /// A certificate could not be made, for example for an address that is no host name.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// TLS does not take the certificates.
    #[error("the certificates do not fit together")]
    Tls(#[from] rustls::Error),
    /// The client CA is unusable.
    #[error("clients cannot be verified against the certificate authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate and its private key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The certificate, leaf first.
    pub certificate_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// What the serving certificate is good for.
#[derive(Clone, Debug)]
pub struct PkiOptions {
    /// Host names besides `localhost` and the API's service names. Default: none.
    pub host_names: Vec<String>,
    /// Addresses besides the loopback ones. Default: none.
    pub addresses: Vec<IpAddr>,
    /// The cluster IP of the `kubernetes` service. Default: 10.96.0.1.
    pub service_ip: IpAddr,
    /// The domain of the cluster's DNS names. Default: `cluster.local`.
    pub cluster_domain: String,
}

impl Default for PkiOptions {
    fn default() -> Self {
        Self {
            host_names: Vec::new(),
            addresses: Vec::new(),
            service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            cluster_domain: "cluster.local".into(),
        }
    }
}

impl PkiOptions {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(str::to_owned)
                .into();
        names.push(format!("kubernetes.default.svc.{}", self.cluster_domain));
        names.extend(self.host_names.iter().cloned());
        names.dedup();
        names
    }

    fn all_addresses(&self) -> Vec<IpAddr> {
        let mut addresses =
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), self.service_ip];
        addresses.extend(self.addresses.iter().copied().filter(|a| !a.is_unspecified()));
        addresses.sort();
        addresses.dedup();
        addresses
    }
}

/// The certificate authority of one cluster, the API server's serving certificate, the
/// administrator's client certificate, and the key that signs service account tokens.
///
/// One authority signs servers and clients, as `kubeadm` has it.
#[derive(Clone, Debug)]
pub struct Pki {
    clock: Arc<dyn Clock>,
    ca: Credentials,
    serving: Credentials,
    admin: Credentials,
    service_account_key_pem: String,
}

impl Pki {
    /// A new authority that lives as long as this value: for clusters that forget themselves.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn in_memory(options: &PkiOptions, clock: Arc<dyn Clock>) -> Result<Self, PkiError> {
        let now = clock.now();
        let ca = new_authority(now)?;
        let serving = sign(&ca, &serving_params(options, now)?)?;
        let admin = sign(&ca, &admin_params(now)?)?;
        let key = KeyPair::generate()?.serialize_pem();
        Ok(Self { clock, ca, serving, admin, service_account_key_pem: key })
    }

    /// The authority of a data folder, created on the first call and the same ever after.
    /// Certificates near their expiry, or made for other names, are replaced; the authority and
    /// the service account key are kept, so that kubeconfigs and tokens stay valid. All files are
    /// readable by their owner only.
    ///
    /// # Errors
    /// [`PkiError::File`] and [`PkiError::Content`] name the file.
    pub fn load_or_create(
        folder: &Path,
        options: &PkiOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PkiError> {
        fs::create_dir_all(folder).map_err(|e| PkiError::File(folder.to_owned(), e))?;
        restrict(folder)?;
        let now = clock.now();
        let ca = match load(folder, "ca")? {
            Some(ca) => ca,
            None => store(folder, "ca", new_authority(now)?)?,
        };
        let names = wanted_names(options);
        let serving = match load(folder, "apiserver")? {
            Some(old) if is_current(&old, &ca, now, Some(&names)) => old,
            _ => store(folder, "apiserver", sign(&ca, &serving_params(options, now)?)?)?,
        };
        let admin = match load(folder, "admin")? {
            Some(old) if is_current(&old, &ca, now, None) => old,
            _ => store(folder, "admin", sign(&ca, &admin_params(now)?)?)?,
        };
        let path = folder.join("sa.key");
        let service_account_key_pem = match read(&path)? {
            Some(pem) => {
                KeyPair::from_pem(&pem).map_err(|_| PkiError::Content(path))?;
                pem
            }
            None => {
                let pem = KeyPair::generate()?.serialize_pem();
                private_file::write(&path, pem.as_bytes()).map_err(|e| PkiError::File(path, e))?;
                pem
            }
        };
        Ok(Self { clock, ca, serving, admin, service_account_key_pem })
    }

    /// The authority's certificate in PEM: what clients and pods (`kube-root-ca.crt`) trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca.certificate_pem
    }

    /// When the authority's certificate ends, and with it all that it signed.
    pub fn ca_not_after(&self) -> Timestamp {
        let authority = certificates(&self.ca.certificate_pem).into_iter().next();
        let end = authority.as_deref().and_then(|authority| {
            let (_, parsed) = x509_parser::parse_x509_certificate(authority).ok()?;
            Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
        });
        // An authority that cannot be read signs nothing.
        end.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// What signs certificates.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        issuer(&self.ca)
    }

    /// The API server's serving certificate.
    pub fn serving(&self) -> &Credentials {
        &self.serving
    }

    /// The administrator's certificate: `kubernetes-admin` of `system:masters`.
    pub fn admin(&self) -> &Credentials {
        &self.admin
    }

    /// The private key (EC P-256, PKCS #8, PEM) that signs service account tokens.
    pub fn service_account_key_pem(&self) -> &str {
        &self.service_account_key_pem
    }

    /// A client certificate for a user and their groups, valid for a year: for components, for
    /// example `system:kube-scheduler`, or `system:node:NAME` of `system:nodes`.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn client_certificate(&self, user: &str, groups: &[&str]) -> Result<Credentials, PkiError> {
        sign(&self.ca, &client_params(user, groups, self.clock.now())?)
    }

    /// A serving certificate for a component such as a node agent, valid for a year.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn serving_certificate(
        &self,
        user: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Credentials, PkiError> {
        sign(&self.ca, &server_params(user, names, addresses, self.clock.now())?)
    }

    /// How the API server's sockets speak TLS: its serving certificate; client certificates are
    /// optional and verified against the authority; HTTP/2 and HTTP/1.1 are offered.
    ///
    /// # Errors
    /// [`PkiError::Tls`] and [`PkiError::Verifier`] if the certificates do not fit together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca.certificate_pem) {
            roots.add(certificate)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let key = PrivateKeyDer::from_pem_slice(self.serving.key_pem.as_bytes())
            .map_err(|_| rustls::Error::General("the serving key is no key".into()))?;
        let time: Arc<dyn TimeProvider> = Arc::new(ClockTime(self.clock.clone()));
        let mut config = ServerConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.serving.certificate_pem), key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Certificates are checked against the time that the rest of the server lives by.
#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

fn validity(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    let (begin, end) = (at(now.as_second() - BACKDATE_S), at(now.as_second() + days * DAY_S));
    set_validity(params, begin, end);
}

/// Sets from when until when a certificate is valid, to the second.
pub(super) fn set_validity(params: &mut CertificateParams, begin: Timestamp, end: Timestamp) {
    let at = |time: Timestamp| {
        let since_epoch = Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
        rcgen::date_time_ymd(1970, 1, 1) + since_epoch
    };
    params.not_before = at(begin);
    params.not_after = at(end);
}

fn new_authority(now: Timestamp) -> Result<Credentials, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("kubernetes", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    validity(&mut params, now, CA_VALIDITY_DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Credentials { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn distinguished(name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for organization in organizations {
        subject.push(DnType::OrganizationName, *organization);
    }
    subject.push(DnType::CommonName, name);
    subject
}

fn client_params(
    user: &str,
    groups: &[&str],
    now: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(user, groups);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    validity(&mut params, now, VALIDITY_DAYS);
    Ok(params)
}

fn admin_params(now: Timestamp) -> Result<CertificateParams, PkiError> {
    client_params("kubernetes-admin", &[crate::auth::GROUP_MASTERS], now)
}

fn server_params(
    user: &str,
    names: &[String],
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.distinguished_name = distinguished(user, &[]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params, now, VALIDITY_DAYS);
    Ok(params)
}

fn serving_params(options: &PkiOptions, now: Timestamp) -> Result<CertificateParams, PkiError> {
    server_params("kube-apiserver", &options.names(), &options.all_addresses(), now)
}

fn issuer(ca: &Credentials) -> Result<Issuer<'static, KeyPair>, PkiError> {
    Ok(Issuer::from_ca_cert_pem(&ca.certificate_pem, KeyPair::from_pem(&ca.key_pem)?)?)
}

fn sign(ca: &Credentials, params: &CertificateParams) -> Result<Credentials, PkiError> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer(ca)?)?;
    Ok(Credentials { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// The subject alternative names as [`is_current`] compares them.
fn wanted_names(options: &PkiOptions) -> Vec<String> {
    let addresses = options.all_addresses();
    let mut names: Vec<String> =
        options.names().into_iter().chain(addresses.iter().map(ToString::to_string)).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a certificate was signed by this authority, does not expire soon, and bears the names.
fn is_current(
    credentials: &Credentials,
    ca: &Credentials,
    now: Timestamp,
    names: Option<&[String]>,
) -> bool {
    let (Some(leaf), Some(authority)) = (
        certificates(&credentials.certificate_pem).into_iter().next(),
        certificates(&ca.certificate_pem).into_iter().next(),
    ) else {
        return false;
    };
    let (Ok((_, leaf)), Ok((_, authority))) = (
        x509_parser::parse_x509_certificate(&leaf),
        x509_parser::parse_x509_certificate(&authority),
    ) else {
        return false;
    };
    leaf.issuer() == authority.subject()
        && KeyPair::from_pem(&credentials.key_pem).is_ok()
        && leaf.validity().not_after.timestamp() > now.as_second() + RENEWAL_DAYS * DAY_S
        && names.is_none_or(|names| alternative_names(&leaf) == names)
}

fn alternative_names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| Ipv4Addr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| Ipv6Addr::from(b).to_string()),
        },
        _ => None,
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::File(path.to_owned(), error)),
    }
}

/// `None` if either file is missing: a crash between the two writes leaves an unusable half.
fn load(folder: &Path, name: &str) -> Result<Option<Credentials>, PkiError> {
    let certificate_path = folder.join(format!("{name}.crt"));
    let key_path = folder.join(format!("{name}.key"));
    let (Some(certificate_pem), Some(key_pem)) = (read(&certificate_path)?, read(&key_path)?)
    else {
        return Ok(None);
    };
    if certificates(&certificate_pem).is_empty() {
        return Err(PkiError::Content(certificate_path));
    }
    KeyPair::from_pem(&key_pem).map_err(|_| PkiError::Content(key_path))?;
    Ok(Some(Credentials { certificate_pem, key_pem }))
}

fn store(folder: &Path, name: &str, credentials: Credentials) -> Result<Credentials, PkiError> {
    // The key goes first: what load() finds whole must be whole.
    for (suffix, pem) in [("key", &credentials.key_pem), ("crt", &credentials.certificate_pem)] {
        let path = folder.join(format!("{name}.{suffix}"));
        private_file::write(&path, pem.as_bytes()).map_err(|e| PkiError::File(path, e))?;
    }
    Ok(credentials)
}

#[cfg(unix)]
fn restrict(folder: &Path) -> Result<(), PkiError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .map_err(|e| PkiError::File(folder.to_owned(), e))
}

#[cfg(not(unix))]
fn restrict(_folder: &Path) -> Result<(), PkiError> {
    Ok(())
}
