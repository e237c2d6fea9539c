//! The conformance suite of the [`Runtime`] contract.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt as _;

use crate::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, ImagePull, Runtime,
    RuntimeError, RuntimeEvent, SandboxConfig, SandboxId, SandboxMetadata, SandboxState, labels,
};

/// After this long a test of the suite gives up waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the suite needs to know of the runtime under test.
#[derive(Debug)]
pub struct RuntimeFixture {
    /// The runtime. It may hold other pods; the suite uses uids that start with `conformance-`.
    pub runtime: Arc<dyn Runtime>,
    /// An image that can be had.
    pub image: String,
    /// A command that runs until it gets SIGTERM and then ends soon.
    pub runs: Vec<String>,
    /// A command that ends by itself at once with code 3.
    pub exits_3: Vec<String>,
    /// Where logs may be written.
    pub log_directory: PathBuf,
    /// An address for the pods, where the runtime assigns none.
    pub address: Option<std::net::IpAddr>,
}

struct Suite<'a>(&'a RuntimeFixture);

/// Runs the whole suite.
///
/// # Panics
/// When the runtime breaks the contract, saying how.
pub async fn runtime_conformance(fixture: &RuntimeFixture) {
    let suite = Suite(fixture);
    suite.sandboxes_are_told_of_as_configured().await;
    suite.containers_live_and_die().await;
    suite.an_exit_is_told_with_its_code().await;
    suite.what_is_gone_can_be_stopped_and_removed_again().await;
    suite.a_sandbox_takes_its_containers_along().await;
    suite.commands_in_containers().await;
    suite.what_runs_is_measured().await;
    suite.unknown_names_are_not_found().await;
}

impl Suite<'_> {
    fn sandbox_config(&self, uid: &str) -> SandboxConfig {
        SandboxConfig {
            metadata: SandboxMetadata {
                name: uid.into(),
                namespace: "conformance".into(),
                uid: uid.into(),
                attempt: 0,
            },
            labels: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            annotations: [("note".to_owned(), "kept: äöü\"\n".to_owned())].into(),
            hostname: uid.into(),
            log_directory: self.0.log_directory.join(uid),
            address: self.0.address,
            ..SandboxConfig::default()
        }
    }

    async fn sandbox(&self, uid: &str) -> SandboxId {
        let config = self.sandbox_config(uid);
        self.0.runtime.run_sandbox(config).await.expect("a sandbox starts")
    }

    async fn container(&self, sandbox: &SandboxId, uid: &str, command: &[String]) -> ContainerId {
        // What is there already need not be had from a registry.
        let present = self.0.runtime.image(&self.0.image).await.expect("images are told");
        let image = match present {
            Some(image) => image,
            None => {
                let pull = ImagePull { image: self.0.image.clone(), ..ImagePull::default() };
                self.0.runtime.pull_image(pull).await.expect("the image can be had")
            }
        };
        let config = ContainerConfig {
            name: "main".into(),
            image: self.0.image.clone(),
            image_id: image.id,
            command: command.to_vec(),
            labels: [
                (labels::POD_UID.to_owned(), uid.to_owned()),
                (labels::CONTAINER_NAME.to_owned(), "main".to_owned()),
            ]
            .into(),
            annotations: [(labels::CONTAINER_HASH.to_owned(), "abc".to_owned())].into(),
            log_path: "main/0.log".into(),
            ..ContainerConfig::default()
        };
        self.0.runtime.create_container(sandbox, config).await.expect("a container is created")
    }

    async fn status(&self, uid: &str, id: &ContainerId) -> Option<ContainerStatus> {
        let all = self.0.runtime.containers(Some(uid)).await.expect("containers are listed");
        all.into_iter().find(|c| c.id == *id)
    }

    /// Waits for a state, led by the runtime's events alone if it tells them.
    async fn until(&self, uid: &str, id: &ContainerId, state: ContainerState) -> ContainerStatus {
        let mut events = self.0.runtime.events();
        let wait = async {
            loop {
                let status = self.status(uid, id).await.expect("the container is known");
                if status.state == state {
                    return status;
                }
                while let Some(event) = events.next().await {
                    match event {
                        RuntimeEvent::PodChanged { pod_uid } if pod_uid != uid => {}
                        _ => break,
                    }
                }
            }
        };
        let late = |_| panic!("{id} did not become {state:?}, or no event told of it");
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(late)
    }

    async fn sandboxes_are_told_of_as_configured(&self) {
        let uid = "conformance-told";
        let id = self.sandbox(uid).await;
        let config = self.sandbox_config(uid);
        let found = self.0.runtime.sandboxes(Some(uid)).await.expect("sandboxes are listed");
        assert_eq!(found.len(), 1, "one sandbox of the pod");
        let found = &found[0];
        assert_eq!((&found.id, &found.metadata), (&id, &config.metadata));
        assert_eq!(found.state, SandboxState::Ready);
        assert_eq!(found.labels, config.labels, "labels come back unchanged");
        assert_eq!(found.annotations, config.annotations, "annotations come back unchanged");
        if let Some(address) = self.0.address {
            assert_eq!(found.ips, [address], "the given address is the pod's");
        }
        let other = self.0.runtime.sandboxes(Some("conformance-other")).await;
        assert!(other.expect("sandboxes are listed").is_empty(), "the uid selects");
        let all = self.0.runtime.sandboxes(None).await.expect("sandboxes are listed");
        assert!(all.iter().any(|s| s.id == id), "without a uid all are listed");
        self.0.runtime.stop_sandbox(&id).await.expect("a sandbox is stopped");
        let stopped = self.0.runtime.sandboxes(Some(uid)).await.expect("sandboxes are listed");
        assert_eq!(stopped[0].state, SandboxState::NotReady);
        self.0.runtime.remove_sandbox(&id).await.expect("a sandbox is removed");
        let gone = self.0.runtime.sandboxes(Some(uid)).await.expect("sandboxes are listed");
        assert!(gone.is_empty(), "a removed sandbox is not listed");
    }

    async fn containers_live_and_die(&self) {
        let uid = "conformance-lives";
        let sandbox = self.sandbox(uid).await;
        let id = self.container(&sandbox, uid, &self.0.runs).await;
        let created = self.status(uid, &id).await.expect("a created container is listed");
        assert_eq!(created.state, ContainerState::Created);
        assert_eq!((created.name.as_str(), created.attempt), ("main", 0));
        assert_eq!(created.sandbox, sandbox);
        assert_eq!(created.annotations[labels::CONTAINER_HASH], "abc");
        self.0.runtime.start_container(&id).await.expect("a container starts");
        let running = self.status(uid, &id).await.expect("a running container is listed");
        assert_eq!(running.state, ContainerState::Running, "it runs once the start returned");
        assert!(running.started_at.is_some());
        let again = self.0.runtime.start_container(&id).await;
        assert!(again.is_err(), "a container starts only once");
        self.0.runtime.stop_container(&id, PATIENCE).await.expect("a container stops");
        let ended = self.status(uid, &id).await.expect("an ended container is listed");
        assert_eq!(ended.state, ContainerState::Exited, "it has ended once the stop returned");
        assert!(ended.finished_at >= running.started_at);
        self.0.runtime.remove_container(&id).await.expect("a container is removed");
        assert!(self.status(uid, &id).await.is_none(), "a removed container is not listed");
        self.0.runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
    }

    async fn an_exit_is_told_with_its_code(&self) {
        let uid = "conformance-exits";
        let sandbox = self.sandbox(uid).await;
        let id = self.container(&sandbox, uid, &self.0.exits_3).await;
        self.0.runtime.start_container(&id).await.expect("a container starts");
        let ended = self.until(uid, &id, ContainerState::Exited).await;
        assert_eq!(ended.exit_code, 3);
        self.0.runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
    }

    async fn what_is_gone_can_be_stopped_and_removed_again(&self) {
        let runtime = &self.0.runtime;
        let (sandbox, container) = (SandboxId("f00d".into()), ContainerId("beef".into()));
        runtime.stop_container(&container, PATIENCE).await.expect("unknown is stopped");
        runtime.remove_container(&container).await.expect("unknown is gone");
        runtime.stop_sandbox(&sandbox).await.expect("unknown is stopped");
        runtime.remove_sandbox(&sandbox).await.expect("unknown is gone");
    }

    async fn a_sandbox_takes_its_containers_along(&self) {
        let uid = "conformance-along";
        let sandbox = self.sandbox(uid).await;
        let id = self.container(&sandbox, uid, &self.0.runs).await;
        self.0.runtime.start_container(&id).await.expect("a container starts");
        self.0.runtime.stop_sandbox(&sandbox).await.expect("a sandbox is stopped");
        let ended = self.status(uid, &id).await.expect("the container is still listed");
        assert_eq!(ended.state, ContainerState::Exited);
        assert_eq!(ended.exit_code, 137, "it was killed");
        self.0.runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
        assert!(self.status(uid, &id).await.is_none());
    }

    async fn commands_in_containers(&self) {
        let uid = "conformance-exec";
        let sandbox = self.sandbox(uid).await;
        let id = self.container(&sandbox, uid, &self.0.runs).await;
        let early = self.0.runtime.exec_sync(&id, &self.0.exits_3, None).await;
        assert!(early.is_err(), "nothing runs in a container that does not");
        self.0.runtime.start_container(&id).await.expect("a container starts");
        match self.0.runtime.exec_sync(&id, &self.0.exits_3, Some(PATIENCE)).await {
            Ok(_) | Err(RuntimeError::NotSupported(_)) => {}
            Err(error) => panic!("a command runs in a container: {error}"),
        }
        self.0.runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
    }

    async fn what_runs_is_measured(&self) {
        let runtime = &self.0.runtime;
        let uid = "conformance-measured";
        let sandbox = self.sandbox(uid).await;
        let id = self.container(&sandbox, uid, &self.0.runs).await;
        self.0.runtime.start_container(&id).await.expect("a container starts");
        let all = match runtime.usages().await {
            Ok(all) => all,
            // What cannot be measured says so.
            Err(RuntimeError::NotSupported(_)) => {
                runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
                return;
            }
            Err(error) => panic!("containers are measured: {error}"),
        };
        let first = all.iter().find(|(one, _)| *one == id).expect("it runs, so it is measured");
        let later = runtime.usage(&id).await.expect("one container is measured");
        assert!(later.cpu_ns >= first.1.cpu_ns, "CPU time only grows");
        assert!(later.working_set_bytes > 0, "what runs is somewhere in memory");
        runtime.stop_container(&id, PATIENCE).await.expect("a container stops");
        let left = runtime.usages().await.expect("containers are measured");
        assert!(left.iter().all(|(one, _)| *one != id), "what does not run uses nothing");
        runtime.machine_usage().await.expect("the machine is measured, or nobody knows");
        runtime.remove_sandbox(&sandbox).await.expect("a sandbox is removed");
    }

    async fn unknown_names_are_not_found(&self) {
        let runtime = &self.0.runtime;
        let container = ContainerId("beef".into());
        let not_found = |error: RuntimeError| matches!(error, RuntimeError::NotFound { .. });
        let started = runtime.start_container(&container).await;
        assert!(started.is_err_and(not_found), "an unknown container is not found");
        let config = ContainerConfig { image: self.0.image.clone(), ..ContainerConfig::default() };
        let created = runtime.create_container(&SandboxId("f00d".into()), config).await;
        assert!(created.is_err_and(not_found), "an unknown sandbox is not found");
    }
}
