//! What to do next for a pod: a pure function of its spec, of what runs, and of its probes.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `computePodActions`.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::spec::{self, ProbeKind, Role};
use crate::runtime::{
    ContainerId, ContainerState, ContainerStatus, SandboxState, SandboxStatus, labels,
};

/// What the runtime has of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Newest attempt first.
    pub(crate) sandboxes: Vec<SandboxStatus>,
    /// Newest attempt first within a name.
    pub(crate) containers: Vec<ContainerStatus>,
}

impl Observed {
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready)
    }

    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created_at))
    }

    /// The newest container of a name in the newest sandbox.
    fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = &self.sandboxes.first()?.id;
        self.latest(name).filter(|c| c.sandbox == *sandbox)
    }

    pub(crate) fn any_running(&self) -> bool {
        self.containers.iter().any(ContainerStatus::is_running)
    }
}

/// What the probes of a container have found.
pub(crate) trait ProbeResults {
    /// `None` while nothing is known.
    fn result(&self, container: &ContainerId, kind: ProbeKind) -> Option<bool>;
}

/// A container to be stopped, so that it starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) message: String,
    /// The probe that failed, if one did: it may have a grace period of its own.
    pub(crate) probe: Option<ProbeKind>,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Stop everything: the pod has ended, or its sandbox is to be replaced.
    pub(crate) kill_pod: bool,
    /// Run a sandbox with this attempt number.
    pub(crate) create_sandbox: Option<u32>,
    /// Containers to stop.
    pub(crate) kill: Vec<Kill>,
    /// Containers to start, in order.
    pub(crate) start: Vec<(Role, String)>,
    /// Whether all init containers are done.
    pub(crate) initialized: bool,
}

impl Plan {
    pub(crate) fn is_idle(&self) -> bool {
        !self.kill_pod
            && self.create_sandbox.is_none()
            && self.kill.is_empty()
            && self.start.is_empty()
    }
}

/// Decides what to do next.
pub(crate) fn plan(pod: &Pod, observed: &Observed, probes: &dyn ProbeResults) -> Plan {
    if observed.ready_sandbox().is_none() {
        return plan_sandbox(pod, observed);
    }
    let mut plan = Plan::default();
    if !plan_inits(pod, observed, probes, &mut plan) {
        return plan;
    }
    plan.initialized = true;
    let mut all_done = true;
    for container in &spec::spec(pod).containers {
        all_done &= plan_main(pod, container, observed, probes, &mut plan);
    }
    if all_done {
        return Plan { kill_pod: true, initialized: true, ..Plan::default() };
    }
    plan
}

/// The pod has no sandbox that works: replace it, unless there is nothing left to run in one.
fn plan_sandbox(pod: &Pod, observed: &Observed) -> Plan {
    let had_any = !observed.sandboxes.is_empty();
    let ended = |c: &Container| {
        let latest = observed.latest(&c.name);
        latest.is_some_and(|s| {
            s.state == ContainerState::Exited && !spec::restarts(pod, Role::Main, c, s.exit_code)
        })
    };
    let all_ended = spec::spec(pod).containers.iter().all(ended);
    let never = spec::restart_policy(pod) == "Never" && !observed.containers.is_empty();
    if had_any && (all_ended || never) {
        return Plan { kill_pod: true, ..Plan::default() };
    }
    let attempt = observed.sandboxes.first().map_or(0, |s| s.metadata.attempt + 1);
    Plan { kill_pod: had_any, create_sandbox: Some(attempt), ..Plan::default() }
}

/// Walks the init containers in order; gives whether the main ones may run.
fn plan_inits(pod: &Pod, observed: &Observed, probes: &dyn ProbeResults, plan: &mut Plan) -> bool {
    let mains = &spec::spec(pod).containers;
    let was_initialized = mains.iter().any(|c| observed.current(&c.name).is_some());
    for init in spec::init_containers(pod) {
        let step = match spec::init_role(init) {
            Role::Sidecar => plan_sidecar(init, observed, probes, plan),
            _ => plan_init(pod, init, observed, was_initialized, plan),
        };
        if !step && !was_initialized {
            return false;
        }
        if plan.kill_pod {
            return false;
        }
    }
    true
}

/// Whether the next one may start.
fn plan_sidecar(
    init: &Container,
    observed: &Observed,
    probes: &dyn ProbeResults,
    plan: &mut Plan,
) -> bool {
    match observed.current(&init.name) {
        Some(status) if status.is_running() => {
            if let Some(kill) = wants_kill(init, status, probes) {
                plan.kill.push(kill);
                return false;
            }
            init.startup_probe.is_none()
                || probes.result(&status.id, ProbeKind::Startup) == Some(true)
        }
        _ => {
            plan.start.push((Role::Sidecar, init.name.clone()));
            false
        }
    }
}

/// Whether it is done.
fn plan_init(
    pod: &Pod,
    init: &Container,
    observed: &Observed,
    was_initialized: bool,
    plan: &mut Plan,
) -> bool {
    let start = |plan: &mut Plan| plan.start.push((Role::Init, init.name.clone()));
    let Some(status) = observed.current(&init.name) else {
        // Once the main containers have run, init containers may have been cleaned away.
        if !was_initialized {
            start(plan);
        }
        return was_initialized;
    };
    match status.state {
        ContainerState::Running => false,
        ContainerState::Exited if status.exit_code == 0 => true,
        ContainerState::Exited if !spec::restarts(pod, Role::Init, init, status.exit_code) => {
            plan.kill_pod = !was_initialized;
            false
        }
        _ => {
            if !was_initialized {
                start(plan);
            }
            false
        }
    }
}

/// Whether it has ended for good.
fn plan_main(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    probes: &dyn ProbeResults,
    plan: &mut Plan,
) -> bool {
    let Some(status) = observed.latest(&container.name) else {
        plan.start.push((Role::Main, container.name.clone()));
        return false;
    };
    match status.state {
        ContainerState::Running => {
            plan.kill.extend(wants_kill(container, status, probes));
            false
        }
        ContainerState::Exited if !spec::restarts(pod, Role::Main, container, status.exit_code) => {
            true
        }
        _ => {
            plan.start.push((Role::Main, container.name.clone()));
            false
        }
    }
}

fn wants_kill(
    container: &Container,
    status: &ContainerStatus,
    probes: &dyn ProbeResults,
) -> Option<Kill> {
    let name = &container.name;
    let kill = |message: String, probe| {
        Some(Kill { id: status.id.clone(), name: name.clone(), message, probe })
    };
    let hash = status.annotations.get(labels::CONTAINER_HASH);
    if hash.is_some_and(|hash| *hash != spec::container_hash(container)) {
        return kill(format!("Container {name} definition changed, will be restarted"), None);
    }
    for (probe, word) in [(ProbeKind::Liveness, "liveness"), (ProbeKind::Startup, "startup")] {
        if probe.of(container).is_some() && probes.result(&status.id, probe) == Some(false) {
            let message = format!("Container {name} failed {word} probe, will be restarted");
            return kill(message, Some(probe));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::{SandboxId, SandboxMetadata};

    struct Probes(Option<bool>);

    impl ProbeResults for Probes {
        fn result(&self, _: &ContainerId, _: ProbeKind) -> Option<bool> {
            self.0
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better so")]
    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    fn sandbox(attempt: u32, state: SandboxState) -> SandboxStatus {
        SandboxStatus {
            id: SandboxId(format!("s{attempt}")),
            metadata: SandboxMetadata { attempt, ..SandboxMetadata::default() },
            state,
            created_at: Timestamp::UNIX_EPOCH,
            ips: Vec::new(),
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    fn container(name: &str, state: ContainerState, exit_code: i32) -> ContainerStatus {
        ContainerStatus {
            id: ContainerId(name.into()),
            sandbox: SandboxId("s0".into()),
            name: name.into(),
            attempt: 0,
            state,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            labels: Default::default(),
            annotations: Default::default(),
            log_path: PathBuf::new(),
        }
    }

    fn check(spec: Value, containers: &[ContainerStatus], probe: Option<bool>) -> Plan {
        let observed = Observed {
            sandboxes: vec![sandbox(0, SandboxState::Ready)],
            containers: containers.to_vec(),
        };
        plan(&pod(spec), &observed, &Probes(probe))
    }

    fn starts(plan: &Plan) -> Vec<&str> {
        plan.start.iter().map(|(_, name)| name.as_str()).collect()
    }

    use ContainerState::{Exited, Running};

    #[test]
    fn a_new_pod_gets_a_sandbox_and_a_dead_one_is_replaced() {
        let spec = json!({ "containers": [{ "name": "a" }] });
        let new = plan(&pod(spec.clone()), &Observed::default(), &Probes(None));
        assert_eq!((new.create_sandbox, new.kill_pod), (Some(0), false));
        let dead = Observed {
            sandboxes: vec![sandbox(0, SandboxState::NotReady)],
            containers: vec![container("a", Exited, 137)],
        };
        let replaced = plan(&pod(spec), &dead, &Probes(None));
        assert_eq!((replaced.create_sandbox, replaced.kill_pod), (Some(1), true));
        let never = json!({ "restartPolicy": "Never", "containers": [{ "name": "a" }] });
        let ended = plan(&pod(never), &dead, &Probes(None));
        assert_eq!((ended.create_sandbox, ended.kill_pod), (None, true));
    }

    #[test]
    fn init_containers_run_one_after_the_other() {
        let spec = json!({
            "initContainers": [{ "name": "i1" }, { "name": "i2" }],
            "containers": [{ "name": "a" }, { "name": "b" }]
        });
        assert_eq!(starts(&check(spec.clone(), &[], None)), ["i1"]);
        let i1 = container("i1", Exited, 0);
        assert_eq!(starts(&check(spec.clone(), std::slice::from_ref(&i1), None)), ["i2"]);
        let running = [i1.clone(), container("i2", Running, 0)];
        assert!(check(spec.clone(), &running, None).is_idle());
        let failed = [i1.clone(), container("i2", Exited, 1)];
        assert_eq!(starts(&check(spec.clone(), &failed, None)), ["i2"]);
        let done = [i1, container("i2", Exited, 0)];
        let plan = check(spec, &done, None);
        assert_eq!(starts(&plan), ["a", "b"]);
        assert!(plan.initialized);
    }

    #[test]
    fn a_failed_init_container_ends_a_pod_that_never_restarts() {
        let spec = json!({
            "restartPolicy": "Never",
            "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }]
        });
        assert!(check(spec, &[container("i", Exited, 1)], None).kill_pod);
    }

    #[test]
    fn sidecars_start_first_and_keep_running() {
        let spec = json!({
            "initContainers": [{ "name": "s", "restartPolicy": "Always", "startupProbe": {} }],
            "containers": [{ "name": "a" }]
        });
        assert_eq!(starts(&check(spec.clone(), &[], None)), ["s"]);
        let running = [container("s", Running, 0)];
        assert!(check(spec.clone(), &running, None).is_idle());
        assert_eq!(starts(&check(spec.clone(), &running, Some(true))), ["a"]);
        let crashed = [container("s", Exited, 0), container("a", Running, 0)];
        assert_eq!(starts(&check(spec, &crashed, None)), ["s"]);
    }

    #[test]
    fn probes_and_policies_decide_about_main_containers() {
        let spec = json!({ "containers": [{ "name": "a", "livenessProbe": {} }] });
        let running = [container("a", Running, 0)];
        assert!(check(spec.clone(), &running, Some(true)).is_idle());
        let plan = check(spec.clone(), &running, Some(false));
        assert_eq!(plan.kill[0].probe, Some(ProbeKind::Liveness));
        assert_eq!(starts(&check(spec, &[container("a", Exited, 0)], None)), ["a"]);
        let never = json!({ "restartPolicy": "Never", "containers": [{ "name": "a" }] });
        assert!(check(never, &[container("a", Exited, 0)], None).kill_pod);
    }
}
