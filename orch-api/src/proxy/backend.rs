//! The proxies to pods, services and nodes.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/{pod,service,node}/strategy.go`,
//! `k8s.io/apimachinery/pkg/util/proxy`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use orch_core::{
    ApiError, Client, Resources, Target, client::ListOptions, node::Dialer, random::Random,
    status::Reason,
};

use super::{forward, full};
use crate::{
    auth::service_account::into_api_error,
    connect::{BoxBody, ConnectContext},
};

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

fn split(text: &str) -> Result<Name<'_>, ApiError> {
    let parts: Vec<&str> = text.split(':').collect();
    let name = match parts.as_slice() {
        [name] => Name { scheme: "", name, port: "" },
        [scheme @ ("http" | "https"), name] => Name { scheme, name, port: "" },
        [name, port] => Name { scheme: "", name, port },
        [scheme @ ("http" | "https" | ""), name, port] => Name { scheme, name, port },
        _ => return Err(ApiError::bad_request(format!("invalid proxy request {text:?}"))),
    };
    if name.name.is_empty() {
        return Err(ApiError::bad_request(format!("invalid proxy request {text:?}")));
    }
    if name.scheme == "https" {
        let why = "proxying over https is not supported: use the plain port";
        return Err(ApiError::bad_request(why));
    }
    Ok(name)
}

fn unavailable(why: String) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, why)
}

async fn pod_address(
    client: &Arc<dyn Client>,
    namespace: &str,
    wanted: &Name<'_>,
) -> Result<SocketAddr, ApiError> {
    let pods: Resources<Pod> = Resources::namespaced(client.clone(), namespace);
    let pod = pods.get(wanted.name).await.map_err(into_api_error)?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let port = match wanted.port {
        "" => ports.map(|port| port.container_port).next().unwrap_or(80),
        text => {
            let named = ports.into_iter().find(|port| port.name.as_deref() == Some(text));
            match named {
                Some(port) => port.container_port,
                None => text.parse().map_err(|_| {
                    ApiError::bad_request(format!("invalid port {text:?} of pod {}", wanted.name))
                })?,
            }
        }
    };
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
    let Some(address) = address else {
        return Err(ApiError::bad_request("address not allowed"));
    };
    let port = u16::try_from(port).map_err(|_| ApiError::bad_request("invalid port"))?;
    Ok(SocketAddr::new(address, port))
}

async fn service_address(
    client: &Arc<dyn Client>,
    random: &dyn Random,
    namespace: &str,
    wanted: &Name<'_>,
) -> Result<SocketAddr, ApiError> {
    let services: Resources<Service> = Resources::namespaced(client.clone(), namespace);
    let service = services.get(wanted.name).await.map_err(into_api_error)?;
    let ports: Vec<_> = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).collect();
    let port = match wanted.port {
        "" if ports.len() == 1 => ports.first(),
        "" => ports.iter().find(|port| port.name.as_deref().is_none_or(str::is_empty)),
        text => ports
            .iter()
            .find(|port| port.name.as_deref() == Some(text) || port.port.to_string() == text),
    };
    let Some(port) = port else {
        return Err(unavailable(format!(
            "no service port {:?} found for service {:?}",
            wanted.port, wanted.name
        )));
    };
    let port_name = port.name.clone().unwrap_or_default();
    let addresses = ready_addresses(client, namespace, wanted.name, &port_name).await?;
    if addresses.is_empty() {
        let why = format!("no endpoints available for service {:?}", wanted.name);
        return Err(unavailable(why));
    }
    let index = random.below(addresses.len() as u64);
    Ok(addresses[usize::try_from(index).unwrap_or_default()])
}

/// Where the ready endpoints of a Service's port are.
pub(crate) async fn ready_addresses(
    client: &Arc<dyn Client>,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Result<Vec<SocketAddr>, ApiError> {
    let options = ListOptions {
        label_selector: Some(format!("kubernetes.io/service-name={service}")),
        ..ListOptions::default()
    };
    let slices: Resources<EndpointSlice> = Resources::namespaced(client.clone(), namespace);
    let mut addresses = Vec::new();
    for slice in slices.list_objects(options).await.map_err(into_api_error)?.items {
        let slice = slice.decode::<EndpointSlice>().map_err(ApiError::internal)?;
        let port = slice.ports.iter().flatten();
        let port = port
            .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .find_map(|port| port.port.and_then(|port| u16::try_from(port).ok()));
        let Some(port) = port else { continue };
        let ready =
            slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
            });
        let ready = ready.flat_map(|endpoint| &endpoint.addresses);
        addresses
            .extend(ready.filter_map(|text| text.parse().ok()).map(|ip| SocketAddr::new(ip, port)));
    }
    Ok(addresses)
}

/// A relative link on a page needs a slash behind `proxy`: browsers are sent there.
fn missing_slash(
    context: &ConnectContext,
    request: &Request<BoxBody>,
) -> Option<Response<BoxBody>> {
    let path = request.uri().path();
    let redirects = matches!(request.method().as_str(), "GET" | "HEAD");
    if !context.rest.is_empty() || path.ends_with('/') || !redirects {
        return None;
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{path}/{query}")).ok()?;
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

fn rewritten(context: &ConnectContext, request: &Request<BoxBody>) -> Result<Uri, ApiError> {
    let path = if context.rest.is_empty() { "/" } else { context.rest.as_str() };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{path}{query}").parse().map_err(|_| ApiError::bad_request("invalid proxy path"))
}

/// Tells the other side what the client asked for.
fn add_forwarded(headers: &mut HeaderMap, original: &Uri, host: Option<HeaderValue>) {
    let mut set = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-uri", HeaderValue::from_str(original.path()).ok());
    set("x-forwarded-host", host);
    set("x-forwarded-proto", Some(HeaderValue::from_static("https")));
}

/// A redirect to a path of the other side leads through the proxy.
fn rewrite_location(response: &mut Response<BoxBody>, original: &Uri, rest: &str) {
    let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let Some(location) = location.filter(|l| l.starts_with('/') && !l.starts_with("//")) else {
        return;
    };
    let base = original.path().strip_suffix(rest).unwrap_or(original.path());
    let through = format!("{}{location}", base.trim_end_matches('/'));
    if let Ok(value) = HeaderValue::from_str(&through) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}

/// `pods/proxy`, `services/proxy` and `nodes/proxy`.
pub(super) async fn proxy(
    dialer: &dyn Dialer,
    context: ConnectContext,
    target: &Target,
    mut request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    let wanted = split(target.name.as_deref().unwrap_or_default())?;
    if let Some(redirect) = missing_slash(&context, &request) {
        return Ok(redirect);
    }
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let original = request.uri().clone();
    *request.uri_mut() = rewritten(&context, &request)?;
    let host = request.headers_mut().remove(header::HOST);
    add_forwarded(request.headers_mut(), &original, host);
    let address = match &*target.resource.plural {
        "nodes" => {
            let connection = forward::dial_node(dialer, wanted.name).await?;
            return forward::send(connection, request).await;
        }
        "pods" => pod_address(&context.client, namespace, &wanted).await?,
        _ => {
            service_address(&context.client, &*context.environment.random, namespace, &wanted)
                .await?
        }
    };
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let unreachable =
        |error: ApiError| unavailable(format!("error trying to reach service: {error}"));
    let connection = forward::dial_pod(dialer, address).await.map_err(unreachable)?;
    let mut response = forward::send(connection, request).await.map_err(unreachable)?;
    rewrite_location(&mut response, &original, &context.rest);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_scheme_and_port() {
        let check = |text: &str, scheme: &str, name: &str, port: &str| {
            assert_eq!(split(text).unwrap(), Name { scheme, name, port });
        };
        check("web", "", "web", "");
        check("web:80", "", "web", "80");
        check("http:web", "http", "web", "");
        check("http:web:metrics", "http", "web", "metrics");
        check(":web:80", "", "web", "80");
        for wrong in ["", "a:b:c:d", "ftp:web:80", "https:web:443"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn redirects_lead_through_the_proxy() {
        let original: Uri = "/api/v1/namespaces/a/pods/web/proxy/login".parse().unwrap();
        let mut response = Response::new(full(""));
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/home"));
        rewrite_location(&mut response, &original, "/login");
        assert_eq!(
            response.headers()[header::LOCATION],
            "/api/v1/namespaces/a/pods/web/proxy/home"
        );
    }
}
