//! What a request is about, for those who look at every request: metrics, audit, fairness.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use std::borrow::Cow;

use http::{Method, header, request::Parts};
use orch_core::client::PatchKind;

use super::{
    options::Query,
    resources::CONNECTIONS,
    route::{self, Found, Route},
};

/// What a request is about.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestInfo {
    /// `get`, `list`, `watch` and so on; the method in lower case for a path that is no resource.
    pub verb: Cow<'static, str>,
    /// Whether the path is one of a resource. If not, what follows is empty but for the path.
    pub is_resource: bool,
    /// The API group; empty for the core group.
    pub group: String,
    /// The version of the group.
    pub version: String,
    /// The plural name of the resource.
    pub resource: String,
    /// The subresource; empty if it is none.
    pub subresource: String,
    /// The namespace; empty if it is about none, or about all. A namespace itself lies in itself.
    pub namespace: String,
    /// The object's name; empty for collections, unless a field selector names a single object.
    pub name: String,
    /// The path.
    pub path: String,
    pub(crate) dry_run: bool,
    pub(crate) applies: bool,
}

impl RequestInfo {
    /// Reads from a request what it is about. A path that cannot be taken apart is none of a
    /// resource.
    pub fn read(parts: &Parts) -> Self {
        Self::of(parts, route::of(parts.uri.path()).ok().as_ref())
    }

    pub(super) fn of(parts: &Parts, route: Option<&Route>) -> Self {
        let path = parts.uri.path().to_owned();
        let Some(Route::Resource(found)) = route else {
            let verb = Cow::Owned(parts.method.as_str().to_ascii_lowercase());
            return Self { verb, path, ..Self::default() };
        };
        let query = Query::of(&parts.uri);
        let content_type = parts.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        let applies =
            content_type.is_some_and(|ty| ty.starts_with(PatchKind::Apply.media_type().as_bytes()));
        let field = query.get("fieldSelector").and_then(|text| text.strip_prefix("metadata.name="));
        let mut name = found.name.clone().unwrap_or_default();
        let verb = verb(&parts.method, found, &query);
        if name.is_empty() && matches!(verb, "list" | "watch" | "deletecollection") {
            let single = field.filter(|name| !name.contains([',', '=']));
            name = single.unwrap_or_default().to_owned();
        }
        let mut namespace = found.namespace.clone().unwrap_or_default();
        if found.group.is_empty() && found.plural == "namespaces" {
            namespace.clone_from(&name);
        }
        Self {
            verb: Cow::Borrowed(verb),
            is_resource: true,
            group: found.group.clone(),
            version: found.version.clone(),
            resource: found.plural.clone(),
            subresource: found.subresource.clone().unwrap_or_default(),
            namespace,
            name,
            path,
            dry_run: query.all("dryRun").any(|value| value == "All"),
            applies,
        }
    }

    /// Whether the request takes as long as its client wants.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch" || CONNECTIONS.contains(&&*self.subresource)
    }

    /// Whether the request may change something.
    pub(crate) fn mutates(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// The verb as metrics call it.
    ///
    /// Source: `k8s.io/apiserver/pkg/endpoints/metrics`, `CanonicalVerb`, `cleanVerb`.
    pub(crate) fn metrics_verb(&self) -> &'static str {
        if CONNECTIONS.contains(&&*self.subresource) && self.subresource != "log" {
            return "CONNECT";
        }
        match &*self.verb {
            "get" | "head" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if self.applies => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        }
    }

    /// Source: `k8s.io/apiserver/pkg/endpoints/metrics`, `CleanScope`.
    pub(crate) fn scope(&self) -> &'static str {
        match (self.name.is_empty(), self.namespace.is_empty(), self.is_resource) {
            (false, ..) => "resource",
            (true, false, _) => "namespace",
            (true, true, true) => "cluster",
            _ => "",
        }
    }
}

fn verb(method: &Method, found: &Found, query: &Query) -> &'static str {
    let named = found.name.is_some();
    match *method {
        Method::GET | Method::HEAD if found.watch || query.flag("watch") => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}
