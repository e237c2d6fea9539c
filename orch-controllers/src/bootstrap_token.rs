//! Tokens by which machines join: they sign what is public of the cluster, and go when they expire.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/bootstrap`, `k8s.io/cluster-bootstrap/token/jws`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use orch_core::{
    Key,
    client::DeleteOptions,
    informer::{Change, Informers},
};
use ring::hmac;

use crate::{Action, Controller, context::Context, reconciler::Reconciled};

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const SECRET_NAMESPACE: &str = "kube-system";
const SECRET_PREFIX: &str = "bootstrap-token-";
const INFO_NAMESPACE: &str = "kube-public";
const INFO_NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(SECRET_TYPE)
        && secret.metadata.namespace.as_deref() == Some(SECRET_NAMESPACE)
}

fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let value = secret.data.as_ref()?.get(name)?;
    std::str::from_utf8(&value.0).ok().filter(|text| !text.is_empty())
}

/// How long a token is good yet: `None` for ever, nothing if it has expired or says when in no
/// readable form.
fn life_left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = field(secret, "expiration")?;
    let at = expiration.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// The controller that removes tokens which have expired.
pub fn token_cleaner(informers: &Informers) -> Controller {
    let context = Context::new(informers, "token-cleaner-controller");
    let secrets = context.informer::<Secret>();
    context
        .builder()
        .watches_own_if::<Secret>(|change| {
            !matches!(change, Change::Deleted(_)) && is_token(change.object())
        })
        .build(move |key: Key| {
            let (context, secret) = (context.clone(), secrets.get(&key));
            async move {
                let Some(secret) = secret.filter(|secret| is_token(secret)) else {
                    return Ok(Action::Done);
                };
                match life_left(&secret, context.now()) {
                    None => return Ok(Action::Done),
                    Some(left) if !left.is_zero() => return Ok(Action::RequeueAfter(left)),
                    Some(_) => {}
                }
                let uid = secret.metadata.uid.clone();
                let options = DeleteOptions { uid, ..DeleteOptions::default() };
                let secrets = context.resources::<Secret>(&key.namespace);
                match secrets.delete(&key.name, options).await {
                    // Another one of its name is not meant.
                    Err(error) if !error.is_not_found() && !error.is_conflict() => {
                        Err(error.into())
                    }
                    _ => Ok(Action::Done),
                }
            }
        })
}

/// The controller that signs the kubeconfig in the ConfigMap `cluster-info` of `kube-public` with
/// every token that may sign, so that who knows a token can trust it.
pub fn bootstrap_signer(informers: &Informers) -> Controller {
    let context = Context::new(informers, "bootstrap-signer-controller");
    let (maps, secrets) = (context.informer::<ConfigMap>(), context.informer::<Secret>());
    let info = || Key::new(INFO_NAMESPACE, INFO_NAME);
    context
        .builder()
        .watches_own_if::<ConfigMap>(move |change| Key::of(&change.object().metadata) == info())
        .watches::<Secret>(
            move |change| {
                if is_token(change.object()) { vec![info()] } else { Vec::new() }
            },
        )
        .workers(1)
        .build(move |key: Key| {
            let (context, map) = (context.clone(), maps.get(&key));
            let tokens = secrets.list_in(SECRET_NAMESPACE);
            async move {
                match map {
                    Some(map) => sign(&context, &map, &tokens).await,
                    None => Ok(Action::Done),
                }
            }
        })
}

async fn sign(context: &Context, map: &ConfigMap, secrets: &[Arc<Secret>]) -> Reconciled {
    let Some(content) = map.data.as_ref().and_then(|data| data.get(KUBECONFIG)) else {
        return Ok(Action::Done);
    };
    let now = context.now();
    let secrets = secrets.iter().filter(|secret| is_token(secret));
    let left = secrets.clone().filter_map(|secret| life_left(secret, now));
    let next = left.filter(|left| !left.is_zero()).min();
    let signatures: BTreeMap<String, String> = secrets
        .filter_map(|secret| signing_token(secret, now))
        .map(|(id, token)| (format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, token)))
        .collect();
    let mut data = map.data.clone().unwrap_or_default();
    data.retain(|name, _| !name.starts_with(SIGNATURE_PREFIX));
    data.extend(signatures);
    if map.data.as_ref() != Some(&data) {
        let signed = ConfigMap { data: Some(data), ..map.clone() };
        match context.resources::<ConfigMap>(INFO_NAMESPACE).update(&signed).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    // What a token signed goes with it, also if nobody removes the token.
    Ok(next.map_or(Action::Done, Action::RequeueAfter))
}

/// The id and the secret of a token that may sign now.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let id = field(secret, "token-id")?;
    let name = secret.metadata.name.as_deref()?.strip_prefix(SECRET_PREFIX)?;
    let well_formed =
        id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let usable = well_formed
        && name == id
        && field(secret, "usage-bootstrap-signing") == Some("true")
        && life_left(secret, now) != Some(Duration::ZERO);
    Some((id, field(secret, "token-secret")?)).filter(|_| usable)
}

/// A JSON web signature (HS256) of a text that is not repeated in it.
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of upstream's own test.
    ///
    /// Source: `k8s.io/cluster-bootstrap/token/jws/jws_test.go`.
    #[test]
    fn signatures_are_upstreams() {
        let expected =
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        let content = "Hello from the other side. I must have called a thousand times.";
        assert_eq!(signature(content, "joshua", "my voice is my passcode"), expected);
    }
}
