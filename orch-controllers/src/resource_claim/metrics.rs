//! How many claims there are, and how many were made.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/resourceclaim/metrics`.

use k8s_openapi::api::resource::v1::{DeviceClaim, ResourceClaim};
use orch_core::{
    device_claim::is_allocated,
    extended_resource::CLAIM_ANNOTATION,
    informer::Change,
    metrics::{Registry, open_metrics},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::POD_CLAIM_NAME;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Creation {
    status: &'static str,
    admin_access: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Claims {
    allocated: &'static str,
    admin_access: &'static str,
    source: &'static str,
}

/// The numbers of the controller of claims, under upstream's names. Cheap to clone; clones share
/// the numbers.
#[derive(Clone, Debug, Default)]
pub struct ResourceClaimMetrics {
    created: Family<Creation, Counter>,
    claims: Family<Claims, Gauge>,
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn wants_admin_access(devices: Option<&DeviceClaim>) -> bool {
    let requests = devices.and_then(|devices| devices.requests.as_deref()).unwrap_or_default();
    let mut exact = requests.iter().filter_map(|request| request.exactly.as_ref());
    exact.any(|exactly| exactly.admin_access == Some(true))
}

fn labels(claim: &ResourceClaim) -> Claims {
    let annotations = claim.metadata.annotations.as_ref();
    let made = annotations.is_some_and(|all| all.contains_key(POD_CLAIM_NAME));
    let extended = annotations.and_then(|all| all.get(CLAIM_ANNOTATION));
    Claims {
        allocated: word(is_allocated(claim)),
        admin_access: word(wants_admin_access(claim.spec.devices.as_ref())),
        source: match (extended.map(String::as_str), made) {
            (Some("true"), _) => "extended_resource",
            (_, true) => "resource_claim_template",
            _ => "",
        },
    }
}

impl ResourceClaimMetrics {
    /// Lets a registry encode these numbers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "resourceclaim_controller_creates",
            "Number of ResourceClaims creation requests, categorized by creation status and admin \
             access",
            self.created.clone(),
        );
        registry.register(
            "resourceclaim_controller_resource_claims",
            "Number of ResourceClaims, categorized by allocation status, admin access, and source",
            self.claims.clone(),
        );
    }

    /// The numbers in the text format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        open_metrics(&registry)
    }

    pub(super) fn created(&self, claim: &ResourceClaim, succeeded: bool) {
        let status = if succeeded { "success" } else { "failure" };
        let admin_access = word(wants_admin_access(claim.spec.devices.as_ref()));
        self.created.get_or_create(&Creation { status, admin_access }).inc();
    }

    pub(super) fn observe(&self, change: &Change<ResourceClaim>) {
        let count = |claim: &ResourceClaim, more: i64| {
            self.claims.get_or_create(&labels(claim)).inc_by(more);
        };
        match change {
            Change::Added(new) => count(new, 1),
            Change::Deleted(old) => count(old, -1),
            Change::Updated { old, new } => {
                count(old, -1);
                count(new, 1);
            }
        }
    }
}
