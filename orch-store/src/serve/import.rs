//! Takes a snapshot of etcd into a store.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::image::{
    StoredLease,
    reader::{BoltReader, Damage},
};
use crate::{
    StoreError,
    protocol::mvccpb,
    store::{KeyRange, LeaseId, LeasedStore, Put, PutLease, RangeRequest, Step, Transaction},
};

/// So many keys, or bytes, are written at once.
const BATCH_KEYS: usize = 100;
const BATCH_BYTES: usize = 1 << 20;

/// The length of the checksum that etcd puts behind a snapshot.
const CHECKSUM: u64 = 32;

/// Why a snapshot cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read, or is no snapshot, or a damaged one. Nothing was written.
    #[error("cannot read the snapshot {path}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The store holds keys or leases. Nothing was written.
    #[error("the store is not empty")]
    NotEmpty,
    /// The store failed; a part may have been written.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The number of keys.
    pub keys: usize,
    /// The number of leases.
    pub leases: usize,
}

/// What a snapshot holds.
struct Content {
    /// The living keys in the order of their last changes.
    keys: Vec<mvccpb::KeyValue>,
    leases: Vec<StoredLease>,
}

/// Takes a snapshot of etcd, as `etcdctl snapshot save` writes it, or an etcd's database file, into
/// an empty store. The checksum behind a snapshot is verified; a database file has none.
///
/// Kept are all living keys with their values, the order of their last changes, and the leases
/// with their ids, the time to live that was granted, which starts anew, and their keys. Not kept
/// are revisions, versions, and what was overwritten or deleted. The living keys are held in
/// memory meanwhile.
///
/// Cancellation: dropping the future leaves a part of it written.
///
/// # Errors
/// [`ImportError`].
pub async fn import_snapshot(
    path: impl AsRef<Path>,
    store: &dyn LeasedStore,
) -> Result<Imported, ImportError> {
    let everything = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::prefix("")) };
    if store.range(everything).await?.count > 0 || !store.leases().await?.is_empty() {
        return Err(ImportError::NotEmpty);
    }
    let path = path.as_ref().to_owned();
    let file = path.clone();
    let content = tokio::task::spawn_blocking(move || read(&file)).await;
    let content = content.unwrap_or_else(|error| Err(io::Error::other(error)));
    let content = content.map_err(|source| ImportError::Snapshot { path, source })?;
    let imported = Imported { keys: content.keys.len(), leases: content.leases.len() };
    for StoredLease { id, ttl_s } in content.leases {
        store.grant(Some(id), ttl_s.max(1)).await?;
    }
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for kv in content.keys {
        bytes += kv.key.len() + kv.value.len();
        batch.push(put(kv));
        if batch.len() >= BATCH_KEYS || bytes >= BATCH_BYTES {
            write(store, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        write(store, batch).await?;
    }
    Ok(imported)
}

fn put(kv: mvccpb::KeyValue) -> Step {
    let lease = Some(kv.lease).filter(|id| *id != 0);
    Step::Put(Put { key: kv.key, value: Some(kv.value), lease: PutLease::Set(lease) })
}

async fn write(store: &dyn LeasedStore, success: Vec<Step>) -> Result<(), StoreError> {
    let transaction = Transaction { success, ..Transaction::default() };
    store.transact(transaction).await.map(drop)
}

fn damaged(what: &str) -> Damage {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Blocks.
fn read(path: &Path) -> io::Result<Content> {
    verify(path)?;
    let reader = BoltReader::open(File::open(path)?)?;
    let mut leases = BTreeMap::new();
    reader.each("lease", |_key, value| {
        let lease = StoredLease::decode(value).map_err(|_| damaged("a lease cannot be read"))?;
        leases.insert(lease.id, lease);
        Ok(())
    })?;
    let mut living: BTreeMap<Bytes, (usize, mvccpb::KeyValue)> = BTreeMap::new();
    let mut number = 0;
    let found = reader.each("key", |revision, value| {
        let kv = mvccpb::KeyValue::decode(value).map_err(|_| damaged("a key cannot be read"))?;
        number += 1;
        match revision.len() {
            17 => drop(living.insert(kv.key.clone(), (number, detached(&kv, &leases)))),
            // With a mark behind it: the key was deleted.
            18 => drop(living.remove(&kv.key)),
            _ => return Err(damaged("a revision cannot be read")),
        }
        Ok(())
    })?;
    if !found {
        return Err(damaged("it is a bbolt database, but not etcd's"));
    }
    let mut keys: Vec<_> = living.into_values().collect();
    keys.sort_by_key(|(number, _)| *number);
    let keys = keys.into_iter().map(|(_, kv)| kv).collect();
    Ok(Content { keys, leases: leases.into_values().collect() })
}

/// A key that holds no page in memory, and no lease that is not there any more.
fn detached(kv: &mvccpb::KeyValue, leases: &BTreeMap<LeaseId, StoredLease>) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::copy_from_slice(&kv.key),
        value: Bytes::copy_from_slice(&kv.value),
        lease: if leases.contains_key(&kv.lease) { kv.lease } else { 0 },
        ..*kv
    }
}

/// Compares the checksum behind a snapshot, if there is one. As etcd does: a database is whole
/// sectors long.
fn verify(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length % 512 != CHECKSUM {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut rest = length - CHECKSUM;
    let mut buffer = vec![0; 1 << 20];
    while rest > 0 {
        let count = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..count])?;
        hash.update(&buffer[..count]);
        rest -= count as u64;
    }
    let mut expected = [0; CHECKSUM as usize];
    file.read_exact(&mut expected)?;
    if hash.finalize()[..] != expected {
        return Err(damaged("its checksum does not match: it is damaged or cut off"));
    }
    Ok(())
}
