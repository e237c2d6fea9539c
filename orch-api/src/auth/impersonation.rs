//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
use orch_core::ApiError;

use super::{
    Attributes, Authorizer, Decision, GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, UserInfo,
};

const PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let all = headers.get_all(name).iter();
    all.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned).collect()
}

fn extras(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            extra.insert(key, values(headers, name.as_str()));
        }
    }
    extra
}

/// Whether a request asks to act as somebody else at all.
pub(crate) fn impersonates(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// The identity that a request asks to act as, if `user` may impersonate all of it; `None` if the
/// request does not ask for it.
///
/// # Errors
/// A `BadRequest` if groups or extras come without a user, `Forbidden` if `user` may not.
pub async fn impersonated(
    headers: &HeaderMap,
    user: &Arc<UserInfo>,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, ApiError> {
    let name = values(headers, "impersonate-user").into_iter().next();
    let groups = values(headers, "impersonate-group");
    let uid = values(headers, "impersonate-uid").into_iter().next();
    let extra = extras(headers);
    let Some(name) = name else {
        if groups.is_empty() && uid.is_none() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::internal(format!(
            "requested {} without impersonating a user",
            if groups.is_empty() { "uid or extra" } else { "groups" }
        )));
    };
    let mut wanted = vec![subject(user, &name)];
    wanted.extend(groups.iter().map(|g| attributes(user, "", "groups", "", g)));
    wanted.extend(uid.iter().map(|u| attributes(user, "authentication.k8s.io", "uids", "", u)));
    for (key, values) in &extra {
        wanted.extend(
            values.iter().map(|v| attributes(user, "authentication.k8s.io", "userextras", key, v)),
        );
    }
    for attributes in &wanted {
        match authorizer.authorize(attributes).await? {
            Decision::Allow { .. } => {}
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                return Err(attributes.refusal(&reason));
            }
        }
    }
    Ok(Some(UserInfo { groups: with_implied(&name, groups), name, uid, extra }))
}

fn attributes(
    user: &Arc<UserInfo>,
    group: &str,
    resource: &str,
    subresource: &str,
    name: &str,
) -> Attributes {
    Attributes {
        user: user.clone(),
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn subject(user: &Arc<UserInfo>, name: &str) -> Attributes {
    match service_account(name) {
        Some((namespace, account)) => {
            let mut wanted = attributes(user, "", "serviceaccounts", "", account);
            wanted.namespace = namespace.into();
            wanted
        }
        None => attributes(user, "", "users", "", name),
    }
}

/// A service account without groups gets its own; everybody but the anonymous is authenticated.
fn with_implied(name: &str, mut groups: Vec<String>) -> Vec<String> {
    if groups.is_empty()
        && let Some((namespace, _)) = service_account(name)
    {
        groups.push("system:serviceaccounts".into());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let implied =
        if name == "system:anonymous" { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
    let known = |g: &String| g == GROUP_AUTHENTICATED || g == GROUP_UNAUTHENTICATED;
    if !groups.iter().any(known) {
        groups.push(implied.into());
    }
    groups
}
