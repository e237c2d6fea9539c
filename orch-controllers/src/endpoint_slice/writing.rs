//! Writing the slices of a plan.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use orch_core::{ClientError, Key, client::DeleteOptions};

use super::packing::Plan;
use crate::{Expectations, context::Context, pods};

/// Creates, changes and deletes slices. What is created is expected to be seen.
pub(super) async fn carry_out(
    context: &Context,
    expectations: &Expectations,
    key: &Key,
    plan: Plan,
) -> Result<(), ClientError> {
    let resources = context.resources::<EndpointSlice>(&key.namespace);
    for slice in plan.create {
        expectations.expect_creations(key, 1);
        if let Err(error) = resources.create(&slice).await {
            expectations.creation_observed(key);
            if pods::is_namespace_terminating(&error) {
                return Ok(());
            }
            return Err(error);
        }
    }
    for slice in plan.update {
        resources.update(&slice).await?;
    }
    for slice in plan.delete {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions { uid: slice.metadata.uid.clone(), ..DeleteOptions::default() };
        match resources.delete(name, options).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
