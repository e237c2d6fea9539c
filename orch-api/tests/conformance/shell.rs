//! A server on a socket with TLS, and `kubectl` with a kubeconfig for it.

use std::{net::SocketAddr, process::Stdio, sync::Arc};

use orch_api::serve::{
    KubeconfigEntry, Listener, ListenerOptions, Pki, PkiOptions, write_kubeconfig,
};
use orch_core::Environment;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::world::World;

/// What a program said and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Said {
    /// What it wrote; it must have succeeded.
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert!(self.success, "it failed: {self:?}");
        self.stdout
    }

    /// What it complained about; it must have failed.
    #[track_caller]
    pub(super) fn failed(self) -> String {
        assert!(!self.success, "it succeeded: {self:?}");
        self.stderr
    }

    /// What it wrote, however it ended.
    pub(super) fn either(self) -> (bool, String) {
        (self.success, self.stdout)
    }
}

/// A server that programs reach.
pub(super) struct Served {
    pub(super) world: World,
    folder: TempDir,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    pub(super) async fn start() -> Self {
        let world = World::start().await;
        let accounts = world.of("v1", "ServiceAccount", "default").await;
        accounts.create(serde_json::json!({"metadata": {"name": "default"}})).await;
        let folder = TempDir::new().unwrap();
        let pki = Pki::in_memory(&PkiOptions::default(), Environment::system().clock).unwrap();
        let tls = Some(pki.server_config().unwrap());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any, tls, ListenerOptions::default()).await.unwrap();
        let server = format!("https://{}", listener.local_addr());
        let entry = KubeconfigEntry {
            cluster: "e2e",
            user: "e2e",
            server: &server,
            ca_pem: pki.ca_pem(),
            credentials: pki.admin(),
        };
        write_kubeconfig(&folder.path().join("config"), &entry).unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(world.server.clone(), shutdown.clone()));
        Self { world, folder, shutdown, serving }
    }

    /// A path in a folder that goes when the server does.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// `kubectl`, to be started by the caller; it ends when its value is dropped.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(["--kubeconfig", &self.path("config"), "--cache-dir", &self.path("cache")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `kubectl` with something to read.
    pub(super) async fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Said {
        let mut child: Child = self.command(arguments).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = Arc::<str>::from(stdin);
        // A program that reads nothing closes its input, which is no failure.
        let writer = tokio::spawn(async move { input.write_all(text.as_bytes()).await.is_ok() });
        let output = child.wait_with_output().await.unwrap();
        let _closed = writer.await;
        Said {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `kubectl`, which must succeed; what it wrote.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "").await.ok()
    }

    /// Ends the server in order.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}
