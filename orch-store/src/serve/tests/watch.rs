//! Watches.

use pb::{watch_create_request::FilterType, watch_request::RequestUnion};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;
use crate::protocol::mvccpb;

/// One stream of watches.
pub(super) struct Client {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Client {
    pub(super) async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = server.watch();
        let responses = client.watch(ReceiverStream::new(receiver));
        Self { requests, responses: soon("a stream", responses).await.unwrap().into_inner() }
    }

    async fn send(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn ask_for_progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    pub(super) async fn next(&mut self) -> pb::WatchResponse {
        soon("a response", self.responses.message()).await.unwrap().expect("a response")
    }

    /// Whether the stream ends, in whatever way.
    pub(super) async fn ended(&mut self) -> bool {
        while let Ok(Some(_)) = self.responses.message().await {}
        true
    }

    /// Creates a watch; gives its first response.
    pub(super) async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        created
    }

    /// The next `count` events of a watch, in responses that never split a revision.
    pub(super) async fn events(&mut self, id: i64, count: usize) -> Vec<mvccpb::Event> {
        let mut events: Vec<mvccpb::Event> = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert_eq!(response.watch_id, id, "{response:?}");
            assert!(!response.canceled && !response.created && !response.fragment);
            let revision = |event: &mvccpb::Event| event.kv.as_ref().unwrap().mod_revision;
            let last = events.last().map_or(0, revision);
            assert!(response.events.iter().all(|event| revision(event) > last), "{response:?}");
            let header = response.header.unwrap().revision;
            assert_eq!(header, revision(response.events.last().unwrap()));
            events.extend(response.events);
        }
        events
    }
}

fn key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes(key), ..<_>::default() }
}

fn from(start_revision: i64) -> pb::WatchCreateRequest {
    let everything = key("");
    pb::WatchCreateRequest { range_end: bytes("\0"), start_revision, ..everything }
}

fn told(events: &[mvccpb::Event]) -> Vec<String> {
    let tell = |event: &mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let previous = event.prev_kv.as_ref();
        let previous = previous.map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
        let sign = if event.r#type == 0 { "=" } else { "!" };
        format!("{key}{sign}{value}@{} {}", kv.mod_revision, previous.unwrap_or_default())
    };
    events.iter().map(|event| tell(event).trim().to_owned()).collect()
}

#[tokio::test]
async fn a_watch_is_created_first_and_then_told() {
    let server = Server::start().await;
    server.put("a", "0").await;
    let mut client = Client::open(&server).await;
    let created = client.create(key("a")).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 2));
    server.put("b", "x").await;
    server.put("a", "1").await;
    server.delete("a").await;
    assert_eq!(told(&client.events(0, 2).await), ["a=1@4", "a!@5"]);
}

#[tokio::test]
async fn the_past_the_future_and_previous_values() {
    let server = Server::start().await;
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        server.put(key, value).await;
    }
    server.delete("b").await;
    let mut client = Client::open(&server).await;
    client.create(pb::WatchCreateRequest { prev_kv: true, ..from(3) }).await;
    let past = client.events(0, 3).await;
    assert_eq!(told(&past), ["b=1@3", "a=2@4 1", "b!@5 1"]);
    client.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let canceled = client.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0 && canceled.compact_revision == 0);
    // A watch that is gone is not cancelled twice.
    client.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let created = client.create(from(8)).await;
    assert_eq!(created.header.unwrap().revision, 5, "the store's and not the watch's");
    for value in ["6", "7", "8"] {
        server.put("a", value).await;
    }
    assert_eq!(told(&client.events(1, 1).await), ["a=8@8"]);
}

#[tokio::test]
async fn filters_drop_kinds_of_events() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    let filtered = |filter: FilterType, watch_id| pb::WatchCreateRequest {
        filters: vec![filter as i32],
        watch_id,
        ..key("a")
    };
    assert_eq!(client.create(filtered(FilterType::Noput, 10)).await.watch_id, 10);
    server.put("a", "1").await;
    server.delete("a").await;
    assert_eq!(told(&client.events(10, 1).await), ["a!@3"]);
    client.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 10 })).await;
    assert!(client.next().await.canceled);
    client.create(filtered(FilterType::Nodelete, 11)).await;
    server.put("a", "2").await;
    server.delete("a").await;
    server.put("a", "3").await;
    assert_eq!(told(&client.events(11, 2).await), ["a=2@4", "a=3@6"]);
}

#[tokio::test]
async fn watches_that_cannot_be_are_told_so() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    let named = |watch_id| pb::WatchCreateRequest { watch_id, ..key("a") };
    assert_eq!(client.create(named(1)).await.watch_id, 1);
    let reversed = pb::WatchCreateRequest { range_end: bytes("a"), ..key("b") };
    for (request, reason) in [
        (named(1), "mvcc: duplicate watch ID provided on the WatchStream"),
        (reversed, "mvcc: watcher range is empty"),
        (from(-1), "etcdserver: mvcc: required revision has been compacted"),
    ] {
        let refused = client.create(request).await;
        assert_eq!((refused.watch_id, refused.canceled), (-1, true));
        assert_eq!(refused.cancel_reason, reason);
    }
    // Ids are chosen from 0 on, past those that are taken.
    assert_eq!(client.create(key("a")).await.watch_id, 0);
    assert_eq!(client.create(key("a")).await.watch_id, 2);
}

#[tokio::test]
async fn a_compacted_start_ends_the_watch() {
    let server = Server::start().await;
    for value in ["1", "2", "3", "4"] {
        server.put("a", value).await;
    }
    server.compact(4).await;
    let mut client = Client::open(&server).await;
    let created = client.create(pb::WatchCreateRequest { watch_id: 3, ..from(2) }).await;
    assert_eq!((created.watch_id, created.canceled), (3, false));
    let ended = client.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision), (3, true, 4));
    assert_eq!(client.create(from(5)).await.watch_id, 0);
    assert_eq!(told(&client.events(0, 1).await), ["a=4@5"]);
}

#[tokio::test]
async fn a_transaction_is_one_response() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    client.create(from(0)).await;
    let success = ["a", "b", "c"].map(|key| put_op(put(key, "1"))).to_vec();
    server.kv().txn(pb::TxnRequest { success, ..<_>::default() }).await.unwrap();
    let response = client.next().await;
    assert_eq!(told(&response.events), ["a=1@2", "b=1@2", "c=1@2"]);
}

/// More than a response may have: divided at the ends of revisions, or anywhere for a client that
/// takes fragments.
#[tokio::test]
async fn large_responses_are_divided() {
    let server = Server::start().await;
    let value = "x".repeat(700 << 10);
    for _ in 0..2 {
        let success: Vec<_> = ["a", "b"].map(|key| put_op(put(key, &value))).to_vec();
        server.kv().txn(pb::TxnRequest { success, ..<_>::default() }).await.unwrap();
    }
    let mut client = Client::open(&server).await;
    client.create(from(2)).await;
    for revision in [2, 3] {
        let response = client.next().await;
        assert_eq!((response.events.len(), response.fragment), (2, false));
        assert_eq!(response.header.unwrap().revision, revision);
    }
    let options = ServeOptions { request_bytes_max: 1 << 20, ..<_>::default() };
    let small = Server::with(options).await;
    let half = "x".repeat(300 << 10);
    for key in ["a", "b", "c"] {
        small.put(key, &half).await;
    }
    let success = vec![delete_op("a", "d", false)];
    small.kv().txn(pb::TxnRequest { success, ..<_>::default() }).await.unwrap();
    let mut client = Client::open(&small).await;
    let request = pb::WatchCreateRequest { fragment: true, prev_kv: true, ..from(5) };
    client.create(request).await;
    let whole = client.next().await;
    assert_eq!((whole.events.len(), whole.fragment), (3, false), "it fits");
    let huge = "x".repeat(600 << 10);
    for key in ["a", "b", "c", "d"] {
        small.put(key, &huge).await;
    }
    let success = vec![delete_op("a", "e", false)];
    small.kv().txn(pb::TxnRequest { success, ..<_>::default() }).await.unwrap();
    let request = pb::WatchCreateRequest { fragment: true, prev_kv: true, watch_id: 9, ..from(10) };
    client.events(0, 4).await;
    drop(client);
    let mut client = Client::open(&small).await;
    client.create(request).await;
    let mut parts = Vec::new();
    loop {
        let part = client.next().await;
        assert_eq!((part.watch_id, part.header.unwrap().revision), (9, 10));
        parts.push(part.events.len());
        if !part.fragment {
            break;
        }
    }
    assert_eq!(parts, [2, 2]);
}

#[tokio::test]
async fn progress_is_never_ahead_of_what_was_delivered() {
    progress_over(Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_with_a_store_that_writes_on_a_thread_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::DurableStore::open(folder.path(), <_>::default()).unwrap();
    progress_over(Server::over(Arc::new(store), ServeOptions::default()).await).await;
}

async fn progress_over(server: Server) {
    let mut client = Client::open(&server).await;
    // Without a watch there is no progress to tell, and the request is passed over.
    client.ask_for_progress().await;
    for name in ["busy", "quiet"] {
        client.create(key(name)).await;
    }
    let writer = tokio::spawn({
        let mut kv = server.kv();
        async move {
            for number in 0..500 {
                kv.put(put("busy", &number.to_string())).await.unwrap();
            }
        }
    });
    let (mut delivered, mut answers) = (1, 0);
    while delivered < 501 || answers < 3 {
        client.ask_for_progress().await;
        let response = client.next().await;
        let revision = response.header.unwrap().revision;
        if response.watch_id == -1 {
            assert!(response.events.is_empty() && !response.created && !response.canceled);
            assert!(revision <= delivered, "{revision} was told, {delivered} was delivered");
            answers += 1;
        } else {
            // Every revision is one of this watch's events.
            for event in response.events {
                assert_eq!(event.kv.unwrap().mod_revision, delivered + 1);
                delivered += 1;
            }
        }
    }
    soon("the writer", writer).await.unwrap();
}

/// Everything that a client is told to have seen by an answer for the whole stream must be
/// delivered on the slowest of its watches, one that still reads the past.
#[tokio::test]
async fn progress_waits_for_a_watch_of_the_past() {
    let server = Server::start().await;
    for number in 0..3000 {
        server.put("old", &number.to_string()).await;
    }
    let mut client = Client::open(&server).await;
    client.create(key("new")).await;
    client.send(RequestUnion::CreateRequest(from(2))).await;
    client.ask_for_progress().await;
    let mut delivered = 1;
    loop {
        let response = client.next().await;
        if response.watch_id == -1 {
            assert_eq!(response.header.unwrap().revision, 3001);
            break;
        }
        delivered += response.events.len();
    }
    assert_eq!(delivered, 3001);
}

#[tokio::test]
async fn progress_is_not_told_for_the_future() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    client.create(from(100)).await;
    client.ask_for_progress().await;
    client.create(pb::WatchCreateRequest { watch_id: 7, ..key("a") }).await;
    server.put("a", "1").await;
    // The next response is the event: nothing was told in between.
    assert_eq!(told(&client.events(7, 1).await), ["a=1@2"]);
}

#[tokio::test]
async fn a_silent_watch_is_notified_of_progress() {
    let interval = Duration::from_millis(100);
    let server =
        Server::with(ServeOptions { watch_progress_interval: interval, ..<_>::default() }).await;
    let mut client = Client::open(&server).await;
    client.create(pb::WatchCreateRequest { progress_notify: true, ..key("a") }).await;
    client.create(key("b")).await;
    server.put("elsewhere", "1").await;
    let told = loop {
        let response = client.next().await;
        assert_eq!((response.watch_id, response.events.len()), (0, 0), "only who asked");
        if response.header.unwrap().revision == 2 {
            break response;
        }
    };
    assert!(!told.created && !told.canceled);
}

/// A client that reads nothing holds up neither writers nor other streams, and misses nothing.
#[tokio::test]
async fn a_slow_client_slows_itself_only() {
    let server = Server::start().await;
    let mut slow = Client::open(&server).await;
    slow.create(from(0)).await;
    let mut quick = Client::open(&server).await;
    quick.create(from(0)).await;
    let value = "x".repeat(64 << 10);
    let count = 400;
    for _ in 0..count {
        server.put("k", &value).await;
    }
    assert_eq!(quick.events(0, count).await.len(), count);
    let events = slow.events(0, count).await;
    let revisions = events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
    assert!(revisions.eq(2..2 + count as i64));
}

#[tokio::test]
async fn watches_go_on_when_the_client_has_no_more_requests() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    client.create(key("a")).await;
    let (unused, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut client.requests, unused));
    server.put("a", "1").await;
    assert_eq!(told(&client.events(0, 1).await), ["a=1@2"]);
}
