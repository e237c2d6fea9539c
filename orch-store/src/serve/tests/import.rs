//! Snapshots that are taken, and imported again.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    KeyRange, LeaseReader as _, RangeRequest, Store as _, StoreReader as _, Write,
    serve::{ImportError, Imported, import_snapshot},
};

/// A snapshot as `etcdctl snapshot save` puts it together.
async fn save(server: &Server) -> Vec<u8> {
    let request = pb::SnapshotRequest {};
    let mut pieces = server.maintenance().snapshot(request).await.unwrap().into_inner();
    let mut saved = Vec::new();
    let mut remaining = u64::MAX;
    while let Some(piece) = soon("a piece", pieces.message()).await.unwrap() {
        assert!(piece.remaining_bytes <= remaining && piece.blob.len() <= 32 << 10);
        remaining = piece.remaining_bytes;
        saved.extend_from_slice(&piece.blob);
    }
    assert_eq!(remaining, 0);
    let (image, checksum) = saved.split_at(saved.len() - 32);
    assert_eq!(Sha256::digest(image)[..], *checksum);
    assert_eq!(image.len() % 4096, 0);
    saved
}

#[tokio::test]
async fn what_is_alive_comes_through() {
    let server = Server::start().await;
    server.lease().lease_grant(pb::LeaseGrantRequest { id: 9, ttl: 70 }).await.unwrap();
    for number in 0..500 {
        server.put(&format!("k{number}"), &"v".repeat(number)).await;
    }
    server.kv().put(pb::PutRequest { lease: 9, ..put("k1", "leased") }).await.unwrap();
    server.delete("k2").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), save(&server).await).unwrap();
    let store = MemoryStore::default();
    let imported = import_snapshot(file.path(), &store).await.unwrap();
    assert_eq!(imported, Imported { keys: 499, leases: 1 });
    let found = store.range(RangeRequest::new(KeyRange::prefix("k"))).await.unwrap();
    let before = server.kv().range(range("k", "l")).await.unwrap().into_inner();
    let told: Vec<_> = found.entries.iter().map(|e| (&e.key, &e.value)).collect();
    assert_eq!(told, before.kvs.iter().map(|kv| (&kv.key, &kv.value)).collect::<Vec<_>>());
    // The order of the last changes is kept: k1 was changed last.
    let last = found.entries.iter().max_by_key(|entry| entry.mod_revision).unwrap();
    let leased = &found.entries.iter().find(|entry| entry.key == "k1").unwrap();
    assert_eq!((leased.lease, leased.mod_revision), (Some(9), last.mod_revision));
    let lease = store.lease(9).await.unwrap().unwrap();
    assert_eq!((lease.granted_ttl_s, lease.keys), (70, vec![bytes("k1")]));
    let again = import_snapshot(file.path(), &store).await;
    assert!(matches!(again, Err(ImportError::NotEmpty)), "{again:?}");
}

#[tokio::test]
async fn an_empty_store_is_a_snapshot_as_well() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), save(&Server::start().await).await).unwrap();
    let imported = import_snapshot(file.path(), &MemoryStore::default()).await.unwrap();
    assert_eq!(imported, Imported::default());
}

#[tokio::test]
async fn what_is_damaged_or_no_snapshot_is_told() {
    let server = Server::start().await;
    server.put("k", "v").await;
    let mut saved = save(&server).await;
    saved[5000] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    for (content, why) in [
        (&saved[..], "its checksum does not match"),
        (b"not a database", "it is not a bbolt database"),
        (b"", "it is not a bbolt database"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let store = MemoryStore::default();
        let error = import_snapshot(file.path(), &store).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(why), "{source}");
        assert_eq!(store.revision(), 1);
    }
    let full = MemoryStore::default();
    full.write(Write::put("k", "v")).await.unwrap();
    let missing = import_snapshot("/nowhere/snapshot.db", &MemoryStore::default()).await;
    assert!(matches!(missing, Err(ImportError::Snapshot { .. })));
}
