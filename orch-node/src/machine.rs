//! The machine that a node stands for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::unistd::{SysconfVar, sysconf};

use crate::runtime::ContainerUsage;

/// Pods per node, as upstream's default has it.
const PODS: u32 = 110;

/// What a node says about its machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What it has: `cpu`, `memory`, `pods`, `ephemeral-storage`, ...
    pub capacity: BTreeMap<String, Quantity>,
    /// Stays the same for the life of the installation.
    pub machine_id: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// The kernel's version.
    pub kernel_version: String,
    /// The operating system's name.
    pub os_image: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn quantity(text: impl Into<String>) -> Quantity {
    Quantity(text.into())
}

fn memory_kib(meminfo: &str) -> Option<u64> {
    kib(meminfo, "MemTotal:")
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Clock ticks, in which the system counts CPU time, in nanoseconds.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100).max(1);
    ticks.saturating_mul(1_000_000_000 / per_second)
}

/// What this machine uses now; `None` where the system does not tell.
pub(crate) fn usage() -> Option<ContainerUsage> {
    let meminfo = read("/proc/meminfo");
    let free = kib(&meminfo, "MemAvailable:")?;
    let used = memory_kib(&meminfo)?.saturating_sub(free);
    let cpu_ns = ticks_to_ns(busy_ticks(&read("/proc/stat"))?);
    Some(ContainerUsage { cpu_ns, working_set_bytes: used * 1024 })
}

/// The time that all CPUs were busy: for users, for users at low priority, for the system, and for
/// interrupts of both kinds.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|at| fields.get(*at).copied()).sum()
}

impl Machine {
    /// The machine that this process runs on. Fields that cannot be read are empty; memory that
    /// cannot be read is 1 GiB.
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = memory_kib(&read("/proc/meminfo")).unwrap_or(1024 * 1024);
        let os_release = read("/etc/os-release");
        let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        let mut capacity: BTreeMap<String, Quantity> = [
            ("cpu".to_owned(), quantity(cpus.to_string())),
            ("memory".to_owned(), quantity(format!("{memory}Ki"))),
            ("pods".to_owned(), quantity(PODS.to_string())),
        ]
        .into();
        if let Ok(disk) = nix::sys::statvfs::statvfs("/") {
            let kib = disk.blocks() * disk.fragment_size() / 1024;
            capacity.insert("ephemeral-storage".into(), quantity(format!("{kib}Ki")));
        }
        Self {
            capacity,
            machine_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        }
    }

    /// A machine that does not exist, with this many CPUs, GiB of memory, and 110 pods.
    pub fn simulated(cpus: u32, memory_gib: u32) -> Self {
        let capacity = [
            ("cpu".to_owned(), quantity(cpus.to_string())),
            ("memory".to_owned(), quantity(format!("{memory_gib}Gi"))),
            ("pods".to_owned(), quantity(PODS.to_string())),
            ("ephemeral-storage".to_owned(), quantity("100Gi")),
        ];
        Self {
            capacity: capacity.into(),
            machine_id: String::new(),
            boot_id: String::new(),
            kernel_version: "simulated".into(),
            os_image: "simulated".into(),
        }
    }

    /// How much memory it has, in bytes; zero if it does not say.
    pub fn memory_bytes(&self) -> i64 {
        let memory = self.capacity.get("memory");
        let parsed = memory.and_then(|q| orch_core::quantity::Amount::try_from(q).ok());
        parsed.map_or(0, |amount| amount.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(memory_kib("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16384));
        assert_eq!(memory_kib("nothing"), None);
        assert_eq!(busy_ticks("cpu  1 20 300 9 9 4000 50000 9 9\ncpu0 1"), Some(54321));
        assert_eq!(busy_ticks("cpu  1 2\n"), None);
        assert!(usage().is_some_and(|usage| usage.working_set_bytes > 0 && usage.cpu_ns > 0));
        assert!(Machine::detect().memory_bytes() > 0);
        assert_eq!(Machine::simulated(4, 2).memory_bytes(), 2 << 30);
    }
}
