//! The cluster's certificate authority, for requests that were approved.

use std::sync::Arc;

use jiff::Timestamp;
use orch_api::serve::{Pki, SigningTerms};
use orch_controllers::certificates::{AuthorityError, CertificateAuthority, CertificateTerms};

/// Signs with the key that also signs the API server's certificate.
#[derive(Debug)]
pub(super) struct ClusterAuthority(pub(super) Arc<Pki>);

impl CertificateAuthority for ClusterAuthority {
    fn not_after(&self) -> Timestamp {
        self.0.ca_not_after()
    }

    fn sign(&self, request_pem: &str, terms: &CertificateTerms) -> Result<String, AuthorityError> {
        let terms = SigningTerms {
            usages: &terms.usages,
            not_before: terms.not_before,
            not_after: terms.not_after,
        };
        let signed = self.0.sign_request(request_pem, terms);
        signed.map_err(|error| AuthorityError(error.to_string()))
    }
}
