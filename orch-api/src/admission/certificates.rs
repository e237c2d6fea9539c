//! Who may have certificates signed, and as whom.
//!
//! Source: `plugin/pkg/admission/certificates`, `pkg/registry/certificates/.../util.go`
//! (`IsAuthorizedForSignerName`).

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use orch_core::ApiError;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::{Attributes, Authorizer, Decision, GROUP_MASTERS};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the request is about a subresource of signing requests.
fn is_update_of(request: &AdmissionRequest, subresource: &str) -> bool {
    request.operation == Operation::Update
        && request.target.resource.group == GROUP
        && request.target.resource.plural == "certificatesigningrequests"
        && request.target.subresource.as_deref() == Some(subresource)
}

fn old_of(request: &AdmissionRequest) -> Value {
    request.old.as_ref().map_or(Value::Null, |old| old.to_value())
}

/// Whether somebody may do something with a signer, by its name or by its whole domain.
async fn may(
    authorizer: &dyn Authorizer,
    request: &AdmissionRequest,
    verb: &str,
    signer: &str,
) -> Result<bool, ApiError> {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let attributes = Attributes {
            user: request.user.clone(),
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..Attributes::default()
        };
        if matches!(authorizer.authorize(&attributes).await?, Decision::Allow { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets only those approve or deny a request who may `approve` for its signer.
#[derive(Debug)]
pub struct CertificateApproval(Arc<dyn Authorizer>);

impl CertificateApproval {
    /// Asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        if !is_update_of(request, "approval") {
            return Ok(());
        }
        let old = old_of(request);
        let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
        if may(&*self.0, request, "approve", signer).await? {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(request.refuse(&why))
    }
}

/// Lets only those store a certificate, or that there will be none, who may `sign` for the signer.
#[derive(Debug)]
pub struct CertificateSigning(Arc<dyn Authorizer>);

impl CertificateSigning {
    /// Asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let Some(new) = request.object.as_ref().filter(|_| is_update_of(request, "status")) else {
            return Ok(());
        };
        let old = old_of(request);
        let part = |object: &Value, name: &str| object["status"].get(name).cloned();
        let same = |name: &str| part(new, name) == part(&old, name);
        if same("certificate") && same("conditions") {
            return Ok(());
        }
        let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
        if may(&*self.0, request, "sign", signer).await? {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(request.refuse(&why))
    }
}

/// Keeps requests for certificates of clients from naming the group that may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let Some(new) = request
            .object
            .as_ref()
            .filter(|_| request.creates(GROUP, "certificatesigningrequests"))
        else {
            return Ok(());
        };
        if new["spec"]["signerName"] != CLIENT_SIGNER || !names_masters(&new["spec"]["request"]) {
            return Ok(());
        }
        let why =
            format!("use of {CLIENT_SIGNER} signer with {GROUP_MASTERS} group is not allowed");
        Err(request.refuse(&why))
    }
}

/// Whether a PEM of a request has that group among its organizations. What cannot be read is for
/// validation to refuse.
fn names_masters(request: &Value) -> bool {
    let pem = request.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let info = &parsed.certification_request_info;
    info.subject.iter_organization().any(|one| one.as_str().is_ok_and(|o| o == GROUP_MASTERS))
}
