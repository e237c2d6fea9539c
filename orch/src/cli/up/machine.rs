//! What of this machine the cluster runs on: a folder, an address, a runtime.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::NodeAddress;
use orch::{
    ClusterBuilder,
    api::serve::{Pki, PkiOptions},
    cluster::{NetworkSetup, NodeSetup, Proxy, ServeSetup},
    controllers::load_balancer::PoolRange,
    core::Environment,
    node::{
        AgentOptions, NodeFolders,
        addresses::AddressRange,
        runtime::{
            DnsConfig, Inventory, RuntimeError,
            cri::CriRuntime,
            process::{ProcessOptions, ProcessRuntime},
        },
    },
};

use super::UpArguments;
use crate::cli::{
    Failure,
    choices::{PoolChoice, ProxyChoice, RuntimeChoice},
};

/// Service addresses where containers have a network of their own.
const ROUTED_SERVICES: &str = "10.96.0.0/16";
/// Service addresses where pods are processes of the host: loopback ones, which need no set-up.
const LOOPBACK_SERVICES: &str = "127.96.0.0/16";
/// Load balancers' addresses where pods are processes of the host.
const LOOPBACK_BALANCERS: &str = "127.97.0.0/16";
/// Pod addresses where pods are processes of the host.
const LOOPBACK_PODS: &str = "127.128.0.0/16";

/// What runs containers, once `auto` has been decided.
#[derive(Clone, Debug)]
enum Kind {
    Process,
    Cri(String),
    Simulated,
}

/// This machine, as the cluster will use it.
#[derive(Debug)]
pub(super) struct Machine {
    /// The data folder; exists.
    pub(super) folder: PathBuf,
    kind: Kind,
    address: IpAddr,
}

impl Machine {
    /// Decides what to run on, and makes the data folder.
    pub(super) fn prepare(arguments: &UpArguments) -> Result<Self, Failure> {
        let kind = decide(&arguments.runtime);
        if matches!(kind, Kind::Cri(_)) && arguments.nodes > 1 {
            return Err(Failure::new(
                format!("--nodes {}: a CRI runtime is one node", arguments.nodes),
                "leave --nodes out, or choose --runtime process or simulated",
            ));
        }
        let folder = match &arguments.data_dir {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        let folder = make(&folder)?;
        let address = match kind {
            Kind::Cri(_) => outward_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        Ok(Self { folder, kind, address })
    }

    /// Asks the container runtime whether it is there.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let Kind::Cri(socket) = &self.kind else { return Ok(()) };
        let unusable = |error: RuntimeError| {
            let what = format!("no CRI runtime answers at {socket}: {error}");
            Failure::new(
                what,
                "start it, name its socket with --runtime cri=SOCKET, or take --runtime process",
            )
        };
        let runtime = CriRuntime::new(socket).map_err(unusable)?;
        runtime.info().await.map(drop).map_err(unusable)
    }

    fn services(&self) -> Ipv4Net {
        let range = match self.kind {
            Kind::Process => LOOPBACK_SERVICES,
            _ => ROUTED_SERVICES,
        };
        range.parse().expect("a constant that is a range")
    }

    /// Where the API is served: where it was asked for, and where containers reach it.
    fn listen_addresses(&self, listen: SocketAddr) -> Vec<SocketAddr> {
        let mut addresses = vec![listen];
        if listen.ip().is_loopback() && !self.address.is_loopback() {
            addresses.push(SocketAddr::new(self.address, listen.port()));
        }
        addresses
    }

    /// The cluster's certificates.
    pub(super) fn pki(
        &self,
        arguments: &UpArguments,
        environment: &Environment,
    ) -> Result<Arc<Pki>, Failure> {
        let options = PkiOptions {
            addresses: vec![self.address, arguments.listen.ip()],
            service_ip: NetworkSetup::new(self.services()).api_address().into(),
            ..PkiOptions::default()
        };
        let folder = self.folder.join("pki");
        let pki = Pki::load_or_create(&folder, &options, environment.clock.clone());
        let mend = "mend or remove that file: certificates are made anew";
        pki.map(Arc::new).map_err(|error| Failure::of(&error, mend))
    }

    /// Adds nodes, network and sockets.
    pub(super) fn assemble(
        &self,
        builder: ClusterBuilder,
        arguments: &UpArguments,
        pki: Arc<Pki>,
        environment: &Environment,
    ) -> Result<ClusterBuilder, Failure> {
        let serve = ServeSetup::tls(self.listen_addresses(arguments.listen), pki);
        let network = NetworkSetup::new(self.services())
            .node_address(self.address)
            .proxy(self.proxy(arguments.proxy))
            .dns(true)
            .ingress(arguments.ingress.0);
        let pool = self.load_balancer_pool(&arguments.load_balancer);
        let mut builder = builder.serve(serve).network(network).load_balancer_pool(pool);
        if !matches!(self.kind, Kind::Simulated) {
            builder = builder.local_volumes(self.folder.join("volumes"));
        }
        let (host, pods) = (hostname(), AddressRange::new(LOOPBACK_PODS));
        let pods = Arc::new(pods.map_err(|error| Failure::of(&error, "this is a defect"))?);
        for number in 1..=arguments.nodes {
            let name = if arguments.nodes == 1 { host.clone() } else { format!("{host}-{number}") };
            builder = match &self.kind {
                Kind::Simulated => builder.simulated_nodes(1),
                Kind::Cri(socket) => builder.node(self.cri_node(&name, socket)?),
                Kind::Process => {
                    let node = self.process_node(&name, arguments, environment, pods.clone());
                    builder.node(node?)
                }
            };
        }
        Ok(builder)
    }

    fn load_balancer_pool(&self, choice: &PoolChoice) -> Vec<PoolRange> {
        match (choice, &self.kind) {
            (PoolChoice::Ranges(ranges), _) => ranges.clone(),
            (PoolChoice::Auto, Kind::Process) => {
                vec![LOOPBACK_BALANCERS.parse().expect("a constant that is a range")]
            }
            _ => Vec::new(),
        }
    }

    fn proxy(&self, choice: ProxyChoice) -> Option<Proxy> {
        match (choice, &self.kind) {
            (ProxyChoice::Off, _) | (ProxyChoice::Auto, Kind::Simulated) => None,
            (ProxyChoice::Nftables, _) | (ProxyChoice::Auto, Kind::Cri(_)) => Some(Proxy::Nftables),
            (ProxyChoice::Userspace, _) | (ProxyChoice::Auto, _) => Some(Proxy::Userspace),
        }
    }

    fn node_folder(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    fn node_options(&self, name: &str) -> AgentOptions {
        let address = |kind: &str, address: String| NodeAddress { address, type_: kind.to_owned() };
        AgentOptions {
            addresses: vec![
                address("InternalIP", self.address.to_string()),
                address("Hostname", name.to_owned()),
            ],
            host_dns: DnsConfig::of_host(),
            folders: Some(NodeFolders::below(self.node_folder(name))),
            ..AgentOptions::default()
        }
    }

    fn cri_node(&self, name: &str, socket: &str) -> Result<NodeSetup, Failure> {
        let mend = "name the runtime's socket: --runtime cri=/run/containerd/containerd.sock";
        let runtime = CriRuntime::new(socket).map_err(|error| Failure::of(&error, mend))?;
        Ok(NodeSetup::new(name, Arc::new(runtime)).options(self.node_options(name)))
    }

    /// A node of processes. All nodes take their pods' addresses from one range.
    fn process_node(
        &self,
        name: &str,
        arguments: &UpArguments,
        environment: &Environment,
        pods: Arc<AddressRange>,
    ) -> Result<NodeSetup, Failure> {
        let process = self.process_options(&self.node_folder(name), arguments)?;
        let runtime = ProcessRuntime::open(process, environment.clone());
        let mend = "choose a folder that can be written with --data-dir DIR";
        let runtime = runtime.map_err(|error| Failure::of(&error, mend))?;
        let options = AgentOptions { pod_addresses: Some(pods), ..self.node_options(name) };
        Ok(NodeSetup::new(name, Arc::new(runtime)).options(options))
    }

    fn process_options(
        &self,
        folder: &Path,
        arguments: &UpArguments,
    ) -> Result<ProcessOptions, Failure> {
        let images = match &arguments.images {
            Some(images) if images.is_dir() => images.clone(),
            Some(images) => {
                return Err(Failure::new(
                    format!("--images {}: there is no such folder", images.display()),
                    "name the folder of the programs that pods run",
                ));
            }
            None => own_folder()?,
        };
        let root = folder.join("containers");
        Ok(ProcessOptions { image_folder: Some(images), ..ProcessOptions::new(root) })
    }
}

fn decide(choice: &RuntimeChoice) -> Kind {
    match choice {
        RuntimeChoice::Simulated => Kind::Simulated,
        RuntimeChoice::Process => Kind::Process,
        RuntimeChoice::Cri(Some(socket)) => Kind::Cri(socket.clone()),
        RuntimeChoice::Cri(None) => {
            let socket =
                CriRuntime::find_socket().unwrap_or(orch::node::runtime::cri::CONTAINERD_SOCKET);
            Kind::Cri(socket.to_owned())
        }
        RuntimeChoice::Auto => {
            // A socket that this user may not use is none.
            let usable = |socket: &&str| std::os::unix::net::UnixStream::connect(socket).is_ok();
            let socket = CriRuntime::find_socket().filter(usable);
            socket.map_or(Kind::Process, |socket| Kind::Cri(socket.to_owned()))
        }
    }
}

fn default_folder() -> Result<PathBuf, Failure> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share"));
    let data = data.or_else(home);
    data.map(|data| data.join("orch"))
        .ok_or_else(|| Failure::new("there is no home folder", "name one with --data-dir DIR"))
}

fn make(folder: &Path) -> Result<PathBuf, Failure> {
    let made = fs::create_dir_all(folder).and_then(|()| fs::canonicalize(folder));
    made.map_err(|error| {
        let what = format!("the data folder {} cannot be used: {error}", folder.display());
        Failure::new(what, "choose another with --data-dir DIR")
    })
}

fn own_folder() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let mend = "name the folder of programs with --images DIR";
    own.ok_or_else(|| Failure::new("this program does not know where it is", mend))
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    if name.is_empty() { "node-1".to_owned() } else { name }
}

/// The address by which others reach this machine. Nothing is sent.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address that is reserved for documents, and so is nobody's.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}
