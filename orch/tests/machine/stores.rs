//! The cluster's state in memory, in a folder and in etcd; more nodes than there are machines.

use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use orch_core::testing::require::Requirement::{Etcd, Kubectl};
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, eventually, free_port, http_get},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("stores::memory_forgets_and_a_folder_remembers", &[Kubectl], memory_and_durable),
        trial("stores::etcd_keeps_the_state", &[Kubectl, Etcd], etcd_keeps_the_state),
        trial("stores::three_simulated_nodes_share_the_pods", &[Kubectl], three_nodes),
    ]
}

/// Makes an object, stops the cluster and starts it again: whether the object is there.
fn remembers(store: &str) -> bool {
    let mut cluster = Cluster::up(&["--runtime", "simulated", "--store", store]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=1"]);
    assert_eq!(cluster.stop(Signal::SIGTERM), 0);
    let cluster = cluster.again();
    cluster.kubectl_with(&["get", "configmap", "kept"], "").code == 0
}

fn memory_and_durable() {
    assert!(!remembers("memory"));
    assert!(remembers("durable"));
}

/// etcd in a folder of its own; it ends with this value.
struct EtcdProcess {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl EtcdProcess {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.path()).args(["--unsafe-no-fsync"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("etcd starts");
        Self { child, url, _folder: folder }
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn etcd_keeps_the_state() {
    let etcd = EtcdProcess::start();
    // etcd takes a moment to choose itself as the leader.
    let to = etcd.url.trim_start_matches("http://").parse().expect("an address");
    eventually("etcd is healthy", || {
        http_get(to, "localhost", "/health")
            .ok()
            .filter(|(status, body)| *status == 200 && body.contains("true"))
    });
    assert!(remembers(&format!("etcd={}", etcd.url)));
}

fn three_nodes() {
    let cluster = Cluster::up(&["--runtime", "simulated", "--store", "memory", "--nodes", "3"]);
    let nodes = cluster.kubectl(&["get", "nodes"]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    cluster.kubectl(&["create", "deployment", "many", "--image=any", "--replicas=30"]);
    cluster.kubectl(&["rollout", "status", "deployment/many", "--timeout=60s"]);
    let path = "-o=jsonpath={range .items[*]}{.spec.nodeName}{'\\n'}{end}";
    let on = cluster.kubectl(&["get", "pods", path]);
    for node in ["node-1", "node-2", "node-3"] {
        assert!(on.lines().any(|one| one == node), "{on}");
    }
    assert_eq!(on.lines().count(), 30, "{on}");
}
