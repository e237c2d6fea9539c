//! The WebSocket side of streaming: numbered channels, and tunnelled byte streams.
//!
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, `k8s.io/streaming`.

use bytes::{Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{Body, Refusal, full};

/// Messages that wait to be written.
const WRITE_BUFFER: usize = 64;
const TUNNEL_BUFFER: usize = 64 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether the request asks for a WebSocket.
pub(super) fn is_requested<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
    upgrade.is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// The first of the client's subprotocols that is among ours.
pub(super) fn choose_protocol<B>(
    request: &Request<B>,
    ours: &[&'static str],
) -> Result<&'static str, Refusal> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    let found = offered.iter().find_map(|o| ours.iter().find(|s| *s == o));
    found.copied().ok_or_else(|| {
        Refusal::bad_request(format!(
            "unable to upgrade: none of the subprotocols {offered:?} is supported: {ours:?}"
        ))
    })
}

/// The answer that switches to the WebSocket.
pub(super) fn switching<B>(
    request: &Request<B>,
    protocol: &'static str,
) -> Result<Response<Body>, Refusal> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Refusal::bad_request("Sec-WebSocket-Key is missing"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Refusal::bad_request("Sec-WebSocket-Key is malformed"))?;
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

/// The server's end of an upgraded connection.
pub(super) async fn accept(upgraded: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await
}

/// Writes messages on numbered channels. Cheap to clone; the connection is closed when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct ChannelWriter(mpsc::Sender<(u8, Bytes)>);

impl ChannelWriter {
    /// `false` if the connection is gone.
    pub(super) async fn send(&self, channel: u8, data: Bytes) -> bool {
        self.0.send((channel, data)).await.is_ok()
    }
}

/// Splits a socket into a reader of (channel, data) messages and a writer. The writer's task says
/// good-bye properly once all writers are gone; its handle completes then.
pub(super) fn channels(
    socket: Socket,
) -> (ChannelReader, ChannelWriter, tokio::task::JoinHandle<()>) {
    let (sink, stream) = socket.split();
    let (sender, queue) = mpsc::channel(WRITE_BUFFER);
    let writer = tokio::spawn(write_messages(sink, queue));
    (ChannelReader(stream), ChannelWriter(sender), writer)
}

async fn write_messages(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<(u8, Bytes)>,
) {
    while let Some((channel, data)) = queue.recv().await {
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.extend_from_slice(&[channel]);
        message.extend_from_slice(&data);
        if sink.send(Message::Binary(message.freeze())).await.is_err() {
            return;
        }
    }
    good_bye(&mut sink).await;
}

/// Closes with a status: kubectl takes a close without one for a broken connection.
async fn good_bye(sink: &mut SplitSink<Socket, Message>) {
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // The peer may have closed first.
    let _already_closed = sink.send(Message::Close(Some(normal))).await;
    let _already_closed = sink.close().await;
}

/// Reads messages from numbered channels.
#[derive(Debug)]
pub(super) struct ChannelReader(SplitStream<Socket>);

impl ChannelReader {
    /// The next message; `None` when the connection is closed or broken.
    pub(super) async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let mut data = match self.0.next().await?.ok()? {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return None,
                _ => continue,
            };
            if data.is_empty() {
                continue;
            }
            let channel = data.split_to(1)[0];
            return Some((channel, data));
        }
    }
}

/// A byte stream carried in the socket's binary messages, message borders meaning nothing.
pub(super) fn tunnel(socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(TUNNEL_BUFFER);
    tokio::spawn(async move {
        let (mut sink, mut stream) = socket.split();
        let (mut read, mut write) = tokio::io::split(far);
        let inbound = async {
            while let Some(Ok(message)) = stream.next().await {
                match message {
                    Message::Binary(data) if write.write_all(&data).await.is_err() => break,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            let _already_closed = write.shutdown().await;
        };
        let outbound = async {
            let mut buffer = BytesMut::with_capacity(TUNNEL_BUFFER);
            while matches!(read.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                    break;
                }
                buffer.reserve(TUNNEL_BUFFER);
            }
            good_bye(&mut sink).await;
        };
        tokio::join!(inbound, outbound);
    });
    near
}
