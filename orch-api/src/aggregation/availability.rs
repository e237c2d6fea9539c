//! Whether a server behind this one can be used: the `Available` condition.
//!
//! Source: `k8s.io/kube-aggregator/pkg/controllers/status/remote/remote_available_controller.go`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, select_ok},
};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use orch_core::{
    ClientError, Resources, Target,
    client::{ListOptions, Read, ReadReply, Write, WriteOptions},
    clock::to_seconds,
};
use serde_json::{Value, json};

use super::{API_SERVICES, Remote, proxy::identify};
use crate::{auth::UserInfo, outbound::OutboundError, proxy::ready_addresses, server::Inner};

/// How often a server is asked that is available.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon one is asked again that is not; doubles up to [`AGAIN`].
const SOON: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// One that answers is enough.
const ATTEMPTS: usize = 5;

/// A condition's status, reason and message.
type Verdict = (&'static str, &'static str, String);

impl Inner {
    /// Sees to the condition of an APIService until it is gone.
    pub(super) fn watch_over(&self, name: &str) {
        if self.aggregated.watched.lock().insert(name.to_owned()) {
            tokio::spawn(keep(self.weak(), name.to_owned()));
        }
    }
}

async fn keep(server: Weak<Inner>, name: String) {
    let mut delay = SOON;
    while let Some(inner) = server.upgrade() {
        let remotes = inner.remotes().await;
        let remote = remotes.map(|all| all.iter().find(|one| one.name == name).cloned());
        // A cache that is being read anew says nothing.
        if matches!(remote, Ok(None)) {
            inner.aggregated.watched.lock().remove(&name);
            return;
        }
        let changed = inner.aggregated.changed.notified();
        let verdict = match &remote {
            Ok(Some(remote)) => Some(check(&inner, remote).await),
            _ => None,
        };
        if let Some(verdict) = &verdict
            && let Err(error) = tell(&inner, &name, verdict).await
        {
            tracing::warn!(%name, %error, "the status of an APIService could not be written");
        }
        let available = verdict.is_some_and(|(status, ..)| status == "True");
        delay = if available { AGAIN } else { delay.min(AGAIN) };
        let clock = inner.environment.clock.clone();
        drop(remote);
        // Of a server that is available, many changes in a row are one.
        tokio::select! {
            () = clock.sleep(delay) => {}
            () = changed => clock.sleep(if available { SOON } else { Duration::ZERO }).await,
        }
        delay = if available { SOON } else { delay * 2 };
    }
}

/// Asks for what the server has to serve; if it does not answer, says why.
async fn check(server: &Inner, remote: &Remote) -> Verdict {
    let attempts: Vec<_> = (0..ATTEMPTS).map(|_| attempt(server, remote)).collect();
    match select_ok(attempts).await {
        Ok(_) => ("True", "Passed", "all checks passed".into()),
        Err(why) => match service_trouble(server, remote).await {
            Some(verdict) => verdict,
            None => ("False", "FailedDiscoveryCheck", why),
        },
    }
}

fn attempt<'a>(server: &'a Inner, remote: &'a Remote) -> BoxFuture<'a, Result<(), String>> {
    async move {
        let url = format!("https://{}{}", remote.endpoint.authority(), remote.path());
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::get(&url).header(header::ACCEPT, "application/json").body(body);
        if let Ok(request) = &mut request {
            identify(request.headers_mut(), &aggregator());
        }
        let request = request.map_err(|error| error.to_string())?;
        let answered = tokio::select! {
            answered = server.outbound.send(&remote.endpoint, request) => answered,
            () = server.environment.clock.sleep(ANSWER_TIMEOUT) => Err(OutboundError::TimedOut),
        };
        match answered {
            Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => {
                Ok(())
            }
            Ok(answer) => Err(format!(
                "failing or missing response from {url}: bad status from {url}: {}",
                answer.status().as_u16()
            )),
            Err(error) => {
                Err(format!("failing or missing response from {url}: Get \"{url}\": {error}"))
            }
        }
    }
    .boxed()
}

/// Who the aggregator is to the servers behind it.
pub(super) fn aggregator() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    }
}

/// What is wrong with the Service of a server that does not answer.
async fn service_trouble(server: &Inner, remote: &Remote) -> Option<Verdict> {
    let (namespace, name, port) = &remote.service;
    let what = format!("service/{name} in {namespace:?}");
    let client = server.own_client();
    let services: Resources<Service> = Resources::namespaced(client.clone(), namespace);
    let service = match services.get_opt(name).await {
        Ok(Some(service)) => service,
        Ok(None) => return Some(("False", "ServiceNotFound", format!("{what} is not present"))),
        Err(error) => {
            let why = format!("{what} cannot be checked due to: {error}");
            return Some(("Unknown", "ServiceAccessError", why));
        }
    };
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref().unwrap_or("ClusterIP") != "ClusterIP" {
        return None;
    }
    let ports = spec.ports.unwrap_or_default();
    let Some(found) = ports.into_iter().find(|one| one.port == i32::from(*port)) else {
        let why = format!("{what} is not listening on port {port}");
        return Some(("False", "ServicePortError", why));
    };
    let port_name = found.name.unwrap_or_default();
    let selector = format!("kubernetes.io/service-name={name}");
    let options = ListOptions { label_selector: Some(selector), ..ListOptions::default() };
    let slices: Resources<EndpointSlice> = Resources::namespaced(client.clone(), namespace);
    if slices.list(options).await.is_ok_and(|slices| slices.is_empty()) {
        let why = format!("cannot find endpointslices for {what}");
        return Some(("False", "EndpointsNotFound", why));
    }
    let ready = ready_addresses(&client, namespace, name, &port_name).await;
    if ready.is_ok_and(|addresses| addresses.is_empty()) {
        let why =
            format!("endpointslices for {what} have no addresses with port name {port_name:?}");
        return Some(("False", "MissingEndpoints", why));
    }
    None
}

/// Writes the condition, if it says something new.
async fn tell(
    server: &Arc<Inner>,
    name: &str,
    (status, reason, message): &Verdict,
) -> Result<(), ClientError> {
    let client = server.own_client();
    let target = Target::object(API_SERVICES, None, name);
    let object = match client.read(Read::Get(target.clone())).await {
        Ok(ReadReply::Object(object)) => object,
        Err(error) if !error.is_not_found() => return Err(error),
        _ => return Ok(()),
    };
    let mut value = object.to_value();
    let old = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (mut others, before): (Vec<Value>, Vec<Value>) =
        old.into_iter().partition(|condition| condition["type"] != "Available");
    let before = before.into_iter().next().unwrap_or_default();
    if before["status"] == *status && before["reason"] == *reason && before["message"] == **message
    {
        return Ok(());
    }
    let since = match before.get("lastTransitionTime") {
        Some(since) if before["status"] == *status => since.clone(),
        _ => to_seconds(server.environment.clock.now()).to_string().into(),
    };
    others.push(json!({
        "type": "Available", "status": status, "lastTransitionTime": since, "reason": reason,
        "message": message,
    }));
    value["status"] = json!({"conditions": others});
    let write = Write::Update(target.subresource("status"), value, WriteOptions::default());
    match client.write(write).await {
        // Whoever was faster is looked at again soon.
        Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
