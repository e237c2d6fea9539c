//! Stores that are served as etcd, seen by the client of this crate: what comes through keeps the
//! store's contract.

use std::{sync::Arc, time::Duration};

use orch_store::{
    DurableOptions, DurableStore, EtcdOptions, EtcdStore, KeyRange, LeasedStore, MemoryStore,
    RangeRequest, StoreReader, Write,
    serve::{EtcdServer, ServeOptions},
    testing,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A disk that is busy elsewhere takes its time for each of the hundreds of synced writes.
const DEADLINE: Duration = Duration::from_secs(240);

/// A server on a free port, and a client that is connected to it.
struct Served {
    store: EtcdStore,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start(store: Arc<dyn LeasedStore>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = EtcdServer::new(store, ServeOptions::default());
        let serving = tokio::spawn(async move {
            server.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        let store = EtcdStore::connect(EtcdOptions::new(format!("http://{address}"))).await;
        Self { store: store.unwrap(), stop, serving }
    }

    async fn stop(self) {
        drop((self.store, self.stop));
        tokio::time::timeout(DEADLINE, self.serving).await.expect("the end in time").unwrap();
    }
}

async fn conforms(store: Arc<dyn LeasedStore>) {
    let served = Served::start(store).await;
    let suite = async {
        testing::conformance(Arc::new(served.store.clone())).await;
        testing::lease_conformance(&served.store).await;
    };
    tokio::time::timeout(DEADLINE, suite).await.expect("the suite in time");
    served.stop().await;
}

#[tokio::test]
async fn a_served_memory_store_conforms() {
    conforms(Arc::new(MemoryStore::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_durable_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::open(folder.path(), DurableOptions::default()).unwrap();
    conforms(Arc::new(store)).await;
}

/// What was acknowledged over the wire is there after the next start.
#[tokio::test]
async fn a_durable_store_is_closed_when_its_server_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let store = DurableStore::open(folder.path(), DurableOptions::default()).unwrap();
        let served = Served::start(Arc::new(store)).await;
        let everything = RangeRequest::new(KeyRange::prefix("/"));
        let found = served.store.range(everything).await.unwrap();
        assert_eq!((found.count, found.revision), (round - 1, round as u64));
        let write = Write::create(format!("/{round}"), "x");
        orch_store::Store::write(&served.store, write).await.unwrap();
        served.stop().await;
    }
}
