//! A closed loop of writers.

use std::{sync::Arc, time::Duration};

use futures::future;
use orch_store::{Store, Write};
use tokio::time::Instant;

const KEYS: usize = 100_000;
const VALUE: usize = 1024;

/// What a load came to.
pub(crate) struct Outcome {
    /// Operations a second.
    pub(crate) rate: f64,
    /// How long half of the operations took at most.
    pub(crate) p50: Duration,
    /// How long 99 of 100 took at most.
    pub(crate) p99: Duration,
}

/// Puts of 1 KiB by `writers` tasks for a time, each waiting for its answers.
pub(crate) async fn puts(stores: &[Arc<dyn Store>], writers: usize, duration: Duration) -> Outcome {
    let started = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = stores[writer % stores.len()].clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut number = writer;
            loop {
                let key = format!("/registry/configmaps/default/map-{:05}", number % KEYS);
                let before = Instant::now();
                store.write(Write::put(key, vec![b'x'; VALUE])).await.expect("a put");
                let now = Instant::now();
                latencies.push(now - before);
                number += writers.max(7919);
                if now - started > duration {
                    return latencies;
                }
            }
        })
    });
    let latencies = future::join_all(tasks).await;
    let elapsed = started.elapsed();
    let mut all: Vec<Duration> = latencies.into_iter().flat_map(Result::unwrap).collect();
    all.sort_unstable();
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    Outcome { rate: all.len() as f64 / elapsed.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}
