//! Single probes and lifecycle hooks: HTTP, TCP, gRPC and commands.
//!
//! Source: `pkg/probe`, `pkg/kubelet/lifecycle/handlers.go`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use orch_core::node::Connection;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::TcpStream, time::timeout};

use crate::runtime::{ContainerId, Runtime, RuntimeError};

/// So much of a probed body is read.
const BODY_MAX: usize = 10 * 1024;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// With what the container said.
    Failure(String),
    /// The probe itself could not be made; says nothing about the container.
    Error(String),
}

/// Where the container is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeTarget<'a> {
    pub(crate) runtime: &'a dyn Runtime,
    pub(crate) container_id: &'a ContainerId,
    pub(crate) container: &'a Container,
    pub(crate) address: Option<IpAddr>,
}

fn port(of: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match of {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named =
                |p: &&k8s_openapi::api::core::v1::ContainerPort| p.name.as_ref() == Some(name);
            let found = ports.into_iter().find(named).map(|p| p.container_port);
            found.or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("invalid port: {of:?}"))
}

/// `addr:port` with brackets around IPv6.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Probes once.
pub(crate) async fn probe(target: ProbeTarget<'_>, probe: &Probe) -> Outcome {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1);
    let limit = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        return run_command(target, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(answer) = target.runtime.answer_probe(target.container_id).await {
        let failed = || Outcome::Failure("the script says that it is not ready".into());
        return if answer { Outcome::Success } else { failed() };
    }
    let attempt = async {
        if let Some(http) = &probe.http_get {
            http_get(target, http).await
        } else if let Some(tcp) = &probe.tcp_socket {
            tcp_connect(target, tcp.host.as_deref(), &tcp.port).await
        } else if let Some(grpc) = &probe.grpc {
            grpc_check(target, grpc).await
        } else {
            Outcome::Error("missing probe handler".into())
        }
    };
    let late = |_| Outcome::Failure("context deadline exceeded (timeout while probing)".into());
    timeout(limit, attempt).await.unwrap_or_else(late)
}

async fn run_command(target: ProbeTarget<'_>, command: &[String], limit: Duration) -> Outcome {
    match target.runtime.exec_sync(target.container_id, command, Some(limit)).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut text = output.stdout;
            text.extend_from_slice(&output.stderr);
            Outcome::Failure(String::from_utf8_lossy(&text).into_owned())
        }
        Err(RuntimeError::Timeout(limit)) => {
            let text =
                format!("command timed out: {command:?} timed out after {}s", limit.as_secs());
            Outcome::Failure(text)
        }
        Err(RuntimeError::Start(why)) => Outcome::Failure(why),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

fn host_of(target: ProbeTarget<'_>, host: Option<&str>) -> Result<String, String> {
    let own = || target.address.map(|a| a.to_string());
    host.filter(|h| !h.is_empty())
        .map(ToOwned::to_owned)
        .or_else(own)
        .ok_or_else(|| "the pod has no address".into())
}

async fn tcp_connect(target: ProbeTarget<'_>, host: Option<&str>, of: &IntOrString) -> Outcome {
    let address = match (host_of(target, host), port(of, target.container)) {
        (Ok(host), Ok(port)) => authority(&host, port),
        (Err(error), _) | (_, Err(error)) => return Outcome::Error(error),
    };
    match TcpStream::connect(&address).await {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(format!("dial tcp {address}: connect: {error}")),
    }
}

/// Gets a page. Statuses from 200 to 399 succeed.
///
/// Differs: redirects are not followed; they count as success, as upstream counts those to other
/// hosts.
pub(crate) async fn http_get(target: ProbeTarget<'_>, action: &HTTPGetAction) -> Outcome {
    let address =
        match (host_of(target, action.host.as_deref()), port(&action.port, target.container)) {
            (Ok(host), Ok(port)) => authority(&host, port),
            (Err(error), _) | (_, Err(error)) => return Outcome::Error(error),
        };
    let is_tls = action.scheme.as_deref() == Some("HTTPS");
    let scheme = if is_tls { "https" } else { "http" };
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{address}{slash}{path}");
    match fetch(&address, is_tls, &format!("{slash}{path}"), action).await {
        Ok((status, _)) if (200..400).contains(&status) => Outcome::Success,
        Ok((status, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Err(FetchError::Request(why)) => Outcome::Error(why),
        Err(FetchError::Connect(error)) => {
            Outcome::Failure(format!("Get \"{url}\": dial tcp {address}: connect: {error}"))
        }
        Err(FetchError::Http(why)) => Outcome::Failure(format!("Get \"{url}\": {why}")),
    }
}

enum FetchError {
    Request(String),
    Connect(std::io::Error),
    Http(String),
}

fn request(
    address: &str,
    path: &str,
    action: &HTTPGetAction,
) -> Result<http::Request<Empty<Bytes>>, FetchError> {
    let mut builder = http::Request::get(path);
    let (mut host, mut agent, mut accept) = (false, false, false);
    for header in action.http_headers.iter().flatten() {
        host |= header.name.eq_ignore_ascii_case("host");
        agent |= header.name.eq_ignore_ascii_case("user-agent");
        accept |= header.name.eq_ignore_ascii_case("accept");
        builder = builder.header(header.name.as_str(), header.value.as_str());
    }
    if !host {
        builder = builder.header(http::header::HOST, address);
    }
    if !agent {
        builder = builder.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    if !accept {
        builder = builder.header(http::header::ACCEPT, "*/*");
    }
    let builder = builder.header(http::header::CONNECTION, "close");
    builder.body(Empty::new()).map_err(|e| FetchError::Request(e.to_string()))
}

async fn fetch(
    address: &str,
    is_tls: bool,
    path: &str,
    action: &HTTPGetAction,
) -> Result<(u16, Bytes), FetchError> {
    let request = request(address, path, action)?;
    let tcp = TcpStream::connect(address).await.map_err(FetchError::Connect)?;
    let stream: Box<dyn Connection> = if is_tls {
        Box::new(tls(address, tcp).await.map_err(FetchError::Http)?)
    } else {
        Box::new(tcp)
    };
    let http = |e: hyper::Error| FetchError::Http(e.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status().as_u16();
        // The status decides; a body that is too long or breaks off changes nothing.
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        Ok((status, body.map(|b| b.to_bytes()).unwrap_or_default()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        closed = connection => match closed {
            Ok(()) => exchange.await,
            Err(error) => Err(http(error)),
        },
    }
}

/// Accepts every certificate: probes check that something answers, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn tls(
    address: &str,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.map_err(|e| e.to_string())
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc_check(target: ProbeTarget<'_>, action: &GRPCAction) -> Outcome {
    let Some(address) = target.address else {
        return Outcome::Error("the pod has no address".into());
    };
    let Ok(port) = u16::try_from(action.port) else {
        return Outcome::Error(format!("invalid port: {}", action.port));
    };
    let uri = format!("http://{}", authority(&address.to_string(), port));
    let endpoint = match tonic::transport::Endpoint::from_shared(uri) {
        Ok(endpoint) => endpoint,
        Err(error) => return Outcome::Error(error.to_string()),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return Outcome::Failure(format!("failed to connect service: {error}")),
    };
    let mut client = tonic::client::Grpc::new(channel);
    if let Err(error) = client.ready().await {
        return Outcome::Failure(error.to_string());
    }
    let service = action.service.clone().unwrap_or_default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service });
    match client.unary(request, path, codec).await {
        Ok(response) if response.get_ref().status == 1 => Outcome::Success,
        Ok(response) => {
            let status = response.get_ref().status;
            Outcome::Failure(format!("service unhealthy (responded with status {status})"))
        }
        Err(status) => Outcome::Failure(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }]
        }))
        .unwrap();
        let named = |name: &str| port(&IntOrString::String(name.into()), &container);
        assert_eq!(named("web"), Ok(8080));
        assert_eq!(named("81"), Ok(81));
        assert!(named("nope").is_err());
        assert!(port(&IntOrString::Int(0), &container).is_err());
        assert!(port(&IntOrString::Int(70000), &container).is_err());
    }
}
