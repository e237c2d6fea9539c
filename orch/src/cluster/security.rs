//! How a cluster's API is reached from outside, and by whom.

use std::{net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use orch_api::{
    ApiServerBuilder, FRONT_PROXY,
    admission::LateClient,
    auth::{
        access_control::{AccessControl, AccessOptions},
        jwt::TokenKey,
        service_account::{ServiceAccountTokens, token_in_secret},
    },
    outbound::Https,
    serve::{ListenerOptions, Pki},
};
use orch_controllers::service_account::{TokenError, TokenGenerator};
use orch_core::{Client, Environment};

use super::StartError;

/// How the API is served to the outside.
#[derive(Debug)]
pub struct ServeSetup {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) listener: ListenerOptions,
}

impl ServeSetup {
    /// Over TLS on these addresses, with these certificates; port 0 takes a free one, the
    /// same for all that ask so after the first. Callers are
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

/// Makes tokens that lie in secrets, with the key by which the server knows all of them.
struct SecretTokens(TokenKey);

impl TokenGenerator for SecretTokens {
    fn token(&self, account: &ServiceAccount, secret: &Secret) -> Result<String, TokenError> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let token = token_in_secret(&self.0, account, name);
        token.map_err(|error| TokenError(error.to_string()))
    }
}

/// Who makes the tokens that lie in secrets.
pub(super) fn token_generator(pki: &Pki) -> Result<Arc<dyn TokenGenerator>, StartError> {
    let key = TokenKey::from_pem(pki.service_account_key_pem());
    let key = key.map_err(|error| StartError::TokenKey(error.to_string()))?;
    Ok(Arc::new(SecretTokens(key)))
}

/// Makes the server admit what upstream admits by default, and issue service account tokens. With
/// certificates it also knows its callers and authorizes them by upstream's rules; without, whoever
/// can call it is trusted.
pub(super) fn secure(
    builder: ApiServerBuilder,
    pki: Option<&Pki>,
    environment: &Environment,
) -> Result<ApiServerBuilder, StartError> {
    let unusable = |error: &dyn std::error::Error| StartError::TokenKey(error.to_string());
    let late = LateClient::new();
    let client: Arc<dyn Client> = late.clone();
    let builder = builder.late_client(late);
    let Some(pki) = pki else {
        let key = TokenKey::generate().map_err(|error| unusable(&error))?;
        let tokens = ServiceAccountTokens::new(key, client, environment.clone());
        return Ok(builder.default_admission().service_account_tokens(tokens));
    };
    let front_proxy = pki.client_certificate(FRONT_PROXY, &[]);
    let front_proxy = front_proxy.map_err(|error| unusable(&error))?;
    let outbound = Https::new(client.clone(), environment.clone()).front_proxy(&front_proxy);
    let builder = builder.outbound(Arc::new(outbound.map_err(|error| unusable(&error))?));
    let key = TokenKey::from_pem(pki.service_account_key_pem());
    let options = AccessOptions {
        token_key: Some(key.map_err(|error| unusable(&error))?),
        ..AccessOptions::default()
    };
    let access = AccessControl::new(&client, environment, options);
    Ok(builder.access_control(&access.map_err(|error| unusable(&error))?))
}
