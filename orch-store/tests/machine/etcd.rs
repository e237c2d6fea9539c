//! etcd processes, ended with the test, also when it panics.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{sys::signal, unistd::Pid};
use orch_store::{EtcdOptions, EtcdStore};

/// How long an etcd may take to start.
const START: Duration = Duration::from_secs(60);

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> [String; N] {
    // All are held until all are known, so that none is given twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

/// One member.
pub(crate) struct Etcd {
    arguments: Vec<String>,
    child: Child,
    /// Where clients reach it.
    pub(crate) client: String,
}

impl Etcd {
    /// A cluster of one, with further arguments; `scheme` is that of the client's address.
    pub(crate) fn start(folder: &Path, scheme: &str, more: &[(&str, &str)]) -> Self {
        let [client, peer] = free_addresses();
        let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
        let cluster = format!("default={peer}");
        let mut arguments = vec![
            ("--listen-peer-urls", &*peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
        ];
        arguments.extend(more);
        Self::member(folder, client, &arguments)
    }

    pub(crate) fn member(folder: &Path, client: String, more: &[(&str, &str)]) -> Self {
        let arguments = [
            ("--data-dir", folder.to_str().unwrap()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
        ];
        let all = arguments.iter().chain(more).map(|(name, value)| format!("{name}={value}"));
        let arguments: Vec<String> = all.collect();
        let child = spawn(&arguments);
        Self { arguments, child, client }
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions::new(&*self.client)
    }

    pub(crate) async fn connect(&self) -> EtcdStore {
        connect(self.options()).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.arguments);
    }

    pub(crate) fn signal(&self, signal: signal::Signal) {
        signal::kill(Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }
}

fn spawn(arguments: &[String]) -> Child {
    let mut command = Command::new("etcd");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects as soon as etcd answers.
pub(crate) async fn connect(options: EtcdOptions) -> EtcdStore {
    let attempts = async {
        let mut attempts = tokio::time::interval(Duration::from_millis(100));
        loop {
            attempts.tick().await;
            if let Ok(store) = EtcdStore::connect(options.clone()).await {
                return store;
            }
        }
    };
    tokio::time::timeout(START, attempts).await.expect("etcd does not start to answer")
}

/// Runs `etcdctl`, which must succeed.
pub(crate) async fn etcdctl(endpoint: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
