//! The durable store beside etcd, on the same disk in one run, in process and served as etcd:
//! `cargo bench -p orch-store --bench beside_etcd [-- SECONDS]`.
//!
//! Every writer waits for each of its answers. The served store and etcd are processes of their own,
//! with the same client. Rounds alternate between the stores; medians are printed. Without etcd on the machine, only our own stores are measured, and that is said.

mod etcd;
mod load;
mod report;
mod served;

use std::{sync::Arc, time::Duration};

use orch_store::{DurableOptions, DurableStore, EtcdOptions, EtcdStore, Store};
use tokio::runtime::Runtime;

use self::{
    etcd::Etcd,
    load::{Outcome, puts},
    report::{Figures, print},
    served::Served,
};

const WRITERS: [usize; 3] = [1, 64, 1000];
const ROUNDS: usize = 3;
/// So many connections share the load of one client.
const CONNECTIONS: usize = 8;

fn main() {
    // Cargo passes `--bench`; a number says how long each measurement takes.
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let duration = Duration::from_secs_f64(seconds.unwrap_or(3.0));
    let runtime = Runtime::new().expect("a runtime");
    if let Some(folder) = served::asked_to_serve() {
        return runtime.block_on(served::serve(&folder));
    }
    for writers in WRITERS {
        let mut figures = Figures::default();
        for _ in 0..ROUNDS {
            runtime.block_on(round(writers, duration, &mut figures));
        }
        print(&format!("put 1 KiB, {writers} writers"), &figures, "etcd");
    }
}

/// Measures each store once, with a fresh folder for each.
async fn round(writers: usize, duration: Duration, figures: &mut Figures) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let durable = DurableStore::open(folder.path(), DurableOptions::default()).expect("a store");
    let stores: Vec<Arc<dyn Store>> = vec![Arc::new(durable)];
    figures.add("durable, in process", measure(stores, writers, duration).await);

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    {
        let served = Served::start(folder.path());
        let stores = connect(served.url(), writers).await;
        figures.add("durable, served", measure(stores, writers, duration).await);
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    if let Some(etcd) = Etcd::start(folder.path()).await {
        figures.add("etcd", measure(connect(etcd.url(), writers).await, writers, duration).await);
    } else {
        eprintln!("etcd is not installed (Debian: apt-get install etcd-server): not measured");
    }
}

async fn connect(url: &str, writers: usize) -> Vec<Arc<dyn Store>> {
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..CONNECTIONS.min(writers) {
        let store = EtcdStore::connect(EtcdOptions::new(url)).await.expect("a connection");
        stores.push(Arc::new(store));
    }
    stores
}

async fn measure(stores: Vec<Arc<dyn Store>>, writers: usize, duration: Duration) -> Outcome {
    puts(&stores, writers, duration / 5).await;
    puts(&stores, writers, duration).await
}
