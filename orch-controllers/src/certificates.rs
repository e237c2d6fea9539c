//! CertificateSigningRequests: approved, signed, and cleaned up.
//!
//! [`CertificateAuthority`] is the contract of who holds the key. [`certificate_signing`] signs for
//! the signers of `kubernetes.io`, [`certificate_approving`] approves what node agents ask for, and
//! [`certificate_cleaner`] removes what is done with.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/certificates`.

mod approving;
mod cleaning;
mod request;
mod signing;

use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub use approving::certificate_approving;
pub use cleaning::certificate_cleaner;
pub use signing::{
    AuthorityError, CertificateAuthority, CertificateTerms, Signers, certificate_signing,
};

/// Signs client certificates of node agents.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs serving certificates of node agents.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signs client certificates that the API server honors.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs whatever was approved, with no promise of what it is good for.
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

fn conditions(
    request: &CertificateSigningRequest,
) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    let status = request.status.as_ref();
    status.and_then(|status| status.conditions.as_ref()).into_iter().flatten()
}

fn has_condition(request: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(request).any(|condition| condition.type_ == type_)
}

/// The certificate, if there is one already.
fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(&*certificate.0).filter(|bytes| !bytes.is_empty())
}

fn add_condition(
    request: &mut CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: String,
    now: &Time,
) {
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: None,
    });
}
