//! Who is on this node, as the agent's HTTP server and other observers ask it.

use std::{fmt, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::Informer;

use crate::runtime::{ContainerStatus, Runtime, RuntimeError, SandboxId, SandboxState, labels};

/// The pods that an agent runs, with their newest status. Object-safe and cheap.
pub trait PodSource: Send + Sync + fmt::Debug + 'static {
    /// All pods, by namespace and name.
    fn pods(&self) -> Vec<Arc<Pod>>;
}

impl PodSource for Informer<Pod> {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.list()
    }
}

/// Which container of which pod.
#[derive(Clone, Copy, Debug)]
pub struct ContainerRef<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// The pod's uid; `None` takes the newest pod of the name.
    pub uid: Option<&'a str>,
    /// The container's name.
    pub container: &'a str,
}

/// The newest container of a name, or with `previous` the one before it.
///
/// # Errors
/// [`RuntimeError::NotFound`] if there is none.
pub async fn find_container(
    runtime: &dyn Runtime,
    wanted: ContainerRef<'_>,
    previous: bool,
) -> Result<ContainerStatus, RuntimeError> {
    let mut found: Vec<ContainerStatus> = runtime.containers(wanted.uid).await?;
    found.retain(|c| {
        c.name == wanted.container
            && c.label(labels::POD_NAMESPACE) == wanted.namespace
            && c.label(labels::POD_NAME) == wanted.pod
    });
    found.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
    let not_found = || RuntimeError::no_container(wanted.container);
    found.into_iter().nth(usize::from(previous)).ok_or_else(not_found)
}

/// A pod's sandbox that is ready.
///
/// # Errors
/// [`RuntimeError::NotFound`] if there is none.
pub async fn find_sandbox(
    runtime: &dyn Runtime,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
) -> Result<SandboxId, RuntimeError> {
    let sandboxes = runtime.sandboxes(uid).await?;
    let found = sandboxes.into_iter().find(|s| {
        s.state == SandboxState::Ready
            && s.metadata.namespace == namespace
            && s.metadata.name == pod
    });
    found.map(|s| s.id).ok_or_else(|| RuntimeError::no_sandbox(format!("{namespace}/{pod}")))
}
