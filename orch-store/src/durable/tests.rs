//! What happens to the folder when things go wrong.

use std::{collections::BTreeMap, io, path::PathBuf, sync::atomic::AtomicU32};

use tempfile::TempDir;

use super::*;
use crate::store::{KeyRange, Precondition};

fn options() -> DurableOptions {
    DurableOptions { segment_bytes: 1 << 16, snapshot_bytes_min: 1, ..DurableOptions::default() }
}

fn open(folder: &Path) -> Result<DurableStore, StoreError> {
    DurableStore::open(folder, options())
}

async fn contents(store: &DurableStore, revision: Option<Revision>) -> RangeResponse {
    let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::prefix("")) };
    store.range(request).await.unwrap()
}

fn log_files(folder: &Path) -> Vec<PathBuf> {
    let files = disk::numbered(folder, "log-", ".wal").unwrap();
    files.into_iter().map(|(_, path)| path).collect()
}

/// Where the frames of a log file end.
fn frame_ends(data: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), format::FILE_HEADER);
    while let format::Frame::Whole { next, .. } =
        format::read_frame(data, at, 1 + ends.len() as u64)
    {
        ends.push(next);
        at = next;
    }
    ends
}

/// Writes four revisions, of which the last is a deletion, with values of about this size.
async fn write_some(store: &DurableStore, size: usize) {
    let writes = [
        Write::create("/a", vec![1; size]),
        Write::update("/a", 2, vec![2; size + 7]),
        Write::create("/b", vec![7; size + 100]),
        Write::delete("/a", Precondition::None),
    ];
    for write in writes {
        store.write(write).await.unwrap();
    }
}

/// The files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    files.collect()
}

fn folder_of(files: &BTreeMap<String, Vec<u8>>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, data) in files {
        fs::write(folder.path().join(name), data).unwrap();
    }
    folder
}

const LOG: &str = "log-00000000000000000001.wal";

/// The folder of four writes as a crash would leave it, and as an orderly end does.
async fn crashed_and_closed(size: usize) -> (BTreeMap<String, Vec<u8>>, BTreeMap<String, Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    write_some(&store, size).await;
    let crashed = files(folder.path());
    drop(store);
    (crashed, files(folder.path()))
}

fn must_be_corrupt(folder: &Path, what: &str) {
    match open(folder) {
        Err(StoreError::Corrupt(told)) => assert!(told.contains("offset"), "{what}: {told}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_written_is_there_again_with_its_history() {
    let (crashed, closed) = crashed_and_closed(100).await;
    assert!(closed.contains_key("CLOSED") && !crashed.contains_key("CLOSED"));
    for files in [crashed, closed] {
        let folder = folder_of(&files);
        let store = open(folder.path()).unwrap();
        assert_eq!(store.revision(), 5);
        let now = contents(&store, None).await;
        assert_eq!((now.count, &now.entries[0].key[..]), (1, &b"/b"[..]));
        assert_eq!(contents(&store, Some(3)).await.entries[0].value.len(), 107);
        assert!(matches!(open(folder.path()), Err(StoreError::Locked(_))));
        drop(store);
        assert_eq!(DurableStore::check(folder.path()).unwrap(), (5, 1));
        open(folder.path()).unwrap();
    }
}

#[tokio::test]
async fn a_write_that_was_cut_off_at_any_sector_loses_only_itself() {
    let (crashed, _) = crashed_and_closed(900).await;
    let whole = &crashed[LOG];
    let ends = frame_ends(whole);
    assert_eq!(ends.len(), 4);
    for (number, end) in ends.iter().enumerate() {
        let start = if number == 0 { format::FILE_HEADER } else { ends[number - 1] };
        // Every set of sectors of the frame may be missing; the ones behind it are.
        let sectors: Vec<usize> = (start / 512..=(end - 1) / 512).collect();
        for missing in 1..1u32 << sectors.len() {
            let mut files = crashed.clone();
            let log = files.get_mut(LOG).unwrap();
            log[*end..].fill(0);
            for (bit, sector) in sectors.iter().enumerate() {
                if missing & 1 << bit != 0 {
                    log[(sector * 512).max(start)..((sector + 1) * 512).min(*end)].fill(0);
                }
            }
            let folder = folder_of(&files);
            let store = open(folder.path()).unwrap();
            assert_eq!(store.revision(), 1 + number as u64, "frame {number}, {missing:b}");
            // And it goes on from there.
            let next = store.write(Write::put("/c", "new")).await.unwrap();
            let revision = number as u64 + 2;
            assert_eq!(next, WriteOutcome::Committed { revision, previous: None });
            drop(store);
            assert_eq!(open(folder.path()).unwrap().revision(), revision);
        }
    }
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_reported() {
    let (crashed, closed) = crashed_and_closed(20).await;
    for (kind, files) in [("crashed", crashed), ("closed", closed)] {
        let end = *frame_ends(&files[LOG]).last().unwrap();
        for length in (0..end).chain([files[LOG].len() - 1]) {
            let mut files = files.clone();
            files.get_mut(LOG).unwrap().truncate(length);
            must_be_corrupt(folder_of(&files).path(), &format!("{kind}, cut at {length}"));
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_reported() {
    let (crashed, closed) = crashed_and_closed(20).await;
    for (kind, files) in [("crashed", crashed), ("closed", closed)] {
        let end = *frame_ends(&files[LOG]).last().unwrap();
        let marker = if kind == "closed" { files["CLOSED"].len() } else { 0 };
        let places = (0..end).map(|at| (LOG, at)).chain((0..marker).map(|at| ("CLOSED", at)));
        for (name, position) in places {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
            must_be_corrupt(folder_of(&files).path(), &format!("{kind}, {name} at {position}"));
        }
    }
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
    let used = store.bytes_on_disk();
    assert!(log_files(folder.path()).len() > 5);
    store.compact(150).await.unwrap();
    drop(store);
    let rest = log_files(folder.path());
    assert!(rest.len() < 6, "{rest:?}");
    let store = DurableStore::open(folder.path(), small.clone()).unwrap();
    assert!(store.bytes_on_disk() < used / 2, "{} of {used}", store.bytes_on_disk());
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
    let whole = files(folder.path());
    for name in whole.keys().filter(|name| name.starts_with("log-") || name.starts_with("snap")) {
        let mut files = whole.clone();
        files.remove(name);
        let missing = folder_of(&files);
        let opened = DurableStore::open(missing.path(), small.clone());
        assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{name}: {opened:?}");
    }
}

#[tokio::test]
async fn writes_larger_than_a_segment_have_one_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let small = DurableOptions { segment_bytes: 4096, ..options() };
    for round in 0..3 {
        let store = DurableStore::open(folder.path(), small.clone()).unwrap();
        for size in [10, 100_000, 5000, 1] {
            let key = format!("/{round}/{size}");
            store.write(Write::create(key, vec![b'v'; size])).await.unwrap();
        }
        assert_eq!(contents(&store, None).await.count, (round + 1) * 4);
    }
}

#[tokio::test]
async fn a_backup_is_the_state_of_one_revision() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = open(&at("a")).unwrap();
    store.grant(Some(9), 30).await.unwrap();
    write_some(&store, 10).await;
    assert_eq!(store.backup(at("backup")).unwrap(), 5);
    let again = store.backup(at("backup"));
    assert!(matches!(again, Err(StoreError::Invalid(_))), "{again:?}");
    let before = contents(&store, None).await.entries;
    store.write(Write::put("/later", "x")).await.unwrap();
    let used = DurableStore::restore(at("backup"), at("a"), 0);
    assert!(matches!(used, Err(StoreError::Locked(_))), "{used:?}");
    drop(store);
    let used = DurableStore::restore(at("backup"), at("a"), 0);
    assert!(matches!(used, Err(StoreError::Invalid(_))), "{used:?}");
    for (name, ahead) in [("b", 0), ("c", 1000)] {
        assert_eq!(DurableStore::restore(at("backup"), at(name), ahead).unwrap(), 5 + ahead);
        let restored = open(&at(name)).unwrap();
        assert_eq!(contents(&restored, None).await.entries, before);
        assert_eq!(restored.leases().await.unwrap(), [9]);
        let next = restored.write(Write::put("/next", "x")).await.unwrap();
        assert_eq!(next, WriteOutcome::Committed { revision: 6 + ahead, previous: None });
    }
    let mut damaged = fs::read(at("backup")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(at("damaged"), &damaged).unwrap();
    let refused = DurableStore::restore(at("damaged"), at("d"), 0);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

/// A disk whose n-th write, sync or reservation from now fails, a write leaving half of the bytes.
#[derive(Debug)]
struct FailingDisk {
    writes_left: AtomicU32,
    syncs_left: AtomicU32,
    reservations_left: AtomicU32,
}

fn used_up(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
}

impl Disk for FailingDisk {
    fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        match used_up(&self.reservations_left) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => RealDisk.allocate(file, length),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if used_up(&self.writes_left) {
            RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if used_up(&self.syncs_left) {
            return Err(io::Error::other("fsync failed"));
        }
        RealDisk.sync(file)
    }
}

fn failing(writes: u32, syncs: u32, reservations: u32) -> Arc<FailingDisk> {
    Arc::new(FailingDisk {
        writes_left: writes.into(),
        syncs_left: syncs.into(),
        reservations_left: reservations.into(),
    })
}

#[tokio::test]
async fn after_a_failed_write_or_sync_nothing_more_is_taken() {
    // Writes: the header, the first frame and its zeros, two more frames.
    for (writes, syncs, possible) in [(5, 99, 4..=4), (99, 3, 4..=5)] {
        let folder = tempfile::tempdir().unwrap();
        let disk = failing(writes, syncs, 99);
        let store = DurableStore::open_on(folder.path(), options(), disk).unwrap();
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

#[tokio::test]
async fn a_full_disk_stops_writes_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = failing(u32::MAX, u32::MAX, 1);
    let small = DurableOptions { segment_bytes: 4096, ..options() };
    let store = DurableStore::open_on(folder.path(), small.clone(), disk.clone()).unwrap();
    let mut written = 0;
    let refused = loop {
        match store.write(Write::put(format!("/{written}"), vec![1; 500])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace(_)) && refused.is_retryable(), "{refused:?}");
    assert!(written > 3);
    assert_eq!(contents(&store, None).await.count, written, "reads go on");
    disk.reservations_left.store(99, Ordering::SeqCst);
    store.write(Write::put("/after", vec![1; 500])).await.unwrap();
    drop(store);
    let store = DurableStore::open(folder.path(), small).unwrap();
    assert_eq!(contents(&store, None).await.count, written + 1);
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The format does not change by accident: this is a folder as version 2 wrote it.
#[tokio::test]
async fn the_format_is_the_one_documented() {
    let folder = tempfile::tempdir().unwrap();
    let small = DurableOptions { segment_bytes: 200, snapshot_bytes_min: 1, ..options() };
    let store = DurableStore::open(folder.path(), small.clone()).unwrap();
    store.grant(Some(9), 30).await.unwrap();
    let operation = crate::Operation::Put { value: "v".into(), lease: Some(9) };
    let leased = Write { key: "/l".into(), precondition: Precondition::Absent, operation };
    store.write(leased).await.unwrap();
    store.write(Write::put("/a", "1")).await.unwrap();
    store.write(Write::delete("/a", Precondition::None)).await.unwrap();
    store.compact(3).await.unwrap();
    store.revoke(9).await.unwrap();
    drop(store);
    let mut written = files(folder.path());
    written.remove("LOCK");
    let fixture: BTreeMap<String, String> = include_str!("../../tests/fixtures/folder-v2.txt")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, data)| (name.to_owned(), data.to_owned()))
        .collect();
    let told: BTreeMap<_, _> = written.iter().map(|(n, data)| (n.clone(), hex(data))).collect();
    assert_eq!(told, fixture);
    let store = DurableStore::open(folder.path(), small).unwrap();
    assert_eq!((store.revision(), contents(&store, Some(3)).await.count), (5, 2));
    assert_eq!(contents(&store, None).await.count, 0);
}
