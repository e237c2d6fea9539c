//! Any `Client` behind HTTP, just enough of it for the conformance suite: what `kube::Client` sends
//! arrives as the calls that were meant.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace},
};
use kube::client::Body;
use orch_core::{
    Client, ClientError, ResourceType, Target,
    client::{
        DeleteOptions, ListOptions, PatchKind, Read, ReadReply, WatchEvent, WatchOptions, Write,
        WriteOptions,
    },
    status::ApiError,
};
use serde_json::{Value, json};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Query = BTreeMap<String, String>;

/// A `kube::Client` of a server that passes everything on to `client`.
pub(crate) fn over_http(client: Arc<dyn Client>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        let answer: BoxFuture<'static, Result<Answer, Infallible>> = Box::pin(async move {
            Ok(serve(&client, request).await.unwrap_or_else(|error| failure(&error)))
        });
        answer
    });
    kube::Client::new(service, "default")
}

fn answer(code: u16, body: Vec<u8>) -> Answer {
    let body = Full::new(Bytes::from(body)).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

fn failure(error: &ClientError) -> Answer {
    let ClientError::Api(error) = error else { return answer(500, error.to_string().into()) };
    answer(error.code(), serde_json::to_vec(error.status()).unwrap())
}

fn target_of(path: &str) -> Result<Target, ApiError> {
    let known = [
        ResourceType::of::<ConfigMap>(),
        ResourceType::of::<Namespace>(),
        ResourceType::of::<Deployment>(),
    ];
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let resource = known.into_iter().find(|resource| resource.plural == rest[0]);
    let resource = resource.ok_or_else(ApiError::no_such_path)?;
    Ok(Target {
        resource,
        namespace: namespace.map(str::to_owned),
        name: rest.get(1).map(|name| (*name).to_owned()),
        subresource: rest.get(2).map(|sub| (*sub).to_owned().into()),
    })
}

async fn serve(client: &Arc<dyn Client>, request: Request<Body>) -> Result<Answer, ClientError> {
    let (head, body) = request.into_parts();
    let body = body.collect_bytes().await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let query: Query = form_urlencoded::parse(query).into_owned().collect();
    let target = target_of(head.uri.path())?;
    let options = WriteOptions::default();
    let write = match head.method {
        Method::GET if query.contains_key("watch") => return watch(client, target, &query).await,
        Method::GET => return read(client, target, &query).await,
        Method::POST => Write::Create(target, body, options),
        Method::PUT => Write::Update(target, body, options),
        Method::PATCH => {
            let media = head.headers[header::CONTENT_TYPE].to_str().unwrap_or_default().to_owned();
            let kinds = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
            let kind = kinds.into_iter().find(|kind| kind.media_type() == media);
            Write::Patch(target, kind.expect("a known media type"), body, options)
        }
        _ => delete(target, &body, &query),
    };
    Ok(answer(200, client.write(write).await?.to_json().to_vec()))
}

fn delete(target: Target, body: &Value, query: &Query) -> Write {
    let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let options = DeleteOptions {
        grace_period_s: body["gracePeriodSeconds"].as_i64(),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        ..DeleteOptions::default()
    };
    match target.name {
        Some(_) => Write::Delete(target, options),
        None => Write::DeleteCollection(target, options, selection(query)),
    }
}

fn selection(query: &Query) -> ListOptions {
    ListOptions {
        label_selector: query.get("labelSelector").cloned(),
        field_selector: query.get("fieldSelector").cloned(),
        limit: query.get("limit").map(|limit| limit.parse().unwrap()),
        continue_token: query.get("continue").cloned(),
        ..ListOptions::default()
    }
}

async fn read(
    client: &Arc<dyn Client>,
    target: Target,
    query: &Query,
) -> Result<Answer, ClientError> {
    let read = match target.name {
        Some(_) => Read::Get(target),
        None => Read::List(target, selection(query)),
    };
    let body = match client.read(read).await? {
        ReadReply::Object(object) => object.to_value(),
        ReadReply::List(list) => json!({
            "kind": "List",
            "metadata": {
                "resourceVersion": list.resource_version,
                "continue": list.continue_token,
                "remainingItemCount": list.remaining_item_count,
            },
            "items": list.items.iter().map(|object| object.to_value()).collect::<Vec<_>>(),
        }),
        _ => Value::Null,
    };
    Ok(answer(200, serde_json::to_vec(&body).unwrap()))
}

async fn watch(
    client: &Arc<dyn Client>,
    target: Target,
    query: &Query,
) -> Result<Answer, ClientError> {
    let options = WatchOptions {
        label_selector: query.get("labelSelector").cloned(),
        field_selector: query.get("fieldSelector").cloned(),
        resource_version: query.get("resourceVersion").cloned(),
        bookmarks: query.contains_key("allowWatchBookmarks"),
        send_initial_events: query.contains_key("sendInitialEvents"),
        timeout_s: query.get("timeoutSeconds").map(|s| s.parse().unwrap()),
    };
    let events = client.watch(target, options).await?;
    let lines = events.map(|event| {
        let mut line = serde_json::to_vec(&wire(&event.expect("the watch works"))).unwrap();
        line.push(b'\n');
        Ok(http_body::Frame::data(Bytes::from(line)))
    });
    Ok(Response::new(StreamBody::new(lines).boxed_unsync()))
}

fn wire(event: &WatchEvent) -> Value {
    match event {
        WatchEvent::Added(object) => json!({"type": "ADDED", "object": object.to_value()}),
        WatchEvent::Modified(object) => json!({"type": "MODIFIED", "object": object.to_value()}),
        WatchEvent::Deleted(object) => json!({"type": "DELETED", "object": object.to_value()}),
        WatchEvent::Bookmark { resource_version, initial_events_end } => {
            let annotations =
                initial_events_end.then(|| json!({"k8s.io/initial-events-end": "true"}));
            json!({"type": "BOOKMARK", "object": {"metadata": {
                "resourceVersion": resource_version, "annotations": annotations}}})
        }
        _ => Value::Null,
    }
}
