//! What a durable store of many keys takes: `cargo bench -p orch-store --bench footprint [-- KEYS]`.
//!
//! Memory and time while it is filled, after a compaction, and when it is opened again, the last
//! in a process of its own; and how fast a range over everything is read meanwhile.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future};
use orch_store::{
    DurableOptions, DurableStore, KeyRange, RangeRequest, Store, StoreReader as _, Write, pages,
};
use tokio::{runtime::Runtime, time::Instant};

const VALUE: usize = 1024;
const WRITERS: usize = 1000;
const PAGE: usize = 10_000;
/// Set for the process that opens the folder again.
const OPEN: &str = "ORCH_STORE_BENCH_OPEN";

fn key(number: usize) -> String {
    format!("/registry/configmaps/default/map-{number:07}")
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    if let Some(folder) = std::env::var_os(OPEN) {
        return runtime.block_on(open_again(Path::new(&folder)));
    }
    let keys = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    runtime.block_on(fill(keys.unwrap_or(1_000_000)));
}

async fn fill(keys: usize) {
    let data = keys * (key(0).len() + VALUE);
    println!("{keys} keys of 1 KiB: {} of keys and values", mib(data));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let empty = resident();
    let store = DurableStore::open(folder.path(), DurableOptions::default()).expect("a store");
    let started = Instant::now();
    write_all(&store, keys).await;
    let rate = keys as f64 / started.elapsed().as_secs_f64();
    println!("  filled by {WRITERS} writers, synced: {rate:.0} puts/s");
    report("  memory when filled", resident() - empty, data);
    let reader: Arc<DurableStore> = Arc::new(store.clone());
    read_all(reader, "  read while nobody writes", keys).await;
    let busy = tokio::spawn({
        let store = store.clone();
        async move { write_all(&store, keys / 4).await }
    });
    read_all(Arc::new(store.clone()), "  read while 1000 writers write", keys).await;
    busy.await.expect("the writers");
    store.compact(store.revision()).await.expect("a compaction");
    report("  memory after updates and a compaction", resident() - empty, data);
    drop(store);
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program).env(OPEN, folder.path()).status().expect("a child");
    assert!(status.success());
}

async fn write_all(store: &DurableStore, keys: usize) {
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in (writer..keys).step_by(WRITERS) {
                store.write(Write::put(key(number), vec![b'x'; VALUE])).await.expect("a put");
            }
        })
    });
    future::join_all(writers).await.into_iter().for_each(|writer| writer.expect("a writer"));
}

/// Reads everything page by page at one revision, and every byte of it.
async fn read_all(store: Arc<DurableStore>, what: &str, keys: usize) {
    let started = Instant::now();
    let mut stream = pages(store, RangeRequest::new(KeyRange::prefix("/")), PAGE);
    let (mut count, mut bytes, mut sum) = (0, 0, 0u64);
    while let Some(page) = stream.next().await {
        for entry in page.expect("a page").entries {
            count += 1;
            bytes += entry.key.len() + entry.value.len();
            sum += checksum(&entry.value);
        }
    }
    assert!(count == keys && sum > 0);
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {:.0} MB/s in pages of {PAGE}", bytes as f64 / seconds / 1e6);
}

/// So that every byte is looked at.
fn checksum(value: &Bytes) -> u64 {
    value
        .chunks_exact(8)
        .fold(0, |sum, chunk| sum ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes")))
        | 1
}

async fn open_again(folder: &Path) {
    let empty = resident();
    let started = Instant::now();
    let store = DurableStore::open(folder, DurableOptions::default()).expect("a store");
    let elapsed = started.elapsed();
    let request = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::prefix("/")) };
    let keys = store.range(request).await.expect("a count").count;
    let data = keys * (key(0).len() + VALUE);
    println!("  opened again with {keys} keys in {:.2} s", Duration::as_secs_f64(&elapsed));
    report("  memory when opened", resident() - empty, data);
}

fn report(what: &str, memory: usize, data: usize) {
    println!("{what}: {}, {:.2} times the data", mib(memory), memory as f64 / data as f64);
}

fn mib(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}
