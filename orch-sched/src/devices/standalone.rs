//! Devices for claims that no pod asks for.

use std::{fmt, sync::Arc};

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use orch_core::informer::Informers;

use super::{
    allocator::{Patience, Stop},
    ledger::Devices,
};
use crate::{error::Fault, node_info::NodeInfo};

/// Finds devices for claims as the plugin `DynamicResources` does, without a pod and without a
/// scheduler: for tools that allocate by themselves, or want to know what would fit. It writes
/// nothing.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use k8s_openapi::api::resource::v1::ResourceClaim;
/// # use orch_core::informer::Informers;
/// # use orch_sched::{DeviceAllocator, Fault, NodeInfo};
/// # async fn demo(
/// #     informers: Informers, claim: Arc<ResourceClaim>, node: NodeInfo,
/// # ) -> Result<(), Fault> {
/// let allocator = DeviceAllocator::new(&informers);
/// allocator.synced().await;
/// if let Some(allocations) = allocator.allocate(&[claim], &node)? {
///     println!("{allocations:?}");
/// }
/// # Ok(()) }
/// ```
pub struct DeviceAllocator {
    devices: Arc<Devices>,
    informers: Informers,
}

impl fmt::Debug for DeviceAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceAllocator({:?})", self.devices)
    }
}

impl DeviceAllocator {
    /// Looks classes, slices and claims up in these informers. Call it inside a tokio runtime: the
    /// informers start.
    pub fn new(informers: &Informers) -> Self {
        Self { devices: Devices::follow(informers), informers: informers.clone() }
    }

    /// Waits until everything is known that decides.
    pub async fn synced(&self) {
        self.informers.of::<ResourceClaim>().synced().await;
        self.informers.of::<ResourceSlice>().synced().await;
        self.informers.of::<DeviceClass>().synced().await;
    }

    /// Devices for all these claims on a node, one allocation for each, in their order; `None` if
    /// there are none. The same cluster gives the same devices, apart from the ids of shares.
    ///
    /// # Errors
    /// A fault if something is wrong with a claim, a class or the pools that the node reaches.
    pub fn allocate(
        &self,
        claims: &[Arc<ResourceClaim>],
        node: &NodeInfo,
    ) -> Result<Option<Vec<AllocationResult>>, Fault> {
        let environment = self.informers.environment();
        let patience = Patience { clock: environment.clock.clone(), timeout: None };
        let allocator = self.devices.allocator(claims, None, patience);
        let allocated = allocator.allocate(node).and_then(|found| {
            let found =
                found.map(|one| one.allocations(&allocator, node.name(), &*environment.random));
            found.transpose()
        });
        allocated.map_err(|stop| match stop {
            Stop::Fault(words) => words.into(),
            Stop::TimedOut => "timed out trying to allocate devices".into(),
            Stop::InvalidPools => "invalid resource pools were encountered".into(),
        })
    }

    /// A claim was written: it counts as such before the informers say so.
    pub fn assume(&self, claim: &Arc<ResourceClaim>) {
        self.devices.assume(claim);
    }
}
