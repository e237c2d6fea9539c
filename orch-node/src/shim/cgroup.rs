//! A memory limit through cgroups, version 1 or 2, where they can be written.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// The group that a container's processes are in.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// A group for a container with a memory limit; `None` without one, or where groups cannot be
    /// made.
    pub(super) fn create(id: &str, limit_bytes: Option<i64>) -> Option<Self> {
        let limit = limit_bytes.filter(|&l| l > 0)?;
        Self::v2(id, limit).or_else(|| Self::v1(id, limit))
    }

    fn v2(id: &str, limit: i64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        if !fs::read_to_string(root.join("cgroup.controllers")).ok()?.contains("memory") {
            return None;
        }
        let parent = root.join("orch");
        fs::create_dir_all(&parent).ok()?;
        for folder in [root, &parent] {
            fs::write(folder.join("cgroup.subtree_control"), "+memory").ok()?;
        }
        let group = Self { folder: parent.join(id), is_v2: true };
        fs::create_dir_all(&group.folder).ok()?;
        fs::write(group.folder.join("memory.max"), limit.to_string()).ok()?;
        // Swap would make the limit a slowdown instead; where there is none the file is missing.
        let _no_swap_accounting = fs::write(group.folder.join("memory.swap.max"), "0");
        Some(group)
    }

    fn v1(id: &str, limit: i64) -> Option<Self> {
        let group = Self { folder: Path::new("/sys/fs/cgroup/memory/orch").join(id), is_v2: false };
        fs::create_dir_all(&group.folder).ok()?;
        fs::write(group.folder.join("memory.limit_in_bytes"), limit.to_string()).ok()?;
        // Missing where swap is not accounted for.
        let _no_swap_accounting =
            fs::write(group.folder.join("memory.memsw.limit_in_bytes"), limit.to_string());
        Some(group)
    }

    /// The file to write a process id to, to put the process into the group.
    pub(super) fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Whether the kernel has killed a process of the group for memory.
    pub(super) fn was_killed_for_memory(&self) -> bool {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let kills = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
        kills.and_then(|n| n.trim().parse::<u64>().ok()).is_some_and(|n| n > 0)
    }

    /// Removes the group. The kernel lets go of it only once the last killed process has been
    /// collected, and does not say when that is; so it is tried for a second. One that is still in
    /// use then stays, and costs next to nothing.
    pub(super) async fn remove(self) {
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        tracing::debug!(folder = %self.folder.display(), "a group stays behind");
    }
}
