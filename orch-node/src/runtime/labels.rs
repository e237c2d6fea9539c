//! The labels and annotations by which a restarted agent knows its workloads again. Names are
//! upstream's where upstream has one, so that other tools on the machine recognise the pods.
//!
//! Source: `pkg/kubelet/types/labels.go`, `pkg/kubelet/kuberuntime/labels.go`.

/// Label of sandboxes and containers: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label of sandboxes and containers: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label of sandboxes and containers: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label of containers: the name in the pod's spec.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation of containers: a hash of what must not change without a restart.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation of containers: how often the container was restarted before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation of containers: where the termination message is inside the container.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of containers: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation of containers: where the termination message is on the host.
pub const TERMINATION_MESSAGE_FILE: &str = "orch.io/termination-message-file";
/// Annotation of containers: the pod's grace period in seconds.
pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation of containers: [`KIND_INIT`], [`KIND_SIDECAR`] or [`KIND_MAIN`].
pub const CONTAINER_KIND: &str = "orch.io/container-kind";
/// An init container that must end before the next one starts.
pub const KIND_INIT: &str = "init";
/// An init container that goes on running beside the main ones.
pub const KIND_SIDECAR: &str = "sidecar";
/// One of `spec.containers`.
pub const KIND_MAIN: &str = "main";
