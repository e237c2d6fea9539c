//! The table of pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, age_cell, name, or_none, since, text, wide};
use crate::{kinds::Field, strategy::Column};

pub(crate) const COLUMNS: [Column; 9] = [
    NAME,
    text("Ready", "How many of the pod's containers are ready to serve."),
    text("Status", "What the pod and its containers are doing, in one word."),
    text("Restarts", "How often containers were restarted, and when last."),
    AGE,
    wide("IP", "The pod's address."),
    wide("Node", "The node that the pod is bound to."),
    wide("Nominated Node", "The node where room is being made for the pod."),
    wide("Readiness Gates", "How many of the pod's readiness gates are true."),
];

pub(crate) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (Field::root(&pod["spec"]), Field::root(&pod["status"]));
    let summary = Summary::of(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (0, _) | (_, None) => summary.restarts.to_string(),
        (count, Some(when)) => format!("{count} ({} ago)", since(when, now)),
    };
    let ip = status.items("podIPs").next().map_or("", |ip| ip.str("ip"));
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age_cell(pod, now),
        or_none(if ip.is_empty() { status.str("podIP") } else { ip }),
        or_none(spec.str("nodeName")),
        or_none(status.str("nominatedNodeName")),
        or_none(&gates(&spec, &status)),
    ]
}

fn gates(spec: &Field<'_>, status: &Field<'_>) -> String {
    let total = spec.len("readinessGates");
    let open = spec
        .items("readinessGates")
        .filter(|gate| condition(status, gate.str("conditionType")).is_some_and(|c| c == "True"))
        .count();
    if total == 0 { String::new() } else { format!("{open}/{total}") }
}

fn condition<'a>(status: &Field<'a>, kind: &str) -> Option<&'a str> {
    status.items("conditions").find(|c| c.str("type") == kind).map(|c| c.str("status"))
}

/// What the table tells of a pod's containers.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (Field::root(&pod["spec"]), Field::root(&pod["status"]));
        let phase = status.str("phase");
        let mut reason = phase;
        if !status.str("reason").is_empty() {
            reason = status.str("reason");
        }
        let gated = status
            .items("conditions")
            .any(|c| c.str("type") == "PodScheduled" && c.str("reason") == "SchedulingGated");
        let sidecars = spec.items("initContainers").filter(is_sidecar).count();
        let mut summary = Self {
            reason: if gated { "SchedulingGated".to_owned() } else { reason.to_owned() },
            ready: 0,
            total: spec.len("containers") + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let initializing = summary.init_containers(&spec, &status);
        if !initializing || condition(&status, "Initialized") == Some("True") {
            summary.containers(&status);
        }
        let deleted = pod["metadata"].get("deletionTimestamp").is_some_and(|t| !t.is_null());
        if deleted && status.str("reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if deleted && !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
        summary
    }

    /// Counts init containers; says whether the pod is still in them. Afterwards `restarts` holds
    /// those of sidecars only, unless the pod is still initializing.
    fn init_containers(&mut self, spec: &Field<'_>, status: &Field<'_>) -> bool {
        let (mut all, mut all_last) = (0, None);
        for (i, container) in status.items("initContainerStatuses").enumerate() {
            let count = container.int("restartCount").unwrap_or_default();
            let last = last_end(&container);
            all += count;
            all_last = all_last.max(last);
            let sidecar = spec
                .items("initContainers")
                .any(|c| c.str("name") == container.str("name") && is_sidecar(&c));
            if sidecar {
                self.restarts += count;
                self.last_restart = self.last_restart.max(last);
            }
            let state = container.get("state");
            let terminated = state.opt("terminated");
            if terminated.as_ref().is_some_and(|t| t.int("exitCode").unwrap_or_default() == 0) {
                continue;
            }
            if sidecar && container.bool("started") {
                self.ready += usize::from(container.bool("ready"));
                continue;
            }
            let waiting = state.get("waiting");
            self.reason = match terminated {
                Some(ended) => format!("Init:{}", end_reason(&ended)),
                None if !matches!(waiting.str("reason"), "" | "PodInitializing") => {
                    format!("Init:{}", waiting.str("reason"))
                }
                None => format!("Init:{i}/{}", spec.len("initContainers")),
            };
            if condition(status, "Initialized") != Some("True") {
                (self.restarts, self.last_restart) = (all, all_last);
            }
            return true;
        }
        false
    }

    fn containers(&mut self, status: &Field<'_>) {
        let mut running = false;
        let containers: Vec<Field<'_>> = status.items("containerStatuses").collect();
        for container in containers.iter().rev() {
            self.restarts += container.int("restartCount").unwrap_or_default();
            self.last_restart = self.last_restart.max(last_end(container));
            let state = container.get("state");
            let waiting = state.get("waiting");
            if !waiting.str("reason").is_empty() {
                self.reason = waiting.str("reason").to_owned();
            } else if let Some(ended) = state.opt("terminated") {
                self.reason = end_reason(&ended);
            } else if container.bool("ready") && state.has("running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(status, "Ready") == Some("True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn is_sidecar(container: &Field<'_>) -> bool {
    container.str("restartPolicy") == "Always"
}

fn last_end(container: &Field<'_>) -> Option<Timestamp> {
    container.get("lastState").get("terminated").str("finishedAt").parse().ok()
}

fn end_reason(ended: &Field<'_>) -> String {
    let signal = ended.int("signal").unwrap_or_default();
    match ended.str("reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", ended.int("exitCode").unwrap_or_default()),
        reason => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pod: &Value, wanted: &str) {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let cells: Vec<String> = row(pod, now)[1..5]
            .iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(cells.join(" | "), wanted, "{pod}");
    }

    #[expect(clippy::needless_pass_by_value, reason = "what comes in are literals")]
    fn pod(spec: Value, status: Value) -> Value {
        let metadata = json!({"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"});
        json!({"metadata": metadata, "spec": spec, "status": status})
    }

    #[test]
    fn states_read_as_kubectl_shows_them() {
        let one = json!({"containers": [{"name": "a"}]});
        let init = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let with = |state: Value| {
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": state.get("running").is_some(),
                "restartCount": 3, "state": state,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}}}]})
        };
        check(&pod(one.clone(), json!({"phase": "Pending"})), "0/1 | Pending | 0 | 60m");
        let running = with(json!({"running": {}}));
        check(&pod(one.clone(), running), "1/1 | Running | 3 (60s ago) | 60m");
        let crash = with(json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        check(&pod(one.clone(), crash), "0/1 | CrashLoopBackOff | 3 (60s ago) | 60m");
        let killed = with(json!({"terminated": {"signal": 9, "exitCode": 137}}));
        check(&pod(one.clone(), killed.clone()), "0/1 | Signal:9 | 3 (60s ago) | 60m");
        let mut deleted = pod(one, killed);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:00Z");
        check(&deleted, "0/1 | Terminating | 3 (60s ago) | 60m");
        let waiting = json!({"phase": "Pending", "initContainerStatuses":
            [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]});
        check(&pod(init.clone(), waiting), "0/1 | Init:0/1 | 0 | 60m");
        let failed = json!({"phase": "Pending", "initContainerStatuses":
            [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]});
        check(&pod(init, failed), "0/1 | Init:Error | 1 | 60m");
    }
}
