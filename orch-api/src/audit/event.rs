//! One audit event.
//!
//! Source: `k8s.io/apiserver/pkg/apis/audit/v1/types.go`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Level;
use crate::auth::UserInfo;

/// When in the life of a request an event was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It came in, and nobody has looked at it yet.
    RequestReceived,
    /// The answer to a request that takes as long as its client wants has begun.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server failed to answer.
    Panic,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct User {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone().filter(|uid| !uid.is_empty()),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are upstream's and say what they are")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// An event, whose fields are upstream's in upstream's order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    /// How much of the request the event holds.
    pub level: Level,
    /// What the events of one request have in common.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// When it was made.
    pub stage: Stage,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The verb; for a path that is no resource, the method in lower case.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    /// From where: what proxies say, and the address that the connection came from.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// With which program, as far as it says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// What the request is about; not of lists of paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// The code; of refusals the whole `Status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    /// The object that was sent, from level `Request` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    /// The object that was answered, at level `RequestResponse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    /// When the request came in, in microseconds.
    pub request_received_timestamp: String,
    /// When this stage was reached.
    pub stage_timestamp: String,
    /// What authorization and admission have to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
