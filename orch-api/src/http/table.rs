//! Tables, and metadata alone.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`,
//! `k8s.io/kubernetes/pkg/printers/tablegenerator.go`.

use orch_core::{ApiError, Object};
use serde_json::{Value, json};

use super::{Exchange, accept::Accepted, options::Query};
use crate::catalog::{Behaviour, Resource};

/// Only the metadata of an object.
pub(super) fn partial(object: &Value, accepted: Accepted) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": accepted.shape_version(),
        "metadata": object["metadata"],
    })
}

/// What becomes of an object's row besides its cells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

/// Prints the rows of one kind.
pub(super) struct Rows {
    strategy: Behaviour,
    include: Include,
    accepted: Accepted,
    now: jiff::Timestamp,
}

impl Rows {
    pub(super) fn of(
        exchange: &Exchange,
        query: &Query,
        resource: &Resource,
        accepted: Accepted,
    ) -> Result<Self, ApiError> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::Nothing,
            "Object" => Include::Object,
            other => {
                let why = format!("unrecognized includeObject value: {other:?}");
                return Err(ApiError::bad_request(why));
            }
        };
        let strategy = resource.behaviour();
        Ok(Self { strategy, include, accepted, now: exchange.server.environment.clock.now() })
    }

    pub(super) fn table<'a>(
        &self,
        metadata: &Value,
        objects: impl IntoIterator<Item = &'a Object>,
        headed: bool,
    ) -> Value {
        let rows: Vec<Value> = objects.into_iter().map(|object| self.row(object)).collect();
        json!({
            "kind": "Table", "apiVersion": self.accepted.shape_version(), "metadata": metadata,
            "columnDefinitions": if headed { self.columns() } else { Value::Array(Vec::new()) },
            "rows": rows,
        })
    }

    fn columns(&self) -> Value {
        let column = |column: &crate::strategy::Column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        };
        match &self.strategy {
            Behaviour::BuiltIn(strategy) => strategy.columns().iter().map(column).collect(),
            Behaviour::Custom(version) => version.column_definitions(),
        }
    }

    fn row(&self, object: &Object) -> Value {
        let value = object.to_value();
        let mut row = json!({"cells": self.strategy.row(&value, self.now)});
        match self.include {
            Include::Nothing => row["object"] = Value::Null,
            Include::Metadata => row["object"] = partial(&value, self.accepted),
            Include::Object => row["object"] = value,
        }
        row
    }
}
