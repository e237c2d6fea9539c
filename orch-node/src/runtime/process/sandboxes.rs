//! Sandboxes of processes: names, an address, and a `resolv.conf`.

use std::time::Duration;

use async_trait::async_trait;

use super::ProcessRuntime;
use crate::{
    runtime::{
        ContainerId, ContainerStatus, Containers as _, Inventory, RuntimeError, RuntimeEvents,
        RuntimeInfo, SandboxConfig, SandboxId, SandboxMetadata, SandboxState, SandboxStatus,
        Sandboxes,
    },
    shim::record::{self, SandboxRecord, VERSION, micros, timestamp},
};

fn status(record: &SandboxRecord) -> SandboxStatus {
    SandboxStatus {
        id: SandboxId(record.id.clone()),
        metadata: SandboxMetadata {
            name: record.name.clone(),
            namespace: record.namespace.clone(),
            uid: record.uid.clone(),
            attempt: record.attempt,
        },
        state: if record.ready { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: timestamp(record.created_at),
        ips: record.ips.clone(),
        labels: record.labels.clone(),
        annotations: record.annotations.clone(),
    }
}

impl ProcessRuntime {
    fn write_sandbox(&self, sandbox: &SandboxRecord) -> Result<(), RuntimeError> {
        let file = self.sandbox_file(&SandboxId(sandbox.id.clone()));
        let text = || format!("cannot write {}", file.display());
        record::write(&file, sandbox).map_err(|error| RuntimeError::Io(text(), error))
    }

    fn containers_of(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        let known = self.0.known.lock();
        let inside = known.containers.iter().filter(|(_, c)| c.record.sandbox == sandbox.0);
        inside.map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait]
impl Sandboxes for ProcessRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let meta = &config.metadata;
        let id = SandboxId(format!("{:016x}", self.0.environment.random.next_u64()));
        let is_same = |s: &SandboxRecord| s.uid == meta.uid && s.attempt == meta.attempt;
        if self.0.known.lock().sandboxes.values().any(is_same) {
            return Err(RuntimeError::Refused(format!("sandbox {meta:?} exists already")));
        }
        let mut resolv_conf = None;
        if self.0.options.mounts && !config.dns.servers.is_empty() {
            let file = self.sandbox_file(&id).with_extension("resolv.conf");
            let text = || format!("cannot write {}", file.display());
            std::fs::write(&file, config.dns.resolv_conf())
                .map_err(|error| RuntimeError::Io(text(), error))?;
            resolv_conf = Some(file);
        }
        let sandbox = SandboxRecord {
            version: VERSION,
            id: id.0.clone(),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            attempt: meta.attempt,
            created_at: micros(self.0.environment.clock.now()),
            ready: true,
            ips: config.address.into_iter().collect(),
            labels: config.labels,
            annotations: config.annotations,
            hostname: config.hostname,
            log_directory: config.log_directory,
            resolv_conf,
        };
        self.write_sandbox(&sandbox)?;
        let uid = sandbox.uid.clone();
        self.0.known.lock().sandboxes.insert(id.clone(), sandbox);
        self.0.events.pod_changed(&uid);
        Ok(id)
    }

    async fn stop_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        for container in self.containers_of(sandbox) {
            self.stop_container(&container, Duration::ZERO).await?;
        }
        let stopped = {
            let mut known = self.0.known.lock();
            let Some(found) = known.sandboxes.get_mut(sandbox).filter(|s| s.ready) else {
                return Ok(());
            };
            found.ready = false;
            found.clone()
        };
        self.write_sandbox(&stopped)?;
        self.0.events.pod_changed(&stopped.uid);
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(sandbox).await?;
        for container in self.containers_of(sandbox) {
            self.remove_container(&container).await?;
        }
        let Some(gone) = self.0.known.lock().sandboxes.remove(sandbox) else { return Ok(()) };
        for file in [Some(self.sandbox_file(sandbox)), gone.resolv_conf].into_iter().flatten() {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let text = format!("cannot remove {}", file.display());
                    return Err(RuntimeError::Io(text, error));
                }
                _ => {}
            }
        }
        self.0.events.pod_changed(&gone.uid);
        Ok(())
    }
}

#[async_trait]
impl Inventory for ProcessRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo {
            name: "process".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            mounts_volumes: self.0.options.mounts,
            tells_events: true,
            has_files: true,
            ..RuntimeInfo::default()
        })
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let known = self.0.known.lock();
        let of_pod = |s: &&SandboxRecord| pod_uid.is_none_or(|uid| s.uid == uid);
        let mut found: Vec<_> = known.sandboxes.values().filter(of_pod).map(status).collect();
        found.sort_by(|a, b| {
            let uids = a.metadata.uid.cmp(&b.metadata.uid);
            uids.then(b.metadata.attempt.cmp(&a.metadata.attempt))
        });
        Ok(found)
    }

    async fn containers(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let known = self.0.known.lock();
        let of_pod = |c: &&super::Container| pod_uid.is_none_or(|uid| c.record.pod_uid == uid);
        let mut found: Vec<_> =
            known.containers.values().filter(of_pod).map(super::status).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.attempt.cmp(&a.attempt)));
        Ok(found)
    }

    fn events(&self) -> RuntimeEvents {
        self.0.events.subscribe()
    }
}
