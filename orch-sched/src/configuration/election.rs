//! How the scheduler reaches its cluster, and which of several works.

use std::time::Duration;

use orch_core::status::FieldError;

use super::reader::{Complaints, Reader};

/// Of several schedulers, one works.
///
/// Source: `k8s.io/component-base/config/types.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Whether there is an election at all. The default is that there is.
    pub leader_elect: bool,
    /// A leader that was silent for so long has lost. The default is 15 s.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long gives up. The default is 10 s.
    pub renew_deadline: Duration,
    /// Between two tries. The default is 2 s.
    pub retry_period: Duration,
    /// The lease's name. The default is `kube-scheduler`.
    pub resource_name: String,
    /// The lease's namespace. The default is `kube-system`.
    pub resource_namespace: String,
}

/// How the cluster is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConnection {
    /// A kubeconfig's path; empty for the one inside a cluster.
    pub kubeconfig: String,
    /// What the server may answer with; empty for the default.
    pub accept_content_types: String,
    /// What is sent. The default is `application/vnd.kubernetes.protobuf`.
    pub content_type: String,
    /// Requests per second. The default is 50.
    pub qps: f64,
    /// Requests at once beyond that. The default is 100.
    pub burst: i32,
}

impl ClientConnection {
    pub(super) fn read(
        mut reader: Reader<'_>,
        complaints: &mut Complaints,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        let own = |text: Option<String>, default: &str| {
            text.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let protobuf = "application/vnd.kubernetes.protobuf";
        let connection = Self {
            kubeconfig: own(reader.get("kubeconfig", complaints), ""),
            accept_content_types: own(reader.get("acceptContentTypes", complaints), ""),
            content_type: own(reader.get("contentType", complaints), protobuf),
            qps: reader.get("qps", complaints).filter(|qps| *qps != 0.0).unwrap_or(50.0),
            burst: reader.get("burst", complaints).filter(|burst| *burst != 0).unwrap_or(100),
        };
        if connection.burst < 0 {
            let field = reader.path_of("burst");
            errors.push(FieldError::invalid(field, connection.burst, "must be non-negative"));
        }
        reader.finish(complaints);
        connection
    }
}

/// Durations as Go writes them; zero and none are the default.
pub(super) fn duration(
    reader: &mut Reader<'_>,
    name: &'static str,
    default: Duration,
    complaints: &mut Complaints,
) -> Result<Duration, String> {
    let text: Option<String> = reader.get(name, complaints);
    let Some(text) = text.filter(|text| text != "0s" && text != "0") else { return Ok(default) };
    match text.parse::<kube::core::Duration>() {
        Ok(duration) if duration.is_negative() => Err(text),
        Ok(duration) => Ok(duration.into()),
        Err(error) => {
            complaints.0.push(format!("{}: {error}", reader.path_of(name)));
            Ok(default)
        }
    }
}

pub(super) fn election(
    mut reader: Reader<'_>,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> LeaderElection {
    let leader_elect = reader.get("leaderElect", complaints).unwrap_or(true);
    let mut found = Vec::new();
    let mut period = |name, seconds| {
        let default = Duration::from_secs(seconds);
        duration(&mut reader, name, default, complaints).unwrap_or_else(|text| {
            let field = reader.path_of(name);
            found.push(FieldError::invalid(field, text, "must be greater than zero"));
            default
        })
    };
    let lease_duration = period("leaseDuration", 15);
    let renew_deadline = period("renewDeadline", 10);
    let retry_period = period("retryPeriod", 2);
    if lease_duration <= renew_deadline {
        let value = format!("{}s", renew_deadline.as_secs_f64());
        let words = "LeaseDuration must be greater than RenewDeadline";
        found.push(FieldError::invalid(reader.path_of("leaseDuration"), value, words));
    }
    let lock: Option<String> = reader.get("resourceLock", complaints);
    let lock = lock.filter(|lock| !lock.is_empty()).unwrap_or_else(|| "leases".into());
    if lock != "leases" {
        let words = "resourceLock value must be \"leases\"";
        found.push(FieldError::invalid(reader.path_of("resourceLock"), lock, words));
    }
    let mut name = |name, default: &str| {
        let given: Option<String> = reader.get(name, complaints);
        given.filter(|given| !given.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let resource_name = name("resourceName", "kube-scheduler");
    let resource_namespace = name("resourceNamespace", "kube-system");
    reader.finish(complaints);
    if leader_elect {
        errors.append(&mut found);
    }
    LeaderElection {
        leader_elect,
        lease_duration,
        renew_deadline,
        retry_period,
        resource_name,
        resource_namespace,
    }
}
