//! Upstream's default way to control access, put together: who is believed, who may do what, and
//! what is admitted.

use std::sync::Arc;

use orch_core::{Client, ClientError, Environment, informer::Informers};
use serde_json::Value;

use super::{
    Anonymous, Authenticator, Authenticators, Authorizer, Authorizers, ClientCertificates, Masters,
    StaticTokens,
    jwt::TokenKey,
    node::NodeAuthorizer,
    rbac::{Rbac, bootstrap, escalation::EscalationCheck},
    reviews::{self, TokenReviews},
    service_account::{ServiceAccountTokens, TokenRequests},
};
use crate::{
    admission::{self, Admission, CertificateApproval, CertificateSigning},
    strategy::VirtualResource,
};

/// What can be chosen about [`AccessControl`].
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// The key that signs service account tokens. Default: a new one, so that tokens do not
    /// outlive the server.
    pub token_key: Option<TokenKey>,
    /// Bearer tokens besides those of service accounts. Default: none.
    pub static_tokens: StaticTokens,
    /// Whether requests without credentials are taken as `system:anonymous`, who may read what
    /// `system:public-info-viewer` allows. Default: yes.
    pub anonymous: bool,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self { token_key: None, static_tokens: StaticTokens::new(), anonymous: true }
    }
}

/// A virtual resource: group, plural, subresource, and who answers.
pub type Answered = (&'static str, &'static str, Option<&'static str>, Arc<dyn VirtualResource>);

/// The parts that a server takes: client certificates, service account and static tokens;
/// `system:masters`, the node authorizer and RBAC; upstream's default admission plugins and the
/// escalation check; access and token reviews and token requests.
#[derive(Clone, Debug)]
pub struct AccessControl {
    /// To be asked in this order.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// To be asked in this order: members of `system:masters` (such as the server itself, which
    /// reads roles to answer) must not have to wait for roles to be read.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// In upstream's order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Reviews and token requests.
    pub virtual_resources: Vec<Answered>,
    /// Issues and verifies service account tokens.
    pub tokens: ServiceAccountTokens,
    /// Decides by roles and bindings.
    pub rbac: Rbac,
}

impl AccessControl {
    /// Puts everything together over a client with all rights, usually an
    /// [`admission::LateClient`] of the server that the parts are for. Call it inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`super::jwt::KeyError`] if no key was given and none can be made.
    pub fn new(
        client: &Arc<dyn Client>,
        environment: &Environment,
        options: AccessOptions,
    ) -> Result<Self, super::jwt::KeyError> {
        let informers = Informers::new(client.clone(), environment.clone());
        let key = options.token_key.map_or_else(TokenKey::generate, Ok)?;
        let tokens = ServiceAccountTokens::new(key, client.clone(), environment.clone());
        let known = Authenticators(vec![
            Arc::new(ClientCertificates::default()),
            Arc::new(options.static_tokens),
            Arc::new(tokens.clone()),
        ]);
        let mut authenticators: Vec<Arc<dyn Authenticator>> = vec![Arc::new(known.clone())];
        if options.anonymous {
            authenticators.push(Arc::new(Anonymous));
        }
        let rbac = Rbac::new(&informers);
        let authorizers: Vec<Arc<dyn Authorizer>> = vec![
            Arc::new(Masters),
            Arc::new(NodeAuthorizer::new(&informers)),
            Arc::new(rbac.clone()),
        ];
        let authorizer: Arc<dyn Authorizer> = Arc::new(Authorizers(authorizers.clone()));
        let mut admission = admission::defaults(client, environment);
        admission.push(Arc::new(CertificateApproval::new(authorizer.clone())));
        admission.push(Arc::new(CertificateSigning::new(authorizer.clone())));
        admission.push(Arc::new(EscalationCheck::new(rbac.clone(), authorizer.clone())));
        let token_reviews = TokenReviews {
            service_accounts: Some(tokens.clone()),
            others: Arc::new(known),
            api_audiences: tokens.audiences().to_vec(),
        };
        let mut virtual_resources: Vec<Answered> = reviews::resources(&authorizer, token_reviews)
            .into_iter()
            .map(|((group, plural), answers)| (group, plural, None, answers))
            .collect();
        let requests: Arc<dyn VirtualResource> = Arc::new(TokenRequests::new(tokens.clone()));
        virtual_resources.push(("", "serviceaccounts", Some("token"), requests));
        Ok(Self { authenticators, authorizers, admission, virtual_resources, tokens, rbac })
    }

    /// What is served for those who verify service account tokens themselves: paths and
    /// documents.
    pub fn documents(&self) -> [(&'static str, Value); 2] {
        [
            ("/.well-known/openid-configuration", self.tokens.discovery()),
            ("/openid/v1/jwks", self.tokens.key_set()),
        ]
    }
}

/// Creates what a new cluster has and an old one keeps: the system's namespaces and priority
/// classes, and upstream's default roles and bindings.
///
/// # Errors
/// [`ClientError`] of the first call that failed; calling again goes on from there.
pub async fn bootstrap_cluster(client: &Arc<dyn Client>) -> Result<(), ClientError> {
    admission::create_system_namespaces(client).await?;
    admission::create_system_classes(client).await?;
    bootstrap::reconcile(client).await
}
