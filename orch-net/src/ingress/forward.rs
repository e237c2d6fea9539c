//! A request on its way to an endpoint and back.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, CONNECTION, HOST, UPGRADE},
    request::Parts,
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use orch_core::Environment;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{IngressOptions, routing::Router};

/// Between rounds over endpoints of which none answers.
const PAUSE: Duration = Duration::from_millis(100);
/// Headers that are about one connection, not about the request.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    UPGRADE,
];

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ResponseBody = BoxBody<Bytes, hyper::Error>;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) client: SocketAddr,
    pub(super) port: u16,
    pub(super) scheme: &'static str,
}

#[derive(Debug)]
pub(super) struct Forwarder {
    router: Router,
    environment: Environment,
    client: Client<HttpConnector, Attempt>,
    connect_deadline: Duration,
    response_timeout: Duration,
}

/// What one try came to.
enum Tried {
    Answered(Response<Incoming>),
    /// Nothing was done: another endpoint may be asked.
    NotTaken,
    Failed(StatusCode),
}

impl Forwarder {
    pub(super) fn new(router: Router, environment: Environment, options: &IngressOptions) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        let IngressOptions { connect_deadline, response_timeout, .. } = *options;
        Self { router, environment, client, connect_deadline, response_timeout }
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Answers a request, in the worst case by itself.
    pub(super) async fn handle(
        &self,
        mut request: Request<Incoming>,
        source: Source,
    ) -> Response<ResponseBody> {
        let Some(host) = host_of(&request) else { return plain(StatusCode::BAD_REQUEST) };
        let name = without_port(&host);
        let Some((namespace, backend)) = self.router.route(name, request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND);
        };
        let upgrade =
            upgrade_of(request.headers()).map(|kind| (kind, hyper::upgrade::on(&mut request)));
        let (mut parts, body) = request.into_parts();
        prepare(&mut parts, &host, source, upgrade.as_ref().map(|(kind, _)| kind));
        let body = SharedBody::new(body);
        let deadline = Instant::now() + self.connect_deadline;
        loop {
            // Looked up anew in each round: endpoints come and go in a rolling update.
            let mut endpoints = self.router.endpoints(&namespace, &backend);
            if endpoints.is_empty() {
                return plain(StatusCode::SERVICE_UNAVAILABLE);
            }
            let first = self.environment.random.below(endpoints.len() as u64) as usize;
            endpoints.rotate_left(first);
            for endpoint in &endpoints {
                match self.ask(endpoint, &parts, &body).await {
                    Tried::Answered(response) => return answer(response, upgrade),
                    Tried::NotTaken => {}
                    Tried::Failed(status) => return plain(status),
                }
            }
            if Instant::now() >= deadline {
                return plain(StatusCode::BAD_GATEWAY);
            }
            self.environment.clock.sleep(PAUSE).await;
        }
    }

    async fn ask(&self, endpoint: &str, parts: &Parts, body: &SharedBody) -> Tried {
        let mut request = Request::new(body.attempt());
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        *request.version_mut() = Version::HTTP_11;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("http").authority(endpoint).path_and_query(path).build();
        let Ok(uri) = uri else { return Tried::Failed(StatusCode::BAD_GATEWAY) };
        *request.uri_mut() = uri;
        let answer = tokio::time::timeout(self.response_timeout, self.client.request(request));
        match answer.await {
            Ok(Ok(response)) => Tried::Answered(response),
            Ok(Err(error)) => {
                tracing::debug!(endpoint, %error, "an endpoint failed");
                // What never began may be begun elsewhere; what may have been done only if
                // doing it twice is as good as once.
                let again = error.is_connect() || is_idempotent(&parts.method);
                match again && body.is_untouched() {
                    true => Tried::NotTaken,
                    false => Tried::Failed(StatusCode::BAD_GATEWAY),
                }
            }
            Err(_) => Tried::Failed(StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn host_of<B>(request: &Request<B>) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str().to_owned());
    }
    // HTTP/1.0 may come without: then it is any host.
    match request.headers().get(HOST) {
        Some(host) => host.to_str().ok().map(str::to_owned),
        None => Some(String::new()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not the colons within an IPv6 address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// The protocol that the client wants to change to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = connection.flat_map(|value| value.split(','));
    tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade")).then_some(())?;
    headers.get(UPGRADE).cloned()
}

/// Takes out what is about one connection, including what `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn prepare(parts: &mut Parts, host: &str, source: Source, upgrade: Option<&HeaderValue>) {
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    if let Some(kind) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, kind.clone());
    }
    let client = source.client.ip().to_canonical().to_string();
    let port = source.port.to_string();
    for (name, value) in [
        ("host", host),
        ("x-forwarded-for", &client),
        ("x-real-ip", &client),
        ("x-forwarded-host", host),
        ("x-forwarded-port", &port),
        ("x-forwarded-proto", source.scheme),
        ("x-forwarded-scheme", source.scheme),
    ] {
        // An absent host stays absent.
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn plain(status: StatusCode) -> Response<ResponseBody> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn answer(
    mut response: Response<Incoming>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
) -> Response<ResponseBody> {
    match upgrade {
        Some((_, client)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            tokio::spawn(tunnel(client, hyper::upgrade::on(&mut response)));
        }
        _ => remove_hop_by_hop(response.headers_mut()),
    }
    response.map(BodyExt::boxed)
}

/// Passes bytes both ways once both sides have changed protocols.
async fn tunnel(client: OnUpgrade, endpoint: OnUpgrade) {
    let Ok((client, endpoint)) = tokio::try_join!(client, endpoint) else { return };
    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(%error, "an upgraded connection ended badly");
    }
}

/// A request's body that can be offered to several endpoints until one begins to read it.
struct SharedBody {
    body: Arc<Mutex<Option<Incoming>>>,
    hint: SizeHint,
    empty: bool,
}

impl SharedBody {
    fn new(body: Incoming) -> Self {
        let (hint, empty) = (body.size_hint(), body.is_end_stream());
        Self { body: Arc::new(Mutex::new(Some(body))), hint, empty }
    }

    fn attempt(&self) -> Attempt {
        let (body, hint) = (self.body.clone(), self.hint);
        Attempt { body, taken: None, hint, empty: self.empty }
    }

    fn is_untouched(&self) -> bool {
        self.empty || self.body.lock().is_some()
    }
}

/// One offer of a body.
struct Attempt {
    body: Arc<Mutex<Option<Incoming>>>,
    taken: Option<Incoming>,
    hint: SizeHint,
    empty: bool,
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.empty {
            return Poll::Ready(None);
        }
        if this.taken.is_none() {
            this.taken = this.body.lock().take();
        }
        match &mut this.taken {
            Some(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            None => Poll::Ready(Some(Err("the body was read by another attempt".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.empty || self.taken.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or_else(|| self.hint, Body::size_hint)
    }
}
