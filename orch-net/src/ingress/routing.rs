//! From a host and a path to the endpoints.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::EndpointSlice,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass},
};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};

use super::IngressOptions;
use crate::backends::{self, Backend};

const BY_HOST: &str = "orch-net/ingresses-by-host";
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Finds routes in the informers' copies, by an index of hosts: a request costs the same whatever
/// the number of ingresses, and nothing is compiled when one changes.
#[derive(Clone, Debug)]
pub(super) struct Router {
    controller: String,
    class: Option<String>,
    without_class: bool,
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

/// A path that matches.
struct Candidate {
    ingress: Arc<Ingress>,
    backend: IngressBackend,
    exact: bool,
    length: usize,
}

/// The hosts of an ingress in lower case; the empty one is any host.
fn hosts(ingress: &Ingress) -> Vec<String> {
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let rules = spec.rules.iter().flatten();
    let mut hosts: Vec<String> =
        rules.map(|rule| rule.host.as_deref().unwrap_or_default().to_ascii_lowercase()).collect();
    if spec.default_backend.is_some() {
        hosts.push(String::new());
    }
    hosts
}

impl Router {
    pub(super) fn new(informers: &Informers, options: &IngressOptions) -> Self {
        let ingresses = informers.of::<Ingress>();
        ingresses.add_index(BY_HOST, hosts);
        Self {
            controller: options.controller.clone(),
            class: options.class.clone(),
            without_class: options.without_class,
            ingresses,
            classes: informers.of::<IngressClass>(),
            services: informers.of::<Service>(),
            slices: backends::slices(informers),
        }
    }

    /// Whether an ingress is this controller's to serve.
    pub(super) fn is_ours(&self, ingress: &Ingress) -> bool {
        let named = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        if let Some(name) = named {
            return self.is_our_class(name);
        }
        let annotations = ingress.metadata.annotations.as_ref();
        match annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION)) {
            // The older way, which needs no class to exist.
            Some(name) => self.class.as_ref() == Some(name) || self.is_our_class(name),
            None => self.without_class,
        }
    }

    fn is_our_class(&self, name: &str) -> bool {
        let class = self.classes.get(&Key::cluster(name));
        let spec = class.as_ref().and_then(|class| class.spec.as_ref());
        spec.and_then(|spec| spec.controller.as_deref()) == Some(&self.controller)
    }

    /// The namespace and backend that a request belongs to.
    pub(super) fn route(&self, host: &str, path: &str) -> Option<(String, IngressBackend)> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        // A wildcard stands for exactly one label.
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        for name in [Some(host), wildcard, Some(String::new())].into_iter().flatten() {
            let mut ingresses = self.ingresses.by_index(BY_HOST, &name);
            ingresses.retain(|ingress| self.is_ours(ingress));
            if ingresses.is_empty() {
                continue;
            }
            if let Some(found) = best(&ingresses, &name, path) {
                return Some(found);
            }
            if let Some(found) = default_backend(&ingresses) {
                return Some(found);
            }
        }
        None
    }

    /// The authorities of a backend's endpoints; empty if there are none.
    pub(super) fn endpoints(&self, namespace: &str, backend: &IngressBackend) -> Vec<String> {
        let Some(target) = &backend.service else { return Vec::new() };
        let key = Key::new(namespace, &*target.name);
        let Some(service) = self.services.get(&key) else { return Vec::new() };
        let Some(spec) = &service.spec else { return Vec::new() };
        let wanted = target.port.as_ref();
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.as_deref();
            let number = wanted.and_then(|port| port.number);
            let authority = name.zip(number).map(|(name, number)| format!("{name}:{number}"));
            return authority.into_iter().collect();
        }
        let port = spec.ports.iter().flatten().find(|port| {
            wanted.is_some_and(|wanted| match (&wanted.name, wanted.number) {
                (Some(name), _) => port.name.as_ref() == Some(name),
                (None, number) => number == Some(port.port),
            })
        });
        let Some(port) = port else { return Vec::new() };
        let slices = backends::slices_of(&self.slices, &key);
        let all: Vec<Backend<'_>> =
            slices.iter().flat_map(|slice| backends::backends(slice, port)).collect();
        let usable = backends::usable(&all.iter().collect::<Vec<_>>());
        usable.iter().map(ToString::to_string).collect()
    }

    /// Waits until the first lists have been taken in.
    pub(super) async fn synced(&self) {
        tokio::join!(
            self.ingresses.synced(),
            self.classes.synced(),
            self.services.synced(),
            self.slices.synced()
        );
    }
}

fn namespace(ingress: &Ingress) -> String {
    ingress.metadata.namespace.clone().unwrap_or_default()
}

fn default_backend(ingresses: &[Arc<Ingress>]) -> Option<(String, IngressBackend)> {
    ingresses.iter().find_map(|ingress| {
        let backend = ingress.spec.as_ref()?.default_backend.clone()?;
        Some((namespace(ingress), backend))
    })
}

/// The longest matching path; exact before prefix, older ingresses before younger.
fn best(ingresses: &[Arc<Ingress>], host: &str, path: &str) -> Option<(String, IngressBackend)> {
    let candidates = ingresses.iter().flat_map(|ingress| candidates(ingress, host, path));
    let best = candidates.min_by(|a, b| {
        let rank = |candidate: &Candidate| {
            let meta = &candidate.ingress.metadata;
            let created = meta.creation_timestamp.as_ref().map(|time| time.0);
            (std::cmp::Reverse((candidate.length, candidate.exact)), created, Key::of(meta))
        };
        rank(a).cmp(&rank(b))
    })?;
    Some((namespace(&best.ingress), best.backend))
}

fn candidates(ingress: &Arc<Ingress>, host: &str, path: &str) -> Vec<Candidate> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let rules =
        rules.filter(|rule| rule.host.as_deref().unwrap_or_default().eq_ignore_ascii_case(host));
    let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
    let matching = paths.filter(|candidate| matches(candidate, path));
    let candidate = |matching: &HTTPIngressPath| Candidate {
        ingress: ingress.clone(),
        backend: matching.backend.clone(),
        exact: matching.path_type == "Exact",
        length: matching.path.as_deref().unwrap_or("/").trim_end_matches('/').len(),
    };
    matching.map(candidate).collect()
}

/// Source: the documentation of `HTTPIngressPath.pathType`.
fn matches(rule: &HTTPIngressPath, path: &str) -> bool {
    let wanted = rule.path.as_deref().unwrap_or("/");
    if rule.path_type == "Exact" {
        return path == wanted;
    }
    // By elements: `/a` matches `/a` and `/a/b`, not `/ab`.
    let wanted = wanted.trim_end_matches('/');
    path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_match_as_documented() {
        let check = |kind: &str, rule: &str, path: &str, expected: bool| {
            let rule = json!({"path": rule, "pathType": kind, "backend": {}});
            let rule: HTTPIngressPath = serde_json::from_value(rule).unwrap();
            assert_eq!(matches(&rule, path), expected, "{rule:?} {path}");
        };
        for (rule, path, expected) in [
            ("/", "/any/path", true),
            ("/foo", "/foo", true),
            ("/foo", "/foo/", true),
            ("/foo/", "/foo", true),
            ("/foo/", "/foo/", true),
            ("/aaa/bb", "/aaa/bbb", false),
            ("/aaa/bbb", "/aaa/bbb", true),
            ("/aaa/bbb/", "/aaa/bbb", true),
            ("/aaa/bbb", "/aaa/bbb/ccc", true),
            ("/aaa/bbb", "/aaa/bbbxyz", false),
            ("/aaa", "/ccc", false),
        ] {
            check("Prefix", rule, path, expected);
        }
        check("Exact", "/foo", "/foo", true);
        check("Exact", "/foo", "/foo/", false);
        check("Exact", "/foo/", "/foo", false);
        check("Exact", "/foo", "/bar", false);
    }
}
