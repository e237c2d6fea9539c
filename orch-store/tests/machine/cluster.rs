//! Three members of etcd whose network can be cut, under load, while they fail one after the
//! other.

use std::time::Duration;

use nix::sys::signal::Signal;
use orch_core::{
    random::{Random as _, SeededRandom},
    testing::rounds,
};
use orch_store::EtcdOptions;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    etcd::{Etcd, connect, etcdctl, free_addresses},
    load::Load,
    proxy::Network,
};

const MEMBERS: usize = 3;
/// Fixes the seed.
const SEED: &str = "ORCH_STORE_TEST_SEED";
/// Shorter than the default, so that the test does not wait for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const RECOVERY: Duration = Duration::from_secs(60);

struct Cluster {
    members: Vec<Etcd>,
    network: Network,
    _proxies: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(MEMBERS);
        let (mut proxies, mut peers, mut cluster) = (JoinSet::new(), Vec::new(), Vec::new());
        let addresses: [String; MEMBERS * 2] = free_addresses();
        let (clients, listen) = addresses.split_at(MEMBERS);
        for (member, target) in listen.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = format!("http://{}", listener.local_addr().unwrap());
            cluster.push(format!("m{member}={peer}"));
            peers.push(peer);
            proxies.spawn(network.clone().serve(listener, member, target.parse().unwrap()));
        }
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for (member, client) in clients.iter().enumerate() {
            let (name, listen) = (format!("m{member}"), format!("http://{}", listen[member]));
            let arguments = [
                ("--name", &*name),
                ("--listen-peer-urls", &listen),
                ("--initial-advertise-peer-urls", &peers[member]),
                ("--initial-cluster", &cluster),
            ];
            let data = folder.path().join(&name);
            members.push(Etcd::member(&data, format!("http://{client}"), &arguments));
            network.set_process(member, members[member].id());
        }
        Self { members, network, _proxies: proxies, _folder: folder }
    }

    fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Waits until every member takes part again.
    async fn is_whole(&self) {
        for member in &self.members {
            let store = connect(EtcdOptions {
                request_timeout: REQUEST_TIMEOUT,
                ..EtcdOptions::new(&*member.client)
            });
            let answers = tokio::time::timeout(RECOVERY, store).await;
            answers.unwrap_or_else(|_| panic!("{} does not recover", member.client));
        }
    }

    /// Who leads; all members must be well.
    async fn leader(&self) -> usize {
        loop {
            let status = etcdctl(&self.endpoints().join(","), &["endpoint", "status"]).await;
            let leads = |line: &str| line.split(", ").nth(4) == Some("true");
            let leaders: Vec<_> = status.lines().filter(|line| leads(line)).collect();
            // During an election there is none, or two.
            if let [leader] = leaders[..] {
                let endpoint = leader.split(", ").next().unwrap();
                return self.members.iter().position(|m| m.client == endpoint).unwrap();
            }
        }
    }

    async fn kill(&mut self, member: usize, load: &Load) {
        self.members[member].stop();
        load.everybody_moves("a member is dead").await;
        self.members[member].restart();
        self.network.set_process(member, self.members[member].id());
    }

    async fn pause(&self, member: usize, load: &Load) {
        self.members[member].signal(Signal::SIGSTOP);
        load.everybody_moves("a member is stopped").await;
        self.members[member].signal(Signal::SIGCONT);
    }

    async fn isolate(&self, member: usize, load: &Load) {
        self.network.cut_off(member);
        load.everybody_moves("the leader is cut off").await;
        self.network.heal();
    }
}

pub(crate) async fn survives_faults() {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SeededRandom::from_os().next_u64(),
    };
    eprintln!("{SEED}={seed}");
    let random = SeededRandom::new(seed);
    let mut cluster = Cluster::start().await;
    let store = connect(EtcdOptions {
        endpoints: cluster.endpoints(),
        request_timeout: REQUEST_TIMEOUT,
        ..EtcdOptions::new("")
    })
    .await;
    let load = Load::start(store).await;
    for _ in 0..rounds(1) {
        load.everybody_moves("all is well").await;
        let member = random.below(MEMBERS as u64) as usize;
        cluster.kill(member, &load).await;
        cluster.is_whole().await;
        let member = random.below(MEMBERS as u64) as usize;
        cluster.pause(member, &load).await;
        cluster.is_whole().await;
        let leader = cluster.leader().await;
        cluster.isolate(leader, &load).await;
        cluster.is_whole().await;
        load.everybody_moves("all is well again").await;
    }
    load.finish().await;
}
