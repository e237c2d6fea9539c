//! A client whose requests are answered in an order that depends on nothing but themselves.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use tower::{BoxError, Layer, Service, ServiceExt};

/// How long every request is under way: the smallest step of tokio's clock.
const UNDER_WAY: Duration = Duration::from_millis(1);

/// Makes the order of requests a matter of the requests alone.
///
/// Several reconciliations of a `kube::runtime::Controller` that run at the same time are polled in
/// the order of a hash map, which is another one in every run. So requests that they make at the
/// same time would arrive in another order, and one seed would be many histories. Behind this
/// layer every request is under way for one millisecond of tokio's clock, so that on a paused clock
/// all that are made at an instant are there before the first of them arrives; then they arrive one
/// after the other by method, path, query and body.
///
/// A request that is dropped before it arrives never does. Requests that are alike in everything
/// arrive as they were made. What is under way is bounded by how many requests the callers have
/// open. Call it inside a tokio runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderLayer;

impl<S> Layer<S> for OrderLayer {
    type Service = Order<S>;

    fn layer(&self, inner: S) -> Order<S> {
        Order { inner, under_way: Arc::default() }
    }
}

/// What [`OrderLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct Order<S> {
    inner: S,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    requests: Vec<Letter>,
    /// Whether somebody waits to deliver them.
    awaited: bool,
}

/// A request that has been made and has not arrived.
struct Letter {
    place: Place,
    /// What happens once it does.
    arrival: BoxFuture<'static, ()>,
}

/// What decides who arrives first.
type Place = (Instant, String, String, Bytes);

impl fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnderWay({} requests)", self.requests.len())
    }
}

impl UnderWay {
    /// What was made before `now`, in its order. Nobody waits any more if that is all.
    fn due(&mut self, now: Instant) -> Vec<Letter> {
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.requests).into_iter().partition(|one| one.place.0 < now);
        self.awaited = !later.is_empty();
        self.requests = later;
        due.sort_by(|one, other| one.place.cmp(&other.place));
        due
    }
}

impl<S> Order<S> {
    fn send(&self, letter: Letter) {
        let mut under_way = self.under_way.lock();
        under_way.requests.push(letter);
        if !std::mem::replace(&mut under_way.awaited, true) {
            tokio::spawn(deliver(self.under_way.clone()));
        }
    }
}

/// Delivers until nothing is under way.
async fn deliver(under_way: Arc<Mutex<UnderWay>>) {
    loop {
        tokio::time::sleep(UNDER_WAY).await;
        let (due, more) = {
            let mut under_way = under_way.lock();
            (under_way.due(Instant::now()), under_way.awaited)
        };
        for letter in due {
            // Polled by nobody else, so that the order in which callers are polled does not matter.
            tokio::spawn(letter.arrival);
        }
        if !more {
            return;
        }
    }
}

impl<S> Service<Request<Body>> for Order<S>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let place =
                (Instant::now(), parts.method.to_string(), parts.uri.to_string(), body.clone());
            let call = this.inner.clone().oneshot(Request::from_parts(parts, body.into()));
            let (mut answer, answered) = oneshot::channel();
            let arrival = async move {
                tokio::select! {
                    biased;
                    () = answer.closed() => {}
                    // Whoever asked may have gone in the meantime.
                    outcome = call => drop(answer.send(outcome.map_err(Into::into))),
                }
            };
            this.send(Letter { place, arrival: arrival.boxed() });
            answered.await?
        }
        .boxed()
    }
}

/// A client whose requests go through [`OrderLayer`] on their way to another one.
pub fn in_order(client: &kube::Client) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    kube::Client::new(OrderLayer.layer(service_of(client)), namespace)
}

/// A client as the service that it is.
pub(super) fn service_of(
    client: &kube::Client,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = kube::Error, Future: Send>
+ Clone
+ Send
+ 'static {
    let client = client.clone();
    tower::service_fn(move |request| {
        let client = client.clone();
        async move { client.send(request).await }
    })
}
