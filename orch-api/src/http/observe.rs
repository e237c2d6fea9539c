//! Requests as metrics see them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::request_info::RequestInfo;
use crate::{
    connect::BoxBody,
    metrics::{Metrics, RequestLabels},
    server::Inner,
};

/// A request that is measured.
pub(super) struct Observed {
    metrics: Metrics,
    began: Instant,
    in_flight: Option<Box<dyn Send>>,
}

impl Observed {
    pub(super) fn begin(metrics: &Metrics, info: &RequestInfo) -> Self {
        let counts = !info.is_long_running();
        let in_flight =
            counts.then(|| Box::new(metrics.in_flight(info.mutates())) as Box<dyn Send>);
        Self { metrics: metrics.clone(), began: Instant::now(), in_flight }
    }

    pub(super) fn end(
        mut self,
        server: &Arc<Inner>,
        info: &RequestInfo,
        response: Response<BoxBody>,
    ) -> Response<BoxBody> {
        drop(self.in_flight.take());
        if !is_known(server, info) {
            return response;
        }
        let code = response.status().as_u16();
        if !info.is_long_running() || code >= 400 {
            let bytes = response.body().size_hint().exact();
            self.metrics.answered(labels(info), code, self.began.elapsed(), bytes);
            return response;
        }
        let running = self.metrics.long_running(labels(info));
        let (metrics, began, info) = (self.metrics, self.began, info.clone());
        let ended = Ended(Some(move || {
            drop(running);
            metrics.answered(labels(&info), code, began.elapsed(), None);
        }));
        response.map(|body| Kept { body, _until: ended }.boxed_unsync())
    }
}

/// Only what is served is counted by its name, or anybody could make up names without end.
fn is_known(server: &Inner, info: &RequestInfo) -> bool {
    if !info.is_resource {
        return matches!(&*info.path, "/healthz" | "/livez" | "/readyz");
    }
    let catalog = server.customs.last_known();
    let found = catalog.find(&info.group, &info.version, &info.resource);
    found.is_some_and(|resource| {
        info.subresource.is_empty() || resource.subresource(&info.subresource).is_some()
    })
}

fn labels(info: &RequestInfo) -> RequestLabels<'_> {
    let dry_run = if info.dry_run { "All" } else { "" };
    let subresource = if info.is_resource { &info.subresource } else { &info.path };
    [
        info.metrics_verb(),
        dry_run,
        &info.group,
        &info.version,
        &info.resource,
        subresource,
        info.scope(),
    ]
}

struct Ended<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Ended<F> {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// A body, and what is to be dropped with it.
pub(super) struct Kept<T> {
    pub(super) body: BoxBody,
    pub(super) _until: T,
}

impl<T: Unpin> Body for Kept<T> {
    type Data = Bytes;
    type Error = <BoxBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
