//! What the controllers of volumes count.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/ephemeral/metrics`,
//! `k8s.io/kubernetes/pkg/controller/volume/attachdetach/metrics`.
//! Differs: the encoder gives the names of all counters the ending `_total`.

use orch_core::metrics::Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

/// Why a volume was detached although the node may still use it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ForcedDetach {
    reason: &'static str,
}

/// The numbers of the controllers of volumes, under upstream's names. Cheap to clone; clones count
/// together.
#[derive(Clone, Debug, Default)]
pub struct StorageMetrics {
    /// Claims of ephemeral volumes that were to be made.
    pub(super) ephemeral_creates: Counter,
    /// Those of them that failed.
    pub(super) ephemeral_failures: Counter,
    forced_detaches: Family<ForcedDetach, Counter>,
}

impl StorageMetrics {
    /// Lets a registry encode these numbers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "ephemeral_volume_controller_create",
            "Number of PersistenVolumeClaims creation requests",
            self.ephemeral_creates.clone(),
        );
        registry.register(
            "ephemeral_volume_controller_create_failures",
            "Number of PersistenVolumeClaims creation requests that failed",
            self.ephemeral_failures.clone(),
        );
        registry.register(
            "attach_detach_controller_attachdetach_controller_forced_detaches",
            "Number of times the A/D Controller performed a forced detach",
            self.forced_detaches.clone(),
        );
    }

    /// Counts a volume that was detached without the node's consent.
    pub(super) fn forced_detach(&self, reason: &'static str) {
        self.forced_detaches.get_or_create(&ForcedDetach { reason }).inc();
    }
}
