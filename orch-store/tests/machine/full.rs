//! The durable store on a disk that is full.

use std::{path::Path, process::Command};

use orch_store::{
    DurableOptions, DurableStore, KeyRange, Precondition, RangeRequest, Store, StoreError,
    StoreReader as _, Write,
};

/// A small file system of its own, gone with this value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        assert!(command.status().unwrap().success(), "a tmpfs is mounted");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Writes are refused with a clear error, reads go on, and nothing that was acknowledged is lost.
/// Once there is room, writes and compactions go on.
pub(crate) async fn a_full_disk_is_survived() {
    let disk = SmallDisk::mount("2m");
    let folder = disk.path().join("store");
    let options =
        DurableOptions { segment_bytes: 256 << 10, snapshot_bytes_min: 1, ..<_>::default() };
    let store = DurableStore::open(&folder, options.clone()).unwrap();
    let key = |number: usize| format!("/{}", number % 10);
    let mut written = 0;
    let refused = loop {
        match store.write(Write::put(key(written), vec![b'x'; 10_000])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "a disk of 2 MiB takes no 10 MB");
    };
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused:?}");
    let everything = RangeRequest::new(KeyRange::prefix("/"));
    let before = store.range(everything.clone()).await.unwrap();
    assert_eq!((before.count, before.revision), (10, 1 + written as u64));
    drop(store);
    let store = DurableStore::open(&folder, options).unwrap();
    assert_eq!(store.range(everything).await.unwrap(), before);

    // A snapshot needs room beside what it replaces: somebody has to give some.
    let remount = Command::new("mount").args(["-o", "remount,size=8m"]).arg(disk.path()).status();
    assert!(remount.unwrap().success());
    store.write(Write::delete(key(0), Precondition::None)).await.unwrap();
    store.compact(store.revision()).await.unwrap();
    for number in 0..100 {
        store.write(Write::put(key(number), vec![b'x'; 10_000])).await.unwrap();
    }
}
