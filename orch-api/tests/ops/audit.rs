//! Audit events.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use orch_api::{
    ApiServer, Bootstrap,
    audit::{
        Audit, Event, LogFile, LogFileOptions, Policy, QueueOptions, Queued, Sink, SinkError,
        Webhook,
    },
    auth::{StaticTokens, UserInfo, rbac::Rbac},
};
use orch_core::{Environment, informer::Informers};
use orch_store::MemoryStore;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::support::call;

/// Keeps events where a test can look at them.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Value>>);

impl Kept {
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[async_trait]
impl Sink for Kept {
    async fn keep(&self, events: Vec<Arc<Event>>) -> Result<(), SinkError> {
        let values = events.iter().map(|event| serde_json::to_value(&**event).unwrap());
        self.0.lock().extend(values);
        Ok(())
    }
}

fn policy(rules: &str) -> Policy {
    let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}");
    Policy::from_yaml(&text).unwrap()
}

/// A server whose users are known by tokens, and what it has noted since it was made.
async fn server(rules: &str) -> (ApiServer, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let store = Arc::new(MemoryStore::default());
    let plain = ApiServer::new(store.clone());
    plain.bootstrap(&Bootstrap { roles: true, ..Bootstrap::default() }).await.unwrap();
    let informers = Informers::new(plain.client(UserInfo::master("rbac")), Environment::system());
    let tokens = StaticTokens::new()
        .with("root", UserInfo::master("root"))
        .with("ann", UserInfo::authenticated("ann", &["dev"]));
    let server = ApiServer::builder(store)
        .authenticator(Arc::new(tokens))
        .authorizer(Arc::new(Rbac::new(&informers)))
        .default_admission()
        .audit(Audit::new(policy(rules), vec![kept.clone() as Arc<dyn Sink>]))
        .build();
    (server, kept)
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#;

async fn ask(server: &ApiServer, token: &str, request: &str, body: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("user-agent", "test/1"),
        ("x-forwarded-for", "10.0.0.1, nobody"),
    ];
    let (code, headers, _) = call(server, request, &headers, body).await;
    let id = headers.get("audit-id").map(|id| id.to_str().unwrap().to_owned());
    (code, id.unwrap_or_default())
}

#[tokio::test]
async fn events_are_upstreams() {
    let (server, kept) = server("[{level: RequestResponse, omitManagedFields: true}]").await;
    let (code, id) = ask(&server, "root", &format!("POST {MAPS}?x=y"), MAP).await;
    assert_eq!(code, 201);
    let events = kept.take();
    let stages: Vec<&Value> = events.iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let mut last = events[1].clone();
    for field in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = last[field].as_str().unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), (27, true), "{time}");
        last.as_object_mut().unwrap().remove(field);
    }
    let answer = last["responseObject"].take();
    assert_eq!((&answer["kind"], &answer["data"]["k"]), (&json!("ConfigMap"), &json!("v")));
    assert_eq!(answer["metadata"]["managedFields"], Value::Null);
    last.as_object_mut().unwrap().remove("responseObject");
    assert_eq!(
        last,
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
            "auditID": id, "stage": "ResponseComplete", "requestURI": format!("{MAPS}?x=y"),
            "verb": "create",
            "user": {"username": "root", "groups": ["system:masters", "system:authenticated"]},
            "sourceIPs": ["10.0.0.1"], "userAgent": "test/1",
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a",
                "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestObject": {"metadata": {"name": "a"}, "data": {"k": "v"}},
            "annotations": {"authorization.k8s.io/decision": "allow",
                "authorization.k8s.io/reason": ""},
        })
    );
    assert_eq!(events[0]["requestObject"], Value::Null);
}

#[tokio::test]
async fn refusals_are_noted_with_their_reason() {
    let (server, kept) = server("[{level: Metadata, omitStages: [RequestReceived]}]").await;
    assert_eq!(ask(&server, "ann", &format!("GET {MAPS}"), "").await.0, 403);
    let events = kept.take();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(events[0]["responseStatus"]["code"], 403);
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[0]["verb"], "list");
    assert_eq!(ask(&server, "guess", &format!("GET {MAPS}"), "").await.0, 401);
    let events = kept.take();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["stage"], &events[0]["user"], &events[0]["responseStatus"]["code"]),
        (&json!("ResponseStarted"), &json!({}), &json!(401))
    );
}

#[tokio::test]
async fn whoever_acts_as_another_is_named_with_the_other() {
    let (server, kept) = server("[{level: Metadata, omitStages: [RequestReceived]}]").await;
    let headers = [("authorization", "Bearer root"), ("impersonate-user", "ann")];
    let (code, ..) = call(&server, &format!("GET {MAPS}/a"), &headers, "").await;
    assert_eq!(code, 403);
    let event = kept.take().remove(0);
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("root"), &json!("ann"))
    );
}

#[tokio::test]
async fn a_watch_is_noted_when_it_starts_and_when_it_ends() {
    let (server, kept) = server("[{level: Metadata, omitStages: [RequestReceived]}]").await;
    let request = http::Request::get(format!("{MAPS}?watch=true"));
    let request = request.header("authorization", "Bearer root");
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let events = kept.take();
    assert_eq!((events.len(), &events[0]["stage"]), (1, &json!("ResponseStarted")));
    let mut body = response.into_body().into_data_stream();
    assert_eq!(ask(&server, "root", &format!("POST {MAPS}"), MAP).await.0, 201);
    body.next().await.unwrap().unwrap();
    kept.take();
    drop(body);
    let ended = loop {
        tokio::task::yield_now().await;
        if let Some(event) = kept.take().pop() {
            break event;
        }
    };
    assert_eq!((&ended["stage"], &ended["verb"]), (&json!("ResponseComplete"), &json!("watch")));
    assert_eq!(ended["auditID"], events[0]["auditID"]);
}

#[tokio::test]
async fn what_the_policy_does_not_want_leaves_no_trace() {
    let (server, kept) = server("[{level: None, verbs: [create]}, {level: Metadata}]").await;
    let (code, id) = ask(&server, "root", &format!("POST {MAPS}"), MAP).await;
    assert_eq!((code, id.as_str(), kept.take().len()), (201, "", 0));
}

#[tokio::test]
async fn admission_remarks() {
    let rules =
        "[{level: Metadata, resources: [{resources: [pods]}], omitStages: [RequestReceived]}]";
    let (server, kept) = server(rules).await;
    let account = r#"{"metadata":{"name":"default"}}"#;
    let path = "POST /api/v1/namespaces/default/serviceaccounts";
    assert_eq!(ask(&server, "root", path, account).await.0, 201);
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    assert_eq!(ask(&server, "root", "POST /api/v1/namespaces/default/pods", pod).await.0, 201);
    let event = kept.take().remove(0);
    let key = "pod-security.kubernetes.io/enforce-policy";
    assert_eq!(event["annotations"][key], "privileged:latest");
}

#[tokio::test]
async fn a_log_has_a_line_for_each_event_and_begins_anew_when_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let options = LogFileOptions { bytes_max: Some(900), old_files_max: 2 };
    let log = LogFile::open(&path, options).unwrap();
    let audit = Audit::new(policy("[{level: Metadata}]"), vec![Arc::new(log) as Arc<dyn Sink>]);
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).audit(audit).build();
    for _ in 0..8 {
        ask(&server, "", "GET /version", "").await;
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["audit.log", "audit.log.1", "audit.log.2"]);
    let text = std::fs::read_to_string(path).unwrap();
    let begins = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
                  \"auditID\":\"";
    assert!(
        text.lines().count() > 0 && text.lines().all(|line| line.starts_with(begins)),
        "{text}"
    );
    let event: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&event["verb"], &event["objectRef"]), (&json!("get"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_gets_batches_and_the_queue_has_a_bound() {
    let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (seen, fails) = (bodies.clone(), Arc::new(Mutex::new(2)));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (seen, fails) = (seen.clone(), fails.clone());
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut fails = fails.lock();
            let code = if *fails > 0 { 503 } else { 200 };
            *fails = 0.max(*fails - 1);
            if code == 200 {
                seen.lock().push(serde_json::from_slice(&body).unwrap());
            }
            let response = http::Response::builder().status(code);
            Ok::<_, std::convert::Infallible>(
                response.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap(),
            )
        }
    });
    let client = kube::Client::new(service, "default");
    let webhook = Arc::new(Webhook::new(client, "/audit", Environment::system()));
    let options = QueueOptions { events_max: 3, ..QueueOptions::default() };
    let queue = Arc::new(Queued::new(webhook, options));
    let audit = Audit::new(policy("[{level: Metadata}]"), vec![queue.clone() as Arc<dyn Sink>]);
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).audit(audit).build();
    for _ in 0..2 {
        ask(&server, "", "GET /version", "").await;
    }
    queue.shutdown().await;
    let sent = bodies.lock();
    let items: usize = sent.iter().map(|list| list["items"].as_array().unwrap().len()).sum();
    assert_eq!((&sent[0]["kind"], items as u64 + queue.lost()), (&json!("EventList"), 4));
    assert!(items >= 3, "{items}");
}
