//! Approves client certificates of node agents.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use orch_core::{
    ClientError, Key, ResourceType, Target,
    client::{Write, WriteOptions},
    informer::Informers,
};

use super::{
    KUBELET_CLIENT, add_condition, certificate, has_condition,
    request::{Subject, suits},
};
use crate::{
    Action, Controller,
    context::Context,
    reconciler::{ReconcileError, Reconciled},
};

/// What may be approved: the subresource on which `create` allows it, and what is said then.
const KINDS: [(&str, &str); 2] = [
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
];

/// The controller that approves requests of node agents for client certificates, if who asks may
/// `create` `certificatesigningrequests/selfnodeclient` (for itself) or `nodeclient`.
pub fn certificate_approving(informers: &Informers) -> Controller {
    let context = Context::new(informers, "certificatesigningrequest-approving-controller");
    let requests = context.informer::<CertificateSigningRequest>();
    context.builder().watches_own::<CertificateSigningRequest>().build(move |key: Key| {
        let (context, request) = (context.clone(), requests.get(&key));
        async move {
            match request {
                Some(request) => approve(&context, &request).await,
                None => Ok(Action::Done),
            }
        }
    })
}

async fn approve(context: &Context, request: &CertificateSigningRequest) -> Reconciled {
    let decided = has_condition(request, "Approved") || has_condition(request, "Denied");
    if decided || certificate(request).is_some() || request.spec.signer_name != KUBELET_CLIENT {
        return Ok(Action::Done);
    }
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let subject = Subject::read(&request.spec.request.0).map_err(|error| {
        ReconcileError::message(format!("unable to parse csr {name:?}: {error}"))
    })?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if suits(KUBELET_CLIENT, &subject, usages).is_err() {
        return Ok(Action::Done);
    }
    let itself = request.spec.username.as_deref() == Some(&*subject.common_name);
    let mut tried = Vec::new();
    for (subresource, message) in
        KINDS.into_iter().filter(|(kind, _)| itself || *kind == "nodeclient")
    {
        tried.push(subresource);
        if may(context, request, subresource).await? {
            let mut approved = request.clone();
            let now = context.time();
            add_condition(&mut approved, "Approved", "AutoApproved", message.to_owned(), &now);
            write_approval(context, name, &approved).await?;
            return Ok(Action::Done);
        }
    }
    // Rights may be given later, so that it is asked again with back-off.
    Err(ReconcileError::message(format!(
        "recognized csr {name:?} as [{}] but subject access review was not approved",
        tried.join(" ")
    )))
}

async fn may(
    context: &Context,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, ClientError> {
    let spec = &request.spec;
    let extra: Option<BTreeMap<String, Vec<String>>> = spec.extra.clone();
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra,
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = context.resources::<SubjectAccessReview>("").create(&review).await?;
    Ok(answer.status.as_ref().is_some_and(|status| status.allowed))
}

async fn write_approval(
    context: &Context,
    name: &str,
    approved: &CertificateSigningRequest,
) -> Result<(), ReconcileError> {
    let resource = ResourceType::of::<CertificateSigningRequest>();
    let target = Target::object(resource, None, name).subresource("approval");
    let body = serde_json::to_value(approved).map_err(ReconcileError::message)?;
    context.client().write(Write::Update(target, body, WriteOptions::default())).await?;
    Ok(())
}
