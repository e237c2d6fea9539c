//! What 100,000 ConfigMaps of 1 KiB cost in memory, and how fast they are listed.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use orch_api::{ApiServer, Bootstrap, auth::UserInfo};
use orch_core::{
    Client, ResourceType, Target,
    client::{Write, WriteOptions},
};
use orch_store::MemoryStore;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{COLLECTION, config_map, median, over_tls, server::Served};

const OBJECTS: usize = 100_000;

pub(crate) fn run() {
    for store in ["memory", "durable"] {
        let served = Served::start(store);
        let connector = over_tls::Connector::of(&served);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let empty = served.resident();
        runtime.block_on(over_tls::fill(&connector, OBJECTS));
        let length = runtime.block_on(over_tls::list_length(&connector));
        let filled = served.resident();
        println!(
            "memory with {OBJECTS} ConfigMaps ({:.0} MB as a list), {store}: {:.0} MB, {:.2} times \
             (with nothing: {:.0} MB)",
            length / 1e6,
            filled / 1e6,
            (filled - empty) / length,
            empty / 1e6,
        );
    }
}

/// A server with ConfigMaps, and a client of it.
pub(crate) async fn filled(objects: usize) -> (ApiServer, Arc<dyn Client>) {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    server.bootstrap(&Bootstrap::default()).await.expect("namespaces");
    let client = server.client(UserInfo::master("bench"));
    for at in 0..objects {
        let target = Target::collection(
            ResourceType::of::<k8s_openapi::api::core::v1::ConfigMap>(),
            Some("default"),
        );
        let body = config_map(&format!("bench-{at}"));
        client.write(Write::Create(target, body, WriteOptions::default())).await.expect("room");
    }
    (server, client)
}

pub(crate) fn list_in_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (server, _client) = filled(50_000).await;
        for accept in ["application/json", "application/vnd.kubernetes.protobuf"] {
            let mut rates = Vec::new();
            let mut megabytes = 0.0;
            for _ in 0..7 {
                let request = Request::get(COLLECTION).header("accept", accept);
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                let start = Instant::now();
                let response = server.clone().oneshot(request).await.expect("an answer");
                let (mut body, mut length) = (response.into_body(), 0);
                while let Some(frame) = body.frame().await {
                    length += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
                }
                megabytes = length as f64 / 1e6;
                rates.push(megabytes / start.elapsed().as_secs_f64());
            }
            println!("LIST of {megabytes:.0} MB in process, {accept}: {:.0} MB/s", median(rates));
        }
    });
}
