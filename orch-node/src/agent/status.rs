//! A pod's status from its spec and from what runs.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`,
//! `convertToAPIContainerStatuses`, `rejectPod`).

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus as ApiContainerStatus, HostIP, Pod, PodIP,
        PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use orch_core::clock::to_seconds;

use super::{
    conditions,
    plan::{Observed, ProbeResults},
    resources,
    spec::{self, ProbeKind, Role},
};
use crate::runtime::{ContainerState, ContainerStatus, labels};

/// A reason and a message.
pub(crate) type Why = (String, String);

/// What the status is made from, besides the pod.
pub(crate) struct StatusInput<'a> {
    pub(crate) observed: &'a Observed,
    pub(crate) probes: &'a dyn ProbeResults,
    /// Why containers wait, by name.
    pub(crate) waiting: &'a HashMap<String, Why>,
    /// What ended containers left in their termination message files, by id.
    pub(crate) messages: &'a HashMap<String, String>,
    /// Why the pod as a whole has failed, if it has.
    pub(crate) failure: Option<&'a Why>,
    /// Whether the node has refused it: then it never had a container here.
    pub(crate) rejected: bool,
    /// Whether nothing is started any more.
    pub(crate) ending: bool,
    pub(crate) host_ips: &'a [std::net::IpAddr],
    pub(crate) runtime_name: &'a str,
    pub(crate) now: Timestamp,
}

pub(super) fn time(at: Timestamp) -> Option<Time> {
    Some(Time(to_seconds(at)))
}

/// The status to be written.
pub(crate) fn pod_status(pod: &Pod, input: &StatusInput<'_>) -> PodStatus {
    let old = spec::status(pod);
    if let Some(why) = input.failure.filter(|_| input.rejected) {
        return rejected_status(pod, why, input.now);
    }
    let inits: Vec<_> = spec::init_containers(pod)
        .iter()
        .map(|c| container_status(pod, spec::init_role(c), c, input))
        .collect();
    let mains: Vec<_> = spec::spec(pod)
        .containers
        .iter()
        .map(|c| container_status(pod, Role::Main, c, input))
        .collect();
    let phase = match input.failure {
        Some(_) => "Failed",
        None => phase(pod, &inits, &mains, input.ending),
    };
    // A pod that has ended stays so, whatever is still seen of it.
    let phase = match old.phase.as_deref() {
        Some(ended @ ("Succeeded" | "Failed")) => ended,
        _ => phase,
    };
    let conditions = conditions::of(pod, phase, &inits, &mains, input);
    let sandbox_ips = input.observed.sandboxes.first().map(|s| s.ips.as_slice());
    let host_network = spec::spec(pod).host_network == Some(true);
    let ips = if host_network { input.host_ips } else { sandbox_ips.unwrap_or_default() };
    let new_ips: Vec<_> = ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect();
    let pod_ips = if new_ips.is_empty() { old.pod_ips.clone() } else { Some(new_ips) };
    let host_ips: Vec<_> = input.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    PodStatus {
        phase: Some(phase.into()),
        reason: input.failure.map(|f| f.0.clone()).or_else(|| old.reason.clone()),
        message: input.failure.map(|f| f.1.clone()).or_else(|| old.message.clone()),
        conditions: Some(conditions),
        pod_ip: pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone()),
        pod_ips,
        host_ip: host_ips.first().map(|ip| ip.ip.clone()),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        start_time: old.start_time.clone().or_else(|| time(input.now)),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: Some(mains),
        qos_class: old.qos_class.clone().or_else(|| Some(resources::qos_class(pod).into())),
        observed_generation: pod.metadata.generation,
        ..old.clone()
    }
}

/// Of a pod that is refused nothing is told but why.
fn rejected_status(pod: &Pod, (reason, message): &Why, now: Timestamp) -> PodStatus {
    let old = spec::status(pod);
    let others = old.conditions.iter().flatten();
    let kept: Vec<_> =
        others.filter(|c| !conditions::OWN.contains(&c.type_.as_str())).cloned().collect();
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(reason.clone()),
        message: Some(message.clone()),
        qos_class: old.qos_class.clone().or_else(|| Some(resources::qos_class(pod).into())),
        start_time: old.start_time.clone().or_else(|| time(now)),
        conditions: (!kept.is_empty()).then_some(kept),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn terminated(status: &ContainerStatus, input: &StatusInput<'_>) -> ApiState {
    let default = if status.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if status.reason.is_empty() { default } else { &status.reason };
    let message = input.messages.get(&status.id.0).cloned().unwrap_or_default();
    let message = if message.is_empty() { status.message.clone() } else { message };
    let or_epoch = |at: Option<Timestamp>| time(at.unwrap_or(Timestamp::UNIX_EPOCH));
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: status.exit_code,
            reason: Some(reason.into()),
            message: (!message.is_empty()).then_some(message),
            started_at: or_epoch(status.started_at),
            finished_at: or_epoch(status.finished_at),
            container_id: Some(format!("{}://{}", input.runtime_name, status.id)),
            signal: None,
        }),
        ..ApiState::default()
    }
}

fn waiting(why: Option<&Why>, default: &str) -> ApiState {
    let reason = why.map_or(default, |w| &w.0);
    let message = why.map(|w| w.1.clone()).filter(|m| !m.is_empty());
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
        ..ApiState::default()
    }
}

fn restart_count(status: &ContainerStatus) -> i32 {
    let noted = status.annotations.get(labels::RESTART_COUNT).and_then(|c| c.parse().ok());
    noted.unwrap_or_else(|| i32::try_from(status.attempt).unwrap_or(i32::MAX))
}

fn written<'a>(pod: &'a Pod, name: &str) -> Option<&'a ApiContainerStatus> {
    let status = spec::status(pod);
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == name)
}

fn container_status(
    pod: &Pod,
    role: Role,
    container: &Container,
    input: &StatusInput<'_>,
) -> ApiContainerStatus {
    let name = &container.name;
    let image = container.image.clone().unwrap_or_default();
    let mounts = volume_mounts(container);
    let base = ApiContainerStatus {
        name: name.clone(),
        image,
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..ApiContainerStatus::default()
    };
    let why = input.waiting.get(name);
    let Some(latest) = input.observed.latest(name) else {
        return unseen(pod, base, why, input);
    };
    let has_terminated = |c: &&ContainerStatus| {
        c.name == *name && c.id != latest.id && c.state == ContainerState::Exited
    };
    let before = input.observed.containers.iter().filter(has_terminated).max_by_key(|c| c.attempt);
    let mut last_state = before.map(|c| terminated(c, input));
    let state = match latest.state {
        ContainerState::Running => ApiState {
            running: Some(ContainerStateRunning {
                started_at: time(latest.started_at.unwrap_or(latest.created_at)),
            }),
            ..ApiState::default()
        },
        ContainerState::Created => waiting(why, "ContainerCreating"),
        _ => {
            let ended = terminated(latest, input);
            let again = spec::restarts(pod, role, container, latest.exit_code) && !input.ending;
            match why.filter(|_| again) {
                Some(why) => {
                    last_state = Some(ended);
                    waiting(Some(why), "")
                }
                None => ended,
            }
        }
    };
    let runs = latest.is_running();
    let probed = |kind: ProbeKind| {
        kind.of(container).is_none() || input.probes.result(&latest.id, kind) == Some(true)
    };
    let started = runs && probed(ProbeKind::Startup);
    let done = latest.state == ContainerState::Exited && latest.exit_code == 0;
    let ready = match role {
        Role::Init => done,
        _ => started && probed(ProbeKind::Readiness),
    };
    let resources = container.resources.clone();
    ApiContainerStatus {
        state: Some(state),
        last_state,
        ready,
        started: Some(started),
        restart_count: restart_count(latest),
        image_id: latest.image_id.clone(),
        container_id: Some(format!("{}://{}", input.runtime_name, latest.id)),
        allocated_resources: resources.as_ref().and_then(|r| r.requests.clone()),
        resources,
        ..base
    }
}

/// What is mounted. What is read-only is not so below other mounts: no runtime here does that.
fn volume_mounts(container: &Container) -> Vec<VolumeMountStatus> {
    let mounts = container.volume_mounts.iter().flatten();
    let told = mounts.map(|mount| {
        let read_only = mount.read_only == Some(true);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".into()),
            ..VolumeMountStatus::default()
        }
    });
    told.collect()
}

/// The end of a container that ran and of which nothing is left.
fn lost(message: &str) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(message.into()),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    }
}

/// A container that the runtime knows nothing of: not created yet, or lost.
fn unseen(
    pod: &Pod,
    base: ApiContainerStatus,
    why: Option<&Why>,
    input: &StatusInput<'_>,
) -> ApiContainerStatus {
    let old = written(pod, &base.name);
    let ended = old.filter(|o| o.state.as_ref().is_some_and(|s| s.terminated.is_some()));
    if let Some(ended) = ended {
        return ended.clone();
    }
    let default =
        if spec::init_containers(pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let ran = old.filter(|o| o.state.as_ref().is_some_and(|s| s.running.is_some()));
    if let Some(ran) = ran {
        let state = if input.ending {
            lost("The container could not be located when the pod was terminated")
        } else {
            waiting(why, default)
        };
        let before = "The container could not be located when the pod was deleted.  \
                      The container used to be Running";
        return ApiContainerStatus {
            state: Some(state),
            last_state: Some(lost(before)),
            ready: false,
            started: Some(false),
            // Unless the pod goes, it is about to start again.
            restart_count: ran.restart_count + i32::from(!spec::is_terminating(pod)),
            container_id: None,
            ..ran.clone()
        };
    }
    let (restarts, last_state) = old.map_or((0, None), |o| (o.restart_count, o.last_state.clone()));
    ApiContainerStatus {
        state: Some(waiting(why, default)),
        last_state,
        started: Some(false),
        restart_count: restarts,
        ..base
    }
}

struct Counts {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

fn count(mains: &[ApiContainerStatus]) -> Counts {
    let mut counts = Counts { waiting: 0, running: 0, stopped: 0, succeeded: 0 };
    for status in mains {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            counts.running += 1;
        } else if let Some(ended) = &state.terminated {
            counts.stopped += 1;
            counts.succeeded += usize::from(ended.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            counts.stopped += 1;
        } else {
            counts.waiting += 1;
        }
    }
    counts
}

fn phase(
    pod: &Pod,
    inits: &[ApiContainerStatus],
    mains: &[ApiContainerStatus],
    ending: bool,
) -> &'static str {
    let never = spec::restart_policy(pod) == "Never";
    let (mut pending_init, mut failed_init, mut sidecars) = (false, false, 0);
    let counts = count(mains);
    for (container, status) in spec::init_containers(pod).iter().zip(inits) {
        if spec::is_sidecar(container) {
            pending_init |= status.started != Some(true);
            // As long as one runs, the pod does.
            let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
            sidecars += usize::from(runs);
            continue;
        }
        let state = status.state.clone().unwrap_or_default();
        let ended = state.terminated.as_ref();
        failed_init |= ended.is_some_and(|t| {
            t.exit_code != 0 && !spec::restarts(pod, Role::Init, container, t.exit_code)
        });
        pending_init |= ended.is_none_or(|t| t.exit_code != 0);
    }
    if failed_init && never {
        return "Failed";
    }
    let ran = counts.running + counts.stopped > 0;
    if (pending_init && !ran) || counts.waiting > 0 {
        return if ending { "Failed" } else { "Pending" };
    }
    if counts.running + sidecars > 0 {
        return "Running";
    }
    let all_succeeded = counts.succeeded == counts.stopped;
    let again = spec::spec(pod).containers.iter().zip(mains).any(|(container, status)| {
        let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
        ended.is_none_or(|t| spec::restarts(pod, Role::Main, container, t.exit_code))
    });
    match (again && !ending, all_succeeded) {
        (true, _) => "Running",
        (false, true) => "Succeeded",
        (false, false) => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::ContainerId;

    struct NoProbes;

    impl ProbeResults for NoProbes {
        fn result(&self, _: &ContainerId, _: ProbeKind) -> Option<bool> {
            None
        }
    }

    /// The status of a pod of which the runtime has nothing.
    fn check(pod: Value, ending: bool) -> Value {
        let observed = Observed { sandboxes: Vec::new(), containers: Vec::new() };
        let input = StatusInput {
            observed: &observed,
            probes: &NoProbes,
            waiting: &HashMap::new(),
            messages: &HashMap::new(),
            failure: None,
            rejected: false,
            ending,
            host_ips: &[],
            runtime_name: "simulated",
            now: Timestamp::UNIX_EPOCH,
        };
        let pod: Pod = serde_json::from_value(pod).unwrap();
        serde_json::to_value(pod_status(&pod, &input)).unwrap()
    }

    fn ran() -> Value {
        let running = json!({ "running": { "startedAt": "2023-01-01T00:00:00Z" } });
        let mounts = json!([
            { "name": "data", "mountPath": "/data" },
            { "name": "token", "mountPath": "/token", "readOnly": true },
        ]);
        json!({
            "spec": { "containers": [{ "name": "a", "image": "i", "volumeMounts": mounts }] },
            "status": { "phase": "Running", "containerStatuses": [{
                "name": "a", "image": "i", "imageID": "x", "ready": true, "restartCount": 2,
                "containerID": "simulated://c", "state": running,
            }] },
        })
    }

    #[test]
    fn a_container_that_is_lost_has_ended() {
        let status = &check(ran(), false)["containerStatuses"][0];
        assert_eq!(status["state"]["waiting"]["reason"], "ContainerCreating");
        let last = &status["lastState"]["terminated"];
        assert_eq!(
            (&last["reason"], &last["exitCode"]),
            (&json!("ContainerStatusUnknown"), &json!(137))
        );
        assert_eq!((&status["restartCount"], &status["containerID"]), (&json!(3), &Value::Null));
        let status = check(ran(), true);
        assert_eq!(status["phase"], "Failed");
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        let message = "The container could not be located when the pod was terminated";
        assert_eq!(ended["message"], message);
    }

    #[test]
    fn mounts_of_containers_that_wait_are_told() {
        let mut pod = ran();
        pod["status"] = json!({});
        let status = &check(pod, false)["containerStatuses"][0];
        assert_eq!(
            status["volumeMounts"],
            json!([
                { "name": "data", "mountPath": "/data" },
                {
                    "name": "token", "mountPath": "/token",
                    "readOnly": true, "recursiveReadOnly": "Disabled",
                },
            ])
        );
    }
}
