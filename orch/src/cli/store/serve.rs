//! `orch store serve`.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use orch::store::{
    DurableOptions, DurableStore, LeasedStore, MemoryStore,
    serve::{EtcdServer, ServeError, ServeOptions, ServerTls},
};
use tokio::net::TcpListener;

use super::folder;
use crate::cli::{
    Failure,
    foreground::{self, Signals, reachable},
};

/// What `orch store serve` takes.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Folder of the store; it is created if it is not there
    #[arg(long, value_name = "DIR", required_unless_present = "memory")]
    data_dir: Option<PathBuf>,
    /// Where it is served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2379")]
    listen: SocketAddr,
    /// The server's certificate in PEM, with those that lead to its authority
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The key of the server's certificate in PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Authorities in PEM; clients need a certificate of one of them
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    trusted_ca_file: Option<PathBuf>,
    /// Keep everything in memory: what is written is lost at the end
    #[arg(long, conflicts_with = "data_dir")]
    memory: bool,
    /// What to log to standard error, in the notation of the tracing crate's filters
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Serves a store until a signal stops it.
pub(super) fn run(arguments: ServeArguments) -> Result<(), Failure> {
    foreground::log_to_standard_error(&arguments.log)?;
    foreground::run(serve(arguments))
}

async fn serve(arguments: ServeArguments) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let tls = tls(&arguments)?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.map_err(|error| not_bound(arguments.listen, &error))?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let store = open(arguments.data_dir.as_deref()).await?;
    let ready = ready_line(&arguments, address);
    let options = ServeOptions { tls, data_folder: arguments.data_dir, ..ServeOptions::default() };
    let server = EtcdServer::new(store, options);
    foreground::say(&ready);
    let served = server.serve(listener, signals.next()).await;
    served.map_err(|error| not_served(&error))
}

async fn open(folder: Option<&Path>) -> Result<Arc<dyn LeasedStore>, Failure> {
    let Some(folder) = folder.map(Path::to_owned) else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    let store = DurableStore::open(&folder, DurableOptions::default());
    let store = store.map_err(|error| folder::not_opened(&error))?;
    Ok(Arc::new(store))
}

fn tls(arguments: &ServeArguments) -> Result<Option<ServerTls>, Failure> {
    let (Some(certificate), Some(key)) = (&arguments.cert_file, &arguments.key_file) else {
        return Ok(None);
    };
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| {
            let what = format!("cannot read {}: {error}", path.display());
            Failure::new(what, "name a file that can be read")
        })
    };
    Ok(Some(ServerTls {
        certificate_pem: read(certificate)?,
        key_pem: read(key)?,
        client_ca_pem: arguments.trusted_ca_file.as_ref().map(read).transpose()?,
    }))
}

fn not_bound(address: SocketAddr, error: &io::Error) -> Failure {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is already in use"),
        _ => format!("cannot listen on {address}: {error}"),
    };
    Failure::new(what, "choose another address with --listen ADDR:PORT")
}

fn not_served(error: &ServeError) -> Failure {
    let mend = match error {
        ServeError::Tls { .. } => "see --cert-file, --key-file and --trusted-ca-file",
        _ => "--log info tells more",
    };
    Failure::of(error, mend)
}

/// The line that tells that clients can come, and what to type next.
fn ready_line(arguments: &ServeArguments, address: SocketAddr) -> String {
    let mut next = format!("etcdctl --endpoints {}", reachable(address));
    if arguments.cert_file.is_some() {
        next = format!("etcdctl --endpoints https://{} --cacert CA_FILE", reachable(address));
        if arguments.trusted_ca_file.is_some() {
            next.push_str(" --cert FILE --key FILE");
        }
    }
    format!("orch: the store is ready on {address}; next: ETCDCTL_API=3 {next} get / --prefix")
}
