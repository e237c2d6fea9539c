//! The forms in which objects travel: encodings, shapes, compression, limits.

use std::{io::Read as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use orch_api::{ApiServer, ServerOptions};
use orch_core::{Environment, cbor, protobuf};
use orch_store::{Faults, FaultyStore, MemoryStore, Store};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::support::{call, json, with_namespace};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"tier": "x"}}, "data": {"key": name}})
}

async fn create(server: &ApiServer, name: &str) {
    assert_eq!(json(server, "POST", MAPS, Some(map(name))).await.0, 201);
}

async fn speaks_cbor() -> ApiServer {
    let options = ServerOptions { cbor: true, ..ServerOptions::default() };
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).options(options).build();
    let namespace = json!({"metadata": {"name": "default"}});
    assert_eq!(json(&server, "POST", "/api/v1/namespaces", Some(namespace)).await.0, 201);
    server
}

/// GETs a path in a form; gives code, media type and body.
async fn get(server: &ApiServer, path: &str, accept: &str) -> (u16, String, Bytes) {
    let (code, headers, body) = call(server, "GET", path, &[("accept", accept)], "").await;
    (code, headers["content-type"].to_str().unwrap().to_owned(), body)
}

/// The frames of a watch, each of them as it came.
async fn frames(
    server: &ApiServer,
    path: &str,
    accept: &str,
) -> (String, std::pin::Pin<Box<dyn futures::Stream<Item = Bytes> + Send>>) {
    let request = http::Request::get(path).header("accept", accept);
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(response.status(), 200, "{media_type}");
    let frames = response.into_body().into_data_stream().map(Result::unwrap);
    (media_type, Box::pin(frames))
}

/// A frame of a protobuf watch: the event, and what it tells of.
fn unpack(frame: &[u8]) -> (String, Value) {
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(frame.len(), 4 + length, "one frame, as long as it says");
    let mut fields: Vec<(u8, &[u8])> = Vec::new();
    let mut rest = &frame[4..];
    while let [tag, after @ ..] = rest {
        let (value, after) = delimited(after);
        fields.push((*tag, value));
        rest = after;
    }
    let [(0x0a, event), (0x12, extension)] = fields[..] else { panic!("{fields:?}") };
    assert_eq!(extension[0], 0x0a, "the bytes of a raw extension");
    let (object, nothing) = delimited(&extension[1..]);
    assert!(nothing.is_empty());
    (String::from_utf8(event.to_vec()).unwrap(), protobuf::decode(object).unwrap())
}

fn delimited(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut length, mut at) = (0, 0);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * at);
        at += 1;
        if bytes[at - 1] < 0x80 {
            return bytes[at..].split_at(length);
        }
    }
}

#[tokio::test]
async fn a_watch_in_protobuf_has_objects_bookmarks_and_errors() {
    let server = with_namespace().await;
    create(&server, "a").await;
    let path = format!("{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true");
    let accept = format!("{PROTOBUF}, application/json");
    let (media_type, mut events) = frames(&server, &path, &accept).await;
    assert_eq!(media_type, "application/vnd.kubernetes.protobuf;stream=watch");
    let (event, object) = unpack(&events.next().await.unwrap());
    let (_, stored) = json(&server, "GET", &format!("{MAPS}/a"), None).await;
    assert_eq!((&*event, &object), ("ADDED", &stored));
    let (event, mark) = unpack(&events.next().await.unwrap());
    assert_eq!((&*event, &mark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let patch = [("content-type", "application/merge-patch+json")];
    call(&server, "PATCH", &format!("{MAPS}/a"), &patch, "{\"data\":{\"key\":\"b\"}}").await;
    let (event, object) = unpack(&events.next().await.unwrap());
    assert_eq!((&*event, &object["data"]["key"]), ("MODIFIED", &json!("b")));
    json(&server, "DELETE", &format!("{MAPS}/a"), None).await;
    let (event, object) = unpack(&events.next().await.unwrap());
    assert_eq!((&*event, &object["metadata"]["name"]), ("DELETED", &json!("a")));
}

#[tokio::test]
async fn a_watch_in_protobuf_ends_with_a_status() {
    let memory = Arc::new(MemoryStore::default());
    let server = ApiServer::new(memory.clone());
    let namespace = json!({"metadata": {"name": "default"}});
    json(&server, "POST", "/api/v1/namespaces", Some(namespace)).await;
    create(&server, "a").await;
    memory.compact(memory.revision()).await.unwrap();
    let path = format!("{MAPS}?watch=true&resourceVersion=1");
    let (_, mut events) = frames(&server, &path, PROTOBUF).await;
    let (event, status) = unpack(&events.next().await.unwrap());
    assert_eq!(
        (&*event, &status["kind"], &status["code"]),
        ("ERROR", &json!("Status"), &json!(410))
    );
    assert_eq!(status["reason"], "Expired");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn many_watchers_get_the_same_bytes() {
    let server = with_namespace().await;
    for accept in ["application/json", PROTOBUF] {
        let path = format!("{MAPS}?watch=true");
        let (_, mut first) = frames(&server, &path, accept).await;
        let (_, mut second) = frames(&server, &path, accept).await;
        create(&server, &format!("shared-{}", accept.len())).await;
        let (one, other) = (first.next().await.unwrap(), second.next().await.unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr(), "{accept}");
    }
}

#[tokio::test]
async fn watches_of_metadata_and_tables() {
    let server = with_namespace().await;
    create(&server, "a").await;
    let path = format!("{MAPS}?watch=true");
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (_, mut events) = frames(&server, &path, &partial).await;
    let (event, object) = unpack(&events.next().await.unwrap());
    assert_eq!((&*event, &object["kind"]), ("ADDED", &json!("PartialObjectMetadata")));
    assert_eq!(object["metadata"]["labels"], json!({"tier": "x"}));
    assert!(object.get("data").is_none());
    // Tables have no protobuf form: the next range counts, or none does.
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(get(&server, &path, &table).await.0, 406);
    let json_table = format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1");
    let (_, mut events) = frames(&server, &path, &json_table).await;
    let told: Value = serde_json::from_slice(&events.next().await.unwrap()).unwrap();
    assert_eq!(told["object"]["kind"], "Table");
    let (code, _, body) = get(&server, &path, "application/yaml").await;
    let told = String::from_utf8_lossy(&body).into_owned();
    let known = "only the following media types are accepted: application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch";
    assert!(code == 406 && told.contains(known), "{told}");
}

#[tokio::test]
async fn items_of_typed_lists_do_not_say_what_they_are() {
    let server = with_namespace().await;
    create(&server, "a").await;
    let (_, one) = json(&server, "GET", &format!("{MAPS}/a"), None).await;
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let mut item = one.clone();
    item.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    let check = |list: &Value| {
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
        assert_eq!(list["items"], json!([item]));
    };
    let (_, _, body) = get(&server, MAPS, "application/json").await;
    check(&serde_json::from_slice(&body).unwrap());
    let (_, _, body) = get(&server, &format!("{MAPS}?pretty=true"), "application/json").await;
    assert!(body.starts_with(b"{\n  \""));
    check(&serde_json::from_slice(&body).unwrap());
    let (_, media_type, body) = get(&server, MAPS, "application/yaml").await;
    assert_eq!(media_type, "application/yaml");
    check(&serde_saphyr::from_slice(&body).unwrap());
    let (_, media_type, body) = get(&server, MAPS, PROTOBUF).await;
    assert_eq!(media_type, PROTOBUF);
    check(&protobuf::decode(&body).unwrap());
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, _, body) = get(&server, MAPS, partial).await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let (_, _, body) = get(&server, &format!("{MAPS}?includeObject=Object"), table).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(table["rows"][0]["object"], one);
}

#[tokio::test]
async fn metadata_is_asked_for_in_the_right_number() {
    let server = with_namespace().await;
    create(&server, "a").await;
    let form = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let check = |(code, _, body): (u16, String, Bytes), expected: &str| {
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((code, &status["message"]), (406, &json!(expected)));
    };
    check(
        get(&server, MAPS, &form("PartialObjectMetadata")).await,
        "you requested PartialObjectMetadata, but the requested object is a list \
         (*core.ConfigMapList)",
    );
    check(
        get(&server, &format!("{MAPS}/a"), &form("PartialObjectMetadataList")).await,
        "you requested PartialObjectMetadataList, but the requested object is not a list \
         (*core.ConfigMap)",
    );
    let beta = form("PartialObjectMetadata").replace("v=v1", "v=v1beta1");
    let headers = [("accept", &*beta), ("content-type", "application/json")];
    let (code, _, body) = call(&server, "POST", MAPS, &headers, map("b").to_string()).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &told["apiVersion"]), (201, &json!("meta.k8s.io/v1beta1")));
}

#[tokio::test]
async fn errors_are_told_in_the_form_that_was_asked_for() {
    let server = with_namespace().await;
    let path = format!("{MAPS}/nothing");
    let (code, media_type, body) = get(&server, &path, PROTOBUF).await;
    let status = protobuf::decode(&body).unwrap();
    assert_eq!((code, &*media_type, &status["code"]), (404, PROTOBUF, &json!(404)));
    assert_eq!(status["message"], "configmaps \"nothing\" not found");
    let (_, media_type, body) = get(&server, &path, "application/yaml").await;
    assert_eq!(media_type, "application/yaml");
    let status: Value = serde_saphyr::from_slice(&body).unwrap();
    assert_eq!(status["reason"], "NotFound");
    // Who takes no form of a status gets JSON, and the error that it is about.
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let (code, media_type, _) = get(&server, &path, table).await;
    assert_eq!((code, &*media_type), (404, "application/json"));
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    let server = with_namespace().await;
    let zip = [("accept-encoding", "deflate, gzip")];
    let (_, headers, _) = call(&server, "GET", MAPS, &zip, "").await;
    assert!(!headers.contains_key("content-encoding"), "too short to be worth it");
    let long = "0123456789".repeat(10_000);
    for name in ["a", "b", "c"] {
        let body = json!({"metadata": {"name": name}, "data": {"text": long}});
        assert_eq!(json(&server, "POST", MAPS, Some(body)).await.0, 201);
    }
    let (_, headers, plain) = call(&server, "GET", MAPS, &[], "").await;
    assert!(!headers.contains_key("vary") && plain.len() > 300_000);
    for accept in ["application/json", PROTOBUF, "application/yaml"] {
        let asked = [("accept-encoding", "gzip"), ("accept", accept)];
        let (_, headers, packed) = call(&server, "GET", MAPS, &asked, "").await;
        assert_eq!(headers["content-encoding"], "gzip", "{accept}");
        assert_eq!(headers["vary"], "Accept-Encoding");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
        let (_, _, expected) = call(&server, "GET", MAPS, &[("accept", accept)], "").await;
        assert_eq!(unpacked, expected, "{accept}");
        assert!(packed.len() < unpacked.len() / 10);
    }
    // A quality makes another token of it, to upstream and here.
    let zip = [("accept-encoding", "gzip;q=1.0")];
    let (_, headers, _) = call(&server, "GET", MAPS, &zip, "").await;
    assert!(!headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn cbor_is_spoken_where_it_is_switched_on() {
    let off = with_namespace().await;
    assert_eq!(get(&off, MAPS, cbor::CONTENT_TYPE).await.0, 406);
    let server = speaks_cbor().await;
    let headers = [("accept", cbor::CONTENT_TYPE), ("content-type", cbor::CONTENT_TYPE)];
    let body = cbor::encode(&map("a"));
    let refused = [("content-type", cbor::CONTENT_TYPE)];
    assert_eq!(call(&off, "POST", MAPS, &refused, body.clone()).await.0, 415);
    let (code, answer, created) = call(&server, "POST", MAPS, &headers, body).await;
    assert_eq!((code, &answer["content-type"]), (201, &cbor::CONTENT_TYPE.parse().unwrap()));
    let (_, stored) = json(&server, "GET", &format!("{MAPS}/a"), None).await;
    assert_eq!(cbor::decode(&created).unwrap(), stored);
    let (_, _, list) = get(&server, MAPS, cbor::CONTENT_TYPE).await;
    assert!(cbor::decode(&list).unwrap()["items"][0].get("kind").is_none());
    let apply = [("content-type", cbor::APPLY_PATCH)];
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"more": "1"}});
    let path = format!("{MAPS}/a?fieldManager=me");
    assert_eq!(call(&server, "PATCH", &path, &apply, cbor::encode(&config)).await.0, 200);
    let (code, _, body) = call(&off, "PATCH", &path, &apply, cbor::encode(&config)).await;
    assert!(code == 415 && !String::from_utf8_lossy(&body).contains("cbor"));
    let twice = b"\xa2\x44kind\x49ConfigMap\x44kind\x49ConfigMap".to_vec();
    let json_back = [("content-type", cbor::CONTENT_TYPE)];
    let (code, _, body) = call(&server, "POST", MAPS, &json_back, twice).await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    let told = status["message"].as_str().unwrap();
    let expected = "the object provided is unrecognized (must be of type ConfigMap): unable to \
                    determine group/version/kind: cbor: found duplicate map key \"kind\" at map \
                    element index 1 (a2446b696e64";
    assert!(code == 400 && told.starts_with(expected), "{told}");
}

#[tokio::test]
async fn a_watch_in_cbor_is_a_sequence() {
    let server = speaks_cbor().await;
    create(&server, "a").await;
    let path = format!("{MAPS}?watch=true");
    let (media_type, mut events) = frames(&server, &path, cbor::CONTENT_TYPE).await;
    assert_eq!(media_type, cbor::SEQUENCE);
    let frame = events.next().await.unwrap();
    assert!(frame.starts_with(&[0xd9, 0xd9, 0xf7]));
    let told = cbor::decode(&frame).unwrap();
    assert_eq!((&told["type"], &told["object"]["kind"]), (&json!("ADDED"), &json!("ConfigMap")));
}

#[tokio::test(start_paused = true)]
async fn requests_take_a_limited_time() {
    let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let environment = Environment::seeded(start, 1);
    let faults = Faults { delay_max: Duration::from_secs(1 << 30), ..Faults::default() };
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), environment.clone(), faults);
    let server = ApiServer::builder(Arc::new(store)).environment(environment).build();
    let server = &server;
    let late = |path: String| async move {
        let started = tokio::time::Instant::now();
        let (code, status) = json(server, "GET", &path, None).await;
        (code, status["message"].clone(), status["reason"].clone(), started.elapsed().as_secs())
    };
    let path = "/api/v1/namespaces/default";
    let timeout = json!("Timeout: request did not complete within the allotted timeout");
    let reason = json!("Timeout");
    assert_eq!(late(path.into()).await, (504, timeout.clone(), reason.clone(), 60));
    let sooner = late(format!("{path}?timeout=5s")).await;
    assert_eq!(sooner, (504, timeout.clone(), reason.clone(), 5));
    assert_eq!(late(format!("{path}?timeout=5h")).await, (504, timeout, reason, 60));
    let (code, message, ..) = late(format!("{path}?timeout=5")).await;
    let why = "invalid timeout specified in the request URL - time: missing unit in duration \"5\"";
    assert_eq!((code, message), (400, json!(why)));
}
