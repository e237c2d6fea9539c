//! The conditions of a pod.
//!
//! Source: `pkg/kubelet/status/generate.go`, `pkg/kubelet/types/pod_status.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus as ApiContainerStatus, Pod, PodCondition};

use super::{
    spec,
    status::{StatusInput, time},
};

/// Conditions that nobody but the node keeps once it has the pod.
pub(super) const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Conditions<'a> {
    pod: &'a Pod,
    now: Timestamp,
    all: Vec<PodCondition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: &str, value: bool, reason: &str, message: String) {
        let status = if value { "True" } else { "False" };
        let old = spec::status(self.pod).conditions.iter().flatten().find(|c| c.type_ == type_);
        let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        self.all.push(PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: (!reason.is_empty()).then(|| reason.into()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: since.or_else(|| time(self.now)),
            last_probe_time: None,
            observed_generation: self.pod.metadata.generation,
        });
    }
}

fn names(statuses: &[&ApiContainerStatus]) -> String {
    statuses.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// The conditions of a pod in this phase, and those that others keep.
pub(super) fn of(
    pod: &Pod,
    phase: &str,
    inits: &[ApiContainerStatus],
    mains: &[ApiContainerStatus],
    input: &StatusInput<'_>,
) -> Vec<PodCondition> {
    let mut set = Conditions { pod, now: input.now, all: Vec::new() };
    let host_network = spec::spec(pod).host_network == Some(true);
    let networked =
        input.observed.ready_sandbox().is_some_and(|s| host_network || !s.ips.is_empty());
    set.set("PodReadyToStartContainers", networked, "", String::new());

    let sidecars = |s: &ApiContainerStatus| {
        spec::init_containers(pod).iter().any(|c| c.name == s.name && spec::is_sidecar(c))
    };
    let incomplete: Vec<_> = inits
        .iter()
        .filter(|s| if sidecars(s) { s.started != Some(true) } else { !s.ready })
        .collect();
    let ran = mains.iter().any(|s| s.container_id.is_some());
    match phase {
        "Succeeded" => set.set("Initialized", true, "PodCompleted", String::new()),
        _ if incomplete.is_empty() || ran => set.set("Initialized", true, "", String::new()),
        _ => {
            let text = format!("containers with incomplete status: [{}]", names(&incomplete));
            set.set("Initialized", false, "ContainersNotInitialized", text);
        }
    }
    let unready: Vec<_> =
        inits.iter().filter(|s| sidecars(s)).chain(mains).filter(|s| !s.ready).collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => {
            let text = format!("containers with unready status: [{}]", names(&unready));
            (false, "ContainersNotReady", text)
        }
    };
    let gates = if ready { unmet_gates(pod) } else { None };
    match gates {
        Some(text) => set.set("Ready", false, "ReadinessGatesNotReady", text),
        None => set.set("Ready", ready, reason, message.clone()),
    }
    set.set("ContainersReady", ready, reason, message);
    set.set("PodScheduled", true, "", String::new());
    let mut all = set.all;
    let own: Vec<String> = all.iter().map(|c| c.type_.clone()).collect();
    let others = spec::status(pod).conditions.iter().flatten();
    all.extend(others.filter(|c| !own.contains(&c.type_)).cloned());
    all
}

fn unmet_gates(pod: &Pod) -> Option<String> {
    let mut unmet = Vec::new();
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        let found = spec::status(pod).conditions.iter().flatten().find(|c| c.type_ == *name);
        match found {
            None => unmet.push(format!(
                "corresponding condition of pod readiness gate \"{name}\" does not exist."
            )),
            Some(c) if c.status != "True" => unmet.push(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    (!unmet.is_empty()).then(|| unmet.join(", "))
}
