//! Many watchers of one resource, and many that watch their own part of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use orch_api::{ApiServer, Bootstrap, auth::UserInfo};
use orch_core::{
    Client, ResourceType, Target,
    client::{PatchKind, WatchOptions, Write, WriteOptions},
};
use orch_store::MemoryStore;
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{COLLECTION, config_map, median, percentile};

const WATCHERS: usize = 1000;
const WRITES_PER_SECOND: u32 = 1000;
const SECONDS: u32 = 5;

async fn server() -> (ApiServer, Arc<dyn Client>) {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    server.bootstrap(&Bootstrap::default()).await.expect("namespaces");
    let client = server.client(UserInfo::master("bench"));
    (server, client)
}

/// Reads the frames of a watch over the HTTP service; gives when each of them came.
async fn read(server: ApiServer, expected: usize, opened: Arc<AtomicUsize>) -> Vec<Instant> {
    let request = Request::get(format!("{COLLECTION}?watch=true&resourceVersion=0"));
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = server.oneshot(request).await.expect("an answer");
    opened.fetch_add(1, Ordering::Relaxed);
    let mut frames = response.into_body().into_data_stream();
    let mut came = Vec::with_capacity(expected);
    while came.len() < expected {
        let frame = frames.next().await.expect("every event").expect("a frame");
        assert!(frame.ends_with(b"}\n"));
        came.push(Instant::now());
    }
    came
}

/// 1,000 watchers of one resource while 1,000 objects a second are created, through the HTTP
/// service without sockets.
pub(crate) fn many() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (server, client) = server().await;
        let writes = (WRITES_PER_SECOND * SECONDS) as usize;
        let opened = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..WATCHERS)
            .map(|_| tokio::spawn(read(server.clone(), writes, opened.clone())))
            .collect();
        while opened.load(Ordering::Relaxed) < WATCHERS {
            tokio::task::yield_now().await;
        }
        let target = Target::collection(ResourceType::of::<ConfigMap>(), Some("default"));
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / WRITES_PER_SECOND);
        let mut sent = Vec::with_capacity(writes);
        for at in 0..writes {
            ticks.tick().await;
            sent.push(Instant::now());
            let body = config_map(&format!("bench-{at}"));
            let write = Write::Create(target.clone(), body, WriteOptions::default());
            client.write(write).await.expect("room");
        }
        let took = sent[0].elapsed().as_secs_f64();
        let mut delays = Vec::with_capacity(writes * WATCHERS);
        for reader in readers {
            let came = reader.await.expect("it reads all");
            let delay = |(came, sent): (&Instant, &Instant)| (*came - *sent).as_secs_f64() * 1e3;
            delays.extend(came.iter().zip(&sent).map(delay));
        }
        delays.sort_by(f64::total_cmp);
        println!(
            "{WATCHERS} watchers, {:.0} writes/s: every event came, p50 {:.2} ms, p99 {:.2} ms, \
             at most {:.1} ms",
            writes as f64 / took,
            percentile(&delays, 50),
            percentile(&delays, 99),
            percentile(&delays, 100),
        );
    });
}

/// The time of an update of a pod's status while that many node agents watch their own pods.
async fn update_beside(nodes: usize) -> f64 {
    let (_server, client) = server().await;
    let collection = Target::collection(ResourceType::of::<Pod>(), Some("default"));
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "nginx"}]},
    });
    let write = Write::Create(collection, pod, WriteOptions::default());
    client.write(write).await.expect("room");
    let all = Target::collection(ResourceType::of::<Pod>(), None);
    let mut watches = Vec::with_capacity(nodes);
    for node in 0..nodes {
        let options = WatchOptions {
            field_selector: Some(format!("spec.nodeName=node-{node}")),
            ..WatchOptions::default()
        };
        watches.push(client.watch(all.clone(), options).await.expect("a watch"));
    }
    // What exists is told first; it is the same event stream that later changes come through.
    watches[1].next().await;
    let one = Target::object(ResourceType::of::<Pod>(), Some("default"), "web");
    let mut times = Vec::new();
    for at in 0..2000 {
        let patch = json!({"metadata": {"annotations": {"at": at.to_string()}}});
        let start = Instant::now();
        let write = Write::Patch(one.clone(), PatchKind::Merge, patch, WriteOptions::default());
        client.write(write).await.expect("a write");
        watches[1].next().await.expect("the change").expect("an event");
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times)
}

pub(crate) fn nodes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let few = update_beside(10).await;
        let many = update_beside(10_000).await;
        println!(
            "an update of a pod until its node knows: {few:.1} us with 10 node watchers, {many:.1} \
             us with 10,000"
        );
    });
}
