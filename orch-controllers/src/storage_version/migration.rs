//! Writes every object of a resource again, so that all are stored in the newest version.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::storagemigration::v1beta1::StorageVersionMigration,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use orch_core::{
    ClientError, Key, Object, ResourceType, Target,
    client::{ListOptions, ObjectList, PatchKind, Read, ReadReply, Write, WriteOptions},
    informer::Informers,
    object::DecodeError,
};
use serde_json::json;

use crate::{
    Action, Controller,
    context::Context,
    reconciler::{ReconcileError, Reconciled},
    resource_types::ResourceTypes,
};

const NAME: &str = "storage-version-migrator-controller";
const PAGE: u32 = 500;
/// For so long a resource may be missing that has only just been defined.
const APPEARS_WITHIN: Duration = Duration::from_secs(60);

/// The controller that carries out StorageVersionMigrations.
pub fn storage_version_migrator(
    informers: &Informers,
    types: Arc<dyn ResourceTypes>,
) -> Controller {
    let context = Context::new(informers, NAME);
    let migrations = context.informer::<StorageVersionMigration>();
    context.builder().watches_own::<StorageVersionMigration>().build(move |key: Key| {
        let (context, types) = (context.clone(), types.clone());
        let migration = migrations.get(&key);
        async move {
            match migration {
                Some(migration) => migrate(&context, &*types, &migration).await,
                None => Ok(Action::Done),
            }
        }
    })
}

fn has(migration: &StorageVersionMigration, type_: &str) -> bool {
    let status = migration.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

async fn migrate(
    context: &Context,
    types: &dyn ResourceTypes,
    migration: &StorageVersionMigration,
) -> Reconciled {
    if has(migration, "Succeeded") || has(migration, "Failed") {
        return Ok(Action::Done);
    }
    let Some(resource) = find(types, migration).await? else {
        let created = migration.metadata.creation_timestamp.as_ref();
        let young = created.is_some_and(|created| context.now() < created.0 + APPEARS_WITHIN);
        if young {
            return Err(ReconcileError::message("the resource is not served, or not yet"));
        }
        return end(context, migration, Err("resource does not exist in discovery".into())).await;
    };
    let checkpoint = migration.status.as_ref().and_then(|status| status.resource_version.clone());
    let Some(checkpoint) = checkpoint.filter(|version| !version.is_empty()) else {
        let list = page(context, &resource, Some(1), None).await?;
        let mut updated = migration.clone();
        updated.status.get_or_insert_default().resource_version = Some(list.resource_version);
        context.resources::<StorageVersionMigration>("").update_status(&updated).await?;
        return Ok(Action::Done);
    };
    let migration = if has(migration, "Running") {
        Arc::new(migration.clone())
    } else {
        let mut running = migration.clone();
        add(context, &mut running, "Running", "StorageVersionMigrationInProgress", "");
        context.resources::<StorageVersionMigration>("").update_status(&running).await?
    };
    match rewrite(context, &resource, &checkpoint).await {
        // Tried again from the beginning: what is written already is soon passed over.
        Err(error) if error.is_retryable() => Err(error.into()),
        Err(error) => {
            let why = format!("migration encountered unhandled error: {error}");
            end(context, &migration, Err(why)).await
        }
        Ok(()) => end(context, &migration, Ok(())).await,
    }
}

async fn find(
    types: &dyn ResourceTypes,
    migration: &StorageVersionMigration,
) -> Result<Option<ResourceType>, ClientError> {
    let Some(wanted) = migration.spec.as_ref().map(|spec| &spec.resource) else { return Ok(None) };
    let all = types.resource_types().await?;
    let same = |one: &ResourceType| one.group == *wanted.group && one.plural == *wanted.resource;
    Ok(all.into_iter().find(same))
}

async fn page(
    context: &Context,
    resource: &ResourceType,
    limit: Option<u32>,
    continue_token: Option<String>,
) -> Result<ObjectList, ClientError> {
    let target = Target::collection(resource.clone(), None);
    let options = ListOptions { limit, continue_token, ..ListOptions::default() };
    match context.client().read(Read::List(target, options)).await? {
        ReadReply::List(list) => Ok(list),
        _ => Err(DecodeError::NoMetadata.into()),
    }
}

/// Writes every object again that was last written up to the checkpoint.
async fn rewrite(
    context: &Context,
    resource: &ResourceType,
    checkpoint: &str,
) -> Result<(), ClientError> {
    let checkpoint: Option<u64> = checkpoint.parse().ok();
    let is_newer = |object: &Object| {
        let version: Option<u64> = object.resource_version().parse().ok();
        version.zip(checkpoint).is_some_and(|(version, checkpoint)| version > checkpoint)
    };
    let mut token = None;
    loop {
        let list = page(context, resource, Some(PAGE), token).await?;
        for object in list.items.iter().filter(|object| !is_newer(object)) {
            match apply(context, resource, object).await {
                // Somebody else wrote it, or it is gone: nothing is left to do either way.
                Err(error) if !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        token = list.continue_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Applies nothing: the object is stored again as it is, in the version that is stored now. The uid
/// keeps one that is gone from being made, the resource version one that was made anew from being
/// touched.
async fn apply(
    context: &Context,
    resource: &ResourceType,
    object: &Object,
) -> Result<(), ClientError> {
    let key = object.key();
    let target = Target::object(resource.clone(), key.namespace(), &key.name);
    let patch = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {
            "uid": object.metadata().uid, "resourceVersion": object.resource_version(),
        },
    });
    let options = WriteOptions { field_manager: Some(NAME.into()), ..WriteOptions::default() };
    let write = Write::Patch(target, PatchKind::Apply, patch, options);
    context.client().write(write).await.map(drop)
}

fn add(
    context: &Context,
    migration: &mut StorageVersionMigration,
    type_: &str,
    reason: &str,
    message: &str,
) {
    let now = context.time();
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    if type_ != "Running" {
        for running in conditions.iter_mut().filter(|one| one.type_ == "Running") {
            running.status = "False".to_owned();
        }
    }
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: now,
        observed_generation: None,
    });
}

async fn end(
    context: &Context,
    migration: &StorageVersionMigration,
    outcome: Result<(), String>,
) -> Reconciled {
    let mut ended = migration.clone();
    match outcome {
        Ok(()) => add(context, &mut ended, "Succeeded", "StorageVersionMigrationSucceeded", ""),
        Err(why) => add(context, &mut ended, "Failed", "StorageVersionMigrationFailed", &why),
    }
    context.resources::<StorageVersionMigration>("").update_status(&ended).await?;
    Ok(Action::Done)
}
