//! API errors: a Kubernetes `Status` with upstream's reasons, codes and messages.
//!
//! Source: `k8s.io/apimachinery/pkg/api/errors`.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

/// An error that the API answers with. Display is the status' message.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Status>);

/// The machine-readable reasons that upstream gives.
#[expect(missing_docs, reason = "each is named as upstream names it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

const REASONS: &[(Reason, &str, u16)] = &[
    (Reason::Unknown, "", 500),
    (Reason::Unauthorized, "Unauthorized", 401),
    (Reason::Forbidden, "Forbidden", 403),
    (Reason::NotFound, "NotFound", 404),
    (Reason::AlreadyExists, "AlreadyExists", 409),
    (Reason::Conflict, "Conflict", 409),
    (Reason::Gone, "Gone", 410),
    (Reason::Invalid, "Invalid", 422),
    (Reason::ServerTimeout, "ServerTimeout", 500),
    (Reason::StoreReadError, "StorageReadError", 500),
    (Reason::Timeout, "Timeout", 504),
    (Reason::TooManyRequests, "TooManyRequests", 429),
    (Reason::BadRequest, "BadRequest", 400),
    (Reason::MethodNotAllowed, "MethodNotAllowed", 405),
    (Reason::NotAcceptable, "NotAcceptable", 406),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415),
    (Reason::InternalError, "InternalError", 500),
    (Reason::Expired, "Expired", 410),
    (Reason::ServiceUnavailable, "ServiceUnavailable", 503),
];

impl Reason {
    /// The reason as the wire has it; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        REASONS.iter().find(|(r, ..)| *r == self).map_or("", |(_, s, _)| s)
    }

    /// The HTTP status code that upstream sends with it.
    pub fn code(self) -> u16 {
        REASONS.iter().find(|(r, ..)| *r == self).map_or(500, |(.., code)| *code)
    }
}

/// The kinds of field errors, as `status.details.causes[].reason` names them, and the words that
/// upstream's messages begin with.
///
/// Source: `k8s.io/apimachinery/pkg/util/validation/field/errors.go`.
#[expect(missing_docs, reason = "each is named as upstream names it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    InternalError,
    TypeInvalid,
}

impl FieldErrorType {
    /// `FieldValueRequired` and so on.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::InternalError => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::InternalError => "Internal error",
        }
    }
}

/// One complaint about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorType,
    /// The field's path, for example `spec.containers[0].name`.
    pub field: String,
    /// The value as upstream prints it (quoted if a string); `None` where upstream leaves it out.
    pub value: Option<String>,
    /// What would have been right.
    pub detail: String,
}

impl FieldError {
    /// A missing value.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorType::Required,
            field: field.into(),
            value: None,
            detail: detail.into(),
        }
    }

    /// A field that may not be set, or not be changed so.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorType::Forbidden,
            field: field.into(),
            value: None,
            detail: detail.into(),
        }
    }

    /// Something that went wrong in the server while it looked at a field.
    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorType::InternalError,
            field: field.into(),
            value: None,
            detail: detail.into(),
        }
    }

    /// A wrong value. Strings are printed in quotes, everything else as JSON.
    pub fn invalid(
        field: impl Into<String>,
        value: impl Into<serde_json::Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: FieldErrorType::Invalid,
            field: field.into(),
            value: Some(value.into().to_string()),
            detail: detail.into(),
        }
    }

    /// A value that another element already has.
    pub fn duplicate(field: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        Self {
            kind: FieldErrorType::Duplicate,
            field: field.into(),
            value: Some(value.into().to_string()),
            detail: String::new(),
        }
    }

    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        Self {
            kind: FieldErrorType::NotFound,
            field: field.into(),
            value: Some(value.into().to_string()),
            detail: String::new(),
        }
    }

    /// A value outside an enumeration; the supported ones are listed as upstream lists them.
    pub fn not_supported(
        field: impl Into<String>,
        value: impl Into<serde_json::Value>,
        supported: &[&str],
    ) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self {
            kind: FieldErrorType::NotSupported,
            field: field.into(),
            value: Some(value.into().to_string()),
            detail,
        }
    }

    /// A value with more than `max_bytes` bytes.
    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        Self {
            kind: FieldErrorType::TooLong,
            field: field.into(),
            value: None,
            detail: format!("may not be more than {max_bytes} bytes"),
        }
    }

    /// A list with more than `max` items.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self {
            kind: FieldErrorType::TooMany,
            field: field.into(),
            value: Some(actual.to_string()),
            detail: format!("must have at most {max} items"),
        }
    }

    /// The complaint without the field's name, as `causes[].message` has it.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl ApiError {
    /// An error with a reason's code and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            status: Some("Failure".into()),
            message: Some(message.into()),
            reason: (reason != Reason::Unknown).then(|| reason.as_str().to_owned()),
            code: Some(reason.code().into()),
            ..Status::default()
        }))
    }

    /// An error from a status that somebody answered with.
    pub fn from_status(status: Status) -> Self {
        Self(Box::new(status))
    }

    fn about(reason: Reason, message: String, group: &str, kind: &str, name: &str) -> Self {
        Self::new(reason, message).with_details(StatusDetails {
            name: (!name.is_empty()).then(|| name.to_owned()),
            group: (!group.is_empty()).then(|| group.to_owned()),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            ..StatusDetails::default()
        })
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The same error with the token that goes on with a list whose revision is gone.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.0.metadata.continue_ = Some(token);
        self
    }

    /// There is no such object. `resource` is the plural, as upstream's details have it.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", group_resource(group, resource));
        Self::about(Reason::NotFound, message, group, resource, name)
    }

    /// The path leads to no resource.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// The name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", group_resource(group, resource));
        Self::about(Reason::AlreadyExists, message, group, resource, name)
    }

    /// The request lost against a concurrent one, or against a precondition.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            group_resource(group, resource)
        );
        Self::about(Reason::Conflict, message, group, resource, name)
    }

    /// The conflict of an update whose resource version is not the current one.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The caller may not.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else {
            format!("{}{named} is forbidden: {why}", group_resource(group, resource))
        };
        Self::about(Reason::Forbidden, message, group, resource, name)
    }

    /// The object breaks these rules. `kind` is the kind, not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for error in errors.iter().map(ToString::to_string) {
            if !lines.contains(&error) {
                lines.push(error);
            }
        }
        let joined = match lines.as_slice() {
            [] => "<nil>".to_owned(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {joined}", group_resource(group, kind));
        let mut error = Self::about(Reason::Invalid, message, group, kind, name);
        if let Some(details) = &mut error.0.details {
            details.causes = Some(
                errors
                    .iter()
                    .map(|e| StatusCause {
                        reason: Some(e.kind.reason().to_owned()),
                        message: Some(e.body()),
                        field: Some(e.field.clone()),
                    })
                    .collect(),
            );
        }
        error
    }

    /// The request itself is malformed.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// Something broke inside the server.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// The resource version is no longer available.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// Come back in `after_s` seconds.
    pub fn too_many_requests(message: impl Into<String>, after_s: i32) -> Self {
        Self::new(Reason::TooManyRequests, message).with_details(StatusDetails {
            retry_after_seconds: (after_s > 0).then_some(after_s),
            ..StatusDetails::default()
        })
    }

    /// The resource does not have that verb.
    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind \"{}\"",
            group_resource(group, resource)
        );
        Self::about(Reason::MethodNotAllowed, message, group, resource, "")
    }

    /// The `Status` that goes over the wire.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    /// The reason, [`Reason::Unknown`] if it is none that upstream defines.
    pub fn reason(&self) -> Reason {
        let text = self.0.reason.as_deref().unwrap_or_default();
        REASONS.iter().find(|(_, s, _)| *s == text).map_or(Reason::Unknown, |(r, ..)| *r)
    }

    /// Whether the same request may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.reason(),
            Reason::ServerTimeout
                | Reason::Timeout
                | Reason::TooManyRequests
                | Reason::InternalError
                | Reason::ServiceUnavailable
        )
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message.as_deref().unwrap_or("unknown error"))
    }
}

impl std::error::Error for ApiError {}

fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let check = |error: ApiError, code: u16, message: &str| {
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
        };
        check(ApiError::not_found("", "pods", "web"), 404, "pods \"web\" not found");
        check(
            ApiError::already_exists("apps", "deployments", "web"),
            409,
            "deployments.apps \"web\" already exists",
        );
        let one = FieldError::required("spec.containers[0].name", "");
        check(
            ApiError::invalid("", "Pod", "web", std::slice::from_ref(&one)),
            422,
            "Pod \"web\" is invalid: spec.containers[0].name: Required value",
        );
        let two =
            FieldError::not_supported("spec.restartPolicy", "Sometimes", &["Always", "Never"]);
        check(
            ApiError::invalid("", "Pod", "web", &[one, two]),
            422,
            "Pod \"web\" is invalid: [spec.containers[0].name: Required value, \
             spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\"]",
        );
    }

    #[test]
    fn reasons_survive_the_wire() {
        for (reason, ..) in REASONS {
            assert_eq!(ApiError::new(*reason, "x").reason(), *reason);
        }
    }
}
