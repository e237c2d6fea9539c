//! The OpenAPI documents: version 3 per group version, and version 2 as one.
//!
//! kubectl reads them to explain kinds and to learn which endpoints validate fields. They are made
//! from the [schema model](orch_core::schema) and the list of served endpoints, on first demand,
//! and kept as bytes.
//!
//! Source: `k8s.io/kube-openapi/pkg/handler` and `handler3`.

mod custom;
mod descriptions;
mod gnostic;
mod parameters;
mod paths;
mod schemas;

use std::{collections::BTreeMap, fmt::Write as _, sync::OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use paths::Paths;
use schemas::{Dialect, Schemas};

const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// As clients ask for it. A media type may not have an `@`, so answers cannot be named so.
const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What upstream of this version calls itself in its documents.
const VERSION: &str = "v1.36.0";

/// One served resource or subresource: the paths and methods that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Group of the path; empty for the core group.
    pub group: String,
    /// Version of the path.
    pub version: String,
    /// Plural of the resource.
    pub plural: String,
    /// Subresource; `None` is the resource itself.
    pub subresource: Option<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Group, version and kind of what is sent and answered.
    pub kind: (String, String, String),
    /// Verbs as discovery names them.
    pub verbs: Vec<String>,
    /// The schema of a custom kind, as its definition has it.
    pub schema: Option<Value>,
}

/// A document as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Document {
    /// Media type.
    pub content_type: &'static str,
    /// Entity tag, in quotes; it changes when the document does.
    pub etag: String,
    /// The bytes.
    pub body: Bytes,
}

/// The documents of one server.
#[derive(Debug)]
pub struct OpenApi {
    versions: BTreeMap<String, GroupVersion>,
    index: OnceLock<Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

#[derive(Debug)]
struct GroupVersion {
    endpoints: Vec<Endpoint>,
    document: OnceLock<Document>,
}

impl OpenApi {
    /// The documents of a server that has these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut versions: BTreeMap<String, GroupVersion> = BTreeMap::new();
        for endpoint in endpoints {
            let path = paths::group_version(&endpoint.group, &endpoint.version);
            let empty = || GroupVersion { endpoints: Vec::new(), document: OnceLock::new() };
            versions.entry(path).or_insert_with(empty).endpoints.push(endpoint);
        }
        Self { versions, index: OnceLock::new(), v2: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }

    /// The document at a path (without its query), or `None` if there is none. `accept` is the
    /// request's header; it decides between JSON and protobuf for `/openapi/v2`.
    ///
    /// The first call for a document makes it, which takes some milliseconds.
    pub fn respond(&self, path: &str, accept: &str) -> Option<&Document> {
        match path.strip_prefix("/openapi/")? {
            "v3" | "v3/" => Some(self.index.get_or_init(|| self.make_index())),
            "v2" if prefers_protobuf(accept) => Some(
                self.v2_protobuf
                    .get_or_init(|| Document::new(V2_PROTOBUF, gnostic::encode(&self.make_v2()))),
            ),
            "v2" => Some(self.v2.get_or_init(|| Document::json(&self.make_v2()))),
            path => {
                let version = self.versions.get(path.strip_prefix("v3/")?)?;
                Some(version.document.get_or_init(|| version.make()))
            }
        }
    }

    /// Which documents there are, each with a hash, so that clients may keep them for ever.
    fn make_index(&self) -> Document {
        let paths: Map<String, Value> = self
            .versions
            .iter()
            .map(|(path, version)| {
                let hash = version.hash();
                let url = format!("/openapi/v3/{path}?hash={hash}");
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        Document::json(&json!({"paths": paths}))
    }

    fn make_v2(&self) -> Value {
        let mut schemas = Schemas::new(Dialect::V2);
        let mut paths = Paths::new(Dialect::V2);
        for endpoint in self.versions.values().flat_map(|version| &version.endpoints) {
            paths.add(endpoint, &mut schemas);
        }
        json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths.finish(),
            "definitions": schemas.finish(),
        })
    }
}

impl GroupVersion {
    fn make(&self) -> Document {
        let mut schemas = Schemas::new(Dialect::V3);
        let mut paths = Paths::new(Dialect::V3);
        for endpoint in &self.endpoints {
            paths.add(endpoint, &mut schemas);
        }
        Document::json(&json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths.finish(),
            "components": {"schemas": schemas.finish()},
        }))
    }

    /// A hash of all that the document is made from, so that the index need not make them all.
    fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(env!("CARGO_PKG_VERSION"));
        hasher.update(orch_core::schema::text());
        hasher.update(format!("{:?}", self.endpoints));
        hex(&hasher.finalize())
    }
}

impl Document {
    fn new(content_type: &'static str, body: Vec<u8>) -> Self {
        let etag = format!("\"{}\"", hex(&Sha256::digest(&body)));
        Self { content_type, etag, body: body.into() }
    }

    fn json(value: &Value) -> Self {
        Self::new(JSON, value.to_string().into_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02X}");
        text
    })
}

/// Whether the first media type that there is a document of is protobuf.
fn prefers_protobuf(accept: &str) -> bool {
    let known = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    let mut known = known
        .filter(|range| matches!(*range, JSON | "*/*" | "application/*") || is_v2_protobuf(range));
    known.next().is_some_and(is_v2_protobuf)
}

fn is_v2_protobuf(range: &str) -> bool {
    range == V2_PROTOBUF || range == V2_PROTOBUF_ASKED
}

#[cfg(test)]
mod tests;
