//! Many clusters side by side in one process.

use std::time::Duration;

use futures::{StreamExt, stream};
use orch::Cluster;
use tokio::time::Instant;

use crate::{resident_mib, size, world::processor_seconds};

/// For how long they are left alone before their memory is looked at.
const REST: Duration = Duration::from_secs(5);
/// How many start at the same time.
const STARTING: usize = 8;

async fn fleet(clusters: usize, nodes: usize) {
    let (empty, start) = (resident_mib("self"), Instant::now());
    let one = async |_| {
        let cluster = Cluster::builder().simulated_nodes(nodes).start().await.expect("it starts");
        cluster.nodes_ready().await;
        cluster
    };
    let all: Vec<Cluster> = stream::iter(0..clusters).map(one).buffered(STARTING).collect().await;
    let started = start.elapsed();
    tokio::time::sleep(REST).await;
    let busy = processor_seconds();
    tokio::time::sleep(REST).await;
    let busy = (processor_seconds() - busy) / REST.as_secs_f64() * 100.0;
    let each = (resident_mib("self") - empty) / clusters as f64;
    println!(
        "{clusters} clusters with {nodes} nodes each in one process: started after {:.2} s, \
         {each:.2} MiB each and {busy:.0} % of a core for all when idle",
        started.as_secs_f64()
    );
    let stop = Instant::now();
    for cluster in all {
        cluster.shutdown().await;
    }
    println!("  stopped after {:.2} s", stop.elapsed().as_secs_f64());
}

pub(crate) async fn run() {
    let clusters = size("fleet", 1000);
    for nodes in [0, 3] {
        fleet(clusters, nodes).await;
    }
}
