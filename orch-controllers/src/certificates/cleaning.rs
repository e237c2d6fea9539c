//! Removes requests that are done with.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::certificates::v1::CertificateSigningRequest, apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{Key, client::DeleteOptions, informer::Informers};

use super::{certificate, conditions};
use crate::{Action, Controller, context::Context};

/// After so long what was decided goes.
const DECIDED: Duration = Duration::from_secs(3600);
/// After so long what nobody decided goes.
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// The controller that removes requests: an hour after they were denied, have failed or have their
/// certificate, a day after they were made if nothing was decided, and once their certificate has
/// expired.
///
/// Differs: each request goes when its time has come, where upstream looks at all of them once an
/// hour.
pub fn certificate_cleaner(informers: &Informers) -> Controller {
    let context = Context::new(informers, "certificatesigningrequest-cleaner-controller");
    let requests = context.informer::<CertificateSigningRequest>();
    context.builder().watches_own::<CertificateSigningRequest>().build(move |key: Key| {
        let (context, request) = (context.clone(), requests.get(&key));
        async move {
            let Some(request) = request else { return Ok(Action::Done) };
            let Some(due) = due(&request) else { return Ok(Action::Done) };
            let left = Duration::try_from(due.duration_since(context.now())).unwrap_or_default();
            if !left.is_zero() {
                return Ok(Action::RequeueAfter(left));
            }
            let uid = request.metadata.uid.clone();
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            let requests = context.resources::<CertificateSigningRequest>("");
            match requests.delete(&key.name, options).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(Action::Done),
            }
        }
    })
}

fn after(time: Option<&Time>, delay: Duration) -> Option<Timestamp> {
    time.map(|time| time.0 + delay)
}

/// When a request goes, `None` for never.
fn due(request: &CertificateSigningRequest) -> Option<Timestamp> {
    if conditions(request).next().is_none() {
        return after(request.metadata.creation_timestamp.as_ref(), PENDING);
    }
    let issued = certificate(request);
    let decided = conditions(request).filter(|condition| match condition.type_.as_str() {
        "Approved" => issued.is_some(),
        "Denied" | "Failed" => true,
        _ => false,
    });
    let decided = decided.filter_map(|one| after(one.last_update_time.as_ref(), DECIDED));
    decided.chain(issued.and_then(expiry)).min()
}

/// When a certificate in PEM expires.
fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
