//! Runs the workloads of Kubernetes' own scheduler benchmark as they are, end to end: objects are
//! created through an API server in this process, the scheduler sees them through watches, and its
//! bindings are stored.
//!
//! ```sh
//! cargo run --release -p orch-sched --example scheduler_perf -- CONFIG.yaml WORKLOAD
//! ```
//!
//! `WORKLOAD` is a test case and one of its workloads, `SchedulingBasic/5000Nodes_10000Pods`. With
//! a test case alone, or with nothing, the file's workloads are listed.
//!
//! Source: `test/integration/scheduler_perf`.

mod beside;
mod config;
mod devices;
mod metrics;
mod objects;
mod run;
mod template;

use std::{path::Path, process::ExitCode};

use config::TestCase;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn list(cases: &[TestCase], named: &str) {
    for case in cases.iter().filter(|case| named.is_empty() || case.name == named) {
        for workload in &case.workloads {
            println!("{}/{}", case.name, workload.name);
        }
    }
}

fn run(path: &str, named: &str) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let cases: Vec<TestCase> =
        serde_saphyr::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let found = cases.iter().find_map(|case| {
        let own = named.strip_prefix(&case.name)?.strip_prefix('/')?;
        Some((case, case.workloads.iter().find(|workload| workload.name == own)?))
    });
    let Some((case, workload)) = found else {
        if named.is_empty() || cases.iter().any(|case| case.name == named) {
            list(&cases, named);
            return Ok(());
        }
        return Err(format!("{path} has no workload {named:?}; leave it out to see all").into());
    };
    let folder = Path::new(path).parent().unwrap_or_else(|| Path::new("."));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lines = runtime.block_on(run::workload(folder, case, workload))?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, named) = match arguments.as_slice() {
        [path] => (path.as_str(), ""),
        [path, named] => (path.as_str(), named.as_str()),
        _ => {
            eprintln!("usage: scheduler_perf CONFIG.yaml [TESTCASE/WORKLOAD]");
            return ExitCode::from(2);
        }
    };
    match run(path, named) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
