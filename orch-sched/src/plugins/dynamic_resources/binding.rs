//! Writes into claims what was decided about them, and waits for devices that must be made ready.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Pod, PodExtendedResourceClaimStatus},
        resource::v1::{
            AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, ResourceClaim,
            ResourceClaimConsumerReference,
        },
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{
    Client, ClientError, Environment, Resources,
    client::{PatchKind, WatchOptions},
    clock::to_seconds,
    device_claim::{FINALIZER, is_allocated, is_reserved_for},
};
use serde_json::json;

use super::extended::{Own, is_unwritten};
use crate::{
    devices::{BETWEEN_TRIES, Devices, TRIES, remove, shown},
    error::Fault,
    pod_info::PodInfo,
};

/// How long a claim that was written may take to be seen.
///
/// Source: `AssumeExtendedResourceTimeoutDefaultSeconds`.
const SEEN_WITHIN: Duration = Duration::from_secs(120);

/// Writes claims.
#[derive(Debug)]
pub(super) struct Binder {
    client: Arc<dyn Client>,
    environment: Environment,
    devices: Arc<Devices>,
    /// How long devices may take to be made ready.
    timeout: Duration,
}

/// Why a claim was not written.
enum Failed {
    /// Somebody else wrote it.
    Conflict(String),
    Other(String),
}

fn failed(words: String) -> impl FnOnce(ClientError) -> Failed {
    move |error| match error.is_conflict() {
        true => Failed::Conflict(format!("{words}: {error}")),
        false => Failed::Other(format!("{words}: {error}")),
    }
}

fn results(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

fn binding_conditions(result: &DeviceRequestAllocationResult) -> &[String] {
    result.binding_conditions.as_deref().unwrap_or_default()
}

/// Whether all devices of a claim are ready for the pod; an error if one never will be.
pub(super) fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let statuses = claim.status.as_ref().and_then(|status| status.devices.as_deref());
    for result in results(claim).iter().filter(|result| !binding_conditions(result).is_empty()) {
        let is_its = |status: &&AllocatedDeviceStatus| {
            status.device == result.device
                && status.driver == result.driver
                && status.pool == result.pool
        };
        let Some(status) = statuses.unwrap_or_default().iter().find(is_its) else {
            return Ok(false);
        };
        let holds = |name: &String| {
            let mut conditions = status.conditions.iter().flatten();
            conditions.find(|one| one.type_ == *name && one.status == "True")
        };
        if let Some(failure) = result.binding_failure_conditions.iter().flatten().find_map(holds) {
            return Err(format!(
                "claim {} binding failed: reason={}, message={:?}",
                claim.metadata.name.as_deref().unwrap_or_default(),
                failure.reason,
                failure.message
            ));
        }
        if !binding_conditions(result).iter().all(|name| holds(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Binder {
    pub(super) fn new(
        client: Arc<dyn Client>,
        environment: Environment,
        devices: Arc<Devices>,
        timeout: Duration,
    ) -> Self {
        Self { client, environment, devices, timeout }
    }

    fn claims_in(&self, claim: &ResourceClaim) -> Resources<ResourceClaim> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        Resources::namespaced(self.client.clone(), namespace)
    }

    /// Allocates a claim, if there is an allocation for it, and keeps it for a pod.
    pub(super) async fn bind(
        &self,
        claim: &Arc<ResourceClaim>,
        allocation: Option<&AllocationResult>,
        pod: &PodInfo,
    ) -> Result<Arc<ResourceClaim>, Fault> {
        if is_reserved_for(pod.uid(), claim) {
            return Ok(claim.clone());
        }
        let written = self.write(claim, allocation, pod).await;
        if let Ok(written) = &written {
            self.devices.assume(written);
        }
        if allocation.is_some() {
            self.devices.forget_promise(claim);
        }
        Ok(written?)
    }

    async fn write(
        &self,
        claim: &Arc<ResourceClaim>,
        allocation: Option<&AllocationResult>,
        pod: &PodInfo,
    ) -> Result<Arc<ResourceClaim>, String> {
        let claims = self.claims_in(claim);
        let mut current = (**claim).clone();
        for again in 1.. {
            match self.try_write(&claims, current, allocation, pod).await {
                Err(Failed::Conflict(_)) if again < TRIES => {}
                Err(Failed::Conflict(words) | Failed::Other(words)) => return Err(words),
                Ok(written) => return Ok(written),
            }
            self.environment.clock.sleep(BETWEEN_TRIES).await;
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let newest = claims.get(name).await.map_err(|error| {
                format!("get updated claim {} after conflict: {error}", shown(&claim.metadata))
            })?;
            current = Arc::unwrap_or_clone(newest);
        }
        unreachable!("the last try returns")
    }

    async fn try_write(
        &self,
        claims: &Resources<ResourceClaim>,
        mut claim: ResourceClaim,
        allocation: Option<&AllocationResult>,
        pod: &PodInfo,
    ) -> Result<Arc<ResourceClaim>, Failed> {
        let name = shown(&claim.metadata);
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Failed::Other(format!("claim {name} got deleted in the meantime")));
        }
        if let Some(allocation) = allocation {
            if is_allocated(&claim) {
                let words = format!("claim {name} got allocated elsewhere in the meantime");
                return Err(Failed::Other(words));
            }
            let finalizers = claim.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|one| one == FINALIZER) {
                finalizers.push(FINALIZER.into());
                let updated = claims.update(&claim).await;
                let updated = updated.map_err(failed(format!("add finalizer to claim {name}")))?;
                claim = Arc::unwrap_or_clone(updated);
            }
            claim.status.get_or_insert_default().allocation = Some(allocation.clone());
        }
        let status = claim.status.get_or_insert_default();
        status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
            api_group: None,
            name: pod.key().name.clone(),
            resource: "pods".into(),
            uid: pod.uid().to_string(),
        });
        if let Some(allocation) = &mut status.allocation {
            let now = || Time(to_seconds(self.environment.clock.now()));
            allocation.allocation_timestamp.get_or_insert_with(now);
        }
        let what = if allocation.is_some() { "allocation and reservation" } else { "reservation" };
        let words = format!("add {what} to claim {name}");
        claims.update_status(&claim).await.map_err(failed(words))
    }

    /// A claim's devices have not been made ready in time.
    pub(super) fn is_overdue(&self, claim: &ResourceClaim) -> bool {
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let since = allocation.and_then(|allocation| allocation.allocation_timestamp.as_ref());
        let until = since.and_then(|since| since.0.checked_add(self.timeout).ok());
        results(claim).iter().any(|result| !binding_conditions(result).is_empty())
            && until.is_some_and(|until| until < self.environment.clock.now())
    }

    /// Waits until the devices of all claims are ready.
    pub(super) async fn ready(&self, all: Vec<Arc<ResourceClaim>>) -> Result<(), Fault> {
        let open = all.into_iter().filter(|claim| is_ready(claim) != Ok(true));
        let work = async {
            for claim in open {
                self.wait(&claim).await?;
            }
            Ok::<(), Fault>(())
        };
        let outcome = tokio::time::timeout(self.timeout, work).await;
        outcome.map_err(|_| "device binding timeout")?
    }

    async fn wait(&self, claim: &ResourceClaim) -> Result<(), Fault> {
        let claims = self.claims_in(claim);
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let field_selector = Some(format!("metadata.name={name}"));
        let options = WatchOptions { field_selector, ..WatchOptions::default() };
        loop {
            let stream = claims.watch(options.clone()).await?;
            let settled = |claim: &ResourceClaim| is_ready(claim) != Ok(false);
            match Resources::first_match(stream, settled).await? {
                Some(settled) => return Ok(is_ready(&settled).map(drop)?),
                // The server ended the watch: ask again.
                None => self.environment.clock.sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Writes the claim for a pod's extended resources and allocates it, and tells the pod of it.
    /// What was written is `set`, so that it can be taken back.
    pub(super) async fn bind_extended(
        &self,
        (own, claim): (&Own, Arc<ResourceClaim>),
        allocation: Option<&AllocationResult>,
        pod: &PodInfo,
        set: impl Fn(Arc<ResourceClaim>) + Send + Sync,
    ) -> Result<(), Fault> {
        let claim = if is_unwritten(&claim) { self.create(&claim).await? } else { claim };
        set(claim.clone());
        let bound = self.bind(&claim, allocation, pod).await?;
        set(bound.clone());
        // Until the cluster was seen to have the claim, the devices are promised to the pod.
        if tokio::time::timeout(SEEN_WITHIN, self.devices.observed(&bound)).await.is_err() {
            tracing::warn!(claim = shown(&bound.metadata), "claim was written and is not seen");
        }
        self.devices.assume(&bound);
        self.devices.forget_promise(&own.claim);
        self.tell(pod, &bound, own).await
    }

    async fn create(&self, claim: &ResourceClaim) -> Result<Arc<ResourceClaim>, Fault> {
        let mut new = claim.clone();
        (new.metadata.name, new.metadata.uid, new.status) = (None, None, None);
        let created = self.claims_in(&new).create(&new).await;
        let name = shown(&new.metadata);
        let failed = |error| format!("create claim for extended resources {name}: {error}");
        Ok(created.map_err(failed)?)
    }

    /// Writes into the pod's status which claim has its devices, and for whom.
    async fn tell(&self, pod: &PodInfo, claim: &ResourceClaim, own: &Own) -> Result<(), Fault> {
        let status = PodExtendedResourceClaimStatus {
            request_mappings: own.mappings.clone(),
            resource_claim_name: claim.metadata.name.clone().unwrap_or_default(),
        };
        let patch = json!({
            "metadata": {"uid": pod.pod().metadata.uid},
            "status": {"extendedResourceClaimStatus": status},
        });
        let pods: Resources<Pod> = Resources::namespaced(self.client.clone(), pod.namespace());
        let patched = pods.patch_status(&pod.key().name, PatchKind::Strategic, patch).await;
        let failed =
            |error| format!("update pod {} ExtendedResourceClaimStatus: {error}", pod.key());
        patched.map_err(failed)?;
        Ok(())
    }

    /// A pod does not come after all: the devices for its extended resources are free, and the claim
    /// for them goes, if it was written.
    pub(super) fn give_up_extended(
        &self,
        promised: &ResourceClaim,
        written: Option<Arc<ResourceClaim>>,
    ) {
        self.devices.forget_promise(promised);
        let Some(claim) = written.filter(|claim| !is_unwritten(claim)) else { return };
        let (claims, environment) = (self.claims_in(&claim), self.environment.clone());
        // Should it fail, the claim is found and deleted when the pod is tried again.
        tokio::spawn(async move {
            if let Err(error) = remove(&claims, &claim, &environment).await {
                tracing::warn!(claim = shown(&claim.metadata), error, "delete");
            }
        });
    }

    /// A pod does not come after all: what was promised is free, what was written is taken back.
    pub(super) fn give_up(&self, claim: &Arc<ResourceClaim>, pod: &PodInfo) {
        if self.devices.forget_promise(claim) {
            self.devices.restore(claim);
        }
        if !is_allocated(claim) || !is_reserved_for(pod.uid(), claim) {
            return;
        }
        let patch = json!({
            "metadata": {"uid": claim.metadata.uid},
            "status": {"reservedFor": [{"$patch": "delete", "uid": &**pod.uid()}]},
        });
        let (claims, claim) = (self.claims_in(claim), claim.clone());
        // Should it fail, the pod finds itself in the claim when it is tried again.
        tokio::spawn(async move {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let patched = claims.patch_status(name, PatchKind::Strategic, patch).await;
            if let Err(error) = patched {
                tracing::warn!(claim = shown(&claim.metadata), %error, "unreserve");
            }
        });
    }
}
