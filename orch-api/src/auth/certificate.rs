//! Identity from a client certificate: the common name is the user, organizations are groups.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/x509`.

use async_trait::async_trait;
use orch_core::ApiError;
use sha2::{Digest as _, Sha256};

use super::{Authenticator, PeerCertificates, UserInfo, unauthorized};

/// Believes the certificate in the request's [`PeerCertificates`]: whoever put it there verified
/// it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(leaf) = request.extensions.get::<PeerCertificates>().and_then(|p| p.0.first())
        else {
            return Ok(None);
        };
        identity(leaf)
    }
}

/// A certificate without a common name names nobody: other authenticators are asked.
fn identity(der: &[u8]) -> Result<Option<UserInfo>, ApiError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| unauthorized())?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().next().and_then(|n| n.as_str().ok()) else {
        return Ok(None);
    };
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = UserInfo::authenticated(name, &groups);
    let digest: String = Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect();
    let credential = format!("X509SHA256={digest}");
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![credential]);
    Ok(Some(user))
}
