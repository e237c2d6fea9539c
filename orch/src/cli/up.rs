//! `orch up`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use orch::{
    Cluster, StartError,
    api::{
        audit::{Audit, LogFile, LogFileOptions, Policy, Sink},
        flow::FlowOptions,
        metrics::Metrics,
        serve::{KubeconfigEntry, Pki, write_kubeconfig},
    },
    core::Environment,
    node::resource_metrics::MetricsOptions,
};

use super::{
    Failure,
    choices::{Off, PoolChoice, ProxyChoice, RuntimeChoice, StoreChoice},
    foreground::{self, Signals},
};

mod machine;
mod store;

/// How long `up` waits for its nodes to become Ready before it says so.
const NODES_READY_TIMEOUT: Duration = Duration::from_secs(60);
const NODES_MAX: i64 = 10_000;

/// What `orch up` takes.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Folder for the store, certificates, volumes and logs [default: ~/.local/share/orch]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Where the cluster's state is kept: memory, durable, or etcd=URL
    #[arg(long, value_name = "memory|durable|etcd=URL", default_value = "durable")]
    pub(super) store: StoreChoice,
    /// Where the API is served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(super) listen: SocketAddr,
    /// Where to write the kubeconfig [default: DATA_DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// What runs containers: auto takes a CRI runtime if one listens, else processes on this host
    #[arg(long, value_name = "auto|process|cri[=SOCKET]|simulated", default_value = "auto")]
    pub(super) runtime: RuntimeChoice,
    /// How many nodes; more than one needs the process or the simulated runtime
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=NODES_MAX))]
    pub(super) nodes: i64,
    /// Process runtime: folder whose programs are the images; `example.org/app:v1` is its file
    /// `app` [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
    /// What makes service addresses work: auto is nftables with a CRI runtime, else userspace
    #[arg(long, value_name = "auto|userspace|nftables|off", default_value = "auto")]
    pub(super) proxy: ProxyChoice,
    /// Addresses for services of type LoadBalancer; auto takes loopback ones where services have
    /// loopback addresses (process runtime, this machine only), else none
    #[arg(long, value_name = "auto|off|RANGE[,RANGE]", default_value = "auto")]
    pub(super) load_balancer: PoolChoice,
    /// Where the ingress listens, or off
    #[arg(long, value_name = "ADDR:PORT|off", default_value = "127.0.0.1:8080")]
    pub(super) ingress: Off<SocketAddr>,
    /// What is noted of requests: a policy file of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    pub(super) audit_policy: Option<PathBuf>,
    /// Where it is noted: a file with one JSON document a line
    #[arg(long, value_name = "FILE", requires = "audit_policy")]
    pub(super) audit_log: Option<PathBuf>,
    /// What to log to standard error, in the notation of the tracing crate's filters
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(super) log: String,
}

/// Runs a cluster until a signal stops it.
pub(super) fn run(arguments: UpArguments) -> Result<(), Failure> {
    foreground::log_to_standard_error(&arguments.log)?;
    foreground::run(up(arguments))
}

async fn up(arguments: UpArguments) -> Result<(), Failure> {
    let started = tokio::time::Instant::now();
    let mut signals = Signals::new()?;
    let machine = machine::Machine::prepare(&arguments)?;
    machine.check().await?;
    let environment = Environment::system();
    let store = store::open(&arguments.store, &machine.folder, &environment).await?;
    let pki = machine.pki(&arguments, &environment)?;
    let builder = Cluster::builder()
        .environment(environment.clone())
        .store(store)
        .metrics(Metrics::new())
        .resource_metrics(MetricsOptions::default())
        .flow_control(FlowOptions::default());
    let builder = match audit(&arguments)? {
        Some(audit) => builder.audit(audit),
        None => builder,
    };
    let builder = machine.assemble(builder, &arguments, pki.clone(), &environment)?;
    let cluster = tokio::select! {
        cluster = builder.start() => cluster.map_err(|error| not_started(&error))?,
        () = signals.next() => return Ok(()),
    };
    let kubeconfig = write_config(&arguments, &machine, &cluster, &pki)?;
    let ready = tokio::time::timeout(NODES_READY_TIMEOUT, cluster.nodes_ready());
    tokio::select! {
        ready = ready => announce(ready.is_ok(), started.elapsed(), &kubeconfig),
        () = signals.next() => {}
    }
    signals.next().await;
    let stopping = async {
        cluster.shutdown().await;
    };
    tokio::select! {
        () = stopping => {}
        // A second signal does not wait for open requests.
        () = signals.next() => {}
    }
    Ok(())
}

fn audit(arguments: &UpArguments) -> Result<Option<Audit>, Failure> {
    let (Some(policy), Some(log)) = (&arguments.audit_policy, &arguments.audit_log) else {
        return Ok(None);
    };
    let policy = Policy::from_file(policy)
        .map_err(|error| Failure::of(&error, "mend the file that --audit-policy FILE names"))?;
    let log = LogFile::open(log, LogFileOptions::default()).map_err(|error| {
        let what = format!("cannot open the audit log {}: {error}", log.display());
        Failure::new(what, "choose another file with --audit-log FILE")
    })?;
    let sink: Arc<dyn Sink> = Arc::new(log);
    Ok(Some(Audit::new(policy, vec![sink])))
}

fn not_started(error: &StartError) -> Failure {
    let mend = match error {
        StartError::Serve(_) => "choose another address with --listen ADDR:PORT",
        StartError::Network { what: "the ingress", .. } => {
            "choose another address with --ingress ADDR:PORT, or --ingress off"
        }
        StartError::Pki(_) => "mend or remove that file: certificates are made anew",
        _ => "--log info tells more",
    };
    Failure::of(error, mend)
}

fn write_config(
    arguments: &UpArguments,
    machine: &machine::Machine,
    cluster: &Cluster,
    pki: &Arc<Pki>,
) -> Result<PathBuf, Failure> {
    let path = arguments.kubeconfig.clone().unwrap_or_else(|| machine.folder.join("kubeconfig"));
    let address = cluster.address().unwrap_or(arguments.listen);
    let server = format!("https://{}", foreground::reachable(address));
    let entry = KubeconfigEntry {
        cluster: "orch",
        user: "orch-admin",
        server: &server,
        ca_pem: pki.ca_pem(),
        credentials: pki.admin(),
    };
    write_kubeconfig(&path, &entry).map_err(|error| {
        let what = format!("cannot write the kubeconfig {}: {error}", path.display());
        Failure::new(what, "choose another file with --kubeconfig FILE")
    })?;
    Ok(path)
}

fn announce(nodes_ready: bool, took: Duration, kubeconfig: &std::path::Path) {
    let state = if nodes_ready { "ready" } else { "up, but its nodes are not Ready yet," };
    let line = format!(
        "orch: {state} after {:.2} s; next: export KUBECONFIG={} && kubectl get nodes,pods -A",
        took.as_secs_f64(),
        kubeconfig.display()
    );
    foreground::say(&line);
}
