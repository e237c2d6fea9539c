//! Ingresses without a class get the default one.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/network/defaultingressclass`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::IngressClass;
use orch_core::{ApiError, Client};
use serde_json::json;

use super::{Admission, AdmissionRequest, storage_class::default_class};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const CLASS: &str = "kubernetes.io/ingress.class";

/// Sets `spec.ingressClassName` of new ingresses that leave it out.
#[derive(Debug)]
pub struct DefaultIngressClass {
    client: Arc<dyn Client>,
}

impl DefaultIngressClass {
    /// Looks classes up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let Some(ingress) = request.object.as_mut().filter(|i| i["spec"].is_object()) else {
            return Ok(());
        };
        if ingress["spec"]["ingressClassName"].is_string()
            || ingress["metadata"]["annotations"][CLASS].is_string()
        {
            return Ok(());
        }
        if let Some(class) = default_class::<IngressClass>(&self.client, &[DEFAULT]).await? {
            ingress["spec"]["ingressClassName"] = json!(class);
        }
        Ok(())
    }
}
