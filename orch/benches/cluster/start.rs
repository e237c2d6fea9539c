//! From nothing to a cluster in process.

use std::time::Duration;

use orch::Cluster;
use tokio::time::Instant;

use crate::{median_duration, resident_mib};

const ROUNDS: usize = 50;

/// One round: until the API answers, until the nodes are Ready, until everything has ended.
async fn round(nodes: usize) -> [Duration; 3] {
    let start = Instant::now();
    let cluster = Cluster::builder().simulated_nodes(nodes).start().await.expect("it starts");
    let started = start.elapsed();
    cluster.nodes_ready().await;
    let ready = start.elapsed();
    let stop = Instant::now();
    cluster.shutdown().await;
    [started, ready, stop.elapsed()]
}

pub(crate) fn run() {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let multi = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    for (name, runtime) in [("one thread", single), ("all threads", multi)] {
        let runtime = runtime.expect("a runtime");
        for nodes in [0, 1, 3] {
            // The first cluster of a process also parses the schema, once.
            let first = runtime.block_on(round(nodes))[0];
            let rounds: Vec<[Duration; 3]> =
                (0..ROUNDS).map(|_| runtime.block_on(round(nodes))).collect();
            let of = |at: usize| median_duration(&rounds.iter().map(|r| r[at]).collect::<Vec<_>>());
            println!(
                "start in process, {nodes} nodes, {name}: API after {:?}, nodes Ready after {:?}, \
                 shutdown {:?} (first: API after {first:?})",
                of(0),
                of(1),
                of(2),
            );
        }
    }
    println!("resident after {} clusters: {:.0} MiB", 6 * (ROUNDS + 1), resident_mib("self"));
}
