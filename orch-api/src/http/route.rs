//! What a path addresses.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use orch_core::ApiError;
use percent_encoding::percent_decode_str;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A resource, or something below it.
    Resource(Found),
    /// A bare path, such as discovery or health.
    Path,
}

/// The parts of a resource's path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What follows the subresource, with its leading slash; empty if nothing does.
    pub(crate) rest: String,
    /// The path begins with the old `/watch/`.
    pub(crate) watch: bool,
}

/// Takes a path apart.
///
/// # Errors
/// `BadRequest` for a path that is no UTF-8.
pub(super) fn of(path: &str) -> Result<Route, ApiError> {
    let trimmed = path.trim_start_matches('/');
    let mut parts = trimmed.split('/').filter(|part| !part.is_empty());
    let (group, version) = match parts.next() {
        Some("api") => (Some(""), parts.next()),
        Some("apis") => (parts.next(), parts.next()),
        _ => return Ok(Route::Path),
    };
    let (Some(group), Some(version)) = (group, version) else { return Ok(Route::Path) };
    let mut found = Found { group: group.into(), version: version.into(), ..Found::default() };
    let mut parts = parts.peekable();
    if parts.peek() == Some(&"watch") {
        found.watch = true;
        parts.next();
    }
    let Some(first) = parts.next() else { return Ok(Route::Path) };
    let mut rest: Vec<&str> = parts.collect();
    let below_namespace = first == "namespaces"
        && rest.len() >= 2
        && !(group.is_empty() && rest.len() == 2 && matches!(rest[1], "status" | "finalize"));
    if below_namespace {
        found.namespace = Some(decoded(rest.remove(0))?);
        found.plural = decoded(rest.remove(0))?;
    } else {
        found.plural = decoded(first)?;
    }
    let mut rest = rest.into_iter();
    found.name = rest.next().map(decoded).transpose()?;
    found.subresource = rest.next().map(decoded).transpose()?;
    if let Some(subresource) = &found.subresource
        && subresource == "proxy"
    {
        found.rest = proxied(path);
    } else if rest.next().is_some() {
        return Err(ApiError::no_such_path());
    }
    Ok(Route::Resource(found))
}

fn decoded(part: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(part).decode_utf8();
    Ok(text.map_err(|_| ApiError::bad_request("the path is no UTF-8"))?.into_owned())
}

/// What is to be asked of the other side of a proxy, untouched.
fn proxied(path: &str) -> String {
    path.split_once("/proxy").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_upstream_does() {
        let check =
            |path: &str, expected: (&str, Option<&str>, &str, Option<&str>, Option<&str>)| {
                let Route::Resource(found) = of(path).unwrap() else { panic!("{path}") };
                let found = (
                    found.group.as_str(),
                    found.namespace.as_deref(),
                    found.plural.as_str(),
                    found.name.as_deref(),
                    found.subresource.as_deref(),
                );
                assert_eq!(found, expected, "{path}");
            };
        check("/api/v1/pods", ("", None, "pods", None, None));
        check("/api/v1/namespaces", ("", None, "namespaces", None, None));
        check("/api/v1/namespaces/a", ("", None, "namespaces", Some("a"), None));
        check("/api/v1/namespaces/a/status", ("", None, "namespaces", Some("a"), Some("status")));
        check("/api/v1/namespaces/a/pods", ("", Some("a"), "pods", None, None));
        check(
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            ("apps", Some("a"), "deployments", Some("b"), Some("scale")),
        );
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            ("rbac.authorization.k8s.io", None, "clusterroles", Some("system:node"), None),
        );
        for path in ["/", "/api", "/apis/apps", "/apis/apps/v1", "/healthz", "/api/v1/"] {
            assert_eq!(of(path).unwrap(), Route::Path, "{path}");
        }
    }
}
