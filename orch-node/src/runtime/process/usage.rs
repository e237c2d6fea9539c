//! What containers use, as `/proc` tells of their processes.

use std::{collections::BTreeMap, fs};

use async_trait::async_trait;
use nix::unistd::{SysconfVar, sysconf};

use super::ProcessRuntime;
use crate::{
    machine,
    runtime::{ContainerId, ContainerUsage, RuntimeError, Stats},
};

#[async_trait]
impl Stats for ProcessRuntime {
    async fn usages(&self) -> Result<Vec<(ContainerId, ContainerUsage)>, RuntimeError> {
        let mut sessions: BTreeMap<i32, (ContainerId, ContainerUsage)> = BTreeMap::new();
        for (id, container) in &self.0.known.lock().containers {
            let running = container.state.as_ref().filter(|state| state.finished_at.is_none());
            if let Some(process) = running.and_then(|state| state.process) {
                sessions.insert(process.pid, (id.clone(), ContainerUsage::default()));
            }
        }
        let measured = tokio::task::spawn_blocking(move || {
            measure(&mut sessions);
            sessions
        });
        let measured = measured.await.map_err(|error| {
            RuntimeError::Io("/proc cannot be read".to_owned(), std::io::Error::other(error))
        })?;
        Ok(measured.into_values().collect())
    }

    async fn machine_usage(&self) -> Result<Option<ContainerUsage>, RuntimeError> {
        Ok(machine::usage())
    }
}

/// Adds what every process uses to its session. One that ends meanwhile is not there any more.
fn measure(sessions: &mut BTreeMap<i32, (ContainerId, ContainerUsage)>) {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096);
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let folder = process.path();
        let Ok(stat) = fs::read_to_string(folder.join("stat")) else { continue };
        let Some((session, ticks)) = session_and_ticks(&stat) else { continue };
        let Some((_, usage)) = sessions.get_mut(&session) else { continue };
        usage.cpu_ns += machine::ticks_to_ns(ticks);
        let statm = fs::read_to_string(folder.join("statm")).unwrap_or_default();
        usage.working_set_bytes += private_pages(&statm) * page;
    }
}

/// The session of a process, and the time that it and its children that have ended took.
fn session_and_ticks(stat: &str) -> Option<(i32, u64)> {
    // The command's name may hold blanks and parentheses; what follows it does not.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let session = fields.get(3)?.parse().ok()?;
    let times = fields.get(11..15)?.iter();
    Some((session, times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()))
}

/// Pages in memory that no file stands behind.
fn private_pages(statm: &str) -> u64 {
    let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>());
    match (fields.next(), fields.next()) {
        (Some(Ok(resident)), Some(Ok(shared))) => resident.saturating_sub(shared),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_and_the_times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 5 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0 99 1 2 3";
        assert_eq!(session_and_ticks(stat), Some((5, 4330)));
        assert_eq!(session_and_ticks("7 (a"), None);
        assert_eq!(private_pages("100 50 20 1 0 30 0"), 30);
        assert_eq!(private_pages(""), 0);
    }

    #[test]
    fn this_process_uses_something() {
        let own = nix::unistd::getsid(None).unwrap().as_raw();
        let id = ContainerId("own".into());
        let mut sessions = BTreeMap::from([(own, (id, ContainerUsage::default()))]);
        measure(&mut sessions);
        assert!(sessions[&own].1.working_set_bytes > 0);
    }
}
