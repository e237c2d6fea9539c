//! Logs, exec, attach and port-forward: which container is meant, and on which node it is.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use orch_core::{ApiError, Client, Resources, Target, node::Dialer};

use super::{forward, full, options::Options};
use crate::{auth::service_account::into_api_error, connect::BoxBody};

async fn find(client: &Arc<dyn Client>, target: &Target) -> Result<Arc<Pod>, ApiError> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref().unwrap_or_default();
    let pods: Resources<Pod> = Resources::namespaced(client.clone(), namespace);
    pods.get(name).await.map_err(into_api_error)
}

fn spec(pod: &Pod) -> Result<&PodSpec, ApiError> {
    pod.spec.as_ref().ok_or_else(|| ApiError::internal("the pod has no spec"))
}

/// The container that a request means: the named one, or the only one.
fn container(pod: &Pod, wanted: Option<&str>) -> Result<String, ApiError> {
    let spec = spec(pod)?;
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let own: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> =
        spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let Some(wanted) = wanted else {
        return match own.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => {
                let mut why = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    own.join(" ")
                );
                for (names, kind) in [(&init, "init"), (&ephemeral, "ephemeral")] {
                    if !names.is_empty() {
                        let names = names.join(" ");
                        why.push_str(&format!(" or one of the {kind} containers: [{names}]"));
                    }
                }
                Err(ApiError::bad_request(why))
            }
        };
    };
    if own.iter().chain(&init).chain(&ephemeral).any(|name| *name == wanted) {
        return Ok(wanted.to_owned());
    }
    Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
}

fn node(pod: &Pod) -> Result<Option<&str>, ApiError> {
    Ok(spec(pod)?.node_name.as_deref().filter(|node| !node.is_empty()))
}

fn assigned_node(pod: &Pod) -> Result<&str, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    node(pod)?
        .ok_or_else(|| ApiError::bad_request(format!("pod {name} does not have a host assigned")))
}

fn path(parts: &[&str], query: &str) -> Result<Uri, ApiError> {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        path.push_str(part);
    }
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    path.parse().map_err(ApiError::internal)
}

/// Sends a request to the agent of a node.
async fn send(
    dialer: &dyn Dialer,
    node: &str,
    uri: Uri,
    mut request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    let connection = forward::dial_node(dialer, node).await?;
    forward::checked(forward::send(connection, request).await?).await
}

/// `pods/log`. A pod that is on no node yet has an empty log.
pub(super) async fn log(
    dialer: &dyn Dialer,
    client: &Arc<dyn Client>,
    target: &Target,
    request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    let options = Options::parse(request.uri());
    let query = options.log_query(target.name.as_deref().unwrap_or_default())?;
    let pod = find(client, target).await?;
    let container = container(&pod, options.one("container"))?;
    let Some(node) = node(&pod)? else {
        let mut response = Response::new(full(""));
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        return Ok(response);
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uri = path(&["containerLogs", namespace, name, &container], &query)?;
    let mut forwarded = Request::new(full(""));
    *forwarded.method_mut() = Method::GET;
    *forwarded.extensions_mut() = request.extensions().clone();
    let mut response = send(dialer, node, uri, forwarded).await?;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().entry(header::CONTENT_TYPE).or_insert(plain);
    Ok(response)
}

fn require_upgrade(request: &Request<BoxBody>) -> Result<(), ApiError> {
    if forward::is_upgrade(request.headers()) {
        return Ok(());
    }
    Err(ApiError::bad_request("Upgrade request required"))
}

/// `pods/exec` and `pods/attach`.
pub(super) async fn remote_command(
    dialer: &dyn Dialer,
    client: &Arc<dyn Client>,
    target: &Target,
    request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    let verb = target.subresource.as_deref().unwrap_or_default();
    let options = Options::parse(request.uri());
    let pod = find(client, target).await?;
    let container = container(&pod, options.one("container"))?;
    let node = assigned_node(&pod)?;
    let query = options.command_query()?;
    if verb == "exec" && options.all("command").next().is_none() {
        return Err(ApiError::bad_request("you must specify a command"));
    }
    require_upgrade(&request)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uri = path(&[verb, namespace, name, &container], &query)?;
    send(dialer, node, uri, request).await
}

/// `pods/portforward`.
pub(super) async fn port_forward(
    dialer: &dyn Dialer,
    client: &Arc<dyn Client>,
    target: &Target,
    request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    let query = Options::parse(request.uri()).port_query()?;
    let pod = find(client, target).await?;
    let node = assigned_node(&pod)?;
    require_upgrade(&request)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uri = path(&["portForward", namespace, name], &query)?;
    send(dialer, node, uri, request).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_upstream_chooses_them() {
        let pod = |containers: &[&str], init: &[&str]| -> Pod {
            let list =
                |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
            let spec = json!({"containers": list(containers), "initContainers": list(init)});
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
        };
        let check = |pod: &Pod, wanted: Option<&str>, expected: &str| {
            let found = container(pod, wanted).unwrap_or_else(|error| error.to_string());
            assert_eq!(found, expected);
        };
        let (one, two) = (pod(&["a"], &["setup"]), pod(&["a", "b"], &["setup"]));
        check(&one, None, "a");
        check(&one, Some("setup"), "setup");
        check(&one, Some("c"), "container c is not valid for pod web");
        check(
            &two,
            None,
            "a container name must be specified for pod web, choose one of: [a b] or one of the \
             init containers: [setup]",
        );
        check(
            &pod(&["a", "b"], &[]),
            None,
            "a container name must be specified for pod web, choose one of: [a b]",
        );
        check(&two, Some("b"), "b");
    }
}
