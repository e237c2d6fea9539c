//! Deletes claims that the scheduler made.

use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceClaim;
use orch_core::{Environment, Resources, client::DeleteOptions, device_claim::FINALIZER};

use super::shown;

/// How often a claim is read again that somebody else wrote at the same time, and how long before.
pub(crate) const TRIES: u32 = 5;
pub(crate) const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Deletes a claim with its devices: nobody else may want to keep it. One that is gone is fine.
///
/// # Errors
/// What failed, in upstream's words.
///
/// Source: `pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go`,
/// `deleteClaim`.
pub(crate) async fn remove(
    claims: &Resources<ResourceClaim>,
    claim: &ResourceClaim,
    environment: &Environment,
) -> Result<(), String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let told = shown(&claim.metadata);
    let mut current = claim.clone();
    for again in 1.. {
        current.metadata.finalizers.get_or_insert_default().retain(|one| one != FINALIZER);
        match claims.update(&current).await {
            Ok(_) => break,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if !error.is_conflict() || again == TRIES => {
                return Err(format!("update resourceclaim {told}: {error}"));
            }
            Err(_) => environment.clock.sleep(BETWEEN_TRIES).await,
        }
        match claims.get_opt(name).await {
            Ok(Some(newest)) if newest.metadata.uid == claim.metadata.uid => {
                current = (*newest).clone();
            }
            Ok(_) => return Ok(()),
            Err(error) => return Err(format!("get resourceclaim {told}: {error}")),
        }
    }
    let options = DeleteOptions { uid: claim.metadata.uid.clone(), ..DeleteOptions::default() };
    match claims.delete(name, options).await {
        // A conflict means that the name is another's.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.to_string()),
        _ => Ok(()),
    }
}
