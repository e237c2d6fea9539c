//! Embedded engines on the same work: puts of 1 KiB to 100,000 keys, each batch of 1, 16 or 256
//! committed and on disk before the next begins. Our own log gets as many writers at a time, which
//! it batches itself. Run it with
//! `cargo run --release --manifest-path orch-store/comparison/Cargo.toml [-- SECONDS]`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use heed::{CommitOrAbort, EnvOpenOptions, types::Bytes};
use orch_store::{DurableOptions, DurableStore, Store, Write};
use redb::{ReadableDatabase, TableDefinition};

const BATCHES: [usize; 3] = [1, 16, 256];
const KEYS: usize = 100_000;
const ROUNDS: usize = 3;

fn key(number: usize) -> String {
    // Scattered, as names are.
    format!("/registry/pods/default/pod-{:05}", number.wrapping_mul(7919) % KEYS)
}

fn value() -> Vec<u8> {
    vec![b'x'; 1024]
}

/// Commits a batch of keys.
type Engine = Box<dyn FnMut(&[String])>;

fn redb(folder: &Path) -> Engine {
    const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
    let database = redb::Database::create(folder.join("redb")).unwrap();
    assert!(database.begin_read().is_ok());
    Box::new(move |keys| {
        // The default durability: synced.
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for key in keys {
                table.insert(key.as_bytes(), value().as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    })
}

fn fjall(folder: &Path) -> Engine {
    let database = Database::builder(folder.join("fjall")).open().unwrap();
    let keyspace = database.keyspace("keys", KeyspaceCreateOptions::default).unwrap();
    Box::new(move |keys| {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for key in keys {
            batch.insert(&keyspace, key.as_bytes(), value());
        }
        batch.commit().unwrap();
    })
}

fn lmdb(folder: &Path) -> Engine {
    let mut options = EnvOpenOptions::new();
    options.map_size(4 << 30);
    // SAFETY: nobody else has this folder.
    let environment = unsafe { options.open(folder) }.unwrap();
    // A database borrows its environment; there are only a few, and the process ends soon.
    let environment: &'static _ = Box::leak(Box::new(environment));
    let transaction = environment.write_txn().unwrap();
    let database =
        environment.create_databases_and_commit(transaction, |databases, transaction| {
            databases
                .create_database::<Bytes, Bytes>(transaction, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        });
    let CommitOrAbort::Commit(database) = database.unwrap() else { unreachable!() };
    Box::new(move |keys| {
        let mut transaction = environment.write_txn().unwrap();
        for key in keys {
            database.put(&mut transaction, key.as_bytes(), &value()).unwrap();
        }
        transaction.commit().unwrap();
    })
}

fn own(folder: &Path) -> Engine {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = DurableStore::open(folder, DurableOptions::default()).unwrap();
    Box::new(move |keys| {
        let writes = keys.iter().map(|key| store.write(Write::put(key.clone(), value())));
        runtime.block_on(futures::future::try_join_all(writes)).unwrap();
    })
}

/// Writes a second, and how long 99 of 100 batches took at most.
fn measure(mut engine: Engine, batch: usize, duration: Duration) -> (f64, Duration) {
    let started = Instant::now();
    let (mut number, mut latencies) = (0, Vec::new());
    while started.elapsed() < duration {
        let keys: Vec<String> = (number..number + batch).map(key).collect();
        number += batch;
        let before = Instant::now();
        engine(&keys);
        latencies.push(before.elapsed());
    }
    let rate = number as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    (rate, latencies[(latencies.len() - 1) * 99 / 100])
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let engines: [(&str, fn(&Path) -> Engine); 4] =
        [("orch-store", own), ("fjall", fjall), ("redb", redb), ("LMDB (heed)", lmdb)];
    println!("1 KiB puts a second and p99 of a batch, medians of {ROUNDS} rounds of {seconds} s");
    for batch in BATCHES {
        let mut results = vec![Vec::new(); engines.len()];
        for _ in 0..ROUNDS {
            for ((_, open), results) in engines.iter().zip(&mut results) {
                let folder = tempfile::tempdir_in(".").unwrap();
                let result = measure(open(folder.path()), batch, Duration::from_secs_f64(seconds));
                results.push(result);
            }
        }
        for ((name, _), mut results) in engines.iter().zip(results) {
            results.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (rate, p99) = results[ROUNDS / 2];
            println!("  batches of {batch:3}  {name:12} {rate:9.0}/s  p99 {p99:9.1?}");
        }
    }
}
