//! The image of a store's key space that a snapshot is: a bbolt database in etcd's schema.
//!
//! It holds every living key as it is at one revision, with its revisions, version and lease, and
//! the leases with the time to live that was granted. What was overwritten or deleted is not in
//! it: to etcd it is a database that was compacted at that revision.
//!
//! The schema is that of etcd 3.5, which 3.4 can read (it overlooks what it does not know) and
//! which 3.6 and newer migrate from.
//!
//! Source: `server/storage/schema`, `server/storage/mvcc/revision.go`.

mod bolt;
pub(super) mod reader;

use std::{fs::File, io, io::Seek as _, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use self::bolt::BoltWriter;
use super::{
    convert::{key_value, signed},
    refusal,
    shared::{Shared, TERM},
};
use crate::{
    StoreError,
    store::{Entry, LeaseId, Revision},
};

/// The version of the schema.
pub(super) const STORAGE_VERSION: &str = "3.5.0";

/// How often an image is begun anew because its revision was compacted meanwhile.
const ATTEMPTS: usize = 5;

/// The buckets of etcd that are empty here.
const EMPTY: [&str; 7] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];

/// An image in a temporary file, at its beginning.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file: File,
    pub(super) size: u64,
}

/// `leasepb.Lease`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StoredLease {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(int64, tag = "2")]
    pub(super) ttl_s: i64,
}

/// What an image is made of. Values are shared with the store, not copied.
#[derive(Debug)]
struct Content {
    revision: Revision,
    entries: Vec<Entry>,
    leases: Vec<(LeaseId, i64)>,
}

pub(super) fn failed(error: &io::Error) -> Status {
    tracing::warn!(%error, "a snapshot could not be written");
    Status::unavailable(format!("etcdserver: the snapshot's temporary file failed: {error}"))
}

/// Writes the image of the newest revision into a temporary file that nobody else sees.
pub(super) async fn write(shared: &Arc<Shared>) -> Result<Image, Status> {
    let content = read(shared).await?;
    let member_id = shared.options.member_id;
    let image = tokio::task::spawn_blocking(move || write_content(content, member_id));
    let image = image.await.map_err(|error| failed(&io::Error::other(error)))?;
    image.map_err(|error| failed(&error))
}

async fn read(shared: &Shared) -> Result<Content, Status> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let revision = shared.revision().await?;
        let mut entries = Vec::new();
        match shared.each_page(revision, |page| entries.extend(page)).await {
            Err(StoreError::Compacted { .. }) if attempts > 0 => continue,
            read => read.map_err(refusal::of)?,
        }
        let mut leases = Vec::new();
        for id in shared.store.leases().await.map_err(refusal::of)? {
            if let Some(status) = shared.store.lease(id).await.map_err(refusal::of)? {
                leases.push((id, status.granted_ttl_s));
            }
        }
        // As etcd's keys: unsigned bytes.
        leases.sort_by_key(|(id, _)| id.to_be_bytes());
        return Ok(Content { revision, entries, leases });
    }
}

/// A revision as etcd's keys have it: the number, and which of its changes.
fn revision_key(main: Revision, sub: u64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

fn write_content(content: Content, member_id: u64) -> io::Result<Image> {
    let Content { revision, mut entries, leases } = content;
    // Within one revision in the order of keys, as they came.
    entries.sort_by_key(|entry| entry.mod_revision);
    let mut writer = BoltWriter::new(tempfile::tempfile()?)?;
    // Buckets may come in any order.
    let mut before = (0, 0);
    let keys = entries.into_iter().map(|entry| {
        let main = entry.mod_revision;
        before = if before.0 == main { (main, before.1 + 1) } else { (main, 0) };
        (revision_key(main, before.1), key_value(entry).encode_to_vec())
    });
    writer.bucket("key", keys)?;
    writer.bucket(
        "lease",
        leases
            .into_iter()
            .map(|(id, ttl_s)| (id.to_be_bytes(), StoredLease { id, ttl_s }.encode_to_vec())),
    )?;
    writer.bucket("meta", meta(revision, member_id))?;
    for name in EMPTY {
        writer.bucket(name, std::iter::empty::<(Bytes, Bytes)>())?;
    }
    let (mut file, size) = writer.finish()?;
    file.rewind()?;
    Ok(Image { file, size })
}

/// What etcd keeps about its database, in the order of its keys.
fn meta(revision: Revision, member_id: u64) -> Vec<(&'static str, Vec<u8>)> {
    let voters = format!("{{\"voters\":[{member_id}],\"auto_leave\":false}}");
    let compacted = revision_key(revision, 0).to_vec();
    vec![
        ("confState", voters.into_bytes()),
        ("consistent_index", signed(revision).to_be_bytes().to_vec()),
        ("finishedCompactRev", compacted.clone()),
        ("scheduledCompactRev", compacted),
        ("term", TERM.to_be_bytes().to_vec()),
    ]
}
