//! Query parameters.

use std::borrow::Cow;

use orch_core::{
    ApiError,
    client::{
        DeleteOptions, FieldValidation, ListOptions, Propagation, WatchOptions, WriteOptions,
    },
    status::FieldError,
};
use serde_json::Value;

/// The parameters of a request, in their order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &http::Uri) -> Self {
        let text = uri.query().unwrap_or_default();
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Source: `k8s.io/apimachinery/pkg/runtime/conversion.go`, `Convert_Slice_string_To_bool`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|text| !text.eq_ignore_ascii_case("false") && text != "0")
    }

    fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax (parameter {name})"
            ))
        })
    }

    /// Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `ValidateDryRun`.
    fn dry_run(&self, kind: &str) -> Result<bool, ApiError> {
        let values: Vec<&str> =
            self.0.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str()).collect();
        match values.iter().find(|value| !matches!(**value, "All" | "")) {
            Some(other) => {
                let error = FieldError::not_supported("dryRun", *other, &["All"]);
                Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]))
            }
            None => Ok(values.contains(&"All")),
        }
    }

    pub(super) fn list(&self) -> Result<ListOptions, ApiError> {
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.number("limit")?.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
            continue_token: self.text("continue"),
            resource_version: self.text("resourceVersion"),
            resource_version_match: self.text("resourceVersionMatch"),
        })
    }

    pub(super) fn watch(&self) -> Result<WatchOptions, ApiError> {
        Ok(WatchOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            resource_version: self.text("resourceVersion"),
            bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events: self.flag("sendInitialEvents"),
            timeout_s: self.number("timeoutSeconds")?.and_then(|n| u32::try_from(n).ok()),
        })
    }

    /// The options of a write; `kind` is what they are called in a refusal.
    pub(super) fn write(&self, kind: &str) -> Result<WriteOptions, ApiError> {
        let field_validation = match self.get("fieldValidation").unwrap_or_default() {
            "" => None,
            "Ignore" => Some(FieldValidation::Ignore),
            "Warn" => Some(FieldValidation::Warn),
            "Strict" => Some(FieldValidation::Strict),
            other => {
                let known = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported("fieldValidation", other, &known);
                return Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]));
            }
        };
        let manager = self.text("fieldManager");
        if manager.as_ref().is_some_and(|manager| manager.len() > 128) {
            let error = FieldError::too_long("fieldManager", 128);
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]));
        }
        Ok(WriteOptions {
            field_manager: manager.map(Cow::Owned),
            dry_run: self.dry_run(kind)?,
            force: self.flag("force"),
            field_validation,
        })
    }

    /// The options of a deletion: from the body where there is one, else from the query.
    pub(super) fn delete(&self, body: Option<&Value>) -> Result<DeleteOptions, ApiError> {
        let empty = Value::Null;
        let body = body.unwrap_or(&empty);
        let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(ApiError::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: {kind}"
            )));
        }
        check_options(body)?;
        let text = |name: &str| body[name].as_str().map(str::to_owned).or(self.text(name));
        let invalid = |error| ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[error]);
        let policy = text("propagationPolicy");
        if let Some(policy) = &policy
            && body["orphanDependents"].is_boolean()
        {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(FieldError::invalid("propagationPolicy", policy.as_str(), why)));
        }
        let propagation = match policy.as_deref() {
            None => body["orphanDependents"]
                .as_bool()
                .map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                let error = FieldError::not_supported("propagationPolicy", other, &known);
                return Err(invalid(error));
            }
        };
        let preconditions = &body["preconditions"];
        let of_body = body["dryRun"].as_array().is_some_and(|list| !list.is_empty());
        let grace = match &body["gracePeriodSeconds"] {
            Value::Null => self.number("gracePeriodSeconds")?,
            number => number.as_i64(),
        };
        Ok(DeleteOptions {
            grace_period_s: grace,
            propagation,
            uid: preconditions["uid"].as_str().map(str::to_owned),
            resource_version: preconditions["resourceVersion"].as_str().map(str::to_owned),
            dry_run: of_body || self.dry_run("DeleteOptions")?,
        })
    }
}

/// Refuses options of a wrong type; without that they would count as not given.
fn check_options(body: &Value) -> Result<(), ApiError> {
    let Some(definition) = orch_core::schema::of("", "v1", "DeleteOptions") else { return Ok(()) };
    if body.is_null() {
        return Ok(());
    }
    orch_core::schema::check_types(definition, body)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}
