//! The options of a write, as webhooks and policies see them.

use orch_core::client::{DeleteOptions, FieldValidation, Propagation, WriteOptions};
use serde_json::{Value, json};

use super::Operation;

/// The options of a write.
#[derive(Clone, Debug, Default)]
pub enum RequestOptions {
    /// There are none: the request opens a connection.
    #[default]
    None,
    /// Of a creation or an update; patches count as what they come to.
    Write(WriteOptions),
    /// Of a deletion.
    Delete(DeleteOptions),
}

impl RequestOptions {
    /// The object that upstream has for these options, `null` for none.
    pub fn to_value(&self, operation: Operation) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Write(options) => write(options, operation),
            Self::Delete(options) => delete(options),
        }
    }
}

fn set(value: &mut Value, field: &str, to: Option<impl Into<Value>>) {
    if let Some(to) = to {
        value[field] = to.into();
    }
}

fn write(options: &WriteOptions, operation: Operation) -> Value {
    let kind = if operation == Operation::Update { "UpdateOptions" } else { "CreateOptions" };
    let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    set(&mut value, "dryRun", options.dry_run.then(|| json!(["All"])));
    set(&mut value, "fieldManager", options.field_manager.as_deref());
    let validation = options.field_validation.map(|how| match how {
        FieldValidation::Strict => "Strict",
        FieldValidation::Warn => "Warn",
        FieldValidation::Ignore => "Ignore",
    });
    set(&mut value, "fieldValidation", validation);
    value
}

fn delete(options: &DeleteOptions) -> Value {
    let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    set(&mut value, "dryRun", options.dry_run.then(|| json!(["All"])));
    set(&mut value, "gracePeriodSeconds", options.grace_period_s);
    let policy = options.propagation.and_then(|propagation| match propagation {
        Propagation::Orphan => Some("Orphan"),
        Propagation::Background => Some("Background"),
        Propagation::Foreground => Some("Foreground"),
        _ => None,
    });
    set(&mut value, "propagationPolicy", policy);
    if options.uid.is_some() || options.resource_version.is_some() {
        let mut preconditions = json!({});
        set(&mut preconditions, "uid", options.uid.as_deref());
        set(&mut preconditions, "resourceVersion", options.resource_version.as_deref());
        value["preconditions"] = preconditions;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_as_upstream_names_them() {
        let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
        assert_eq!(
            RequestOptions::Write(options).to_value(Operation::Update),
            json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]})
        );
        let options = DeleteOptions {
            grace_period_s: Some(0),
            uid: Some("u".into()),
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        assert_eq!(
            RequestOptions::Delete(options).to_value(Operation::Delete),
            json!({
                "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0,
                "propagationPolicy": "Foreground", "preconditions": {"uid": "u"},
            })
        );
    }
}
