//! What a test needs of the machine that it runs on.
//!
//! A test that cannot run must not pass in silence: use a `libtest-mimic` harness and mark the
//! trial as ignored when [`Requirement::missing`] says why, so that it shows by name and is counted.
//!
//! ```
//! use orch_core::testing::require::{Requirement, missing};
//! let why = missing(&[Requirement::Root, Requirement::Command("nft")]);
//! // let trial = Trial::test("programs nftables", || ...).with_ignored_flag(why.is_some());
//! # let _ = why;
//! ```

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// One thing that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Requirement {
    /// The effective user is root.
    Root,
    /// containerd answers on its socket (`CONTAINERD_ADDRESS`, or `/run/containerd/containerd.sock`).
    Containerd,
    /// The kernel takes nftables rules from `nft`.
    Nftables,
    /// An `etcd` binary.
    Etcd,
    /// A `kubectl` of version 1.32 or newer: older ones print and ask differently.
    Kubectl,
    /// Network namespaces can be made with `ip netns`.
    NetworkNamespaces,
    /// The CNI plugins that Debian packages (`/usr/lib/cni`, or `CNI_PATH`).
    CniPlugins,
    /// A binary of this name on the `PATH`.
    Command(&'static str),
}

impl Requirement {
    /// Why the requirement is not met, or `None` if it is.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "not running as root".into()),
            Self::Containerd => containerd_missing(),
            Self::Nftables => command_missing("nft").or_else(|| fails("nft", &["list", "tables"])),
            Self::Etcd => command_missing("etcd"),
            Self::Kubectl => command_missing("kubectl").or_else(kubectl_too_old),
            Self::NetworkNamespaces => Self::Root
                .missing()
                .or_else(|| command_missing("ip"))
                .or_else(|| fails("unshare", &["--net", "true"])),
            Self::CniPlugins => cni_missing(),
            Self::Command(name) => command_missing(name),
        }
    }
}

const KUBECTL_MINOR_MIN: u32 = 32;

fn kubectl_too_old() -> Option<String> {
    let output = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
    let version = output.ok().and_then(|o| serde_json::from_slice::<Value>(&o.stdout).ok());
    let minor = version.as_ref().and_then(|v| v["clientVersion"]["minor"].as_str());
    // Some builds append a plus sign.
    let minor = minor.map(|m| m.trim_end_matches(|c: char| !c.is_ascii_digit()));
    match minor.and_then(|m| m.parse::<u32>().ok()) {
        Some(minor) if minor >= KUBECTL_MINOR_MIN => None,
        Some(minor) => Some(format!("kubectl 1.{minor} is older than 1.{KUBECTL_MINOR_MIN}")),
        None => Some("kubectl does not tell its version".to_owned()),
    }
}

/// Why these requirements are not all met: the first reason, or `None` if they are.
pub fn missing(requirements: &[Requirement]) -> Option<String> {
    requirements.iter().find_map(|one| one.missing())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // `Uid:` lists the real, effective, saved and filesystem ids.
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|line| line.split_whitespace().nth(1)) == Some("0")
}

fn find_command(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Tools of the administrator are there even when a user's PATH does not say so.
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn command_missing(name: &str) -> Option<String> {
    find_command(name).is_none().then(|| format!("no {name} on the PATH"))
}

fn fails(name: &str, arguments: &[&str]) -> Option<String> {
    let program = find_command(name).unwrap_or_else(|| name.into());
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match run {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default();
            Some(format!("`{name} {}` fails: {said}", arguments.join(" ")))
        }
        Err(error) => Some(format!("{name} cannot be run: {error}")),
    }
}

fn containerd_missing() -> Option<String> {
    let socket = std::env::var("CONTAINERD_ADDRESS");
    let socket = socket.unwrap_or_else(|_| "/run/containerd/containerd.sock".into());
    let error = UnixStream::connect(Path::new(&socket)).err()?;
    Some(format!("containerd does not answer on {socket}: {error}"))
}

fn cni_missing() -> Option<String> {
    let path = std::env::var("CNI_PATH").unwrap_or_else(|_| "/usr/lib/cni:/opt/cni/bin".into());
    let found = std::env::split_paths(&path).any(|dir| dir.join("bridge").is_file());
    (!found).then(|| format!("no CNI plugins in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Requirement::Command("sh").missing(), None);
        let why = missing(&[Requirement::Command("sh"), Requirement::Command("no-such-tool")]);
        assert_eq!(why.as_deref(), Some("no no-such-tool on the PATH"));
    }
}
