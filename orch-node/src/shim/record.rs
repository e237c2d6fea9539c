//! The state folder of a container: `config.json`, written once by the agent, and `state.json`,
//! written by the shim. Each is replaced as a whole, so that nobody reads half of one.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The layout of these files. A folder of another version is not touched.
pub(crate) const VERSION: u32 = 1;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const STATE: &str = "state.json";
/// A FIFO that closes when the container's program has been executed.
pub(crate) const READY: &str = "ready";

/// Times as the files have them: microseconds since 1970.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(crate) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// One bind mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) host_path: PathBuf,
    pub(crate) container_path: PathBuf,
    pub(crate) read_only: bool,
}

/// What a container is to be, and how it is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) pod_uid: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) created_at: i64,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) log_path: PathBuf,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: String,
    /// With at least one, the container gets a mount namespace of its own.
    pub(crate) mounts: Vec<MountRecord>,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) memory_limit_bytes: Option<i64>,
    pub(crate) oom_score_adj: i32,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) groups: Vec<u32>,
}

/// How a container fares. Absent before the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) version: u32,
    pub(crate) shim: ProcessRecord,
    pub(crate) process: Option<ProcessRecord>,
    pub(crate) started_at: i64,
    pub(crate) finished_at: Option<i64>,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A pod's sandbox: nothing but what is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) attempt: u32,
    pub(crate) created_at: i64,
    pub(crate) ready: bool,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) hostname: String,
    pub(crate) log_directory: PathBuf,
    pub(crate) resolv_conf: Option<PathBuf>,
}

/// A process, told from a later one with the same id by its start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: i32,
    /// Clock ticks from the boot to its start.
    pub(crate) started_ticks: u64,
}

impl ProcessRecord {
    /// The process that has this id now, if there is one.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold blanks and parentheses; what follows it does not.
        let (_, rest) = stat.rsplit_once(')')?;
        let started_ticks = rest.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started_ticks })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to the process and its group, if it is still the same one.
    pub(crate) fn signal_group(&self, signal: nix::sys::signal::Signal) {
        if self.pid > 1 && self.is_alive() {
            // It may end at any moment, which is what a signal is for.
            let _may_have_ended =
                nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.pid), signal);
        }
    }
}

/// Replaces a file as a whole.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(&temporary, path)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateRecord { version: VERSION, exit_code: 3, ..StateRecord::default() };
        let path = dir.path().join(STATE);
        write(&path, &state).unwrap();
        assert_eq!(read::<StateRecord>(&path).unwrap(), state);
        fs::write(&path, b"{").unwrap();
        assert!(read::<StateRecord>(&path).is_err());
    }

    #[test]
    fn processes_are_told_apart() {
        let me = ProcessRecord::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        let other = ProcessRecord { started_ticks: me.started_ticks + 1, ..me };
        assert!(!other.is_alive());
    }
}
