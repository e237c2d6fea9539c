//! Forgets what servers that are gone said of their storage versions.

use k8s_openapi::{
    api::{
        apiserverinternal::v1alpha1::{
            ServerStorageVersion, StorageVersion, StorageVersionCondition,
        },
        coordination::v1::Lease,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::{
    Key,
    client::DeleteOptions,
    informer::{Change, Informers},
};

use crate::{Action, Controller, context::Context, reconciler::Reconciled};

/// Where API servers keep the leases by which they are known, and the label of these.
const LEASES: &str = "kube-system";
const COMPONENT: &str = "apiserver.kubernetes.io/identity";
const API_SERVER: &str = "kube-apiserver";
const CONDITION: &str = "AllEncodingVersionsEqual";

fn is_identity(lease: &Lease) -> bool {
    let labels = lease.metadata.labels.as_ref();
    lease.metadata.namespace.as_deref() == Some(LEASES)
        && labels.and_then(|labels| labels.get(COMPONENT)).is_some_and(|value| value == API_SERVER)
}

/// The controller that takes out of StorageVersions what API servers said whose lease is gone, and
/// removes those of which nobody says anything.
pub fn storage_version_gc(informers: &Informers) -> Controller {
    let context = Context::new(informers, "storageversion-garbage-collector-controller");
    let versions = context.informer::<StorageVersion>();
    let known = versions.clone();
    context
        .builder()
        .watches_own_if::<StorageVersion>(|change| !matches!(change, Change::Deleted(_)))
        .watches::<Lease>(move |change| {
            let Change::Deleted(lease) = change else { return Vec::new() };
            let Some(gone) = lease.metadata.name.as_deref().filter(|_| is_identity(lease)) else {
                return Vec::new();
            };
            let mut all = known.list();
            all.retain(|version| said(version).iter().any(|one| one.api_server_id == gone));
            all.iter().map(|version| Key::of(&version.metadata)).collect()
        })
        .workers(1)
        .build(move |key: Key| {
            let (context, version) = (context.clone(), versions.get(&key));
            async move {
                match version {
                    Some(version) => forget(&context, &version).await,
                    None => Ok(Action::Done),
                }
            }
        })
}

fn said(version: &StorageVersion) -> &[ServerStorageVersion] {
    let status = version.status.as_ref();
    status.and_then(|status| status.storage_versions.as_deref()).unwrap_or_default()
}

async fn forget(context: &Context, version: &StorageVersion) -> Reconciled {
    let leases = context.resources::<Lease>(LEASES);
    let mut kept = Vec::new();
    for one in said(version) {
        // Asked for anew: a server that has only just come is not gone.
        let lease = leases.get_opt(&one.api_server_id).await?;
        if lease.is_some_and(|lease| is_identity(&lease)) {
            kept.push(one.clone());
        }
    }
    if kept.len() == said(version).len() {
        return Ok(Action::Done);
    }
    let versions = context.resources::<StorageVersion>("");
    if kept.is_empty() {
        let name = version.metadata.name.as_deref().unwrap_or_default();
        return match versions.delete(name, DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        };
    }
    let mut updated = version.clone();
    agree(&mut updated, kept, &context.time());
    versions.update_status(&updated).await?;
    Ok(Action::Done)
}

/// Notes what is said, and whether all say the same.
///
/// Source: `k8s.io/apiserver/pkg/storageversion/updater.go`, `SetCommonEncodingVersion`.
fn agree(version: &mut StorageVersion, said: Vec<ServerStorageVersion>, now: &Time) {
    let generation = version.metadata.generation;
    let status = version.status.get_or_insert_default();
    let first = said.first().map(|one| one.encoding_version.clone());
    let common = first.filter(|first| said.iter().all(|one| one.encoding_version == *first));
    let before = std::mem::replace(&mut status.common_encoding_version, common.clone());
    status.storage_versions = Some(said);
    let (value, reason, message) = match &common {
        Some(_) => ("True", "CommonEncodingVersionSet", "Common encoding version set"),
        None => ("False", "CommonEncodingVersionUnset", "Common encoding version unset"),
    };
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter_mut().find(|condition| condition.type_ == CONDITION);
    let other_version = before.is_some() && common.is_some() && before != common;
    let since = match &old {
        Some(old) if old.status == value && !other_version => old.last_transition_time.clone(),
        _ => Some(now.clone()),
    };
    let condition = StorageVersionCondition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
