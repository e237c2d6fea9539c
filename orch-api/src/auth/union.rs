//! Several authenticators or authorizers as one.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::ApiError;

use super::{
    Attributes, Authenticator, Authorizer, Decision, GROUP_MASTERS, Rules, UserInfo, bearer_token,
    unauthorized,
};

/// Authenticators asked in turn: the first identity counts.
///
/// Source: `k8s.io/apiserver/pkg/authentication/request/union`.
#[derive(Clone, Debug, Default)]
pub struct Authenticators(pub Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for Authenticators {
    /// An error of one does not keep the others from recognising the request; it is reported if
    /// none of them does. A bearer token that nobody knows is an error too, so that a wrong token
    /// does not make a caller anonymous; put [`super::Anonymous`] behind this union, not into it.
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError> {
        let mut refusal = None;
        for authenticator in &self.0 {
            match authenticator.authenticate(request).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error),
            None if bearer_token(&request.headers).is_some() => Err(unauthorized()),
            None => Ok(None),
        }
    }
}

/// Authorizers asked in turn: the first that allows or denies decides.
///
/// Source: `k8s.io/apiserver/pkg/authorization/union`.
#[derive(Clone, Debug, Default)]
pub struct Authorizers(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Authorizers {
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError> {
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Ok(Decision::NoOpinion { reason }) if reason.is_empty() => {}
                Ok(Decision::NoOpinion { reason }) => reasons.push(reason),
                Ok(decision) => return Ok(decision),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Ok(Decision::NoOpinion { reason: reasons.join(", ") })
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.0 {
            let rules = authorizer.rules(user, namespace).await;
            all.rules.extend(rules.rules);
            all.errors.extend(rules.errors);
            all.incomplete |= rules.incomplete;
        }
        all
    }
}

fn everything() -> Vec<PolicyRule> {
    let star = || Some(vec!["*".to_owned()]);
    vec![
        PolicyRule {
            verbs: vec!["*".into()],
            api_groups: star(),
            resources: star(),
            ..PolicyRule::default()
        },
        PolicyRule { verbs: vec!["*".into()], non_resource_urls: star(), ..PolicyRule::default() },
    ]
}

/// Allows the members of [`GROUP_MASTERS`] everything; has no opinion about others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masters;

#[async_trait]
impl Authorizer for Masters {
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError> {
        Ok(if attributes.user.in_group(GROUP_MASTERS) {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: String::new() }
        })
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> Rules {
        let rules = if user.in_group(GROUP_MASTERS) { everything() } else { Vec::new() };
        Rules { rules, ..Rules::default() }
    }
}

/// Allows everybody everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _attributes: &Attributes) -> Result<Decision, ApiError> {
        Ok(Decision::Allow { reason: String::new() })
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules { rules: everything(), ..Rules::default() }
    }
}
