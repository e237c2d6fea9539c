//! Volumes of pods on this machine.
//!
//! Source: `pkg/volume`; the folders are laid out as the kubelet's are.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use orch_core::{Client, ClientError, Environment, claim::claim_of};
use parking_lot::Mutex;

use crate::{
    agent::{events::NodeEvents, spec},
    downward::PodFields,
};

mod atomic;
mod claim;
mod expansion;
mod host_path;
mod payload;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// What the volume refers to is missing or not fit; the text is for the pod's event.
    #[error("{0}")]
    Source(String),
    /// Nobody here provides volumes of this type.
    #[error("volumes of type {0} are not supported on this node")]
    NotSupported(String),
    /// The cluster could not be read.
    #[error("{0}")]
    Cluster(#[from] ClientError),
    /// A file or folder could not be made.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

impl VolumeError {
    fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let text = format!("{what} {}", path.display());
        move |error| Self::Io(text, error)
    }
}

/// A volume that is ready to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PreparedVolume {
    /// Where it is on this machine; empty on a node without files.
    pub(crate) path: PathBuf,
    /// Whether every mount of it is read-only.
    pub(crate) read_only: bool,
}

/// A token with the time from which on it is to be replaced.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    replace_at: Timestamp,
}

/// Prepares and removes the volumes of a node's pods.
#[derive(Debug)]
pub(crate) struct Volumes {
    client: Arc<dyn Client>,
    environment: Environment,
    /// The folder with one folder per pod; `None` on a node without files.
    pods_dir: Option<PathBuf>,
    tokens: Mutex<HashMap<(String, String), Token>>,
    events: NodeEvents,
}

/// What kind of volume it is, as upstream's folder names have it.
fn plugin(volume: &Volume) -> &'static str {
    if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else {
        "kubernetes.io~empty-dir"
    }
}

/// The name of the set field of a volume that nobody here provides.
fn unsupported_type(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let keys = value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    keys.into_iter().find(|k| k != "name").unwrap_or_else(|| "unknown".into())
}

impl Volumes {
    pub(crate) fn new(
        client: Arc<dyn Client>,
        environment: Environment,
        pods_dir: Option<PathBuf>,
        events: NodeEvents,
    ) -> Self {
        Self { client, environment, pods_dir, tokens: Mutex::default(), events }
    }

    /// The pod's own folder.
    pub(crate) fn pod_dir(&self, uid: &str) -> Option<PathBuf> {
        self.pods_dir.as_ref().map(|dir| dir.join(uid))
    }

    /// Makes all of a pod's volumes ready, or brings the contents of those that are up to date.
    /// Idempotent.
    ///
    /// # Errors
    /// The name of the first volume that is not there, and why.
    pub(crate) async fn prepare(
        &self,
        pod: &Pod,
        fields: PodFields<'_>,
    ) -> Result<BTreeMap<String, PreparedVolume>, (String, VolumeError)> {
        let mut prepared = BTreeMap::new();
        for volume in spec::spec(pod).volumes.iter().flatten() {
            let ready = self.prepare_one(pod, volume, fields).await;
            let ready = ready.map_err(|error| (volume.name.clone(), error))?;
            prepared.insert(volume.name.clone(), ready);
        }
        Ok(prepared)
    }

    async fn prepare_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        fields: PodFields<'_>,
    ) -> Result<PreparedVolume, VolumeError> {
        if let Some(host_path) = &volume.host_path {
            return host_path::prepare(host_path, self.pods_dir.is_some()).await;
        }
        if let Some(claim) = claim_of(pod, volume) {
            let source = volume.persistent_volume_claim.as_ref();
            let read_only = source.is_some_and(|source| source.read_only == Some(true));
            return self.claim(pod, &claim, read_only).await;
        }
        let Some(pod_dir) = self.pod_dir(spec::uid(pod)) else {
            return self.check_only(pod, volume, fields).await;
        };
        let path = pod_dir.join("volumes").join(plugin(volume)).join(&volume.name);
        if volume.empty_dir.is_some() {
            make_dir(path.clone(), 0o777).await?;
            return Ok(PreparedVolume { path, read_only: false });
        }
        let payload = self.payload(pod, volume, fields).await?;
        let payload = payload.ok_or_else(|| VolumeError::NotSupported(unsupported_type(volume)))?;
        make_dir(path.clone(), 0o755).await?;
        let target = path.clone();
        let stamp = self.environment.random.next_u64();
        run_blocking(move || {
            let what = VolumeError::io("cannot write", &target);
            atomic::write(&target, &payload, stamp).map_err(what)
        })
        .await?;
        Ok(PreparedVolume { path, read_only: true })
    }

    /// On a node without files only what the volume refers to is looked at. Projected volumes are
    /// not: every pod has one with a token, which nobody would ever read.
    async fn check_only(
        &self,
        pod: &Pod,
        volume: &Volume,
        fields: PodFields<'_>,
    ) -> Result<PreparedVolume, VolumeError> {
        if volume.config_map.is_some() || volume.secret.is_some() {
            self.payload(pod, volume, fields).await?;
        }
        Ok(PreparedVolume::default())
    }

    /// Removes everything that a pod has on this machine except its logs. Idempotent.
    pub(crate) async fn remove(&self, uid: &str) {
        self.tokens.lock().retain(|(pod, _), _| pod != uid);
        let Some(dir) = self.pod_dir(uid).filter(|_| !uid.is_empty()) else { return };
        let shown = dir.display().to_string();
        let removed = run_blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(VolumeError::Io("cannot remove".into(), error))
            }
            _ => Ok(()),
        });
        if let Err(error) = removed.await {
            tracing::warn!(dir = shown, %error, "a pod's folder stays behind");
        }
    }
}

/// Makes a folder with exactly these permissions, whatever the umask.
pub(crate) async fn make_dir(path: PathBuf, mode: u32) -> Result<(), VolumeError> {
    use std::os::unix::fs::PermissionsExt as _;
    run_blocking(move || {
        let existed = path.is_dir();
        std::fs::create_dir_all(&path).map_err(VolumeError::io("cannot create", &path))?;
        if !existed {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions)
                .map_err(VolumeError::io("cannot set permissions of", &path))?;
        }
        Ok(())
    })
    .await
}

/// Runs file work where it may block.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VolumeError::Source(format!("file work was abandoned: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim};
    use orch_core::{Resources, client::PatchKind, testing::MemoryClient};
    use serde_json::{Value, json};

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        client: Arc<MemoryClient>,
        volumes: Volumes,
    }

    fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let environment = Environment::system();
            let client = Arc::new(MemoryClient::new(environment.clone()));
            let pods_dir = Some(dir.path().join("pods"));
            let events = NodeEvents::start(client.clone(), environment.clone(), "node-1");
            let volumes = Volumes::new(client.clone(), environment, pods_dir, events);
            Self { dir, client, volumes }
        }

        async fn prepare(&self, volume: Value) -> Result<PathBuf, String> {
            let pod: Pod = typed(json!({
                "metadata": { "name": "p", "namespace": "default", "uid": "u",
                    "labels": { "app": "web" } },
                "spec": { "containers": [], "volumes": [volume] }
            }));
            let allocatable = BTreeMap::new();
            let fields =
                PodFields { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: &allocatable };
            let prepared = self.volumes.prepare(&pod, fields).await;
            prepared.map(|p| p["v"].path.clone()).map_err(|(_, error)| error.to_string())
        }
    }

    #[tokio::test]
    async fn contents_follow_what_they_come_from() {
        let bench = Bench::new();
        let volume = json!({ "name": "v", "projected": { "sources": [
            { "configMap": { "name": "settings" } },
            { "downwardAPI": { "items": [
                { "path": "meta/labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } }
        ] } });
        let error = bench.prepare(volume.clone()).await.unwrap_err();
        assert_eq!(error, "configmap \"settings\" not found");
        let map = |text: &str| -> ConfigMap {
            typed(json!({ "metadata": { "name": "settings", "namespace": "default" },
                "data": { "a": text } }))
        };
        let maps = Resources::<ConfigMap>::namespaced(bench.client.clone(), "default");
        maps.create(&map("one")).await.unwrap();
        let path = bench.prepare(volume.clone()).await.unwrap();
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
        assert_eq!((read("a").as_str(), read("meta/labels").as_str()), ("one", "app=\"web\""));
        maps.update(&map("two")).await.unwrap();
        bench.prepare(volume).await.unwrap();
        assert_eq!(read("a"), "two");
        bench.volumes.remove("u").await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn claims_lead_to_folders_of_this_machine() {
        let bench = Bench::new();
        let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "data" } });
        let claim: PersistentVolumeClaim = typed(json!({
            "metadata": { "name": "data", "namespace": "default" },
            "spec": { "volumeName": "disk" }, "status": { "phase": "Bound" }
        }));
        let error = bench.prepare(volume.clone()).await.unwrap_err();
        assert_eq!(error, "persistentvolumeclaim \"data\" not found");
        bench.client.seed_typed(&claim).unwrap();
        let folder = bench.dir.path().join("disk");
        let disk: PersistentVolume = typed(json!({
            "metadata": { "name": "disk" },
            "spec": { "hostPath": { "path": folder, "type": "DirectoryOrCreate" } }
        }));
        bench.client.seed_typed(&disk).unwrap();
        assert_eq!(bench.prepare(volume.clone()).await.unwrap(), folder);
        assert!(folder.is_dir());

        // A claim whose volume has grown gets the new size here.
        let claims =
            Resources::<PersistentVolumeClaim>::namespaced(bench.client.clone(), "default");
        let disks = Resources::<PersistentVolume>::all(bench.client.clone());
        let grown = json!({ "spec": { "capacity": { "storage": "5Gi" } } });
        disks.patch("disk", PatchKind::Merge, grown).await.unwrap();
        let pending = json!({ "status": {
            "capacity": { "storage": "1Gi" },
            "conditions": [{ "type": "FileSystemResizePending", "status": "True" },
                { "type": "ModifyingVolume", "status": "True" }],
            "allocatedResourceStatuses": { "storage": "NodeResizePending" },
        } });
        claims.patch_status("data", PatchKind::Merge, pending).await.unwrap();
        bench.prepare(volume.clone()).await.unwrap();
        let claim = claims.get("data").await.unwrap();
        let status = serde_json::to_value(&claim.status).unwrap();
        let wanted = json!({ "phase": "Bound", "capacity": { "storage": "5Gi" },
            "conditions": [{ "type": "ModifyingVolume", "status": "True" }] });
        assert_eq!(status, wanted);
        bench.prepare(volume).await.unwrap();
        assert_eq!(claims.get("data").await.unwrap().metadata, claim.metadata);
    }

    #[tokio::test]
    async fn an_ephemeral_claim_must_be_the_pods_own() {
        let bench = Bench::new();
        let claim: PersistentVolumeClaim = typed(json!({
            "metadata": { "name": "p-v", "namespace": "default" },
            "spec": { "volumeName": "disk" }, "status": { "phase": "Bound" }
        }));
        bench.client.seed_typed(&claim).unwrap();
        let error = bench.prepare(json!({ "name": "v", "ephemeral": {} })).await.unwrap_err();
        assert_eq!(error, "PVC default/p-v was not created for pod default/p (pod is not owner)");
    }

    #[tokio::test]
    async fn what_nobody_provides_is_named() {
        let bench = Bench::new();
        let volume = json!({ "name": "v", "nfs": { "server": "s", "path": "/" } });
        let error = bench.prepare(volume).await.unwrap_err();
        assert_eq!(error, "volumes of type nfs are not supported on this node");
        let path = bench.prepare(json!({ "name": "v", "emptyDir": {} })).await.unwrap();
        assert!(path.is_dir());
    }
}
