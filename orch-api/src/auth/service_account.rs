//! Tokens of service accounts: issued on request, bound to what they were issued for.
//!
//! Source: `k8s.io/kubernetes/pkg/serviceaccount`, `pkg/registry/core/serviceaccount/storage`,
//! KEP-1205.

mod in_secret;
mod issue;

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{ApiError, Client, ClientError, Environment, Resources, informer::Watchable};
use parking_lot::RwLock;
use serde_json::Value;

use super::{Authenticator, UserInfo, bearer_token, jwt::TokenKey, unauthorized};

pub use in_secret::token_in_secret;
pub use issue::TokenRequests;

/// The issuer and the audience of tokens unless other ones are configured.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A token stays good for so long after its pod or node began to be deleted.
const DELETION_GRACE_S: i64 = 60;
/// Verified tokens that are remembered, so that a signature is verified once. When it is full the
/// memory starts anew.
const REMEMBERED_MAX: usize = 4096;

/// Issues and verifies service account tokens. Cheap to clone.
#[derive(Clone)]
pub struct ServiceAccountTokens(Arc<Inner>);

struct Inner {
    key: TokenKey,
    issuer: String,
    audiences: Vec<String>,
    client: Arc<dyn Client>,
    environment: Environment,
    verified: RwLock<HashMap<String, Arc<Value>>>,
}

impl fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountTokens({})", self.0.issuer)
    }
}

impl ServiceAccountTokens {
    /// Tokens of [`DEFAULT_ISSUER`] for the audience of the same name.
    pub fn new(key: TokenKey, client: Arc<dyn Client>, environment: Environment) -> Self {
        Self::issued_by(DEFAULT_ISSUER, vec![DEFAULT_ISSUER.into()], key, client, environment)
    }

    /// Tokens of an issuer; `audiences` are the API's own.
    pub fn issued_by(
        issuer: &str,
        audiences: Vec<String>,
        key: TokenKey,
        client: Arc<dyn Client>,
        environment: Environment,
    ) -> Self {
        let verified = RwLock::default();
        let issuer = issuer.to_owned();
        Self(Arc::new(Inner { key, issuer, audiences, client, environment, verified }))
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The audiences that the API itself accepts.
    pub fn audiences(&self) -> &[String] {
        &self.0.audiences
    }

    /// What `/openid/v1/jwks` serves.
    pub fn key_set(&self) -> Value {
        self.0.key.key_set()
    }

    /// What `/.well-known/openid-configuration` serves.
    pub fn discovery(&self) -> Value {
        super::jwt::discovery(&self.0.issuer, &format!("{}/openid/v1/jwks", self.0.issuer))
    }

    fn claims(&self, token: &str) -> Option<Arc<Value>> {
        if let Some(claims) = self.0.verified.read().get(token) {
            return Some(claims.clone());
        }
        let claims = Arc::new(self.0.key.verify(token)?);
        let mut verified = self.0.verified.write();
        if verified.len() >= REMEMBERED_MAX {
            verified.clear();
        }
        verified.insert(token.to_owned(), claims.clone());
        Some(claims)
    }

    /// Whose token it is, and which of the wanted audiences it is for; `None` if it is not one of
    /// ours, is expired, is for nobody here, or if what it was bound to is gone.
    ///
    /// # Errors
    /// If the cluster cannot be asked.
    pub async fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, ApiError> {
        let Some(claims) = self.claims(token) else { return Ok(None) };
        if claims["iss"] == in_secret::ISSUER {
            // They name no audience, which means the API's own.
            let own = self.0.audiences.iter().filter(|own| audiences.contains(own));
            let matching: Vec<String> = own.cloned().collect();
            if matching.is_empty() {
                return Ok(None);
            }
            return Ok(self.in_secret(token, &claims).await?.map(|user| (user, matching)));
        }
        let now = self.0.environment.clock.now().as_second();
        let second = |name: &str| claims[name].as_i64();
        let in_time = second("exp").is_some_and(|exp| now < exp)
            && second("nbf").is_none_or(|nbf| nbf <= now);
        let own = claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let matching: Vec<String> =
            own.filter(|own| audiences.iter().any(|a| a == own)).map(str::to_owned).collect();
        if claims["iss"] != self.0.issuer.as_str() || !in_time || matching.is_empty() {
            return Ok(None);
        }
        Ok(self.subject(&claims).await?.map(|user| (user, matching)))
    }

    /// The identity of claims, if everything that they are bound to still lives.
    async fn subject(&self, claims: &Value) -> Result<Option<UserInfo>, ApiError> {
        let bound = &claims["kubernetes.io"];
        let Some(namespace) = bound["namespace"].as_str() else { return Ok(None) };
        let account = &bound["serviceaccount"];
        if !self.lives::<ServiceAccount>(namespace, account).await?
            || !self.lives_if_bound::<Pod>(namespace, &bound["pod"]).await?
            || !self.lives_if_bound::<Secret>(namespace, &bound["secret"]).await?
            || !self.node_lives(bound).await?
        {
            return Ok(None);
        }
        let Some(name) = account["name"].as_str() else { return Ok(None) };
        let mut user = identity(namespace, name, account["uid"].as_str());
        let mut extra = |key: &str, value: &Value| {
            if let Some(value) = value.as_str() {
                let key = format!("authentication.kubernetes.io/{key}");
                user.extra.insert(key, vec![value.to_owned()]);
            }
        };
        extra("pod-name", &bound["pod"]["name"]);
        extra("pod-uid", &bound["pod"]["uid"]);
        extra("node-name", &bound["node"]["name"]);
        extra("node-uid", &bound["node"]["uid"]);
        if let Some(id) = claims["jti"].as_str() {
            extra("credential-id", &Value::from(format!("JTI={id}")));
        }
        Ok(Some(user))
    }

    async fn lives_if_bound<K: Watchable>(
        &self,
        namespace: &str,
        reference: &Value,
    ) -> Result<bool, ApiError> {
        Ok(reference.is_null() || self.lives::<K>(namespace, reference).await?)
    }

    /// A pod's token names the node for information only; a token bound to the node alone dies
    /// with it.
    async fn node_lives(&self, bound: &Value) -> Result<bool, ApiError> {
        if bound["node"].is_null() || !bound["pod"].is_null() {
            return Ok(true);
        }
        self.lives::<Node>("", &bound["node"]).await
    }

    async fn lives<K: Watchable>(
        &self,
        namespace: &str,
        reference: &Value,
    ) -> Result<bool, ApiError> {
        let (Some(name), Some(uid)) = (reference["name"].as_str(), reference["uid"].as_str())
        else {
            return Ok(false);
        };
        let resources: Resources<K> = Resources::namespaced(self.0.client.clone(), namespace);
        let found = resources.get_opt(name).await.map_err(into_api_error)?;
        let now = self.0.environment.clock.now().as_second();
        Ok(found.is_some_and(|object| {
            let meta: &ObjectMeta = object.metadata();
            let deleted = meta.deletion_timestamp.as_ref();
            meta.uid.as_deref() == Some(uid)
                && deleted.is_none_or(|at| now < at.0.as_second() + DELETION_GRACE_S)
        }))
    }
}

/// The identity of a service account.
pub fn identity(namespace: &str, name: &str, uid: Option<&str>) -> UserInfo {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    let mut user =
        UserInfo::authenticated(format!("system:serviceaccount:{namespace}:{name}"), &groups);
    user.uid = uid.map(str::to_owned);
    user
}

pub(crate) fn into_api_error(error: ClientError) -> ApiError {
    match error {
        ClientError::Api(error) => error,
        other => ApiError::internal(other),
    }
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    /// Tokens of other issuers are left to other authenticators.
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(token) = bearer_token(&request.headers) else { return Ok(None) };
        if self.claims(token).is_none() {
            return Ok(None);
        }
        match self.review(token, &self.0.audiences).await? {
            Some((user, _)) => Ok(Some(user)),
            None => Err(unauthorized()),
        }
    }
}
