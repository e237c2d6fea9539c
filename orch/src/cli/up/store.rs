//! Opens the store that `--store` names.

use std::{path::Path, sync::Arc};

use orch::{
    core::Environment,
    store::{
        DurableOptions, DurableStore, EtcdOptions, EtcdStore, MemoryOptions, MemoryStore, Store,
        StoreError,
    },
};

use crate::cli::{Failure, choices::StoreChoice};

/// The store, opened.
pub(super) async fn open(
    choice: &StoreChoice,
    folder: &Path,
    environment: &Environment,
) -> Result<Arc<dyn Store>, Failure> {
    match choice {
        StoreChoice::Memory => {
            Ok(Arc::new(MemoryStore::new(environment.clone(), MemoryOptions::default())))
        }
        StoreChoice::Durable => {
            let path = folder.join("store");
            let options =
                DurableOptions { environment: environment.clone(), ..DurableOptions::default() };
            let opened = DurableStore::open(&path, options);
            Ok(Arc::new(opened.map_err(|error| unopened(&error))?))
        }
        StoreChoice::Etcd(url) => {
            let connected = EtcdStore::connect(EtcdOptions::new(url)).await;
            let mend = format!("is etcd running at {url}?");
            Ok(Arc::new(connected.map_err(|error| Failure::of(&error, mend))?))
        }
    }
}

fn unopened(error: &StoreError) -> Failure {
    let mend = match error {
        StoreError::Locked(_) => "stop the other orch, or choose another folder with --data-dir",
        StoreError::Corrupt(_) => "restore the folder from a backup, or start anew in another",
        _ => "choose a folder that can be written with --data-dir DIR",
    };
    Failure::of(error, mend)
}
