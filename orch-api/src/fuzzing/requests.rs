//! Requests to a whole server, and what is left in its store.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use orch_core::Environment;
use orch_store::{KeyRange, MemoryStore, RangeRequest, StoreReader};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{patches::SEPARATOR, seeds};
use crate::{ApiServer, Bootstrap, auth::UserInfo, catalog::Resource};

/// How long a watch is listened to, in virtual time.
const WATCHED: Duration = Duration::from_secs(2);
/// The panic of a handler, as a client is told of it.
const PANICKED: &str = "the handler of this request panicked";

/// A definition of a custom resource, the separator, an object: both are created.
///
/// # Panics
/// As [`requests`] does.
pub(super) fn schemas(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == SEPARATOR) else { return };
    let (definition, object) = (&data[..at], &data[at + 1..]);
    let mut script = b"POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions\n".to_vec();
    script.extend_from_slice(definition);
    for line in [
        "POST /apis/fuzz.example.com/v1/namespaces/default/things\n",
        "PUT /apis/fuzz.example.com/v1/namespaces/default/things/x\n",
        "POST /apis/fuzz.example.com/v1/things\n",
    ] {
        script.push(SEPARATOR);
        script.extend_from_slice(line.as_bytes());
        script.extend_from_slice(object);
    }
    requests(&script);
}

/// Requests one after the other: a line with the method, the path and, if it is not JSON, the media
/// type of the body; then the body; then the separator.
///
/// # Panics
/// If a handler panics or answers 500, if a refusal is no `Status`, and if something is in the
/// store that is not served.
pub(super) fn requests(data: &[u8]) {
    runtime().block_on(async {
        let store = template().fork();
        let server = server(&store);
        for request in data.split(|byte| *byte == SEPARATOR) {
            send(&server, request).await;
        }
        check_stored(&server, &store).await;
    });
}

/// What a new server answers to a request.
#[cfg(test)]
pub(super) fn first_answer(request: &str) -> Option<u16> {
    runtime().block_on(async { send(&server(&template().fork()), request.as_bytes()).await })
}

/// Time passes only while everybody waits.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime can be built")
}

fn server(store: &MemoryStore) -> ApiServer {
    ApiServer::builder(std::sync::Arc::new(store.clone()))
        .environment(Environment::seeded(jiff::Timestamp::UNIX_EPOCH, 1))
        .default_admission()
        .build()
}

/// A store with what every cluster has, and one definition.
fn template() -> &'static MemoryStore {
    static TEMPLATE: OnceLock<MemoryStore> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let filled = std::thread::spawn(|| {
            runtime().block_on(async {
                let store = MemoryStore::default();
                let server = server(&store);
                server.bootstrap(&Bootstrap::default()).await.expect("an empty store takes it");
                for request in seeds::cluster() {
                    assert_eq!(send(&server, &request).await, Some(201), "a part of the cluster");
                }
                store
            })
        });
        filled.join().expect("the first cluster can be made")
    })
}

/// Sends one request; gives the code of the answer, unless it is no request at all.
async fn send(server: &ApiServer, text: &[u8]) -> Option<u16> {
    let at = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let head = std::str::from_utf8(&text[..at]).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let media_type = words.next().unwrap_or("application/json");
    let body = Bytes::copy_from_slice(text.get(at + 1..).unwrap_or_default());
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media_type)
        .header("accept", words.next().unwrap_or("application/json"))
        .body(Full::new(body))
        .ok()?;
    let response = server.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let (parts, mut body) = response.into_parts();
    let mut read = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(WATCHED, body.frame()).await {
        read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    check_answer(head, parts.status.as_u16(), &read);
    Some(parts.status.as_u16())
}

fn check_answer(head: &str, code: u16, body: &[u8]) {
    let told = || format!("{head}: {code} {}", String::from_utf8_lossy(body));
    assert!(!String::from_utf8_lossy(body).contains(PANICKED), "{}", told());
    if code < 400 || head.starts_with("HEAD ") || !body.starts_with(b"{") {
        assert!(code < 500, "{}", told());
        return;
    }
    let status: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", told()));
    assert_eq!(status["kind"], "Status", "{}", told());
    assert_eq!(status["code"], code, "{}", told());
    // Apply answers what does not fit its schema with 500, as upstream does.
    let as_upstream =
        status["message"].as_str().is_some_and(|why| why.contains("failed to create"));
    assert!(matches!(code, 400..=499 | 503 | 504) || as_upstream, "{}", told());
}

/// Every object in the store is in the list of its resource, in every form, and can be read alone.
async fn check_stored(server: &ApiServer, store: &MemoryStore) {
    let all = RangeRequest::new(KeyRange::prefix(b"/registry/".to_vec()));
    let stored = store.range(all).await.expect("a memory store can be read");
    let before = template().range(RangeRequest::new(KeyRange::prefix(b"/registry/".to_vec())));
    let before = before.await.expect("a memory store can be read");
    let catalog = server.inner.newest_catalog().await.expect("definitions can be read");
    let versions = catalog.group_versions().iter();
    let resources = versions.flat_map(|version| &version.resources);
    for resource in resources.filter(|resource| resource.verbs.has("list")) {
        let of = |entry: &&orch_store::Entry| entry.key.starts_with(resource.prefix.as_bytes());
        let own: Vec<_> = stored.entries.iter().filter(of).collect();
        // What the first cluster has was looked at often enough.
        if own.iter().any(|entry| !before.entries.contains(entry)) {
            check_resource(server, resource, own.len()).await;
        }
    }
}

async fn check_resource(server: &ApiServer, resource: &Resource, stored: usize) {
    let all = orch_core::Target::collection(resource.of.clone(), None);
    let list = get(server, &all.path(), "application/json").await;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(items.len(), stored, "not everything is served of {}", all.path());
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for accept in [table, "application/yaml", "application/vnd.kubernetes.protobuf"] {
        let head = format!("GET {} application/json {}", all.path(), accept.replace(' ', ""));
        let code = send(server, head.as_bytes()).await;
        // Custom objects have no form in protobuf.
        let fits = code == Some(200) || code == Some(406) && accept.ends_with("protobuf");
        assert!(fits, "{head}: {code:?} {list}");
    }
    for item in items {
        let text = |field: &str| item["metadata"][field].as_str();
        let name = text("name").expect("what is stored has a name");
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        let one = orch_core::Target::object(resource.of.clone(), text("namespace"), &name);
        let read = get(server, &one.path(), "application/json").await;
        assert_eq!(read["metadata"], item["metadata"], "{}", one.path());
    }
}

async fn get(server: &ApiServer, path: &str, accept: &str) -> Value {
    let request = http::Request::get(path).header("accept", accept).body(Full::<Bytes>::default());
    let Ok(mut request) = request else { panic!("an object lies where no path leads: {path}") };
    request.extensions_mut().insert(UserInfo::master("reader"));
    let response = server.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let code = response.status();
    let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    assert!(code.is_success(), "GET {path}: {code} {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap_or_else(
        |error| json!({"no JSON": error.to_string(), "body": String::from_utf8_lossy(&body)}),
    )
}
