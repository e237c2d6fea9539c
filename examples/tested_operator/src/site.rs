//! The kind `Site`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A web site: what is asked for.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(group = "sites.example", version = "v1", kind = "Site", namespaced)]
#[kube(status = "SiteStatus")]
pub struct SiteSpec {
    /// The name under which it is found.
    pub host: String,
    /// What serves it, and by how many.
    pub replicas: i32,
}

/// What is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SiteStatus {
    /// Whether its host stands in the table of routes.
    #[serde(default)]
    pub routed: bool,
}
