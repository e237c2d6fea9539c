//! `exec` and `attach`: a command's streams over WebSocket channels or SPDY streams.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    Body, NodeServer, Query, Refusal, full,
    spdy::{Outgoing, Session, Stream},
    websocket::{self, ChannelWriter},
};
use crate::{
    pods::{ContainerRef, find_container},
    runtime::{ByteSource, ExecRequest, RuntimeError, StreamSession, TerminalSize},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the client closes a channel.
const CLOSE: u8 = 255;
const WEBSOCKET_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const SPDY_PROTOCOL: &str = "v4.channel.k8s.io";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// How long a SPDY client has to open the streams that it announced.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long output is still read after the command has ended: a child that it left behind may
/// hold the pipe open for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const CHUNK: usize = 32 * 1024;
/// Chunks of input and terminal sizes that wait to be taken.
const INPUT_BUFFER: usize = 16;

/// Answers `/exec/...` (with `exec`) and `/attach/...`.
pub(super) async fn respond(
    server: &NodeServer,
    exec: bool,
    wanted: ContainerRef<'_>,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let tty = query.flag("tty");
    let wish = ExecRequest {
        command: query.all("command").to_vec(),
        tty,
        stdin: query.flag("input"),
        stdout: query.flag("output"),
        stderr: query.flag("error") && !tty,
    };
    if !(wish.stdin || wish.stdout || wish.stderr) {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let transport = Transport::choose(&request)?;
    let container = find_container(&*server.runtime, wanted, false).await?;
    let session = if exec {
        server.runtime.exec(&container.id, wish.clone()).await
    } else {
        server.runtime.attach(&container.id, wish.clone()).await
    };
    let response = transport.answer(&request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run(transport, upgraded, &wish, session).await,
            Err(error) => tracing::debug!(%error, "the client did not upgrade"),
        }
    });
    Ok(response)
}

#[derive(Clone, Copy)]
enum Transport {
    WebSocket(&'static str),
    Spdy,
}

impl Transport {
    fn choose(request: &Request<Incoming>) -> Result<Self, Refusal> {
        if websocket::is_requested(request) {
            return Ok(Self::WebSocket(websocket::choose_protocol(request, &WEBSOCKET_PROTOCOLS)?));
        }
        expect_spdy(request)?;
        let offered = request.headers().get_all(STREAM_PROTOCOL);
        let mut offered = offered.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        if !offered.any(|v| v.trim() == SPDY_PROTOCOL) {
            return Err(Refusal(
                StatusCode::FORBIDDEN,
                format!("unable to upgrade: only {SPDY_PROTOCOL} is supported over SPDY"),
            ));
        }
        Ok(Self::Spdy)
    }

    fn answer(self, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
        match self {
            Self::WebSocket(protocol) => websocket::switching(request, protocol),
            Self::Spdy => Ok(spdy_switching(Some(SPDY_PROTOCOL))),
        }
    }
}

/// Refuses what does not ask for SPDY/3.1.
pub(super) fn expect_spdy<B>(request: &Request<B>) -> Result<(), Refusal> {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
    if upgrade.is_some_and(|v| v.eq_ignore_ascii_case("SPDY/3.1")) {
        return Ok(());
    }
    Err(Refusal::bad_request("Upgrade request required"))
}

/// The answer that switches to SPDY/3.1.
pub(super) fn spdy_switching(protocol: Option<&'static str>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// The client's ends of the streams, whatever carries them.
struct Remote {
    stdin: Option<mpsc::Receiver<Bytes>>,
    resize: Option<mpsc::Receiver<TerminalSize>>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    error: Output,
}

enum Output {
    Channel(ChannelWriter, u8),
    Stream(Outgoing),
}

impl Output {
    async fn send(&self, data: Bytes) -> bool {
        match self {
            Self::Channel(writer, channel) => writer.send(*channel, data).await,
            Self::Stream(stream) => stream.send(data).await,
        }
    }

    async fn close(&self) {
        if let Self::Stream(stream) = self {
            stream.close().await;
        }
    }
}

async fn run(
    transport: Transport,
    upgraded: Upgraded,
    wish: &ExecRequest,
    session: Result<StreamSession, RuntimeError>,
) {
    match transport {
        Transport::WebSocket(_) => {
            let (reader, writer, written) = websocket::channels(websocket::accept(upgraded).await);
            let remote = over_channels(wish, reader, writer).await;
            serve(remote, session).await;
            // A panic in the writer has been reported by the runtime.
            let _ended = written.await;
        }
        Transport::Spdy => {
            let mut connection = Session::start(TokioIo::new(upgraded));
            let opened = over_streams(wish, &mut connection);
            match tokio::time::timeout(STREAM_CREATION_TIMEOUT, opened).await {
                Ok(Some(remote)) => serve(remote, session).await,
                Ok(None) => return,
                Err(_) => tracing::debug!("the client did not open its streams in time"),
            }
            connection.finish().await;
        }
    }
}

async fn over_channels(
    wish: &ExecRequest,
    mut reader: websocket::ChannelReader,
    writer: ChannelWriter,
) -> Remote {
    let (input, stdin) = mpsc::channel(INPUT_BUFFER);
    let (sizes, resize) = mpsc::channel(INPUT_BUFFER);
    // An empty message tells the client that the streams are connected.
    let first = if wish.stdout {
        STDOUT
    } else if wish.stderr {
        STDERR
    } else {
        ERROR
    };
    let _gone = writer.send(first, Bytes::new()).await;
    tokio::spawn(async move {
        let mut input = Some(input);
        while let Some((channel, data)) = reader.next().await {
            match channel {
                STDIN => {
                    if let Some(sender) = &input
                        && sender.send(data).await.is_err()
                    {
                        input = None;
                    }
                }
                RESIZE => forward_size(&sizes, &data),
                CLOSE if data.first() == Some(&STDIN) => input = None,
                _ => {}
            }
        }
    });
    Remote {
        stdin: wish.stdin.then_some(stdin),
        resize: wish.tty.then_some(resize),
        stdout: wish.stdout.then(|| Output::Channel(writer.clone(), STDOUT)),
        stderr: wish.stderr.then(|| Output::Channel(writer.clone(), STDERR)),
        error: Output::Channel(writer, ERROR),
    }
}

#[derive(Deserialize)]
struct SizeMessage {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

fn forward_size(sizes: &mpsc::Sender<TerminalSize>, message: &[u8]) {
    if let Ok(SizeMessage { width, height }) = serde_json::from_slice(message) {
        // When sizes come faster than they are taken, the newest few are enough.
        let _full = sizes.try_send(TerminalSize { width, height });
    }
}

async fn over_streams(wish: &ExecRequest, connection: &mut Session) -> Option<Remote> {
    let expected = 1 + [wish.stdin, wish.stdout, wish.stderr, wish.tty]
        .iter()
        .filter(|wanted| **wanted)
        .count();
    let (mut stdin, mut resize, mut stdout, mut stderr, mut error) = (None, None, None, None, None);
    for _ in 0..expected {
        let stream = connection.accept().await?;
        match stream.headers.get("streamtype").map(String::as_str) {
            Some("stdin") => stdin = Some(stream.incoming),
            Some("stdout") => stdout = Some(Output::Stream(stream.outgoing)),
            Some("stderr") => stderr = Some(Output::Stream(stream.outgoing)),
            Some("error") => error = Some(Output::Stream(stream.outgoing)),
            Some("resize") => resize = Some(sizes_from(stream)),
            _ => stream.outgoing.reset().await,
        }
    }
    Some(Remote { stdin, resize, stdout, stderr, error: error? })
}

fn sizes_from(mut stream: Stream) -> mpsc::Receiver<TerminalSize> {
    let (sizes, resize) = mpsc::channel(INPUT_BUFFER);
    tokio::spawn(async move {
        while let Some(data) = stream.incoming.recv().await {
            // Several sizes may have been put into one chunk.
            let messages = serde_json::Deserializer::from_slice(&data).into_iter::<SizeMessage>();
            for SizeMessage { width, height } in messages.map_while(Result::ok) {
                let _full = sizes.try_send(TerminalSize { width, height });
            }
        }
    });
    resize
}

async fn serve(remote: Remote, session: Result<StreamSession, RuntimeError>) {
    let Remote { stdin, resize, stdout, stderr, error } = remote;
    let status = match session {
        Err(failure) => failure_status(&failure),
        Ok(mut session) => {
            let input = tokio::spawn(pump_input(stdin, session.stdin.take()));
            let sizes = tokio::spawn(pump_sizes(resize, session.resize.take()));
            let output = async {
                tokio::join!(
                    pump_output(session.stdout.take(), stdout.as_ref()),
                    pump_output(session.stderr.take(), stderr.as_ref()),
                )
            };
            tokio::pin!(output);
            let mut drained = false;
            let exit = loop {
                tokio::select! {
                    exit = &mut session.exit => break exit,
                    _ = &mut output, if !drained => drained = true,
                }
            };
            if !drained && tokio::time::timeout(DRAIN_TIMEOUT, output).await.is_err() {
                tracing::debug!("a process that the command left behind holds its output open");
            }
            input.abort();
            sizes.abort();
            exit.map_or_else(|failure| failure_status(&failure), exit_status)
        }
    };
    error.send(Bytes::from(status.to_string())).await;
    for stream in [stdout, stderr, Some(error)].into_iter().flatten() {
        stream.close().await;
    }
}

async fn pump_input(from: Option<mpsc::Receiver<Bytes>>, to: Option<crate::runtime::ByteSink>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The command may have ended before its input did.
    let _already_closed = to.shutdown().await;
}

async fn pump_sizes(
    from: Option<mpsc::Receiver<TerminalSize>>,
    to: Option<mpsc::Sender<TerminalSize>>,
) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(size) = from.recv().await {
        if to.send(size).await.is_err() {
            return;
        }
    }
}

async fn pump_output(from: Option<ByteSource>, to: Option<&Output>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut buffer = BytesMut::with_capacity(CHUNK);
    while matches!(from.read_buf(&mut buffer).await, Ok(n) if n > 0) {
        if !to.send(buffer.split().freeze()).await {
            return;
        }
        buffer.reserve(CHUNK);
    }
}

fn exit_status(code: i32) -> serde_json::Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure_status(error: &RuntimeError) -> serde_json::Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: error executing command in container: {error}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": error.to_string()}]},
        "code": 500,
    })
}
