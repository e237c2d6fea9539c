//! Who asks, what for, and whether they may: the contracts of authentication and authorization.

pub mod access_control;
mod anonymous;
mod certificate;
pub mod impersonation;
pub mod jwt;
pub mod node;
pub mod rbac;
pub mod reviews;
pub mod service_account;
mod static_token;
mod union;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{ApiError, status::Reason};

pub use anonymous::Anonymous;
pub use certificate::ClientCertificates;
pub use static_token::StaticTokens;
pub use union::{AlwaysAllow, Authenticators, Authorizers, Masters};

/// The group of everybody who authenticated.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, by-passing authorization.
pub const GROUP_MASTERS: &str = "system:masters";

/// An identity.
///
/// Source: `k8s.io/apiserver/pkg/authentication/user`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    /// The name, for example `system:serviceaccount:default:web`.
    pub name: String,
    /// The uid, where the authenticator knows one.
    pub uid: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An identity with groups; everybody authenticated also belongs to
    /// [`GROUP_AUTHENTICATED`].
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !groups.iter().any(|g| g == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Whoever did not say who they are.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec![GROUP_UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// A member of [`GROUP_MASTERS`], such as the components of an orchestrator in this process.
    pub fn master(name: impl Into<String>) -> Self {
        Self::authenticated(name, &[GROUP_MASTERS])
    }

    /// Whether the identity belongs to a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The certificates that a client presented on its TLS connection, leaf first, in DER. Whoever
/// serves the connection puts this into the request's extensions, after verifying the chain
/// against the client CA.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<[Vec<u8>]>);

/// Finds out who sent a request. Object-safe; several are asked in turn.
#[async_trait]
pub trait Authenticator: Send + Sync + fmt::Debug + 'static {
    /// The identity; `None` if the request carries no credentials of this authenticator's kind;
    /// an `Unauthorized` error if it carries wrong ones.
    async fn authenticate(
        &self,
        request: &http::request::Parts,
    ) -> Result<Option<UserInfo>, ApiError>;
}

/// The refusal of credentials, worded as upstream words it: it does not say what was wrong.
pub fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What somebody wants to do.
///
/// Source: `k8s.io/apiserver/pkg/authorization/authorizer`, `Attributes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Who.
    pub user: Arc<UserInfo>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the
    /// lower-case HTTP method for a path that is no resource.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name; empty for a path that is no resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// The request's path.
    pub path: String,
}

impl Attributes {
    /// Whether this is about a resource, not a bare path such as `/healthz`.
    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }

    /// The message of a refusal, as upstream words it.
    ///
    /// Source: `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`, `ForbiddenStatusError`.
    pub fn refusal(&self, reason: &str) -> ApiError {
        let user = &self.user.name;
        let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if !self.is_resource_request() {
            let why = format!("User \"{user}\" cannot {} path \"{}\"{tail}", self.verb, self.path);
            return ApiError::forbidden("", "", "", &why);
        }
        let resource = if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        let why = format!(
            "User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}{tail}",
            self.verb, self.group
        );
        ApiError::forbidden(&self.group, &self.resource, &self.name, &why)
    }
}

/// What an authorizer thinks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// Why, for access reviews and audit.
        reason: String,
    },
    /// It may not, whatever other authorizers say.
    Deny {
        /// Why.
        reason: String,
    },
    /// No opinion: ask the next. If nobody allows it, it may not.
    NoOpinion {
        /// Why.
        reason: String,
    },
}

/// Decides whether a request may go on. Object-safe; several are asked in turn.
#[async_trait]
pub trait Authorizer: Send + Sync + fmt::Debug + 'static {
    /// The decision. An error counts as no opinion and is reported with the refusal.
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError>;

    /// What a user may do in a namespace, for `kubectl auth can-i --list`. The default knows
    /// nothing and says that its answer is incomplete.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules { incomplete: true, ..Rules::default() }
    }
}

/// What a user may do, as far as an authorizer can list it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The rules about resources and about paths.
    pub rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule>,
    /// There may be more.
    pub incomplete: bool,
    /// What went wrong while they were collected.
    pub errors: Vec<String>,
}
