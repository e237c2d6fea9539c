//! PersistentVolumeClaims on volumes of this machine (`local`, `hostPath`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use orch_core::{
    Resources,
    claim::{PodClaim, check_made_for},
};

use super::{PreparedVolume, VolumeError, Volumes, host_path, run_blocking};
use crate::agent::spec;

impl Volumes {
    pub(super) async fn claim(
        &self,
        pod: &Pod,
        wanted: &PodClaim,
        read_only: bool,
    ) -> Result<PreparedVolume, VolumeError> {
        let (namespace, name) = (spec::namespace(pod), wanted.name.as_str());
        let claims = Resources::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        let missing = || VolumeError::Source(format!("persistentvolumeclaim \"{name}\" not found"));
        let claim = claims.get_opt(name).await?.ok_or_else(missing)?;
        if wanted.is_ephemeral {
            check_made_for(pod, &claim).map_err(|error| VolumeError::Source(error.to_string()))?;
        }
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let (Some("Bound"), Some(volume)) = (phase, volume.filter(|v| !v.is_empty())) else {
            let text = format!("PVC {namespace}/{name} is not bound");
            return Err(VolumeError::Source(text));
        };
        let volumes = Resources::<PersistentVolume>::all(self.client.clone());
        let missing = || VolumeError::Source(format!("persistentvolume \"{volume}\" not found"));
        let volume = volumes.get_opt(volume).await?.ok_or_else(missing)?;
        let Some(source) = volume.spec.as_ref() else {
            return Err(VolumeError::Source("the volume has no source".into()));
        };
        let mut prepared = if let Some(source) = &source.host_path {
            host_path::prepare(source, self.pods_dir.is_some()).await?
        } else if let Some(local) = &source.local {
            self.local(&local.path).await?
        } else {
            let text = "PersistentVolumes other than local and hostPath".to_owned();
            return Err(VolumeError::NotSupported(text));
        };
        prepared.read_only |= read_only;
        self.finish_growing(pod, &claim, &volume, read_only).await?;
        Ok(prepared)
    }

    async fn local(&self, path: &str) -> Result<PreparedVolume, VolumeError> {
        let path = std::path::PathBuf::from(path);
        if self.pods_dir.is_some() {
            let checked = path.clone();
            run_blocking(move || {
                let there = std::fs::metadata(&checked);
                there
                    .map(|_| ())
                    .map_err(VolumeError::io("the local volume is not there:", &checked))
            })
            .await?;
        }
        Ok(PreparedVolume { path, read_only: false })
    }
}
