//! What expressions see of a request.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/cel/condition.go`, `CreateAdmissionRequest`.

use k8s_openapi::api::core::v1::Namespace;
use orch_cel::library::ResourceCheck;
use orch_core::{ApiError, Resources, client::ListOptions};
use serde_json::Value;

use super::{super::AdmissionRequest, expression::Inputs};
use crate::{
    admission::webhook::request_fields, auth::service_account::into_api_error, catalog::Resource,
    registry::Versioned, server::Inner,
};

/// A request as expressions see it, in the version that somebody's rules name.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) versioned: Versioned,
    request: Value,
    namespace: Value,
    resource: ResourceCheck,
}

impl Asked {
    pub(crate) async fn of(
        server: &Inner,
        request: &AdmissionRequest,
        seen_as: &Resource,
        with_namespace: bool,
    ) -> Result<Self, ApiError> {
        let versioned = server.versioned(request, seen_as).await?;
        let fields = request_fields(request, (&seen_as.of, &versioned));
        let namespace = request.namespace();
        let namespace = if namespace.is_empty() || !with_namespace {
            Value::Null
        } else {
            let all: Resources<Namespace> = Resources::all(server.own_client());
            let options = ListOptions {
                field_selector: Some(format!("metadata.name={namespace}")),
                ..ListOptions::default()
            };
            let found = all.list_objects(options).await.map_err(into_api_error)?.items;
            let found = found.into_iter().next();
            found.ok_or_else(|| ApiError::not_found("", "namespaces", namespace))?.to_value()
        };
        let target = &request.target;
        let resource = ResourceCheck {
            group: target.resource.group.to_string(),
            resource: target.resource.plural.to_string(),
            subresource: target.subresource.as_deref().unwrap_or_default().to_owned(),
            namespace: request.namespace_attribute(),
            name: request.object_name(),
            ..ResourceCheck::default()
        };
        Ok(Self { versioned, request: Value::Object(fields), namespace, resource })
    }

    pub(crate) fn inputs<'a>(&'a self, params: &'a Value) -> Inputs<'a> {
        Inputs {
            object: &self.versioned.object,
            old: &self.versioned.old,
            request: &self.request,
            namespace: &self.namespace,
            params,
            resource: &self.resource,
        }
    }
}
