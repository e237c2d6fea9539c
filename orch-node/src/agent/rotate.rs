//! Keeps container logs from growing without end.
//!
//! Source: `pkg/kubelet/logs/container_log_manager.go`.
//!
//! Differs: rotated files are not compressed.

use std::path::{Path, PathBuf};

use super::{Context, plan::Observed};
use crate::runtime::{LogLocation, RuntimeError};

/// A larger log is rotated, as upstream's default `containerLogMaxSize` has it.
const SIZE_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// So many files are kept per container, the current one included.
const FILES_MAX: usize = 5;

/// Rotates the logs of a pod's running containers that have grown too large.
pub(super) async fn rotate(context: &Context, observed: &Observed) {
    for container in observed.containers.iter().filter(|c| c.is_running()) {
        let Ok(LogLocation::File(path)) = context.runtime.log_location(container).await else {
            continue;
        };
        let size = tokio::fs::metadata(&path).await.map_or(0, |m| m.len());
        if size <= SIZE_MAX_BYTES {
            continue;
        }
        let stamp = context.environment.clock.now().strftime("%Y%m%d-%H%M%S").to_string();
        let old = rotated(&path, &stamp);
        if tokio::fs::rename(&path, &old).await.is_err() {
            continue;
        }
        match context.runtime.reopen_log(&container.id).await {
            Ok(()) => remove_oldest(&path).await,
            Err(error) => {
                if !matches!(error, RuntimeError::NotSupported(_)) {
                    tracing::warn!(%error, log = %path.display(), "the log was not rotated");
                }
                // The runtime goes on writing to the renamed file: give it its name back.
                let _stays_renamed = tokio::fs::rename(&old, &path).await;
            }
        }
    }
}

fn rotated(path: &Path, stamp: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(stamp);
    name.into()
}

async fn remove_oldest(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    let Ok(mut entries) = tokio::fs::read_dir(dir).await else { return };
    let prefix = format!("{name}.");
    let mut old = Vec::new();
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)) {
            old.push(entry.path());
        }
    }
    old.sort();
    let surplus = old.len().saturating_sub(FILES_MAX - 1);
    for path in &old[..surplus] {
        if let Err(error) = tokio::fs::remove_file(path).await {
            tracing::debug!(%error, "an old log stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_logs_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for stamp in ["3", "1", "2", "6", "5", "4"] {
            tokio::fs::write(rotated(&path, stamp), b"").await.unwrap();
        }
        tokio::fs::write(dir.path().join("other.1"), b"").await.unwrap();
        remove_oldest(&path).await;
        let names = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["0.log.3", "0.log.4", "0.log.5", "0.log.6", "other.1"]);
    }
}
