//! Empties a resource whose definition is being deleted.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`.

use std::sync::{Arc, Weak};

use futures::StreamExt;
use orch_core::{
    ApiError, Client, ClientError, ResourceType, Target,
    client::{
        DeleteOptions, ListOptions, PatchKind, Read, ReadReply, WatchEvent, WatchOptions, Write,
        WriteOptions,
    },
};
use orch_store::{self as store, KeyRange, Operation, Precondition, RangeRequest};
use serde_json::{Value, json};

use super::{definition::Definition, hook::DEFINITIONS};
use crate::{cache::store_error, server::Inner};

/// What holds a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Inner {
    /// Deletes the objects of a definition, and then lets it go. Whatever ends this task, the
    /// next look at the definitions starts it again.
    pub(super) fn empty(&self, definition: Arc<Definition>) {
        let (client, own) = (self.own_client(), self.weak());
        tokio::spawn(async move {
            if let Err(error) = empty(&own, &client, &definition).await {
                let name = &definition.name;
                tracing::warn!(%name, %error, "a resource could not be emptied");
            }
            finished(&own, &definition.name);
        });
    }
}

impl Inner {
    /// Takes all objects of a resource out of the store.
    async fn drop_objects(&self, prefix: &str) -> Result<(), ApiError> {
        let range = KeyRange::prefix(prefix.to_owned().into_bytes());
        let found = self.store.range(RangeRequest::new(range)).await.map_err(store_error)?;
        for entry in found.entries {
            let write = store::Write {
                key: entry.key,
                precondition: Precondition::ModRevision(entry.mod_revision),
                operation: Operation::Delete,
            };
            self.store.write(write).await.map_err(store_error)?;
        }
        Ok(())
    }
}

fn finished(own: &Weak<Inner>, name: &str) {
    if let Some(inner) = own.upgrade() {
        inner.customs.emptied(name);
    }
}

async fn empty(
    own: &Weak<Inner>,
    client: &Arc<dyn Client>,
    definition: &Definition,
) -> Result<(), ClientError> {
    match definition.resources.first() {
        Some(resource) => {
            while let Some(revision) = delete_all(client, &resource.of).await? {
                wait_for_deletion(client, &resource.of, revision).await?;
            }
        }
        // Nobody reaches the objects of a resource that no version serves, so nobody could take
        // their finalizers.
        None => {
            if let Some(inner) = own.upgrade() {
                inner.drop_objects(&definition.prefix).await?;
            }
        }
    }
    release(client, &definition.name).await
}

/// Asks every object to go; gives the revision of the list unless it was empty.
async fn delete_all(
    client: &Arc<dyn Client>,
    of: &ResourceType,
) -> Result<Option<String>, ClientError> {
    let target = Target::collection(of.clone(), None);
    let ReadReply::List(list) = client.read(Read::List(target, ListOptions::default())).await?
    else {
        return Ok(None);
    };
    for object in &list.items {
        if object.metadata().deletion_timestamp.is_some() {
            continue;
        }
        let key = object.key();
        let target = Target::object(of.clone(), key.namespace(), &key.name);
        match client.write(Write::Delete(target, DeleteOptions::default())).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok((!list.items.is_empty()).then_some(list.resource_version))
}

/// Waits until an object is gone that was there at a revision.
async fn wait_for_deletion(
    client: &Arc<dyn Client>,
    of: &ResourceType,
    revision: String,
) -> Result<(), ClientError> {
    let options = WatchOptions { resource_version: Some(revision), ..WatchOptions::default() };
    let mut events = client.watch(Target::collection(of.clone(), None), options).await?;
    while let Some(event) = events.next().await {
        if matches!(event?, WatchEvent::Deleted(_)) {
            break;
        }
    }
    Ok(())
}

/// Takes the finalizer off the definition, with whoever else changes it at the same time.
async fn release(client: &Arc<dyn Client>, name: &str) -> Result<(), ClientError> {
    loop {
        let target = Target::object(DEFINITIONS, None, name);
        let object = match client.read(Read::Get(target.clone())).await {
            Ok(ReadReply::Object(object)) => object,
            Err(error) if !error.is_not_found() => return Err(error),
            _ => return Ok(()),
        };
        let finalizers = object.metadata().finalizers.clone().unwrap_or_default();
        let kept: Vec<Value> =
            finalizers.into_iter().filter(|one| one != FINALIZER).map(Value::from).collect();
        let patch = json!({"metadata": {
            "finalizers": kept, "resourceVersion": object.resource_version(),
        }});
        let write = Write::Patch(target, PatchKind::Merge, patch, WriteOptions::default());
        match client.write(write).await {
            Err(error) if error.is_conflict() => {}
            Err(error) if !error.is_not_found() => return Err(error),
            _ => return Ok(()),
        }
    }
}
