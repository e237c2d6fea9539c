//! What the process takes of the machine.
//!
//! Source: `github.com/prometheus/client_golang/prometheus/process_collector.go`.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// The kernel's clock ticks a second, the same on every Linux since long.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// Reads `/proc/self` when it is asked; where there is none, it tells nothing.
#[derive(Debug)]
pub(super) struct Process;

struct Usage {
    cpu_s: f64,
    start_s: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_fds: u64,
    max_fds: u64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may have spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let system = fs::read_to_string("/proc/stat").ok()?;
        let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Some(Self {
            cpu_s: (number(11)? + number(12)?) as f64 / TICKS,
            start_s: booted.trim().parse::<f64>().ok()? + number(19)? as f64 / TICKS,
            virtual_bytes: number(20)?,
            resident_bytes: number(21)? * PAGE_BYTES,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: files?.split_whitespace().next()?.parse().unwrap_or(u64::MAX),
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(usage) = Usage::read() else { return Ok(()) };
        encoder
            .encode_descriptor(
                "process_cpu_seconds",
                "Total user and system CPU time spent in seconds",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&usage.cpu_s, None)?;
        let gauges = [
            ("process_start_time_seconds", "Start time of the process since unix epoch in seconds"),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes"),
            ("process_resident_memory_bytes", "Resident memory size in bytes"),
            ("process_open_fds", "Number of open file descriptors"),
            ("process_max_fds", "Maximum number of open file descriptors"),
        ];
        let values = [
            usage.start_s,
            usage.virtual_bytes as f64,
            usage.resident_bytes as f64,
            usage.open_fds as f64,
            usage.max_fds as f64,
        ];
        for ((name, help), value) in gauges.into_iter().zip(values) {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}
