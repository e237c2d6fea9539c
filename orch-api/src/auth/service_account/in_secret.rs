//! Tokens that lie in secrets: they do not expire, and are good for as long as their secret holds
//! them.
//!
//! Source: `k8s.io/kubernetes/pkg/serviceaccount/legacy.go`.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use orch_core::{ApiError, Resources, client::PatchKind};
use serde_json::{Value, json};

use super::{ServiceAccountTokens, identity, into_api_error};
use crate::auth::{
    UserInfo,
    jwt::{KeyError, TokenKey},
};

/// Who issues such tokens.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
const NAMESPACE: &str = "kubernetes.io/serviceaccount/namespace";
const SECRET: &str = "kubernetes.io/serviceaccount/secret.name";
const NAME: &str = "kubernetes.io/serviceaccount/service-account.name";
const UID: &str = "kubernetes.io/serviceaccount/service-account.uid";
/// The label that says since when a token is not believed, and the one that says when it was last
/// used.
const INVALID: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// A token of an account, to lie in the secret of this name.
///
/// # Errors
/// [`KeyError`] if the key does not sign.
pub fn token_in_secret(
    key: &TokenKey,
    account: &ServiceAccount,
    secret: &str,
) -> Result<String, KeyError> {
    let meta = &account.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    key.sign(&json!({
        "iss": ISSUER,
        NAMESPACE: namespace,
        SECRET: secret,
        NAME: name,
        UID: meta.uid,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    }))
}

impl ServiceAccountTokens {
    /// Whose token it is; `None` if its secret does not hold it any more, or its account is gone.
    pub(super) async fn in_secret(
        &self,
        token: &str,
        claims: &Value,
    ) -> Result<Option<UserInfo>, ApiError> {
        let text = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
        let (Some(namespace), Some(secret), Some(name), Some(uid)) =
            (text(NAMESPACE), text(SECRET), text(NAME), text(UID))
        else {
            return Ok(None);
        };
        if claims["sub"] != format!("system:serviceaccount:{namespace}:{name}") {
            return Ok(None);
        }
        let client = &self.0.client;
        let accounts = Resources::<ServiceAccount>::namespaced(client.clone(), namespace);
        let secrets = Resources::<Secret>::namespaced(client.clone(), namespace);
        let Some(held) = secrets.get_opt(secret).await.map_err(into_api_error)? else {
            return Ok(None);
        };
        let is_held = held.metadata.deletion_timestamp.is_none()
            && held.data.as_ref().and_then(|data| data.get("token")).is_some_and(|value| {
                // Not constant in time: who has the signature has the token.
                value.0 == token.as_bytes()
            });
        let label = |name: &str| held.metadata.labels.as_ref().and_then(|all| all.get(name));
        if !is_held || label(INVALID).is_some() {
            return Ok(None);
        }
        let account = accounts.get_opt(name).await.map_err(into_api_error)?;
        let lives = account.is_some_and(|account| {
            account.metadata.uid.as_deref() == Some(uid)
                && account.metadata.deletion_timestamp.is_none()
        });
        if !lives {
            return Ok(None);
        }
        let today = self.0.environment.clock.now().to_string();
        let today = today.split('T').next().unwrap_or_default();
        if label(LAST_USED).is_none_or(|last| last != today) {
            let patch = json!({"metadata": {
                "uid": held.metadata.uid, "labels": {LAST_USED: today},
            }});
            // Noted once a day, and of no consequence for who calls.
            if let Err(error) = secrets.patch(secret, PatchKind::Merge, patch).await {
                tracing::debug!(%error, namespace, secret, "the use of a token was not noted");
            }
        }
        Ok(Some(identity(namespace, name, Some(uid))))
    }
}
