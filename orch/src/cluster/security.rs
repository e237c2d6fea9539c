//! Who may reach the API, and what they may do there.

use std::{net::SocketAddr, sync::Arc};

use orch_api::{
    ApiServerBuilder,
    auth::{
        Anonymous, Authenticator, Authenticators, Authorizer, Authorizers, ClientCertificates,
        Masters,
        node::NodeAuthorizer,
        rbac::{Rbac, escalation::EscalationCheck},
        reviews::{self, TokenReviews},
        service_account::{ServiceAccountTokens, TokenRequests},
        jwt::TokenKey,
    },
    serve::{ListenerOptions, Pki},
};
use orch_core::{Client, Environment, informer::Informers};

use super::StartError;

/// How the API is served to the outside.
#[derive(Debug)]
pub struct ServeSetup {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) listener: ListenerOptions,
}

impl ServeSetup {
    /// Over TLS on these addresses, with these certificates; port 0 takes a free one. Callers are
    /// known by client certificates and service account tokens, and authorized by RBAC.
    pub fn tls(addresses: impl Into<Vec<SocketAddr>>, pki: impl Into<Arc<Pki>>) -> Self {
        Self { addresses: addresses.into(), pki: pki.into(), listener: ListenerOptions::default() }
    }

    /// Limits of the listeners other than the defaults.
    #[must_use]
    pub fn listener(mut self, options: ListenerOptions) -> Self {
        self.listener = options;
        self
    }
}

/// What security adds to a server under construction.
pub(super) struct Security {
    pub(super) rbac: Option<Rbac>,
}

/// Makes the server know its callers and authorize them. Without `pki` everybody who can call it
/// is trusted, and tokens are signed by a key of this process.
pub(super) fn secure(
    mut builder: ApiServerBuilder,
    pki: Option<&Pki>,
    client: &Arc<dyn Client>,
    environment: &Environment,
) -> Result<(ApiServerBuilder, Security), StartError> {
    let key = match pki {
        Some(pki) => TokenKey::from_pem(pki.service_account_key_pem()),
        None => TokenKey::generate(),
    };
    let key = key.map_err(|error| StartError::TokenKey(error.to_string()))?;
    let tokens = ServiceAccountTokens::new(key, client.clone(), environment.clone());
    let known: Arc<dyn Authenticator> = Arc::new(Authenticators(vec![
        Arc::new(ClientCertificates),
        Arc::new(tokens.clone()),
    ]));
    let mut rbac = None;
    let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Masters)];
    if pki.is_some() {
        let informers = Informers::new(client.clone(), environment.clone());
        let roles = Rbac::new(&informers);
        authorizers.push(Arc::new(NodeAuthorizer::new(&informers)));
        authorizers.push(Arc::new(roles.clone()));
        builder = builder.authenticator(known.clone()).authenticator(Arc::new(Anonymous));
        rbac = Some(roles);
    }
    let authorizer: Arc<dyn Authorizer> = Arc::new(Authorizers(authorizers));
    if let Some(rbac) = &rbac {
        builder = builder
            .authorizer(authorizer.clone())
            .admission(Arc::new(EscalationCheck::new(rbac.clone(), authorizer.clone())));
    }
    let reviews = TokenReviews {
        api_audiences: tokens.audiences().to_vec(),
        service_accounts: Some(tokens.clone()),
        others: known,
    };
    for ((group, plural), review) in reviews::resources(&authorizer, reviews) {
        builder = builder.virtual_resource(group, plural, None, review);
    }
    let requests = Arc::new(TokenRequests::new(tokens));
    builder = builder.virtual_resource("", "serviceaccounts", Some("token"), requests);
    Ok((builder, Security { rbac }))
}
