//! The verbs over HTTP.

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Response, StatusCode, header};
use orch_core::{
    ApiError, Target,
    client::{Read, ReadReply, Write},
};

use super::{
    Exchange,
    accept::{self, Offers},
    options::Query,
    read_body::{Decoded, no_body},
    route::Found,
    serialize::Answer,
    watch,
};
use crate::{
    connect::{BoxBody, ConnectContext},
    registry::method_not_allowed,
};

/// Subresources that are connections, answered by the connector.
pub(super) const CONNECTIONS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

pub(super) async fn serve(
    mut exchange: Exchange,
    found: Found,
) -> Result<Response<BoxBody>, ApiError> {
    let target = target(&exchange, &found).await?;
    let query = Query::of(&exchange.parts.uri);
    if found.subresource.as_deref().is_some_and(|sub| CONNECTIONS.contains(&sub)) {
        return connect(exchange, target, found.rest).await;
    }
    let watches = found.watch || query.flag("watch");
    let method = exchange.parts.method.clone();
    let of = &target.resource;
    let resource = exchange.server.resource(&of.group, &of.version, &of.plural).await?;
    let offers = Offers {
        cbor: exchange.server.options.cbor,
        custom: resource.custom.is_some(),
        error: false,
        answers_only: !resource.verbs.has("get"),
    };
    let accepted = accept::negotiate(&exchange.parts.headers, offers)?;
    match method {
        Method::GET | Method::HEAD if watches => {
            watch::serve(&exchange, &query, target, &resource, accepted).await
        }
        Method::GET | Method::HEAD => {
            let answer =
                Answer { exchange: &exchange, query: &query, resource: &resource, accepted };
            get(&answer, target).await
        }
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
            let write = write_of(&mut exchange, &query, target, offers).await?;
            let answer =
                Answer { exchange: &exchange, query: &query, resource: &resource, accepted };
            write_it(&answer, write).await
        }
        _ => Err(method_not_allowed()),
    }
}

async fn target(exchange: &Exchange, found: &Found) -> Result<Target, ApiError> {
    let server = &exchange.server;
    let resource = server.resource(&found.group, &found.version, &found.plural).await?;
    if !resource.is_namespaced() && found.namespace.is_some()
        || resource.is_namespaced() && found.namespace.is_none() && found.name.is_some()
    {
        return Err(ApiError::no_such_path());
    }
    let mut target = Target::collection(resource.of.clone(), found.namespace.as_deref());
    target.name.clone_from(&found.name);
    if let Some(name) = &found.subresource {
        let known = resource.subresource(name).ok_or_else(ApiError::no_such_path)?;
        target.subresource = Some(known.name.into());
    }
    Ok(target)
}

fn get<'a>(
    answer: &'a Answer<'a>,
    target: Target,
) -> BoxFuture<'a, Result<Response<BoxBody>, ApiError>> {
    async move {
        let read = match target.name {
            Some(_) => Read::Get(target),
            None => Read::List(target, answer.query.list()?),
        };
        let exchange = answer.exchange;
        match exchange.server.read(&exchange.caller, read).await? {
            ReadReply::Object(object) => answer.object(StatusCode::OK, &object),
            ReadReply::List(list) => answer.list(list),
            _ => Err(ApiError::internal("a read gave something unknown")),
        }
    }
    .boxed()
}

fn write_of<'a>(
    exchange: &'a mut Exchange,
    query: &'a Query,
    target: Target,
    offers: Offers,
) -> BoxFuture<'a, Result<Write, ApiError>> {
    async move {
        let method = exchange.parts.method.clone();
        let named = target.name.is_some();
        let kind = target.resource.kind.clone();
        match method {
            Method::POST if !named || target.subresource.is_some() => {
                let options = query.write("CreateOptions")?;
                let body = exchange.object(&kind, offers).await?;
                let body = noted(exchange, &kind, body)?;
                Ok(Write::Create(target, body, options))
            }
            Method::PUT if named => {
                let options = query.write("UpdateOptions")?;
                let body = exchange.object(&kind, offers).await?;
                let body = noted(exchange, &kind, body)?;
                Ok(Write::Update(target, body, options))
            }
            Method::PATCH if named => {
                let options = query.write("PatchOptions")?;
                let (how, body) = exchange.patch(offers).await?;
                exchange.caller.duplicates = body.duplicates;
                if let Some(record) = &exchange.caller.record {
                    record.sent_patch(&body.value);
                }
                Ok(Write::Patch(target, how, body.value, options))
            }
            Method::DELETE => {
                let body =
                    exchange.object("DeleteOptions", offers).await?.map(|decoded| decoded.value);
                if let (Some(record), Some(options)) = (&exchange.caller.record, &body) {
                    record.sent(options);
                }
                let options = query.delete(body.as_ref())?;
                if named {
                    Ok(Write::Delete(target, options))
                } else {
                    Ok(Write::DeleteCollection(target, options, query.list()?))
                }
            }
            _ => Err(method_not_allowed()),
        }
    }
    .boxed()
}

/// The body. Its duplicate fields are noted, to be told with the unknown ones.
fn noted(
    exchange: &mut Exchange,
    kind: &str,
    body: Option<Decoded>,
) -> Result<serde_json::Value, ApiError> {
    let decoded = body.ok_or_else(|| no_body(kind))?;
    exchange.caller.duplicates = decoded.duplicates;
    if let Some(record) = &exchange.caller.record {
        record.sent(&decoded.value);
    }
    Ok(decoded.value)
}

fn write_it<'a>(
    answer: &'a Answer<'a>,
    write: Write,
) -> BoxFuture<'a, Result<Response<BoxBody>, ApiError>> {
    async move {
        let exchange = answer.exchange;
        let written = exchange.server.write(&exchange.caller, write).await?;
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        answer.object(code, &written.object)
    }
    .boxed()
}

async fn connect(
    exchange: Exchange,
    target: Target,
    rest: String,
) -> Result<Response<BoxBody>, ApiError> {
    let Exchange { server, caller, parts, body } = exchange;
    let verb = match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return Err(method_not_allowed()),
    };
    server.address(target.clone(), verb).await?;
    server.authorize(&caller, &target, verb).await?;
    if target.subresource.as_deref() != Some("log") {
        server.admit_connect(&caller, &target, parts.uri.query().unwrap_or_default()).await?;
    }
    let Some(connector) = &server.connector else {
        let what = target.subresource.as_deref().unwrap_or_default();
        let why = format!("this server is not connected to nodes: {what} is not available");
        return Err(ApiError::new(orch_core::status::Reason::ServiceUnavailable, why));
    };
    let context = ConnectContext {
        user: caller.user.clone(),
        client: server.own_client(),
        environment: server.environment.clone(),
        rest,
    };
    let mut response = connector
        .connect(context, target, http::Request::from_parts(parts, body.into_inner()))
        .await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(http::HeaderValue::from_static("no-cache, private"));
    Ok(response)
}
