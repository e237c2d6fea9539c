//! Puts, ranges and watches: `cargo bench -p orch-store`.

use std::{sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::{FutureExt as _, StreamExt as _, future};
use orch_store::{
    DurableOptions, DurableStore, KeyRange, MemoryStore, RangeRequest, Store, StoreReader as _,
    WatchItem, WatchRequest, Write,
};
use tokio::{runtime::Runtime, time::Instant};

const VALUE: usize = 1024;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// `count` puts by `writers` tasks, each waiting for its answers.
async fn puts(store: Arc<dyn Store>, writers: u64, count: u64) -> Duration {
    let started = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in (writer..count).step_by(writers as usize) {
                let key = format!("/registry/pods/default/pod-{}", number % 100_000);
                store.write(Write::put(key, vec![b'x'; VALUE])).await.expect("a put");
            }
        })
    });
    future::join_all(tasks).await;
    let elapsed = started.elapsed();
    let revision =
        store.range(RangeRequest::new(KeyRange::key("/"))).await.expect("a range").revision;
    store.compact(revision).await.expect("a compaction");
    elapsed
}

fn bench_puts(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let durable = DurableStore::open(folder.path(), DurableOptions::default()).expect("a store");
    let memory = MemoryStore::default();
    let stores: [(&str, Arc<dyn Store>); 2] =
        [("memory", Arc::new(memory)), ("durable", Arc::new(durable))];
    for (name, store) in stores {
        let mut group = c.benchmark_group(format!("put_1KiB/{name}"));
        group.sample_size(10).throughput(Throughput::Elements(1));
        for writers in [1, 64, 1000] {
            group.bench_function(BenchmarkId::from_parameter(writers), |b| {
                b.to_async(runtime()).iter_custom(|count| puts(store.clone(), writers, count));
            });
        }
        group.finish();
    }
}

fn bench_range(c: &mut Criterion) {
    let store = MemoryStore::default();
    let runtime = runtime();
    runtime.block_on(puts(Arc::new(store.clone()), 1, 100_000));
    let mut group = c.benchmark_group("range_100k_of_1KiB");
    group.sample_size(10).throughput(Throughput::Bytes(100_000 * VALUE as u64));
    group.bench_function("memory", |b| {
        let request = RangeRequest::new(KeyRange::prefix("/registry/pods/"));
        b.to_async(&runtime).iter(|| store.range(request.clone()));
    });
    group.finish();
    let mut group = c.benchmark_group("page_of_500_with_count");
    group.bench_function("memory/100k", |b| {
        let range = KeyRange::prefix("/registry/pods/");
        let request = RangeRequest { limit: Some(500), ..RangeRequest::new(range) };
        b.to_async(&runtime).iter(|| store.range(request.clone()));
    });
    group.finish();
}

fn bench_watch(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("watch");
    group.sample_size(10);
    for watchers in [1u64, 1000] {
        group.throughput(Throughput::Elements(watchers));
        group.bench_function(BenchmarkId::new("one_prefix", watchers), |b| {
            b.to_async(&runtime).iter_custom(|count| one_prefix(watchers, count));
        });
    }
    group.throughput(Throughput::Elements(1));
    for watchers in [1u64, 10_000] {
        group.bench_function(BenchmarkId::new("disjoint_prefixes", watchers), |b| {
            b.to_async(&runtime).iter_custom(|count| disjoint_prefixes(watchers, count));
        });
    }
    group.finish();
}

/// Time until every watcher of a prefix has `count` changes.
async fn one_prefix(watchers: u64, count: u64) -> Duration {
    let store = MemoryStore::default();
    let mut readers = Vec::new();
    for _ in 0..watchers {
        let request = WatchRequest { range: KeyRange::prefix("/p/"), from: None };
        let mut items = store.watch(request).await.expect("a watch");
        readers.push(tokio::spawn(async move {
            let mut left = count as usize;
            while left > 0 {
                if let Some(Ok(WatchItem::Events(events))) = items.next().await {
                    left -= events.len();
                }
            }
        }));
    }
    let started = Instant::now();
    for number in 0..count {
        store.write(Write::put(format!("/p/{}", number % 100), "x")).await.expect("a put");
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    future::join_all(readers).await;
    started.elapsed()
}

/// Time of `count` writes to 10,000 keys, each of which one watcher is told of: the only one, or the
/// one of 10,000 that watches its prefix. What they are told is read between the writes, untimed.
async fn disjoint_prefixes(watchers: u64, count: u64) -> Duration {
    const KEYS: u64 = 10_000;
    const BURST: u64 = 500;
    let store = MemoryStore::default();
    let mut streams = Vec::new();
    for watcher in 0..watchers {
        let prefix = if watchers == 1 { "/n/".to_owned() } else { format!("/n/{watcher}/") };
        let request = WatchRequest { range: KeyRange::prefix(prefix), from: None };
        streams.push(store.watch(request).await.expect("a watch"));
    }
    let mut elapsed = Duration::ZERO;
    for burst in 0..count.div_ceil(BURST) {
        let numbers = burst * BURST..count.min((burst + 1) * BURST);
        let writes: Vec<_> = numbers
            .clone()
            .map(|number| Write::put(format!("/n/{}/x", number % KEYS), "x"))
            .collect();
        let started = Instant::now();
        for write in writes {
            store.write(write).await.expect("a put");
        }
        elapsed += started.elapsed();
        for number in numbers {
            let stream = &mut streams[(number % KEYS % watchers) as usize];
            // Without tokio's budget, which would have it wait now and then.
            let item = tokio::task::unconstrained(stream.next()).now_or_never();
            assert!(item.is_some(), "the watcher was told");
        }
    }
    elapsed
}

criterion_group!(benches, bench_puts, bench_range, bench_watch);
criterion_main!(benches);
