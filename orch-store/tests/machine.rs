//! Tests that need something that the machine may lack, or a process of their own. What is
//! missing is named, and the test is counted as ignored.

#[path = "machine/kill.rs"]
mod kill;
#[path = "machine/model.rs"]
mod model;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use libtest_mimic::{Arguments, Failed, Trial};
use orch_core::testing::rounds;
use orch_store::{
    EtcdOptions, EtcdStore, KeyRange, Store, StoreReader, WatchItem, WatchRequest, Write, testing,
};

const TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    if runtime().block_on(kill::write_if_asked_to()) {
        return;
    }
    let arguments = Arguments::from_args();
    let etcd = find("etcd");
    let trials = vec![
        Trial::test("durable_survives_kill_9", || run(kill::survives_kill_9())),
        Trial::test("etcd_conforms", || run(etcd_conforms())).with_ignored_flag(etcd.is_none()),
        Trial::test("etcd_watch_outlives_a_restart", || run(watch_outlives_a_restart()))
            .with_ignored_flag(etcd.is_none()),
    ];
    if etcd.is_none() {
        eprintln!("skipped: etcd is not installed (Debian: apt-get install etcd-server)");
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    runtime().block_on(async { tokio::time::timeout(TIMEOUT * rounds(1), test).await })?;
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// An etcd of one member on free ports, ended with the test.
struct Etcd {
    child: Child,
    folder: PathBuf,
    client: String,
    peer: String,
}

impl Etcd {
    fn start(folder: &Path) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = listeners.map(|l| format!("http://{}", l.local_addr().unwrap()));
        let child = Self::spawn(folder, &client, &peer);
        Self { child, folder: folder.to_owned(), client, peer }
    }

    fn spawn(folder: &Path, client: &str, peer: &str) -> Child {
        let cluster = format!("default={peer}");
        let arguments = [
            ("--data-dir", folder.to_str().unwrap()),
            ("--listen-client-urls", client),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", &cluster),
        ];
        let mut command = Command::new("etcd");
        for (name, value) in arguments {
            command.arg(name).arg(value);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    async fn connect(&self) -> EtcdStore {
        let mut attempts = tokio::time::interval(Duration::from_millis(100));
        loop {
            attempts.tick().await;
            if let Ok(store) = EtcdStore::connect(EtcdOptions::new(&*self.client)).await {
                return store;
            }
        }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, &self.client, &self.peer);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn etcd_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path());
    let store = etcd.connect().await;
    testing::conformance(Arc::new(store.clone())).await;
    testing::lease_conformance(&store).await;
}

async fn watch_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path());
    let store = etcd.connect().await;
    let request = WatchRequest { range: KeyRange::prefix("/r/"), from: None };
    let mut watch = store.watch(request).await.unwrap();
    store.write(Write::put("/r/1", "before")).await.unwrap();
    etcd.stop();
    assert!(store.write(Write::put("/r/x", "down")).await.is_err());
    etcd.restart();
    let store = etcd.connect().await;
    for name in ["/r/2", "/r/3"] {
        store.write(Write::put(name, "after")).await.unwrap();
    }
    let mut keys = Vec::new();
    while keys.len() < 3 {
        if let WatchItem::Events(events) = watch.next().await.unwrap().unwrap() {
            keys.extend(events.iter().map(|event| event.entry.key.clone()));
        }
    }
    assert_eq!(keys, ["/r/1", "/r/2", "/r/3"]);
}
