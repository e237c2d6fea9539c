//! What holds in every cluster that runs the standard controllers, the scheduler and node agents.
//!
//! A controller decides on its own copy of the cluster, which may be older than the cluster is.
//! So invariants about decisions take into account how old: a decision is right if it was right at
//! some moment since then. Counts that nothing excuses (pods of a replica set, the use of a quota)
//! are exact.

mod daemon_sets;
mod deployments;
mod nodes;
mod owners;
mod quotas;
mod recent;
mod replica_sets;
mod stateful_sets;
mod volumes;

use std::time::Duration;

pub use daemon_sets::OnePodPerNode;
pub use deployments::Rollouts;
pub use nodes::NodesAreNotOverbooked;
pub use owners::OwnersConsent;
pub use quotas::QuotasHold;
pub use recent::Recent;
pub use replica_sets::ReplicaCounts;
pub use stateful_sets::StatefulSetOrder;
pub use volumes::OneVolumePerClaim;

use super::Invariant;

/// Every standard invariant, for components whose copies of the cluster may be as old as
/// `staleness` (see [`FaultPlan::staleness`](super::FaultPlan::staleness)).
pub fn all(staleness: Duration) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(ReplicaCounts::new(staleness)),
        Box::new(Rollouts::new(staleness)),
        Box::new(StatefulSetOrder::new(staleness)),
        Box::new(OnePodPerNode::new()),
        Box::new(OwnersConsent::new(staleness)),
        Box::new(QuotasHold::new(staleness)),
        Box::new(OneVolumePerClaim),
        Box::new(NodesAreNotOverbooked),
    ]
}
