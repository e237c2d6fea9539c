//! `/metrics` and the health checks.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use orch::sched::Insight;
use tokio::net::TcpListener;

/// The scheduler that works, if one does.
#[derive(Clone, Default)]
pub(crate) struct Insights(Arc<Mutex<Option<Insight>>>);

impl Insights {
    pub(crate) fn set(&self, insight: Insight) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(insight);
    }

    pub(crate) fn get(&self) -> Option<Insight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a path answers: the code, the type, the text. A candidate that does not lead is healthy.
    fn answer(&self, path: &str) -> (u16, &'static str, String) {
        match path {
            "/healthz" | "/livez" | "/readyz" => (200, "text/plain", "ok".into()),
            "/metrics" => {
                let numbers = self.get().map(|insight| insight.metrics()).unwrap_or_default();
                (200, "application/openmetrics-text; version=1.0.0; charset=utf-8", numbers)
            }
            _ => (404, "text/plain", "404 page not found\n".into()),
        }
    }
}

/// Serves until the listener fails.
pub(crate) async fn run(listener: TcpListener, insights: Insights) {
    while let Ok((stream, _)) = listener.accept().await {
        let insights = insights.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (code, kind, text) = insights.answer(request.uri().path());
            let response = Response::builder().status(code).header("content-type", kind);
            let response = response.body(Full::new(Bytes::from(text)));
            async move { Ok::<_, Infallible>(response.unwrap_or_default()) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}
