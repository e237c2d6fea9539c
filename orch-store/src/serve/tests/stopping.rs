//! The orderly end, and the abrupt one.

use futures::stream;

use super::*;

#[tokio::test]
async fn a_shutdown_ends_streams_and_connections() {
    let mut server = Server::start().await;
    let mut watch = watch::Client::open(&server).await;
    watch.create(pb::WatchCreateRequest { key: bytes("k"), ..<_>::default() }).await;
    let requests = stream::pending();
    let mut alive = server.lease().lease_keep_alive(requests).await.unwrap().into_inner();
    drop(server.stop.take());
    let status = soon("the end of the stream", alive.message()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    soon("the end", &mut server.serving).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

/// A client that does not close its connection does not hold up the end for longer than it may.
#[tokio::test]
async fn what_is_left_is_cut_off() {
    let grace = Duration::from_millis(100);
    let mut server = Server::with(ServeOptions { shutdown_grace: grace, ..<_>::default() }).await;
    let mut idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.put("k", "v").await;
    drop(server.stop.take());
    soon("the end", &mut server.serving).await.unwrap().unwrap();
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut idle, &mut byte);
    assert!(matches!(soon("the end of the connection", read).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn dropping_the_future_stops_everything() {
    let server = Server::start().await;
    let mut watch = watch::Client::open(&server).await;
    watch.create(pb::WatchCreateRequest { key: bytes("k"), ..<_>::default() }).await;
    server.serving.abort();
    assert!(soon("the end of the stream", watch.ended()).await);
    let again = soon("a refusal", async {
        while tokio::net::TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    again.await;
}

/// The same requests, without a socket of our own.
#[tokio::test]
async fn the_service_can_be_embedded() {
    let store = Arc::new(MemoryStore::default());
    let service = EtcdServer::new(store, ServeOptions::default()).service();
    let mut client = KvClient::new(service);
    client.put(put("k", "v")).await.unwrap();
    let answer = client.range(range("k", "")).await.unwrap().into_inner();
    assert_eq!(keys(&answer), ["k"]);
}
