//! A single etcd with its defaults, as Debian has it.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use orch_store::{EtcdOptions, EtcdStore};

/// Ended when dropped.
pub(crate) struct Etcd {
    child: Child,
    url: String,
}

impl Etcd {
    /// Starts it on free ports and waits until it answers; `None` if it is not installed.
    pub(crate) async fn start(folder: &Path) -> Option<Self> {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let [url, peer] = [&listeners[0], &listeners[1]].map(|l| format!("http://{}", address(l)));
        drop(listeners);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let etcd = Self { child, url };
        let mut attempts = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..400 {
            attempts.tick().await;
            if EtcdStore::connect(EtcdOptions::new(&etcd.url)).await.is_ok() {
                return Some(etcd);
            }
        }
        panic!("etcd does not answer at {}", etcd.url);
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
