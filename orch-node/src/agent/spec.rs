//! Questions to a pod's spec.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Probe};

use crate::runtime::labels;

/// What part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Ends before the next one starts.
    Init,
    /// An init container that goes on running.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

impl Role {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Init => labels::KIND_INIT,
            Self::Sidecar => labels::KIND_SIDECAR,
            Self::Main => labels::KIND_MAIN,
        }
    }
}

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(status(pod).phase.as_deref(), Some("Succeeded" | "Failed"))
}

pub(crate) fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn init_role(init: &Container) -> Role {
    if is_sidecar(init) { Role::Sidecar } else { Role::Init }
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// All containers in the order in which they start.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let inits = init_containers(pod).iter().map(|c| (init_role(c), c));
    inits.chain(spec(pod).containers.iter().map(|c| (Role::Main, c)))
}

/// Whether a container that ended with `exit_code` is to run again.
///
/// Source: `pkg/kubelet/container/helpers.go`, `ShouldContainerBeRestarted`; KEP-5307.
pub(crate) fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    if role == Role::Sidecar {
        return true;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|&code| code == exit_code);
        if listed == (codes.operator == "In") && rule.action == "Restart" {
            return true;
        }
    }
    let policy = container.restart_policy.as_deref().unwrap_or(restart_policy(pod));
    match (policy, role) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Role::Init) => exit_code != 0,
        _ => true,
    }
}

pub(crate) fn grace_period_s(pod: &Pod) -> i64 {
    let asked = pod.metadata.deletion_grace_period_seconds;
    asked.or(spec(pod).termination_grace_period_seconds).unwrap_or(30).max(1)
}

/// A hash of what cannot change without a restart: the name and the image. FNV-1a, because the
/// value outlives the process.
///
/// Source: `pkg/kubelet/container/helpers.go`, `HashContainer`.
pub(crate) fn container_hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// The word in events, capitalised.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes};

    use super::*;

    fn check(pod_policy: &str, role: Role, exit_code: i32) -> bool {
        let spec = PodSpec { restart_policy: Some(pod_policy.into()), ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        restarts(&pod, role, &Container::default(), exit_code)
    }

    #[test]
    fn restart_policies() {
        assert!(check("Always", Role::Main, 0));
        assert!(!check("Always", Role::Init, 0));
        assert!(check("Always", Role::Init, 1));
        assert!(check("OnFailure", Role::Main, 1));
        assert!(!check("OnFailure", Role::Main, 0));
        assert!(!check("Never", Role::Main, 1));
        assert!(!check("Never", Role::Init, 1));
        assert!(check("Never", Role::Sidecar, 0));
    }

    #[test]
    fn a_rule_restarts_what_the_policy_would_not() {
        let rule = ContainerRestartRule {
            action: "Restart".into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".into(),
                values: Some(vec![42]),
            }),
        };
        let container = Container {
            restart_policy: Some("Never".into()),
            restart_policy_rules: Some(vec![rule]),
            ..Container::default()
        };
        assert!(restarts(&Pod::default(), Role::Main, &container, 42));
        assert!(!restarts(&Pod::default(), Role::Main, &container, 1));
    }

    #[test]
    fn the_hash_sees_name_and_image_only() {
        let mut container = Container { name: "a".into(), ..Container::default() };
        let hash = container_hash(&container);
        container.working_dir = Some("/".into());
        assert_eq!(container_hash(&container), hash);
        container.image = Some("b".into());
        assert_ne!(container_hash(&container), hash);
    }
}
