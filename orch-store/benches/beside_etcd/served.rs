//! The durable store served as etcd, in a process of its own as etcd is.

use std::{
    ffi::OsString,
    future,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use orch_store::{
    DurableOptions, DurableStore,
    serve::{EtcdServer, ServeOptions},
};
use tokio::net::TcpListener;

/// Set for the process that serves: the folder.
const FOLDER: &str = "ORCH_STORE_BENCH_SERVE";

/// The folder that this process is to serve, if it is one that serves.
pub(crate) fn asked_to_serve() -> Option<OsString> {
    std::env::var_os(FOLDER)
}

/// Serves until it is killed.
pub(crate) async fn serve(folder: &OsString) {
    let store = DurableStore::open(folder, DurableOptions::default()).expect("a store");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    println!("http://{}", listener.local_addr().expect("an address"));
    let server = EtcdServer::new(Arc::new(store), ServeOptions::default());
    server.serve(listener, future::pending()).await.expect("a server");
}

/// Ended when dropped.
pub(crate) struct Served {
    child: Child,
    url: String,
}

impl Served {
    /// Starts the process and waits until it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.env(FOLDER, folder).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a child");
        let mut url = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut url).expect("its address");
        Self { child, url: url.trim().to_owned() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
