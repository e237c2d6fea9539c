//! One request over one connection, and the tunnel that it may become.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use orch_core::{
    ApiError,
    node::{Connection, DialError, Dialer},
    status::Reason,
};
use tokio_util::sync::CancellationToken;

use super::full;
use crate::{connect::BoxBody, serve::ShutdownSignal};

/// How long the other side may take to be reached.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// An error's text is not read beyond this.
const ERROR_BYTES_MAX: usize = 50_000;
const TUNNEL_BUFFER: usize = 32 * 1024;

const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
];

/// Whether somebody asks for another protocol on the connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter();
    let mut options =
        connection.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    headers.contains_key(header::UPGRADE) && options.any(|o| o.eq_ignore_ascii_case("upgrade"))
}

/// Takes out what concerns the connection that a message came over, and nobody behind it.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| *name != header::UPGRADE)
        .collect();
    listed.iter().chain(&HOP_BY_HOP).for_each(|name| drop(headers.remove(name)));
    if keep_upgrade {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

/// Takes out who the caller is: that is between them and the API server.
pub(crate) fn strip_identity(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    impersonation.iter().for_each(|name| drop(headers.remove(name)));
}

/// The other side could not be reached.
fn dial_failed(error: &DialError) -> ApiError {
    let source = std::error::Error::source(error);
    let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
    ApiError::internal(format!("error dialing backend: {error}{cause}"))
}

type Dialed = Result<Result<Box<dyn Connection>, DialError>, tokio::time::error::Elapsed>;

fn connected(dialed: Dialed) -> Result<Box<dyn Connection>, ApiError> {
    match dialed {
        Ok(dialed) => dialed.map_err(|error| dial_failed(&error)),
        Err(_elapsed) => Err(ApiError::internal("error dialing backend: i/o timeout")),
    }
}

/// A connection to a node's agent, unless dialing takes too long.
pub(super) async fn dial_node(
    dialer: &dyn Dialer,
    node: &str,
) -> Result<Box<dyn Connection>, ApiError> {
    connected(tokio::time::timeout(DIAL_TIMEOUT, dialer.dial_node(node)).await)
}

/// A connection to a pod, unless dialing takes too long.
pub(super) async fn dial_pod(
    dialer: &dyn Dialer,
    address: SocketAddr,
) -> Result<Box<dyn Connection>, ApiError> {
    connected(tokio::time::timeout(DIAL_TIMEOUT, dialer.dial_pod(address)).await)
}

/// Sends a request over a connection of its own and gives the answer, whose body streams. If the
/// answer switches protocols, both connections become one tunnel. The request's target must be a
/// path.
pub(super) async fn send(
    connection: Box<dyn Connection>,
    mut request: Request<BoxBody>,
) -> Result<Response<BoxBody>, ApiError> {
    let upgrades = is_upgrade(request.headers());
    let client_side = upgrades.then(|| hyper::upgrade::on(&mut request));
    let shutdown = request.extensions().get::<ShutdownSignal>().map(|signal| signal.0.clone());
    strip_hop_by_hop(request.headers_mut(), upgrades);
    strip_identity(request.headers_mut());
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("node"));
    }
    let broken =
        |error: hyper::Error| ApiError::internal(format!("error reading from backend: {error}"));
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
    // Ends with the connection: when the answer was read to its end or was dropped.
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "forwarded connection ended");
        }
    });
    let mut response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let other_side = hyper::upgrade::on(&mut response);
        join_upgraded(client_side, other_side, shutdown.unwrap_or_default());
        let (parts, _) = response.into_parts();
        return Ok(Response::from_parts(parts, full("")));
    }
    strip_hop_by_hop(response.headers_mut(), false);
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// Joins two connections that switch protocols, until both have ended or the server does.
pub(crate) fn join_upgraded(client: OnUpgrade, other: OnUpgrade, shutdown: CancellationToken) {
    tokio::spawn(tunnel(client, other, shutdown));
}

/// Carries bytes both ways. The end of one direction is passed on while the other goes on.
async fn tunnel(client: OnUpgrade, other: OnUpgrade, shutdown: CancellationToken) {
    let carry = async {
        let (client, other) = futures::future::try_join(client, other).await?;
        let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
        tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut other,
            TUNNEL_BUFFER,
            TUNNEL_BUFFER,
        )
        .await
        .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
    };
    if let Some(Err(error)) = shutdown.run_until_cancelled(carry).await {
        tracing::debug!(error, "tunnel ended");
    }
}

/// The beginning of a body as text.
async fn text(mut body: BoxBody) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > ERROR_BYTES_MAX {
            bytes.truncate(ERROR_BYTES_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// An answer of a node agent, or the error that it is.
pub(super) async fn checked(response: Response<BoxBody>) -> Result<Response<BoxBody>, ApiError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let text = text(response.into_body()).await;
    Err(match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(Reason::NotFound, text),
        StatusCode::FORBIDDEN => ApiError::new(Reason::Forbidden, text),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::new(Reason::ServiceUnavailable, text),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(Reason::MethodNotAllowed, text),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        other => ApiError::internal(format!("{text} ({other})")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Upgrade, X-Private"),
            ("upgrade", "SPDY/3.1"),
            ("x-private", "1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        assert!(is_upgrade(&headers));
        strip_hop_by_hop(&mut headers, true);
        strip_identity(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "upgrade", "x-stream-protocol-version"]);
        strip_hop_by_hop(&mut headers, false);
        assert!(!is_upgrade(&headers) && headers.len() == 1);
    }
}
