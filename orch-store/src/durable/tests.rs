//! What happens to the folder when things go wrong.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::*;
use crate::store::{KeyRange, Precondition};

fn options() -> DurableOptions {
    DurableOptions { segment_bytes: 1 << 20, snapshot_bytes_min: 1, ..DurableOptions::default() }
}

fn open(folder: &Path) -> Result<DurableStore, StoreError> {
    DurableStore::open(folder, options())
}

async fn contents(store: &DurableStore, revision: Option<Revision>) -> RangeResponse {
    let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::prefix("")) };
    store.range(request).await.unwrap()
}

fn log_files(folder: &Path) -> Vec<PathBuf> {
    let files = log::numbered(folder, "log-", ".wal").unwrap();
    files.into_iter().map(|(_, path)| path).collect()
}

/// A folder with four revisions of which the last is a deletion, and where each frame ends.
async fn small_folder() -> (TempDir, PathBuf, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = vec![];
    let store = open(folder.path()).unwrap();
    let path = log_files(folder.path()).remove(0);
    let writes = [
        Write::create("/a", "one"),
        Write::update("/a", 2, "two"),
        Write::create("/b", vec![7; 100]),
        Write::delete("/a", Precondition::None),
    ];
    for write in writes {
        store.write(write).await.unwrap();
        ends.push(fs::metadata(&path).unwrap().len() as usize);
    }
    (folder, path, ends)
}

#[tokio::test]
async fn what_was_written_is_there_again_with_its_history() {
    let (folder, ..) = small_folder().await;
    let store = open(folder.path()).unwrap();
    assert_eq!(store.revision(), 5);
    let now = contents(&store, None).await;
    assert_eq!((now.count, &now.entries[0].key[..]), (1, &b"/b"[..]));
    assert_eq!(contents(&store, Some(3)).await.entries[0].value, "two");
    assert!(matches!(open(folder.path()), Err(StoreError::Locked(_))));
    drop(store);
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_tail_cut_at_any_byte_loses_only_what_it_cut() {
    let (folder, path, ends) = small_folder().await;
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let store = open(folder.path()).unwrap();
        let kept = ends.iter().filter(|end| **end <= length).count() as u64;
        assert_eq!(store.revision(), 1 + kept, "cut at {length}");
        // And it goes on from there.
        let next = store.write(Write::put("/c", "new")).await.unwrap();
        let expected = WriteOutcome::Committed { revision: kept + 2, previous: None };
        assert_eq!(next, expected);
        drop(store);
        assert_eq!(open(folder.path()).unwrap().revision(), kept + 2);
    }
}

#[tokio::test]
async fn a_sector_that_was_never_written_is_a_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.write(Write::put("/a", "1")).await.unwrap();
    let path = log_files(folder.path()).remove(0);
    let whole_until = fs::metadata(&path).unwrap().len() as usize;
    store.write(Write::put("/b", vec![1; 4000])).await.unwrap();
    drop(store);
    let mut data = fs::read(&path).unwrap();
    data[1024..2048].fill(0);
    fs::write(&path, &data).unwrap();
    assert_eq!(open(folder.path()).unwrap().revision(), 2);
    assert_eq!(fs::metadata(&path).unwrap().len() as usize, whole_until);
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_reported() {
    let (folder, path, _) = small_folder().await;
    let whole = fs::read(&path).unwrap();
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&path, &damaged).unwrap();
        match open(folder.path()) {
            Err(StoreError::Corrupt(what)) => assert!(what.contains("offset"), "{what}"),
            other => panic!("a bit flipped at {position}: {other:?}"),
        }
    }
    fs::write(&path, &whole).unwrap();
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn compaction_gives_space_back_and_a_missing_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let small = DurableOptions { segment_bytes: 4096, ..options() };
    let store = DurableStore::open(folder.path(), small.clone()).unwrap();
    let lease = store.grant(Some(7), 60).await.unwrap();
    for i in 0..200u32 {
        let operation = crate::Operation::Put { value: vec![1; 200].into(), lease: Some(lease) };
        let key = format!("/k/{}", i % 5).into();
        store.write(Write { key, precondition: Precondition::None, operation }).await.unwrap();
    }
    let before = contents(&store, None).await;
    assert!(log_files(folder.path()).len() > 5);
    store.compact(150).await.unwrap();
    drop(store);
    let files = log_files(folder.path());
    assert!(files.len() < 6, "{files:?}");
    let store = DurableStore::open(folder.path(), small.clone()).unwrap();
    assert_eq!(contents(&store, None).await, before);
    assert_eq!(contents(&store, Some(150)).await.count, 5);
    let behind = RangeRequest { revision: Some(149), ..RangeRequest::new(KeyRange::prefix("")) };
    assert!(matches!(store.range(behind).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.keep_alive(7).await.unwrap(), Some(60));
    assert!(store.revoke(7).await.unwrap());
    assert_eq!((contents(&store, None).await.count, store.revision()), (0, 202));
    drop(store);
    let store = DurableStore::open(folder.path(), small.clone()).unwrap();
    assert_eq!((store.keep_alive(7).await.unwrap(), store.revision()), (None, 202));
    drop(store);
    fs::remove_file(&log_files(folder.path())[1]).unwrap();
    assert!(matches!(DurableStore::open(folder.path(), small), Err(StoreError::Corrupt(_))));
}

/// A disk whose n-th append or sync from now fails, leaving half of the bytes.
#[derive(Debug)]
struct FailingDisk {
    appends_left: AtomicU32,
    syncs_left: AtomicU32,
}

fn used_up(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
}

impl Disk for FailingDisk {
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if used_up(&self.appends_left) {
            io::Write::write_all(file, &bytes[..bytes.len() / 2])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        io::Write::write_all(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if used_up(&self.syncs_left) {
            return Err(io::Error::other("fsync failed"));
        }
        file.sync_data()
    }
}

#[tokio::test]
async fn after_a_failed_write_or_sync_nothing_more_is_taken() {
    for (appends, syncs, possible) in [(3, 99, 4..=4), (99, 3, 4..=5)] {
        let folder = tempfile::tempdir().unwrap();
        let disk = FailingDisk { appends_left: appends.into(), syncs_left: syncs.into() };
        let store = DurableStore::open_on(folder.path(), options(), Arc::new(disk)).unwrap();
        for i in 0..3 {
            store.write(Write::put(format!("/{i}"), "x")).await.unwrap();
        }
        for _ in 0..2 {
            let failed = store.write(Write::put("/lost", "x")).await;
            assert!(matches!(failed, Err(StoreError::Io(..))), "{failed:?}");
        }
        assert_eq!((contents(&store, None).await.count, store.revision()), (3, 4));
        drop(store);
        // What was acknowledged is there; of the failed write nobody was told anything.
        assert!(possible.contains(&open(folder.path()).unwrap().revision()));
    }
}

/// The format does not change by accident: this is a folder's log as version 1 wrote it.
#[tokio::test]
async fn the_format_is_the_one_documented() {
    let fixture = include_str!("../../tests/fixtures/log-v1.hex");
    let fixture: String = fixture.split_whitespace().collect();
    let fixture: Vec<u8> = (0..fixture.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&fixture[at..at + 2], 16).unwrap())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("log-{:020}.wal", 1));
    let store = open(folder.path()).unwrap();
    store.grant(Some(9), 30).await.unwrap();
    let operation = crate::Operation::Put { value: "v".into(), lease: Some(9) };
    let leased = Write { key: "/l".into(), precondition: Precondition::Absent, operation };
    store.write(leased).await.unwrap();
    store.write(Write::put("/a", "1")).await.unwrap();
    store.write(Write::delete("/a", Precondition::None)).await.unwrap();
    store.revoke(9).await.unwrap();
    store.compact(3).await.unwrap();
    drop(store);
    let written = fs::read(&path).unwrap();
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, fixture, "written: {hex}");
    let store = open(folder.path()).unwrap();
    assert_eq!((store.revision(), contents(&store, Some(3)).await.count), (5, 2));
}
