//! Services that take part in decisions, as the file describes them.

use std::{collections::BTreeSet, time::Duration};

use orch_core::{names::qualified_name_errors, status::FieldError};

use super::{
    election::duration,
    reader::{Complaints, Reader},
};

/// A resource that an extender manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedResource {
    /// Its name, `example.com/gpu`.
    pub name: String,
    /// Whether the scheduler itself leaves it out when it filters.
    pub ignored_by_scheduler: bool,
}

/// How an extender is reached over TLS. Data is base64 in the file and text here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtenderTls {
    /// Whether the server's certificate is not verified.
    pub insecure: bool,
    /// The name that the certificate is for, where it is not the host's.
    pub server_name: String,
    /// Paths of the client's certificate and key, and of the authorities.
    pub files: [String; 3],
    /// The same as data, in base64; each goes before its file.
    pub data: [String; 3],
}

/// A service that takes part in decisions.
///
/// Source: `k8s.io/kube-scheduler/config/v1/types.go`, `Extender`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderConfiguration {
    /// Where it is; verbs are appended.
    pub url_prefix: String,
    /// Rules nodes out; empty if it does not.
    pub filter_verb: String,
    /// Changes the victims of a preemption; empty if it does not.
    pub preempt_verb: String,
    /// Scores nodes; empty if it does not.
    pub prioritize_verb: String,
    /// How much its scores count.
    pub weight: i64,
    /// Binds; empty if it does not.
    pub bind_verb: String,
    /// Whether it is reached over TLS in any case.
    pub enable_https: bool,
    /// How TLS is spoken.
    pub tls: Option<ExtenderTls>,
    /// How long it may take. The default is 5 s.
    pub http_timeout: Duration,
    /// Whether it knows the nodes, so that their names are enough.
    pub node_cache_capable: bool,
    /// It is asked about pods that request one of these; none means all pods.
    pub managed_resources: Vec<ManagedResource>,
    /// Whether scheduling goes on without it when it fails.
    pub ignorable: bool,
}

/// Reads the extenders of a file.
pub(super) fn extenders(
    listed: Vec<Reader<'_>>,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> Vec<ExtenderConfiguration> {
    let mut all = Vec::new();
    let mut managed = BTreeSet::new();
    for (at, reader) in listed.into_iter().enumerate() {
        let extender = extender(reader, complaints);
        let path = format!("extenders[{at}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let words = "must have a positive weight applied to it";
            errors.push(FieldError::invalid(format!("{path}.weight"), extender.weight, words));
        }
        for (nth, ManagedResource { name, .. }) in extender.managed_resources.iter().enumerate() {
            let field = format!("{path}.managedResources[{nth}].name");
            for words in qualified_name_errors(name) {
                errors.push(FieldError::invalid(field.as_str(), name.as_str(), words));
            }
            if !managed.insert(name.clone()) {
                let words = "duplicate extender managed resource name";
                errors.push(FieldError::invalid(field.as_str(), name.as_str(), words));
            }
        }
        all.push(extender);
    }
    let binders = all.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        let words = "only one extender can implement bind";
        errors.push(FieldError::invalid("extenders", value, words));
    }
    all
}

fn extender(mut reader: Reader<'_>, complaints: &mut Complaints) -> ExtenderConfiguration {
    let tls = reader.has("tlsConfig");
    let tls = tls.then(|| self::tls(reader.object("tlsConfig", complaints), complaints));
    let default = Duration::from_secs(5);
    let http_timeout = duration(&mut reader, "httpTimeout", default, complaints).unwrap_or(default);
    let mut managed_resources = Vec::new();
    for mut one in reader.objects("managedResources", complaints) {
        managed_resources.push(ManagedResource {
            name: one.get("name", complaints).unwrap_or_default(),
            ignored_by_scheduler: one.get("ignoredByScheduler", complaints).unwrap_or(false),
        });
        one.finish(complaints);
    }
    let mut text = |name| reader.get::<String>(name, complaints).unwrap_or_default();
    let (url_prefix, filter_verb) = (text("urlPrefix"), text("filterVerb"));
    let (preempt_verb, prioritize_verb) = (text("preemptVerb"), text("prioritizeVerb"));
    let bind_verb = text("bindVerb");
    let mut flag = |name| reader.get::<bool>(name, complaints).unwrap_or(false);
    let (enable_https, node_cache_capable) = (flag("enableHTTPS"), flag("nodeCacheCapable"));
    let ignorable = flag("ignorable");
    let weight = reader.get("weight", complaints).unwrap_or(0);
    reader.finish(complaints);
    ExtenderConfiguration {
        url_prefix,
        filter_verb,
        preempt_verb,
        prioritize_verb,
        weight,
        bind_verb,
        enable_https,
        tls,
        http_timeout,
        node_cache_capable,
        managed_resources,
        ignorable,
    }
}

fn tls(mut reader: Reader<'_>, complaints: &mut Complaints) -> ExtenderTls {
    let insecure = reader.get("insecure", complaints).unwrap_or(false);
    let mut text = |name| reader.get::<String>(name, complaints).unwrap_or_default();
    let tls = ExtenderTls {
        insecure,
        server_name: text("serverName"),
        files: ["certFile", "keyFile", "caFile"].map(&mut text),
        data: ["certData", "keyData", "caData"].map(&mut text),
    };
    reader.finish(complaints);
    tls
}
