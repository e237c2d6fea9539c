//! Questions about who one is and what one may do, asked through the API.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/authorization`, `pkg/registry/authentication`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::{ApiError, Target, status::FieldError};
use serde_json::{Value, json};

use super::{
    Attributes, Authenticator, Authorizer, Decision, UserInfo,
    service_account::ServiceAccountTokens,
};
use crate::strategy::{VirtualResource, WriteContext};

const GROUP: &str = "authorization.k8s.io";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn user_json(user: &UserInfo) -> Value {
    let mut json = json!({"username": user.name, "groups": user.groups});
    if let Some(uid) = &user.uid {
        json["uid"] = json!(uid);
    }
    if !user.extra.is_empty() {
        json["extra"] = json!(user.extra);
    }
    json
}

/// What a review asks about, for a user.
fn attributes(spec: &Value, user: Arc<UserInfo>) -> Attributes {
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        return Attributes {
            user,
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            version: text(&resource["version"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: text(&resource["namespace"]),
            name: text(&resource["name"]),
            path: String::new(),
        };
    }
    let path = &spec["nonResourceAttributes"];
    Attributes {
        user,
        verb: text(&path["verb"]),
        path: text(&path["path"]),
        ..Attributes::default()
    }
}

/// Exactly one of the two kinds of attributes must be there.
fn validate(kind: &str, spec: &Value, needs_user: bool) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            "cannot be specified in combination with resourceAttributes",
            "",
        )),
        (false, false) => errors.push(FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if needs_user && text(&spec["user"]).is_empty() && texts(&spec["groups"]).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", "", detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GROUP, kind, "", &errors)) }
}

fn verdict(decision: Result<Decision, ApiError>) -> Value {
    let (allowed, denied, reason, error) = match decision {
        Ok(Decision::Allow { reason }) => (true, false, reason, String::new()),
        Ok(Decision::Deny { reason }) => (false, true, reason, String::new()),
        Ok(Decision::NoOpinion { reason }) => (false, false, reason, String::new()),
        Err(error) => (false, false, String::new(), error.to_string()),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = json!(true);
    }
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    if !error.is_empty() {
        status["evaluationError"] = json!(error);
    }
    status
}

fn answer(group: &str, kind: &str, mut body: Value, status: Value) -> Value {
    body["apiVersion"] = json!(format!("{group}/v1"));
    body["kind"] = json!(kind);
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    body["status"] = status;
    body
}

/// Whether somebody else may: `subjectaccessreviews`.
#[derive(Clone, Debug)]
pub struct SubjectAccessReviews(pub Arc<dyn Authorizer>);

fn other_user(spec: &Value) -> Arc<UserInfo> {
    let extra = spec["extra"].as_object().into_iter().flatten();
    Arc::new(UserInfo {
        name: text(&spec["user"]),
        uid: spec["uid"].as_str().map(str::to_owned),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_lowercase(), texts(values))).collect(),
    })
}

#[async_trait]
impl VirtualResource for SubjectAccessReviews {
    async fn create(
        &self,
        _ctx: &WriteContext,
        _target: &Target,
        body: Value,
    ) -> Result<Value, ApiError> {
        validate("SubjectAccessReview", &body["spec"], true)?;
        let wanted = attributes(&body["spec"], other_user(&body["spec"]));
        let status = verdict(self.0.authorize(&wanted).await);
        Ok(answer(GROUP, "SubjectAccessReview", body, status))
    }
}

/// Whether somebody else may in one namespace: `localsubjectaccessreviews`.
#[derive(Clone, Debug)]
pub struct LocalSubjectAccessReviews(pub Arc<dyn Authorizer>);

#[async_trait]
impl VirtualResource for LocalSubjectAccessReviews {
    async fn create(
        &self,
        _ctx: &WriteContext,
        target: &Target,
        mut body: Value,
    ) -> Result<Value, ApiError> {
        let kind = "LocalSubjectAccessReview";
        validate(kind, &body["spec"], true)?;
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let asked = text(&body["spec"]["resourceAttributes"]["namespace"]);
        if asked != namespace {
            let field = "spec.resourceAttributes.namespace";
            let detail = format!("must match the namespace: {namespace}");
            let error = FieldError::invalid(field, asked, detail);
            return Err(ApiError::invalid(GROUP, kind, "", &[error]));
        }
        body["metadata"]["namespace"] = json!(namespace);
        let wanted = attributes(&body["spec"], other_user(&body["spec"]));
        let status = verdict(self.0.authorize(&wanted).await);
        Ok(answer(GROUP, kind, body, status))
    }
}

/// Whether the caller may: `selfsubjectaccessreviews`, `kubectl auth can-i`.
#[derive(Clone, Debug)]
pub struct SelfSubjectAccessReviews(pub Arc<dyn Authorizer>);

#[async_trait]
impl VirtualResource for SelfSubjectAccessReviews {
    async fn create(
        &self,
        ctx: &WriteContext,
        _target: &Target,
        body: Value,
    ) -> Result<Value, ApiError> {
        validate("SelfSubjectAccessReview", &body["spec"], false)?;
        let wanted = attributes(&body["spec"], ctx.user.clone());
        let status = verdict(self.0.authorize(&wanted).await);
        Ok(answer(GROUP, "SelfSubjectAccessReview", body, status))
    }
}

/// What the caller may do: `selfsubjectrulesreviews`, `kubectl auth can-i --list`.
#[derive(Clone, Debug)]
pub struct SelfSubjectRulesReviews(pub Arc<dyn Authorizer>);

fn resource_rule(rule: &PolicyRule) -> Option<Value> {
    let resources = rule.resources.as_ref().filter(|r| !r.is_empty())?;
    let mut json =
        json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": resources});
    if let Some(names) = &rule.resource_names {
        json["resourceNames"] = json!(names);
    }
    Some(json)
}

fn path_rule(rule: &PolicyRule) -> Option<Value> {
    let urls = rule.non_resource_urls.as_ref().filter(|u| !u.is_empty())?;
    Some(json!({"verbs": rule.verbs, "nonResourceURLs": urls}))
}

#[async_trait]
impl VirtualResource for SelfSubjectRulesReviews {
    async fn create(
        &self,
        ctx: &WriteContext,
        _target: &Target,
        body: Value,
    ) -> Result<Value, ApiError> {
        let namespace = text(&body["spec"]["namespace"]);
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let rules = self.0.rules(&ctx.user, &namespace).await;
        let mut status = json!({
            "resourceRules": rules.rules.iter().filter_map(resource_rule).collect::<Vec<_>>(),
            "nonResourceRules": rules.rules.iter().filter_map(path_rule).collect::<Vec<_>>(),
            "incomplete": rules.incomplete,
        });
        if !rules.errors.is_empty() {
            status["evaluationError"] = json!(rules.errors.join(", "));
        }
        Ok(answer(GROUP, "SelfSubjectRulesReview", body, status))
    }
}

/// Who the caller is: `selfsubjectreviews`, `kubectl auth whoami`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfSubjectReviews;

#[async_trait]
impl VirtualResource for SelfSubjectReviews {
    async fn create(
        &self,
        ctx: &WriteContext,
        _target: &Target,
        mut body: Value,
    ) -> Result<Value, ApiError> {
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        let now = orch_core::clock::to_seconds(ctx.environment.clock.now());
        body["metadata"]["creationTimestamp"] = json!(now.to_string());
        let status = json!({"userInfo": user_json(&ctx.user)});
        Ok(answer("authentication.k8s.io", "SelfSubjectReview", body, status))
    }
}

/// Whose token it is: `tokenreviews`.
#[derive(Clone, Debug)]
pub struct TokenReviews {
    /// Knows service account tokens and their audiences.
    pub service_accounts: Option<ServiceAccountTokens>,
    /// Knows all other tokens, which are good for the API's own audiences.
    pub others: Arc<dyn Authenticator>,
    /// The API's audiences.
    pub api_audiences: Vec<String>,
}

impl TokenReviews {
    async fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, ApiError> {
        if let Some(tokens) = &self.service_accounts
            && let Some(found) = tokens.review(token, audiences).await?
        {
            return Ok(Some(found));
        }
        let own = self.api_audiences.iter().filter(|own| audiences.contains(own)).cloned();
        let own: Vec<String> = own.collect();
        if own.is_empty() {
            return Ok(None);
        }
        let header = (http::header::AUTHORIZATION, format!("Bearer {token}"));
        let request = http::Request::builder().header(header.0, header.1).body(());
        let Ok(request) = request else { return Ok(None) };
        match self.others.authenticate(&request.into_parts().0).await {
            Ok(Some(user)) if !user.in_group(super::GROUP_UNAUTHENTICATED) => Ok(Some((user, own))),
            Ok(_) => Ok(None),
            Err(error) if error.code() == 401 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl VirtualResource for TokenReviews {
    async fn create(
        &self,
        _ctx: &WriteContext,
        _target: &Target,
        body: Value,
    ) -> Result<Value, ApiError> {
        let token = text(&body["spec"]["token"]);
        if token.is_empty() {
            return Err(ApiError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let mut audiences = texts(&body["spec"]["audiences"]);
        if audiences.is_empty() {
            audiences.clone_from(&self.api_audiences);
        }
        let status = match self.review(&token, &audiences).await {
            Ok(Some((user, audiences))) => json!({
                "authenticated": true, "user": user_json(&user), "audiences": audiences,
            }),
            Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        Ok(answer("authentication.k8s.io", "TokenReview", body, status))
    }
}

/// Reviews by group and plural (version `v1`).
pub type Reviews = BTreeMap<(&'static str, &'static str), Arc<dyn VirtualResource>>;

/// The answer of every review, as the server registers them.
pub fn resources(authorizer: &Arc<dyn Authorizer>, tokens: TokenReviews) -> Reviews {
    let authentication = "authentication.k8s.io";
    let mut reviews = Reviews::new();
    let mut add =
        |group, plural, review: Arc<dyn VirtualResource>| reviews.insert((group, plural), review);
    add(GROUP, "subjectaccessreviews", Arc::new(SubjectAccessReviews(authorizer.clone())));
    add(
        GROUP,
        "localsubjectaccessreviews",
        Arc::new(LocalSubjectAccessReviews(authorizer.clone())),
    );
    add(GROUP, "selfsubjectaccessreviews", Arc::new(SelfSubjectAccessReviews(authorizer.clone())));
    add(GROUP, "selfsubjectrulesreviews", Arc::new(SelfSubjectRulesReviews(authorizer.clone())));
    add(authentication, "selfsubjectreviews", Arc::new(SelfSubjectReviews));
    add(authentication, "tokenreviews", Arc::new(tokens));
    reviews
}
