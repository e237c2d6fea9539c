//! The server in a process of its own: TLS, client certificates, RBAC, default admission.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use orch_api::{
    ApiServer,
    admission::LateClient,
    auth::{
        UserInfo,
        access_control::{AccessControl, AccessOptions, bootstrap_cluster},
        jwt::TokenKey,
    },
    serve::{Listener, ListenerOptions, Pki, PkiOptions},
};
use orch_core::{Client, Environment};
use orch_store::{DurableStore, MemoryStore, Store};

/// A server over a store with all of its parts.
async fn assemble(store: Arc<dyn Store>, pki: &Pki, environment: &Environment) -> ApiServer {
    let late = LateClient::new();
    let client: Arc<dyn Client> = late.clone();
    let key = TokenKey::from_pem(pki.service_account_key_pem()).expect("a key");
    let options = AccessOptions { token_key: Some(key), ..AccessOptions::default() };
    let access = AccessControl::new(&client, environment, options).expect("access control");
    let server = ApiServer::builder(store).access_control(&access).late_client(late).build();
    bootstrap_cluster(&server.client(UserInfo::master("setup"))).await.expect("a cluster");
    server
}

/// Serves until the process is ended; tells its address in one line.
pub(crate) fn serve(store: &str, folder: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let environment = Environment::system();
        let clock = environment.clock.clone();
        let pki = Pki::load_or_create(&folder.join("pki"), &PkiOptions::default(), clock);
        let pki = pki.expect("certificates");
        let store: Arc<dyn Store> = match store {
            "memory" => Arc::new(MemoryStore::default()),
            _ => {
                let opened = DurableStore::open(folder.join("store"), Default::default());
                Arc::new(opened.expect("a store"))
            }
        };
        let server = assemble(store, &pki, &environment).await;
        let tls = Some(pki.server_config().expect("a configuration"));
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(address, tls, ListenerOptions::default()).await;
        let listener = listener.expect("a free port");
        println!("{}", listener.local_addr());
        std::io::stdout().flush().expect("somebody reads");
        listener.serve(server, Default::default()).await;
    });
}

/// A server that was started.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(store: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("this program");
        let mut child = Command::new(own)
            .args(["--serve", store])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut address = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut address).expect("its address");
        Self { child, address: address.trim().to_owned(), folder }
    }

    pub(crate) fn resident(&self) -> f64 {
        crate::resident(self.child.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _nothing_to_wait_for = self.child.wait();
    }
}
