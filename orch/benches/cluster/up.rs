//! The command: how long until it is ready, and what it takes when idle.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};

use crate::{median_duration, resident_mib};

const ROUNDS: usize = 5;
/// After this nothing is left to do but heartbeats.
const SETTLE: Duration = Duration::from_secs(15);

/// A running `orch up` with simulated nodes; killed when dropped.
pub(crate) struct Up {
    child: Child,
    /// From the start of the process to its ready line.
    pub(crate) ready: Duration,
}

impl Up {
    pub(crate) async fn start(folder: &Path, store: &str, nodes: usize) -> Self {
        let start = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_orch"))
            .args(["up", "--runtime", "simulated", "--listen", "127.0.0.1:0", "--ingress", "off"])
            .args(["--store", store, "--nodes", &nodes.to_string(), "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("orch up starts");
        let output = child.stdout.take().expect("it is piped");
        let line = BufReader::new(output).lines().next_line().await.expect("its output");
        let line = line.expect("a ready line");
        assert!(line.contains("ready after"), "{line}");
        Self { child, ready: start.elapsed() }
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        self.child.id().map_or(f64::NAN, |id| resident_mib(&id.to_string()))
    }

    /// Stops it as a service manager would.
    async fn stop(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        let process = nix::unistd::Pid::from_raw(id);
        nix::sys::signal::kill(process, nix::sys::signal::SIGTERM).expect("it is signalled");
        self.child.wait().await.expect("it ends");
    }
}

pub(crate) async fn run() {
    for store in ["memory", "durable"] {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().expect("a folder");
            for times in [&mut first, &mut again] {
                let up = Up::start(folder.path(), store, 3).await;
                times.push(up.ready);
                up.stop().await;
            }
        }
        println!(
            "orch up --store {store}, 3 simulated nodes: ready after {:?} in an empty folder, \
             {:?} in the same again",
            median_duration(&first),
            median_duration(&again),
        );
        for nodes in [1, 3, 100] {
            let folder = tempfile::tempdir().expect("a folder");
            let up = Up::start(folder.path(), store, nodes).await;
            tokio::time::sleep(SETTLE).await;
            println!(
                "orch up --store {store}, {nodes} simulated nodes: idle memory {:.0} MiB",
                up.resident_mib()
            );
            up.stop().await;
        }
    }
}
