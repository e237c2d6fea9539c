//! Writing traffic down.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::client::Body;
use orch_core::recording::LineWriter;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::{
    line::{Content, Line, VERSION},
    secrets,
};
use crate::testing::order::service_of;

/// A body that is longer is not written down.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Writes down the traffic of every client that goes through it: a tower layer around whatever
/// answers, or around a `kube::Client` ([`client`](Self::client)). Cheap to clone; the clones write
/// to the same recording.
///
/// Headers are not written down, so that no `Authorization` is. Tokens in bodies never are, and of
/// Secrets only the keys are ([`with_secrets_to`](Self::with_secrets_to) keeps the rest). Everything
/// else is: look through a recording of a cluster that is not a test's before you pass
/// it on.
///
/// Bodies of more than 32 MiB and connections that become something else (`exec`, `attach`,
/// `portforward`) are passed on, and the recording says that they were left out. A request or a
/// watch that its caller drops ends there in the recording, too. Nothing waits for the disk; when
/// it is full, the recording ends, and [`finish`](Self::finish) says so.
#[derive(Clone)]
pub struct Recorder {
    lines: LineWriter,
    shared: Arc<Shared>,
    secret_data: bool,
}

struct Shared {
    begun: Instant,
    exchanges: AtomicU64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exchanges = self.shared.exchanges.load(Ordering::Relaxed);
        write!(f, "Recorder({exchanges} exchanges so far)")
    }
}

impl Recorder {
    /// Begins a recording in a file that is empty, or in whatever can be written to.
    pub fn to(out: impl io::Write + Send + 'static) -> Self {
        Self::begin(LineWriter::to(out), false)
    }

    /// As [`to`](Self::to), and writes down what is in Secrets, too.
    pub fn with_secrets_to(out: impl io::Write + Send + 'static) -> Self {
        Self::begin(LineWriter::to(out), true)
    }

    fn begin(lines: LineWriter, secret_data: bool) -> Self {
        lines.write(&Line::Traffic { version: VERSION, secret_data });
        let shared = Arc::new(Shared { begun: Instant::now(), exchanges: AtomicU64::new(0) });
        Self { lines, shared, secret_data }
    }

    /// A client whose traffic with the cluster of another one is written down.
    pub fn client(&self, of: &kube::Client) -> kube::Client {
        let namespace = of.default_namespace().to_owned();
        kube::Client::new(self.layer(service_of(of)), namespace)
    }

    /// Writes out what is buffered. The recording may go on.
    ///
    /// # Errors
    /// The first error of the file; nothing was recorded after it.
    pub fn finish(&self) -> io::Result<()> {
        self.lines.finish()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn asked(&self, parts: &request::Parts, body: &Bytes) -> Exchange {
        let exchange = self.shared.exchanges.fetch_add(1, Ordering::Relaxed);
        let path = parts.uri.path().to_owned();
        self.lines.write(&Line::Asked {
            at: self.now(),
            exchange,
            method: parts.method.to_string(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: self.content(&path, body),
            path: path.clone(),
        });
        let upgrade = parts.headers.contains_key(header::UPGRADE);
        let parts = is_in_parts(parts.uri.query().unwrap_or_default());
        Exchange { recorder: self.clone(), exchange, path, upgrade, parts }
    }

    fn content(&self, path: &str, body: &[u8]) -> Content {
        match body.len() > BODY_BYTES_MAX {
            true => too_long(),
            false => secrets::hide(path, Content::of(body), !self.secret_data),
        }
    }
}

fn too_long() -> Content {
    Content::LeftOut(format!("bodies of more than {BODY_BYTES_MAX} bytes are not recorded"))
}

/// Whether the answer goes on for as long as its reader likes: watches, and logs that are followed.
pub(super) fn is_in_parts(query: &str) -> bool {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let goes_on = |name: &str| matches!(name, "watch" | "follow");
    pairs.into_iter().any(|(name, value)| goes_on(&name) && matches!(&*value, "true" | "1" | ""))
}

/// A request that has been written down, whose answer is to follow.
struct Exchange {
    recorder: Recorder,
    exchange: u64,
    path: String,
    upgrade: bool,
    parts: bool,
}

impl Exchange {
    fn broke(&self, error: &dyn fmt::Display) {
        let (at, error) = (self.recorder.now(), error.to_string());
        self.recorder.lines.write(&Line::Broke { at, exchange: self.exchange, error });
    }

    fn answered(&self, head: &Head, body: Content) {
        let (at, exchange) = (self.recorder.now(), self.exchange);
        let content_type = head.content_type.clone();
        let status = head.status.as_u16();
        self.recorder.lines.write(&Line::Answered { at, exchange, status, content_type, body });
    }

    fn part(&self, bytes: &[u8]) {
        let body = self.recorder.content(&self.path, bytes);
        let at = self.recorder.now();
        self.recorder.lines.write(&Line::Part { at, exchange: self.exchange, body });
    }

    fn ended(&self) {
        let at = self.recorder.now();
        self.recorder.lines.write(&Line::Ended { at, exchange: self.exchange });
    }
}

struct Head {
    status: StatusCode,
    content_type: Option<String>,
}

/// What a [`Recorder`] makes of a service.
#[derive(Clone, Debug)]
pub struct Record<S> {
    inner: S,
    recorder: Recorder,
}

impl<S> Layer<S> for Recorder {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Record<S> {
        Record { inner, recorder: self.clone() }
    }
}

impl<S, B> Service<Request<Body>> for Record<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: fmt::Display,
{
    type Response = Response<Recorded<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let exchange = this.recorder.asked(&parts, &body);
            let request = Request::from_parts(parts, Body::from(body));
            match this.inner.oneshot(request).await {
                Ok(response) => Ok(Recorded::of(exchange, response)),
                Err(error) => {
                    let error = error.into();
                    exchange.broke(&error);
                    Err(error)
                }
            }
        }
        .boxed()
    }
}

/// The body of an answer that is written down as it is read.
pub struct Recorded<B> {
    inner: B,
    exchange: Exchange,
    head: Head,
    /// What has been read and not been written down.
    read: BytesMut,
    /// Whether what has been read is more than is kept.
    too_long: bool,
    done: bool,
}

impl<B> fmt::Debug for Recorded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorded({})", self.exchange.path)
    }
}

impl<B> Recorded<B> {
    fn of(exchange: Exchange, response: Response<B>) -> Response<Self> {
        let (parts, inner) = response.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let head = Head { status: parts.status, content_type };
        // An error is a whole answer, to whatever it is one.
        let in_parts = exchange.parts && parts.status.is_success();
        let exchange = Exchange { parts: in_parts, ..exchange };
        let done = exchange.upgrade;
        if exchange.upgrade {
            let why = "connections that become something else are not recorded".to_owned();
            exchange.answered(&head, Content::LeftOut(why));
        } else if in_parts {
            exchange.answered(&head, Content::Empty);
        }
        let (read, too_long) = (BytesMut::new(), false);
        Response::from_parts(parts, Self { inner, exchange, head, read, too_long, done })
    }

    fn is_json(&self) -> bool {
        self.head.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/json"))
    }

    fn take(&mut self, bytes: &[u8]) {
        self.too_long |= self.read.len() + bytes.len() > BODY_BYTES_MAX;
        if self.too_long {
            self.read.clear();
            return;
        }
        self.read.extend_from_slice(bytes);
        if !self.exchange.parts {
            return;
        }
        if !self.is_json() {
            self.exchange.part(&std::mem::take(&mut self.read));
            return;
        }
        // One event a line.
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            let line = self.read.split_to(end + 1);
            self.exchange.part(&line[..end]);
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if self.exchange.parts {
            return self.exchange.ended();
        }
        let body = match self.too_long {
            true => too_long(),
            false => self.exchange.recorder.content(&self.exchange.path, &self.read),
        };
        self.exchange.answered(&self.head, body);
    }
}

impl<B> HttpBody for Recorded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if !self.done {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.take(data);
                    }
                    // Readers need not ask for the end of a body that says that it is there.
                    if self.inner.is_end_stream() {
                        self.end();
                    }
                }
                Some(Err(error)) => {
                    self.exchange.broke(error);
                    self.done = true;
                }
                None => self.end(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
