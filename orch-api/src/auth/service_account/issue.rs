//! The `token` subresource of service accounts.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use orch_core::{ApiError, Resources, Target, informer::Watchable, status::FieldError};
use serde_json::{Value, json};

use super::{ServiceAccountTokens, into_api_error};
use crate::strategy::{VirtualResource, WriteContext};

const MIN_S: i64 = 600;
const MAX_S: i64 = 1 << 32;
const DEFAULT_S: i64 = 3600;
/// What pods' projected tokens ask for. Such a token works for a year, because old clients read
/// the file once; it is refreshed after the hour that was asked for.
const PROJECTED_S: i64 = 3607;
const EXTENDED_S: i64 = 365 * 24 * 3600;

/// Answers `TokenRequest`s posted to `serviceaccounts/NAME/token`.
#[derive(Clone, Debug)]
pub struct TokenRequests(ServiceAccountTokens);

impl TokenRequests {
    /// Issues with the key of `tokens`.
    pub fn new(tokens: ServiceAccountTokens) -> Self {
        Self(tokens)
    }

    async fn owner<K: Watchable>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<std::sync::Arc<K>, ApiError> {
        let client = self.0.0.client.clone();
        Resources::<K>::namespaced(client, namespace).get(name).await.map_err(into_api_error)
    }

    /// What the token is bound to besides its account, as claims.
    async fn binding(
        &self,
        namespace: &str,
        account: &str,
        reference: &Value,
    ) -> Result<Vec<(&'static str, Value)>, ApiError> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
        let mut claims = Vec::new();
        match (text("apiVersion"), kind) {
            ("v1", "Pod") => {
                let pod: std::sync::Arc<Pod> = self.owner(namespace, name).await?;
                let spec = pod.spec.as_ref();
                let used = spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
                if used != account {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
                    )));
                }
                claims.push(("pod", claim("pods", &pod.metadata, uid)?));
                if let Some(node) = spec.and_then(|s| s.node_name.as_deref()) {
                    let client = self.0.0.client.clone();
                    let node = Resources::<Node>::all(client).get_opt(node).await;
                    if let Some(node) = node.map_err(into_api_error)? {
                        claims.push(("node", claim("nodes", &node.metadata, "")?));
                    }
                }
            }
            ("v1", "Secret") => {
                let secret: std::sync::Arc<Secret> = self.owner(namespace, name).await?;
                claims.push(("secret", claim("secrets", &secret.metadata, uid)?));
            }
            ("v1", "Node") => {
                let node: std::sync::Arc<Node> = self.owner("", name).await?;
                claims.push(("node", claim("nodes", &node.metadata, uid)?));
            }
            (version, _) => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {version}, Kind={kind}"
                )));
            }
        }
        Ok(claims)
    }
}

/// Name and uid of an object; a conflict if the caller meant another one of the same name.
fn claim(
    resource: &str,
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    wanted_uid: &str,
) -> Result<Value, ApiError> {
    let name = meta.name.as_deref().unwrap_or_default();
    let uid = meta.uid.as_deref().unwrap_or_default();
    if !wanted_uid.is_empty() && wanted_uid != uid {
        return Err(ApiError::conflict(
            "",
            resource,
            name,
            &format!(
                "the UID in the bound object reference ({wanted_uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(json!({"name": name, "uid": uid}))
}

fn validate(expiration_s: i64) -> Result<(), ApiError> {
    let field = "spec.expirationSeconds";
    let detail = match expiration_s {
        ..MIN_S => "may not specify a duration less than 10 minutes",
        MIN_S..=MAX_S => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(field, expiration_s, detail);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

fn wire_time(second: i64) -> Result<String, ApiError> {
    Timestamp::from_second(second).map(|t| t.to_string()).map_err(ApiError::internal)
}

#[async_trait]
impl VirtualResource for TokenRequests {
    async fn create(
        &self,
        ctx: &WriteContext,
        target: &Target,
        mut body: Value,
    ) -> Result<Value, ApiError> {
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let name = target.name.as_deref().unwrap_or_default();
        let account: std::sync::Arc<ServiceAccount> = self.owner(namespace, name).await?;
        let requested = body["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_S);
        validate(requested)?;
        let mut audiences: Vec<String> = body["spec"]["audiences"]
            .as_array()
            .map(|list| list.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let for_api = audiences.is_empty() || audiences == self.0.audiences();
        if audiences.is_empty() {
            audiences = self.0.audiences().to_vec();
        }
        let mut bound = json!({
            "namespace": namespace,
            "serviceaccount": claim("serviceaccounts", &account.metadata, "")?,
        });
        let reference = body["spec"]["boundObjectRef"].take();
        if !reference.is_null() {
            for (key, value) in self.binding(namespace, name, &reference).await? {
                bound[key] = value;
            }
        }
        let issued = ctx.environment.clock.now();
        let expires = issued.checked_add(SignedDuration::from_secs(requested));
        let expires = expires.map_err(ApiError::internal)?.as_second();
        let issued = issued.as_second();
        let mut until = expires;
        if requested == PROJECTED_S && for_api && !bound["pod"].is_null() {
            until = issued + EXTENDED_S;
            bound["warnafter"] = json!(expires);
        }
        let claims = json!({
            "aud": audiences,
            "exp": until,
            "iat": issued,
            "iss": self.0.issuer(),
            "jti": ctx.environment.random.uuid(),
            "kubernetes.io": bound,
            "nbf": issued,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let token = self.0.0.key.sign(&claims).map_err(ApiError::internal)?;
        body["apiVersion"] = json!("authentication.k8s.io/v1");
        body["kind"] = json!("TokenRequest");
        body["metadata"] =
            json!({"name": name, "namespace": namespace, "creationTimestamp": wire_time(issued)?});
        body["spec"]["audiences"] = json!(audiences);
        body["spec"]["expirationSeconds"] = json!(requested);
        body["spec"]["boundObjectRef"] = reference;
        body["status"] = json!({"token": token, "expirationTimestamp": wire_time(expires)?});
        Ok(body)
    }
}
