//! Signs what was approved.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use orch_core::{Key, informer::Informers};

use super::{
    API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, add_condition, certificate,
    has_condition,
    request::{Subject, suits},
};
use crate::{
    Action, Controller,
    context::Context,
    reconciler::{ReconcileError, Reconciled},
};

/// Clocks may differ by so much: certificates are valid from a little before they are signed.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// A certificate that lives shorter than this loses nothing of its life to that.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// No certificate lives shorter than this.
const LIFE_MIN: Duration = Duration::from_secs(600);

/// A certificate was not signed. The request is tried again with back-off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthorityError(pub String);

/// What a certificate is to say besides what its request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateTerms {
    /// What it may be used for, by the names of `certificates.k8s.io`.
    pub usages: Vec<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Holds the key of a certificate authority. Object-safe; a call is quick and does no I/O.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// When the authority's own certificate ends: nothing is signed for longer.
    fn not_after(&self) -> Timestamp;

    /// Signs a request (PEM). The certificate has the request's subject, names and key, the usages
    /// and the time of the terms, is no authority's, and has a serial number of its own.
    ///
    /// # Errors
    /// [`AuthorityError`], for example for a request that is not signed by its own key.
    fn sign(&self, request_pem: &str, terms: &CertificateTerms) -> Result<String, AuthorityError>;
}

impl fmt::Debug for dyn CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority")
    }
}

/// Which authority signs for which signer, and for how long at most.
#[derive(Clone, Debug)]
pub struct Signers {
    authorities: BTreeMap<&'static str, Arc<dyn CertificateAuthority>>,
    /// How long certificates live at most; requests may ask for less. Default: a year.
    pub duration_max: Duration,
}

impl Default for Signers {
    /// Nobody signs.
    fn default() -> Self {
        Self { authorities: BTreeMap::new(), duration_max: Duration::from_secs(8760 * 3600) }
    }
}

impl Signers {
    /// One authority signs for all four signers of `kubernetes.io`.
    pub fn all(authority: &Arc<dyn CertificateAuthority>) -> Self {
        let names = [KUBELET_CLIENT, KUBELET_SERVING, API_CLIENT, LEGACY_UNKNOWN];
        let authorities = names.map(|name| (name, authority.clone())).into();
        Self { authorities, ..Self::default() }
    }

    /// This authority signs for this signer of `kubernetes.io`, [`KUBELET_CLIENT`] or its like.
    #[must_use]
    pub fn with(mut self, signer: &'static str, authority: Arc<dyn CertificateAuthority>) -> Self {
        self.authorities.insert(signer, authority);
        self
    }

    fn life(&self, asked: Option<i32>) -> Duration {
        let Some(asked) = asked else { return self.duration_max };
        let asked = Duration::from_secs(u64::try_from(asked).unwrap_or_default());
        asked.max(LIFE_MIN).min(self.duration_max)
    }
}

/// The controller that signs requests which were approved.
pub fn certificate_signing(informers: &Informers, signers: Signers) -> Controller {
    let context = Context::new(informers, "certificatesigningrequest-signing-controller");
    let requests = context.informer::<CertificateSigningRequest>();
    let signers = Arc::new(signers);
    context.builder().watches_own::<CertificateSigningRequest>().build(move |key: Key| {
        let (context, signers, request) = (context.clone(), signers.clone(), requests.get(&key));
        async move {
            match request {
                Some(request) => sign(&context, &signers, &request).await,
                None => Ok(Action::Done),
            }
        }
    })
}

async fn sign(
    context: &Context,
    signers: &Signers,
    request: &CertificateSigningRequest,
) -> Reconciled {
    let waits = has_condition(request, "Approved")
        && !has_condition(request, "Denied")
        && !has_condition(request, "Failed")
        && certificate(request).is_none();
    let Some(authority) = signers.authorities.get(&*request.spec.signer_name).filter(|_| waits)
    else {
        return Ok(Action::Done);
    };
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let subject = Subject::read(&request.spec.request.0).map_err(|error| {
        ReconcileError::message(format!("unable to parse csr {name:?}: {error}"))
    })?;
    let usages = request.spec.usages.clone().unwrap_or_default();
    let mut answered = request.clone();
    if let Err(why) = suits(&request.spec.signer_name, &subject, &usages) {
        let now = context.time();
        add_condition(&mut answered, "Failed", "SignerValidationFailure", why, &now);
    } else {
        let life = signers.life(request.spec.expiration_seconds);
        let terms = terms(context.now(), life, authority.not_after(), usages);
        let pem = String::from_utf8_lossy(&request.spec.request.0);
        let signed = terms.and_then(|terms| authority.sign(&pem, &terms));
        let signed = signed
            .map_err(|error| ReconcileError::message(format!("error auto signing csr: {error}")))?;
        answered.status.get_or_insert_default().certificate = Some(ByteString(signed.into()));
    }
    context.resources::<CertificateSigningRequest>("").update_status(&answered).await?;
    Ok(Action::Done)
}

/// What a certificate says that is signed now and is to live so long.
fn terms(
    now: Timestamp,
    life: Duration,
    authority_ends: Timestamp,
    usages: Vec<String>,
) -> Result<CertificateTerms, AuthorityError> {
    if now >= authority_ends {
        let why = format!(
            "refusing to sign a certificate that expired in the past: NotAfter={authority_ends}"
        );
        return Err(AuthorityError(why));
    }
    let not_before = now - BACKDATE;
    let begins = if life < SHORT { now } else { not_before };
    Ok(CertificateTerms { usages, not_before, not_after: (begins + life).min(authority_ends) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_live_as_long_as_was_asked_for_within_bounds() {
        let signers = Signers { duration_max: Duration::from_secs(86_400), ..Signers::default() };
        let check = |asked: Option<i32>, seconds: u64| {
            assert_eq!(signers.life(asked).as_secs(), seconds, "{asked:?}");
        };
        check(None, 86_400);
        check(Some(1), 600);
        check(Some(3600), 3600);
        check(Some(100_000), 86_400);
    }

    #[test]
    fn a_short_life_is_not_backdated_at_its_end() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let check = |life: u64, ends: i64, expected: Option<(i64, i64)>| {
            let terms = terms(at(1000), Duration::from_secs(life), at(ends), Vec::new());
            let found = terms.ok().map(|t| (t.not_before.as_second(), t.not_after.as_second()));
            assert_eq!(found, expected);
        };
        check(3600, 1_000_000, Some((700, 4600)));
        check(86_400, 1_000_000, Some((700, 87_100)));
        check(86_400, 5000, Some((700, 5000)));
        check(3600, 1000, None);
    }
}
