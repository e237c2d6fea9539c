//! `portForward`: connections to ports of a pod over SPDY (bare or inside a WebSocket) or over
//! WebSocket channels.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use orch_core::node::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Body, NodeServer, Query, Refusal,
    remote_command::{expect_spdy, spdy_switching},
    spdy::{Session, Stream},
    websocket::{self, ChannelWriter},
};
use crate::{
    pods::find_sandbox,
    runtime::{Runtime, SandboxId},
};

const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];
const SPDY_PROTOCOL: &str = "portforward.k8s.io";
const CHUNK: usize = 32 * 1024;
const INPUT_BUFFER: usize = 16;
/// Channel numbers are bytes, two to a port.
const PORTS_MAX: usize = 127;

#[derive(Clone)]
struct Target {
    runtime: Arc<dyn Runtime>,
    sandbox: SandboxId,
}

/// Answers `/portForward/NAMESPACE/POD`.
pub(super) async fn respond(
    server: &NodeServer,
    namespace: &str,
    pod: &str,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let uid = query.one("uid");
    let sandbox = find_sandbox(&*server.runtime, namespace, pod, uid).await?;
    let target = Target { runtime: server.runtime.clone(), sandbox };
    if !websocket::is_requested(&request) {
        expect_spdy(&request)?;
        spawn(hyper::upgrade::on(&mut request), move |upgraded| {
            over_spdy(TokioIo::new(upgraded), target)
        });
        return Ok(spdy_switching(Some(SPDY_PROTOCOL)));
    }
    let supported = [&[TUNNELLED], &CHANNELS[..]].concat();
    let protocol = websocket::choose_protocol(&request, &supported)?;
    let response = websocket::switching(&request, protocol)?;
    let upgrade = hyper::upgrade::on(&mut request);
    if protocol == TUNNELLED {
        spawn(upgrade, move |upgraded| async move {
            over_spdy(websocket::tunnel(websocket::accept(upgraded).await), target).await;
        });
    } else {
        let ports = parse_ports(query)?;
        spawn(upgrade, move |upgraded| over_channels(upgraded, target, ports));
    }
    Ok(response)
}

fn spawn<F>(upgrade: hyper::upgrade::OnUpgrade, serve: impl FnOnce(Upgraded) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(upgraded).await,
            Err(error) => tracing::debug!(%error, "the client did not upgrade"),
        }
    });
}

fn parse_port(text: &str) -> Result<u16, Refusal> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Refusal::bad_request(format!("{text:?} is not a port number")))
}

fn parse_ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let texts: Vec<&str> =
        ["ports", "port"].iter().flat_map(|n| query.all(n)).flat_map(|v| v.split(',')).collect();
    if texts.is_empty() || texts.len() > PORTS_MAX {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    texts.into_iter().map(parse_port).collect()
}

/// The two streams of one forwarded connection find each other by their request id.
async fn over_spdy<C: Connection>(connection: C, target: Target) {
    let mut session = Session::start(connection);
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = session.accept().await {
        let id = stream.headers.get("requestid").cloned().unwrap_or_default();
        let Some(other) = halves.remove(&id) else {
            halves.insert(id, stream);
            continue;
        };
        let is_error = |s: &Stream| s.headers.get("streamtype").is_some_and(|t| t == "error");
        let (error, data) = if is_error(&stream) { (stream, other) } else { (other, stream) };
        connections.spawn(forward_streams(data, error, target.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn forward_streams(mut data: Stream, error: Stream, target: Target) {
    let port = data.headers.get("port").map(|p| parse_port(p));
    let opened = match port {
        Some(Ok(port)) => target
            .runtime
            .port_forward(&target.sandbox, port)
            .await
            .map_err(|e| format!("error forwarding port {port} to pod {}: {e}", target.sandbox)),
        Some(Err(Refusal(_, message))) => Err(message),
        None => Err("the port header is missing".to_owned()),
    };
    match opened {
        Ok(connection) => {
            let (read, write) = tokio::io::split(connection);
            let outbound = async {
                let ended = pump_out(read, |chunk| data.outgoing.send(chunk)).await;
                if let Err(failure) = ended {
                    error.outgoing.send(Bytes::from(failure.to_string())).await;
                }
                data.outgoing.close().await;
            };
            tokio::join!(pump_in(&mut data.incoming, write), outbound);
        }
        Err(message) => {
            error.outgoing.send(Bytes::from(message)).await;
            data.outgoing.reset().await;
        }
    }
    error.outgoing.close().await;
}

/// Channel `2i` carries the data of the `i`th port, `2i + 1` its errors; each begins with the
/// port's number.
async fn over_channels(upgraded: Upgraded, target: Target, ports: Vec<u16>) {
    let (mut reader, writer, written) = websocket::channels(websocket::accept(upgraded).await);
    let mut inputs = Vec::with_capacity(ports.len());
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (input, incoming) = mpsc::channel(INPUT_BUFFER);
        inputs.push(Some(input));
        let channel = (index * 2) as u8;
        connections.spawn(forward_channel(writer.clone(), channel, port, incoming, target.clone()));
    }
    drop(writer);
    while let Some((channel, data)) = reader.next().await {
        let index = usize::from(channel / 2);
        if channel % 2 == 0
            && let Some(slot) = inputs.get_mut(index)
            && let Some(input) = slot
            && input.send(data).await.is_err()
        {
            *slot = None;
        }
    }
    drop(inputs);
    connections.shutdown().await;
    // A panic in the writer has been reported by the runtime.
    let _ended = written.await;
}

async fn forward_channel(
    writer: ChannelWriter,
    channel: u8,
    port: u16,
    mut incoming: mpsc::Receiver<Bytes>,
    target: Target,
) {
    let number = Bytes::copy_from_slice(&port.to_le_bytes());
    if !(writer.send(channel, number.clone()).await && writer.send(channel + 1, number).await) {
        return;
    }
    match target.runtime.port_forward(&target.sandbox, port).await {
        Ok(connection) => {
            let (read, write) = tokio::io::split(connection);
            let outbound = async {
                if let Err(failure) = pump_out(read, |chunk| writer.send(channel, chunk)).await {
                    writer.send(channel + 1, Bytes::from(failure.to_string())).await;
                }
            };
            tokio::join!(pump_in(&mut incoming, write), outbound);
        }
        Err(error) => {
            let message =
                format!("error forwarding port {port} to pod {}: {error}", target.sandbox);
            writer.send(channel + 1, Bytes::from(message)).await;
        }
    }
}

async fn pump_in(from: &mut mpsc::Receiver<Bytes>, mut to: impl AsyncWriteExt + Unpin) {
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    // The application may have closed its side first.
    let _already_closed = to.shutdown().await;
}

/// Ends with an error if that is how the application's connection ended.
async fn pump_out<F>(
    mut from: impl AsyncReadExt + Unpin,
    mut send: impl FnMut(Bytes) -> F,
) -> std::io::Result<()>
where
    F: Future<Output = bool>,
{
    let mut buffer = BytesMut::with_capacity(CHUNK);
    while from.read_buf(&mut buffer).await? > 0 {
        if !send(buffer.split().freeze()).await {
            return Ok(());
        }
        buffer.reserve(CHUNK);
    }
    Ok(())
}
