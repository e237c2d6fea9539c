//! How soon a server answers, and what an idle one costs.

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use orch_api::ApiServer;
use orch_store::MemoryStore;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{COLLECTION, median, memory_of};

async fn first_answer(store: Arc<MemoryStore>) -> ApiServer {
    let server = ApiServer::new(store);
    let request = Request::get(COLLECTION).body(Empty::<Bytes>::new()).expect("a request");
    let response = server.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    server
}

/// In a process of its own: what the first servers cost, and how long the very first took.
pub(crate) fn idle() {
    const SERVERS: u32 = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        // Without the program's own pages, which every process has.
        let memory = || memory_of(std::process::id(), "RssAnon:");
        let before = memory();
        let start = Instant::now();
        let first = first_answer(Arc::default()).await;
        let cold = start.elapsed().as_secs_f64() * 1000.0;
        let with_one = memory();
        let mut others = Vec::new();
        for _ in 0..SERVERS {
            others.push(first_answer(Arc::default()).await);
        }
        let with_all = memory();
        println!(
            "idle server in process: the first {:.2} MB (what all share is read), each further \
             {:.3} MB; the first answer of a process after {cold:.2} ms",
            (with_one - before) / 1e6,
            (with_all - with_one) / 1e6 / f64::from(SERVERS),
        );
        drop((first, others));
    });
}

pub(crate) fn run() {
    let own = std::env::current_exe().expect("this program");
    let output = Command::new(own).arg("--idle").stderr(Stdio::inherit()).output();
    print!("{}", String::from_utf8_lossy(&output.expect("it runs").stdout));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let times: Vec<f64> = runtime.expect("a runtime").block_on(async {
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            first_answer(Arc::default()).await;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        times
    });
    println!("start in process to the first answer: {:.3} ms", median(times));
}
