//! [`Client`] for [`kube::Client`]: the same calls over HTTP, to any Kubernetes cluster.

mod discovery;

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Client, ClientError, DeleteOptions, FieldValidation, ListOptions, ObjectList, PatchKind, Read,
    ReadReply, WatchEvent, WatchOptions, WatchStream, Write, WriteOptions, WriteReply, lines,
};
use crate::{
    object::{DecodeError, Object},
    resource::{ResourceType, Target},
    status::{ApiError, Reason},
};

/// Server-side apply needs a manager; this one is used when the caller names none.
const FIELD_MANAGER: &str = "orch";

#[async_trait]
impl Client for kube::Client {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        match read {
            Read::Get(target) => {
                let request = request(Method::GET, &target, &Query::default(), None)?;
                let object = Object::from_json(call(self, request).await?)?;
                Ok(ReadReply::Object(Arc::new(object)))
            }
            Read::List(target, options) => {
                let mut query = Query::default();
                query.list(&options);
                let body = call(self, request(Method::GET, &target, &query, None)?).await?;
                Ok(ReadReply::List(decode_list(&body, &target.resource)?))
            }
        }
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        let body = call(self, write_request(write)?).await?;
        Ok(Arc::new(Object::from_json(body)?))
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        let target = Target { name: None, subresource: None, ..target };
        let mut query = Query::default();
        query.watch(&options);
        let request = request(Method::GET, &target, &query, None)?;
        let response = checked(self.send(request).await.map_err(transport)?).await?;
        Ok(events(response.into_body()))
    }

    /// By aggregated discovery, which Kubernetes has since 1.27.
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        discovery::resource_types(self).await
    }
}

#[derive(Default)]
struct Query(Vec<(&'static str, String)>);

impl Query {
    fn set(&mut self, name: &'static str, value: Option<impl Into<String>>) {
        self.0.extend(value.map(|value| (name, value.into())));
    }

    fn list(&mut self, options: &ListOptions) {
        self.set("labelSelector", options.label_selector.as_deref());
        self.set("fieldSelector", options.field_selector.as_deref());
        self.set("limit", options.limit.map(|limit| limit.to_string()));
        self.set("continue", options.continue_token.as_deref());
        self.set("resourceVersion", options.resource_version.as_deref());
        self.set("resourceVersionMatch", options.resource_version_match.as_deref());
    }

    fn watch(&mut self, options: &WatchOptions) {
        self.set("watch", Some("true"));
        self.set("labelSelector", options.label_selector.as_deref());
        self.set("fieldSelector", options.field_selector.as_deref());
        self.set("resourceVersion", options.resource_version.as_deref());
        self.set("allowWatchBookmarks", options.bookmarks.then_some("true"));
        if options.send_initial_events {
            self.set("sendInitialEvents", Some("true"));
            self.set("resourceVersionMatch", Some("NotOlderThan"));
        }
        self.set("timeoutSeconds", options.timeout_s.map(|s| s.to_string()));
    }

    fn write(&mut self, options: &WriteOptions) {
        self.set("fieldManager", options.field_manager.as_deref());
        self.set("dryRun", options.dry_run.then_some("All"));
        self.set("force", options.force.then_some("true"));
        let validation = options.field_validation.map(|validation| match validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        });
        self.set("fieldValidation", validation);
    }
}

fn transport(error: kube::Error) -> ClientError {
    ClientError::Transport(Box::new(error))
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Transport(Box::new(error))
    }
}

/// The path of a target. What could lead elsewhere does not become part of a URL.
fn path_of(target: &Target) -> Result<String, ApiError> {
    let parts = [target.namespace.as_deref(), target.name.as_deref()];
    for part in parts.into_iter().flatten() {
        let strange = |b: u8| !b.is_ascii_graphic() || b"/?#%\\\"<>^`{|}".contains(&b);
        if part.is_empty() || part == "." || part == ".." || part.bytes().any(strange) {
            return Err(ApiError::bad_request(format!("invalid name in a request: {part:?}")));
        }
    }
    Ok(target.path())
}

fn request(
    method: Method,
    target: &Target,
    query: &Query,
    body: Option<(&'static str, Value)>,
) -> Result<Request<Body>, ClientError> {
    let mut uri = path_of(target)?;
    if !query.0.is_empty() {
        let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(&query.0).finish();
        uri.push('?');
        uri.push_str(&pairs);
    }
    let mut request =
        Request::builder().method(method).uri(uri).header(header::ACCEPT, "application/json");
    let mut bytes = Vec::new();
    if let Some((media_type, value)) = body {
        request = request.header(header::CONTENT_TYPE, media_type);
        bytes = serde_json::to_vec(&value).map_err(DecodeError::Shape)?;
    }
    let request = request.body(Body::from(bytes));
    Ok(request.map_err(|error| ApiError::bad_request(error.to_string()))?)
}

fn write_request(write: Write) -> Result<Request<Body>, ClientError> {
    const JSON: &str = "application/json";
    let mut query = Query::default();
    match write {
        Write::Create(target, body, options) => {
            query.write(&options);
            request(Method::POST, &target, &query, Some((JSON, body)))
        }
        Write::Update(target, body, options) => {
            query.write(&options);
            request(Method::PUT, &target, &query, Some((JSON, body)))
        }
        Write::Patch(target, kind, patch, mut options) => {
            if kind == PatchKind::Apply && options.field_manager.is_none() {
                options.field_manager = Some(FIELD_MANAGER.into());
            }
            query.write(&options);
            request(Method::PATCH, &target, &query, Some((kind.media_type(), patch)))
        }
        Write::Delete(target, options) => {
            request(Method::DELETE, &target, &query, Some((JSON, delete_body(&options))))
        }
        Write::DeleteCollection(target, options, selection) => {
            query.list(&selection);
            request(Method::DELETE, &target, &query, Some((JSON, delete_body(&options))))
        }
    }
}

fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_s {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = propagation.as_str().into();
    }
    if let Some(uid) = &options.uid {
        body["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(version) = &options.resource_version {
        body["preconditions"]["resourceVersion"] = version.as_str().into();
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    body
}

async fn call(client: &kube::Client, request: Request<Body>) -> Result<Bytes, ClientError> {
    let response = client.send(request).await.map_err(transport)?;
    collect(checked(response).await?.into_body()).await
}

async fn collect(body: Body) -> Result<Bytes, ClientError> {
    Ok(body.collect().await.map_err(transport)?.to_bytes())
}

/// The response, if it is a success; otherwise the status that it carries, or one made up from
/// its code as client-go does for servers (and proxies before them) that answer in prose.
async fn checked(response: Response<Body>) -> Result<Response<Body>, ClientError> {
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let body = collect(response.into_body()).await?;
    if let Ok(status) = serde_json::from_slice::<Status>(&body)
        && status.status.as_deref() == Some("Failure")
    {
        return Err(ApiError::from_status(status).into());
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
    Err(ApiError::from_status(Status {
        code: Some(code.as_u16().into()),
        reason: Some(reason_of(code).as_str().to_owned()),
        message: Some(if text.is_empty() { code.to_string() } else { text }),
        status: Some("Failure".into()),
        ..Status::default()
    })
    .into())
}

fn reason_of(code: StatusCode) -> Reason {
    match code.as_u16() {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        500.. => Reason::InternalError,
        _ => Reason::Unknown,
    }
}

#[derive(Deserialize)]
struct ListBody {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
    remaining_item_count: Option<i64>,
}

/// The items of a list do not say what they are; here they get told.
fn decode_list(body: &[u8], resource: &ResourceType) -> Result<ObjectList, ClientError> {
    let list: ListBody = serde_json::from_slice(body).map_err(DecodeError::Shape)?;
    let mut items = Vec::new();
    for mut item in list.items.unwrap_or_default() {
        if let Some(object) = item.as_object_mut() {
            object.entry("apiVersion").or_insert_with(|| resource.api_version().into());
            object.entry("kind").or_insert_with(|| resource.kind.as_ref().into());
        }
        items.push(Arc::new(Object::from_value(&item)?));
    }
    Ok(ObjectList {
        items,
        resource_version: list.metadata.resource_version,
        continue_token: list.metadata.continue_token.filter(|token| !token.is_empty()),
        remaining_item_count: list.metadata.remaining_item_count,
    })
}

#[derive(Deserialize)]
struct EventBody {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

fn decode_event(line: &[u8]) -> Result<Option<WatchEvent>, ClientError> {
    let event: EventBody = serde_json::from_slice(line).map_err(DecodeError::Shape)?;
    let object = || Object::from_value(&event.object).map(Arc::new);
    Ok(Some(match event.kind.as_str() {
        "ADDED" => WatchEvent::Added(object()?),
        "MODIFIED" => WatchEvent::Modified(object()?),
        "DELETED" => WatchEvent::Deleted(object()?),
        "BOOKMARK" => {
            let meta = &event.object["metadata"];
            let end = &meta["annotations"]["k8s.io/initial-events-end"];
            WatchEvent::Bookmark {
                resource_version: meta["resourceVersion"].as_str().unwrap_or_default().to_owned(),
                initial_events_end: end == "true",
            }
        }
        "ERROR" => {
            let status = serde_json::from_value(event.object).map_err(DecodeError::Shape)?;
            return Err(ApiError::from_status(status).into());
        }
        // A kind of event that is newer than this client says nothing about objects.
        _ => return Ok(None),
    }))
}

fn events(body: Body) -> WatchStream {
    let chunks = body.into_data_stream().map_err(transport);
    lines(Box::pin(chunks))
        .filter_map(async |line| line.and_then(|line| decode_event(&line)).transpose())
        .scan(false, |failed, event| {
            // An error is the last item, whatever the server still sends.
            let item = (!*failed).then_some(event);
            *failed = item.as_ref().is_some_and(Result::is_err);
            future::ready(item)
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use k8s_openapi::api::core::v1::Pod;
    use parking_lot::Mutex;

    use super::*;
    use crate::client::Resources;

    type Seen = Arc<Mutex<Vec<String>>>;

    /// A client of a server that answers everything alike and remembers what it was asked.
    fn client(code: u16, answer: &'static str) -> (Arc<dyn Client>, Seen) {
        let seen = Seen::default();
        let log = seen.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let log = log.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let media = head.headers.get(header::CONTENT_TYPE).cloned();
                let media = media.map_or(String::new(), |m| format!(" {}", m.to_str().unwrap()));
                let text = String::from_utf8_lossy(&body).into_owned();
                log.lock().push(format!("{} {}{media} {text}", head.method, head.uri));
                let body = http_body_util::Full::new(Bytes::from_static(answer.as_bytes()));
                let response = Response::builder().status(code).body(body).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        (Arc::new(kube::Client::new(service, "default")), seen)
    }

    #[tokio::test]
    async fn requests_are_what_kubernetes_expects() {
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#;
        let (client, seen) = client(200, pod);
        let pods: Resources<Pod> = Resources::namespaced(client, "ns");
        pods.get("a").await.unwrap();
        pods.patch("a", PatchKind::Merge, json!({})).await.unwrap();
        pods.patch_status("a", PatchKind::Apply, json!({})).await.unwrap();
        let options = DeleteOptions {
            grace_period_s: Some(0),
            uid: Some("u".into()),
            ..DeleteOptions::default()
        };
        pods.delete("a", options).await.unwrap();
        let pods_path = "/api/v1/namespaces/ns/pods";
        assert_eq!(
            *seen.lock(),
            [
                format!("GET {pods_path}/a "),
                format!("PATCH {pods_path}/a application/merge-patch+json {{}}"),
                format!(
                    "PATCH {pods_path}/a/status?fieldManager=orch application/apply-patch+yaml {{}}"
                ),
                format!(
                    "DELETE {pods_path}/a application/json {{\"apiVersion\":\"v1\",\
                     \"gracePeriodSeconds\":0,\"kind\":\"DeleteOptions\",\
                     \"preconditions\":{{\"uid\":\"u\"}}}}"
                ),
            ]
        );
        assert!(pods.get("a/../b").await.is_err(), "a name stays a name");
    }

    #[tokio::test]
    async fn lists_tell_their_items_what_they_are() {
        let list = r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":""},
                       "items":[{"metadata":{"name":"a","resourceVersion":"3"}}]}"#;
        let (client, seen) = client(200, list);
        let pods: Resources<Pod> = Resources::all(client);
        let options = ListOptions {
            label_selector: Some("a in (b,c)".into()),
            limit: Some(5),
            ..ListOptions::default()
        };
        let list = pods.list_objects(options).await.unwrap();
        assert_eq!((list.resource_version.as_str(), list.continue_token), ("7", None));
        assert_eq!((list.items[0].kind(), list.items[0].api_version()), ("Pod", "v1"));
        let expected = "GET /api/v1/pods?labelSelector=a+in+%28b%2Cc%29&limit=5 ";
        assert_eq!(seen.lock().as_slice(), [expected]);
    }

    #[tokio::test]
    async fn watches_are_lines_and_end_with_an_error_status() {
        let lines = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"1"}}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"4"}}}"#,
            "\n\n",
            r#"{"type":"ERROR","object":{"status":"Failure","reason":"Expired","code":410}}"#,
            "\n",
            r#"{"type":"ADDED","object":{"metadata":{"name":"never seen"}}}"#,
            "\n",
        );
        let (client, _) = client(200, lines);
        let pods: Resources<Pod> = Resources::all(client);
        let events: Vec<_> = pods.watch(WatchOptions::default()).await.unwrap().collect().await;
        assert!(matches!(&events[0], Ok(WatchEvent::Added(object)) if object.key().name == "a"));
        assert!(matches!(&events[1], Ok(WatchEvent::Bookmark { .. })));
        assert!(matches!(&events[2], Err(error) if error.is_expired()));
        assert_eq!(events.len(), 3);
    }

    #[tokio::test]
    async fn errors_keep_their_status() {
        let status = r#"{"kind":"Status","status":"Failure","message":"pods \"a\" not found",
                         "reason":"NotFound","code":404}"#;
        let (client_, _) = client(404, status);
        let error = Resources::<Pod>::all(client_).get("a").await.unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "pods \"a\" not found");
        let (client_, _) = client(503, "upstream connect error");
        let error = Resources::<Pod>::all(client_).get("a").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}
