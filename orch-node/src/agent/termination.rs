//! What containers say when they end.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`getTerminationMessage`).

use super::{plan::Observed, worker::PodWorker};
use crate::{
    logs,
    runtime::{ContainerState, ContainerStatus, LogLocation, labels},
};

/// At most so much of a termination message is kept.
const MESSAGE_BYTES_MAX: usize = 4096;
/// At most so much of the log stands in for it, ...
const LOG_BYTES_MAX: usize = 2048;
/// ... and so many lines.
const LOG_LINES_MAX: usize = 80;

fn last_bytes(text: &[u8], max: usize) -> &[u8] {
    &text[text.len().saturating_sub(max)..]
}

impl PodWorker {
    /// Reads the messages of containers that have ended since the last call.
    pub(super) async fn note_messages(&mut self, observed: &Observed) {
        let ids = &observed.containers;
        self.messages.retain(|id, _| ids.iter().any(|c| c.id.0 == *id));
        for container in &observed.containers {
            if container.state != ContainerState::Exited
                || self.messages.contains_key(&container.id.0)
            {
                continue;
            }
            let message = self.read_message(container).await;
            self.messages.insert(container.id.0.clone(), message);
        }
    }

    async fn read_message(&self, container: &ContainerStatus) -> String {
        let file = Self::annotation(container, labels::TERMINATION_MESSAGE_FILE);
        if !file.is_empty()
            && let Ok(bytes) = tokio::fs::read(file).await
            && !bytes.is_empty()
        {
            let end = bytes.len().min(MESSAGE_BYTES_MAX);
            return String::from_utf8_lossy(&bytes[..end]).into_owned();
        }
        if Self::termination_policy_is_fallback(container) && container.exit_code != 0 {
            return self.log_tail(container).await;
        }
        String::new()
    }

    async fn log_tail(&self, container: &ContainerStatus) -> String {
        let text = match self.context.runtime.log_location(container).await {
            Ok(LogLocation::File(path)) => tokio::fs::read(path).await.unwrap_or_default(),
            Ok(LogLocation::Text(text)) => text.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
        let from = lines.len().saturating_sub(LOG_LINES_MAX + 1);
        let mut out = Vec::new();
        for entry in lines[from..].iter().filter_map(|line| logs::parse(line)) {
            out.extend_from_slice(entry.text);
            if !entry.partial {
                out.push(b'\n');
            }
        }
        String::from_utf8_lossy(last_bytes(&out, LOG_BYTES_MAX)).into_owned()
    }
}
