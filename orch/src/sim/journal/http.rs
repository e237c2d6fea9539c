//! The same for a component that uses a `kube::Client`.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use kube::client::Body;
use orch_api::{ApiServer, RequestInfo, auth::UserInfo};
use orch_core::{Key, testing::Verb};
use parking_lot::Mutex;
use serde::Deserialize;
use tower::service_fn;

use super::{Journal, Notes, WriteSummary};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Error>>;

/// A client of a component, whose writes are noted in its name. Call it inside a tokio runtime.
pub(in crate::sim) fn noted_over_http(
    api: &ApiServer,
    writer: &str,
    journal: &Arc<Mutex<Journal>>,
) -> kube::Client {
    let inner = api.kube_client(UserInfo::master(format!("system:{writer}")), "default");
    let notes = Notes { writer: writer.into(), journal: journal.clone() };
    let noted = NotedOverHttp { inner, notes };
    kube::Client::new(service_fn(move |request| noted.clone().carry(request)), "default")
}

#[derive(Clone)]
struct NotedOverHttp {
    inner: kube::Client,
    notes: Notes,
}

impl NotedOverHttp {
    async fn carry(self, request: Request<Body>) -> Result<Answer, Error> {
        self.notes.call();
        let (parts, body) = request.into_parts();
        let info = RequestInfo::read(&parts);
        let answer = self.inner.send(Request::from_parts(parts, body)).await?;
        let writes = info.is_resource && Verb::named(&info.verb).is_some_and(Verb::writes);
        if !writes || !answer.status().is_success() {
            return Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()));
        }
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        self.note(&info, &body);
        let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
        Ok(Response::from_parts(parts, body))
    }

    fn note(&self, info: &RequestInfo, answer: &[u8]) {
        let written = serde_json::from_slice::<Written>(answer).unwrap_or_default();
        let Ok(revision) = written.metadata.resource_version.parse() else { return };
        let summary = if Verb::named(&info.verb) == Some(Verb::Delete) {
            WriteSummary::Delete(written.kind, Key::new(&*info.namespace, &*info.name))
        } else {
            let slash = if info.subresource.is_empty() { "" } else { "/" };
            WriteSummary::Put(format!("{}{slash}{}", info.resource, info.subresource))
        };
        self.notes.written(&summary, revision);
    }
}

/// What is read of the answer to a write.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    kind: String,
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}
