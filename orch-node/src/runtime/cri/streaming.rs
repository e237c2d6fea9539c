//! Exec, attach and port-forward through the runtime's streaming server.

use std::{io, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use orch_core::node::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{io::StreamReader, task::AbortOnDropHandle};

use super::{CriRuntime, failed, proto, quick};
use crate::{
    runtime::{
        ByteSink, ByteSource, ContainerId, ExecOutput, ExecRequest, RuntimeError, SandboxId,
        StreamSession, Streaming, TerminalSize,
    },
    server::spdy::{Outgoing, Session, Stream},
};

mod forwarded;

const PIPE: usize = 64 * 1024;
const SIZES: usize = 4;
/// Beyond a command's own time: for the runtime to kill it.
const EXEC_MARGIN: Duration = Duration::from_secs(10);

#[async_trait]
impl Streaming for CriRuntime {
    async fn exec_sync(
        &self,
        container: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        let whole_seconds = |t: Duration| i64::try_from(t.as_secs().max(1)).unwrap_or(i64::MAX);
        let message = proto::ExecSyncRequest {
            container_id: container.0.clone(),
            cmd: command.to_vec(),
            timeout: timeout.map_or(0, whole_seconds),
        };
        let mut request = tonic::Request::new(message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout + EXEC_MARGIN);
        }
        let done = self.runtime.clone().exec_sync(request).await.map_err(|status| {
            let late = status.code() == tonic::Code::DeadlineExceeded
                || status.message().contains("timeout");
            match (late, timeout) {
                (true, Some(timeout)) => RuntimeError::Timeout(timeout),
                _ => failed(status),
            }
        })?;
        let done = done.into_inner();
        Ok(ExecOutput { exit_code: done.exit_code, stdout: done.stdout, stderr: done.stderr })
    }

    async fn exec(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let message = proto::ExecRequest {
            container_id: container.0.clone(),
            cmd: request.command.clone(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let url = self.runtime.clone().exec(quick(message)).await.map_err(failed)?;
        open_command(&url.into_inner().url, &request).await
    }

    async fn attach(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let message = proto::AttachRequest {
            container_id: container.0.clone(),
            stdin: request.stdin,
            tty: request.tty,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let url = self.runtime.clone().attach(quick(message)).await.map_err(failed)?;
        open_command(&url.into_inner().url, &request).await
    }

    async fn port_forward(
        &self,
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn Connection>, RuntimeError> {
        let message = proto::PortForwardRequest {
            pod_sandbox_id: sandbox.0.clone(),
            port: vec![port.into()],
        };
        let url = self.runtime.clone().port_forward(quick(message)).await.map_err(failed)?;
        let mut session = connect(&url.into_inner().url, "portforward.k8s.io").await?;
        let headers = |kind: &str| {
            vec![
                ("streamtype", kind.to_owned()),
                ("port", port.to_string()),
                ("requestid", "0".to_owned()),
            ]
        };
        let error = session.open(headers("error")).await.ok_or_else(broken)?;
        error.outgoing.close().await;
        let data = session.open(headers("data")).await.ok_or_else(broken)?;
        let (near, far) = tokio::io::duplex(PIPE);
        let (failure, told) = oneshot::channel();
        tokio::spawn(async move {
            forward(data, error.incoming, failure, far).await;
            session.finish().await;
        });
        Ok(Box::new(forwarded::Forwarded::new(near, told)))
    }
}

fn broken() -> RuntimeError {
    let gone = io::Error::from(io::ErrorKind::ConnectionReset);
    RuntimeError::Io("the runtime's streaming connection broke".into(), gone)
}

/// A SPDY session with the streaming server behind `url`.
async fn connect(url: &str, protocol: &'static str) -> Result<Session, RuntimeError> {
    let failed = |why: String| {
        RuntimeError::Unavailable(format!("the runtime's streaming server {url}: {why}").into())
    };
    let uri: Uri = url.parse().map_err(|_| failed("not a URL".into()))?;
    let authority = uri.authority().ok_or_else(|| failed("no host".into()))?.clone();
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|e| failed(e.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|e| failed(e.to_string()))?;
    tokio::spawn(connection.with_upgrades().map(drop));
    let mut request = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .body(Empty::new())
        .map_err(|e| failed(e.to_string()))?;
    let version = HeaderValue::from_static(protocol);
    request.headers_mut().insert("x-stream-protocol-version", version);
    let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed(format!("answered {}", response.status())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| failed(e.to_string()))?;
    Ok(Session::start(TokioIo::new(upgraded)))
}

async fn open_command(url: &str, request: &ExecRequest) -> Result<StreamSession, RuntimeError> {
    let mut session = connect(url, "v4.channel.k8s.io").await?;
    let kinds = [
        ("error", true),
        ("stdin", request.stdin),
        ("stdout", request.stdout),
        ("stderr", request.stderr && !request.tty),
        ("resize", request.tty),
    ];
    let mut opened = Vec::with_capacity(kinds.len());
    for (kind, wanted) in kinds {
        let stream = if wanted {
            let headers = vec![("streamtype", kind.to_owned())];
            Some(session.open(headers).await.ok_or_else(broken)?)
        } else {
            None
        };
        opened.push(stream);
    }
    let mut next = opened.into_iter();
    let mut take = || next.next().flatten();
    let (error, stdin, stdout, stderr, resize) = (take(), take(), take(), take(), take());
    let error = error.ok_or_else(broken)?;
    let exit = async move {
        let code = exit_code(error).await;
        // The session lives until the exit code is known.
        drop(session);
        code
    };
    // Driven by a task: streams must move even if nobody asks for the exit code.
    let exit = AbortOnDropHandle::new(tokio::spawn(exit));
    Ok(StreamSession {
        stdin: stdin.map(|stream| sink(stream.outgoing)),
        stdout: stdout.map(source),
        stderr: stderr.map(source),
        resize: resize.map(|stream| sizes(stream.outgoing)),
        exit: exit.map(|ended| ended.unwrap_or_else(|_| Err(broken()))).boxed(),
    })
}

fn source(stream: Stream) -> ByteSource {
    let chunks = ReceiverStream::new(stream.incoming).map(Ok::<_, io::Error>);
    Box::new(StreamReader::new(chunks))
}

fn sink(outgoing: Outgoing) -> ByteSink {
    let (near, far) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        send_all(far, &outgoing).await;
        outgoing.close().await;
    });
    Box::new(near)
}

fn sizes(outgoing: Outgoing) -> mpsc::Sender<TerminalSize> {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(SIZES);
    tokio::spawn(async move {
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            let message = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
            if !outgoing.send(Bytes::from(message)).await {
                return;
            }
        }
    });
    sender
}

async fn send_all(mut from: impl AsyncReadExt + Unpin, to: &Outgoing) {
    let mut buffer = BytesMut::with_capacity(PIPE);
    while matches!(from.read_buf(&mut buffer).await, Ok(n) if n > 0) {
        if !to.send(buffer.split().freeze()).await {
            return;
        }
        buffer.reserve(PIPE);
    }
}

/// Moves bytes both ways. What the runtime complains of is told before the end of the data is.
async fn forward(
    mut data: Stream,
    mut errors: mpsc::Receiver<Bytes>,
    failure: oneshot::Sender<String>,
    far: DuplexStream,
) {
    let (read, mut write) = tokio::io::split(far);
    let inbound = async {
        while let Some(chunk) = data.incoming.recv().await {
            if write.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let mut text = Vec::new();
        while let Some(chunk) = errors.recv().await {
            text.extend_from_slice(&chunk);
        }
        if !text.is_empty() {
            // Nobody may be reading any more.
            let _gone = failure.send(String::from_utf8_lossy(&text).into_owned());
        }
        // The other side may have gone already.
        let _already_closed = write.shutdown().await;
    };
    let outbound = async {
        send_all(read, &data.outgoing).await;
        data.outgoing.close().await;
    };
    tokio::join!(inbound, outbound);
}

/// What the error stream says once the command has ended: a `Status`.
async fn exit_code(mut error: Stream) -> Result<i32, RuntimeError> {
    let mut text = Vec::new();
    while let Some(chunk) = error.incoming.recv().await {
        text.extend_from_slice(&chunk);
    }
    parse_exit(&text)
}

fn parse_exit(text: &[u8]) -> Result<i32, RuntimeError> {
    if text.is_empty() {
        return Err(broken());
    }
    let Ok(status) = serde_json::from_slice::<Status>(text) else {
        return Err(RuntimeError::Refused(String::from_utf8_lossy(text).into_owned()));
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|c| c.message.as_deref()).and_then(|m| m.parse().ok());
    code.ok_or_else(|| {
        // The words in which a kubelet tells of a failure; whoever asked puts them in front again.
        let message = status.message.unwrap_or_default();
        let told = message.strip_prefix("Internal error occurred: ").unwrap_or(&message);
        let told = told.strip_prefix("error executing command in container: ").unwrap_or(told);
        RuntimeError::Refused(told.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_read_from_the_status() {
        assert_eq!(parse_exit(br#"{"metadata":{},"status":"Success"}"#).unwrap(), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":
            [{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(parse_exit(failed).unwrap(), 7);
        assert!(parse_exit(br#"{"status":"Failure","message":"no such file"}"#).is_err());
        assert!(parse_exit(b"boom").is_err() && parse_exit(b"").is_err());
    }
}
