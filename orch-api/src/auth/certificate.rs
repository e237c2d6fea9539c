//! Identity from a client certificate: the common name is the user, organizations are groups.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/x509`.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use orch_core::ApiError;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::{Authenticator, PeerCertificates, UserInfo, unauthorized};

/// How many connections' identities are kept before those of closed ones are let go.
const KEPT: usize = 1024;

/// Believes the certificate in the request's [`PeerCertificates`]: whoever put it there verified
/// it. A certificate is read once a connection.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificates {
    known: Arc<RwLock<HashMap<usize, Known>>>,
}

/// What a connection's certificate says. The weak reference keeps the address from being used
/// again for another connection.
#[derive(Debug)]
struct Known {
    chain: Weak<[Vec<u8>]>,
    identity: Option<UserInfo>,
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(PeerCertificates(chain)) = request.extensions.get::<PeerCertificates>() else {
            return Ok(None);
        };
        let Some(leaf) = chain.first() else { return Ok(None) };
        let address = Arc::as_ptr(chain).cast::<u8>() as usize;
        if let Some(known) = self.known.read().get(&address) {
            return Ok(known.identity.clone());
        }
        let identity = identity(leaf)?;
        let mut all = self.known.write();
        if all.len() >= KEPT {
            all.retain(|_, known| known.chain.strong_count() > 0);
            if all.len() >= KEPT {
                all.clear();
            }
        }
        let known = Known { chain: Arc::downgrade(chain), identity: identity.clone() };
        all.insert(address, known);
        Ok(identity)
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
