//! `/livez`, `/readyz` and `/healthz`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use orch_api::{ApiServer, health::HealthCheck, serve::Draining};
use orch_core::Environment;
use orch_store::{Faults, FaultyStore, MemoryStore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::support::{call, get};

#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
}

#[async_trait]
impl HealthCheck for Disk {
    fn name(&self) -> &str {
        "disk"
    }

    async fn check(&self) -> Result<(), String> {
        if self.full.load(Ordering::Relaxed) { Err("it is full".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn the_endpoints_answer_as_upstreams_do() {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    let check = async |path: &str, code: u16, body: &str| {
        assert_eq!(get(&server, path).await, (code, body.to_owned()), "{path}");
    };
    for name in ["healthz", "livez", "readyz"] {
        check(&format!("/{name}"), 200, "ok").await;
        check(&format!("/{name}/ping"), 200, "ok").await;
        check(&format!("/{name}/etcd"), 200, "ok").await;
    }
    check("/healthz?verbose", 200, "[+]ping ok\n[+]log ok\n[+]etcd ok\nhealthz check passed\n")
        .await;
    check(
        "/readyz?verbose=true",
        200,
        "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]shutdown ok\n\
         readyz check passed\n",
    )
    .await;
    check(
        "/livez?verbose&exclude=etcd&exclude=b&exclude=a",
        200,
        "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be \
         excluded: no matches for \"a\",\"b\"\nlivez check passed\n",
    )
    .await;
    for path in ["/livez/shutdown", "/healthz/nothing", "/readyz/ping/more"] {
        assert_eq!(get(&server, path).await.0, 404, "{path}");
    }
    let (_, headers, _) = call(&server, "GET /livez", &[], "").await;
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn what_fails_is_listed_and_its_reason_only_told_by_itself() {
    let disk = Arc::new(Disk::default());
    let server = ApiServer::builder(Arc::new(MemoryStore::default()))
        .health_check(disk.clone())
        .readiness_check(Arc::new(Disk::default()))
        .build();
    assert_eq!(get(&server, "/livez").await, (200, "ok".into()));
    disk.full.store(true, Ordering::Relaxed);
    let told = "[+]ping ok\n[+]log ok\n[+]etcd ok\n[-]disk failed: reason withheld\n\
                livez check failed\n";
    assert_eq!(get(&server, "/livez").await, (500, told.into()));
    let alone = "internal server error: it is full\n";
    assert_eq!(get(&server, "/livez/disk").await, (500, alone.into()));
    assert_eq!(get(&server, "/livez?exclude=disk").await, (200, "ok".into()));
}

#[tokio::test]
async fn readiness_follows_the_store_and_the_shutdown() {
    let inner = Arc::new(MemoryStore::default());
    let store = FaultyStore::new(inner, Environment::system(), Faults::default());
    let control = store.control();
    let server = ApiServer::new(Arc::new(store));
    assert_eq!(get(&server, "/readyz").await.0, 200);
    control.refuse();
    let (code, told) = get(&server, "/readyz/etcd").await;
    assert_eq!(code, 500);
    assert!(told.starts_with("internal server error: error getting data from etcd: "), "{told}");
    assert_eq!(get(&server, "/livez?exclude=etcd").await.0, 200);
    control.accept();
    assert_eq!(get(&server, "/readyz").await.0, 200);

    let token = CancellationToken::new();
    let ask = async |path: &str| {
        let mut request = http::Request::get(path).body(http_body_util::Empty::new()).unwrap();
        request.extensions_mut().insert(Draining(token.clone()));
        server.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask("/readyz").await, 200);
    token.cancel();
    assert_eq!((ask("/readyz").await, ask("/livez").await), (500, 200));
}
