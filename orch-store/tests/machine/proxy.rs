//! The network between the members: every connection to a member goes through a proxy, which
//! knows who is at its other end, so that a member can be cut off in both directions.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Who is cut off, and which process is which member.
#[derive(Clone)]
pub(crate) struct Network {
    cut: Arc<watch::Sender<BTreeSet<usize>>>,
    processes: Arc<Mutex<Vec<u32>>>,
}

impl Network {
    pub(crate) fn new(members: usize) -> Self {
        let processes = Arc::new(Mutex::new(vec![0; members]));
        Self { cut: Arc::new(watch::Sender::default()), processes }
    }

    /// The member runs as this process now.
    pub(crate) fn set_process(&self, member: usize, id: u32) {
        self.processes.lock().unwrap()[member] = id;
    }

    /// Nothing goes to or from this member any more.
    pub(crate) fn cut_off(&self, member: usize) {
        self.cut.send_modify(|cut| {
            cut.insert(member);
        });
    }

    pub(crate) fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    /// Listens on `listener` for `member`, which listens on `target` itself. Runs until dropped.
    pub(crate) async fn serve(self, listener: TcpListener, member: usize, target: SocketAddr) {
        let mut connections = JoinSet::new();
        let port = listener.local_addr().unwrap().port();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, peer)) = accepted else { continue };
                    connections.spawn(self.clone().forward(stream, peer, port, member, target));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn forward(
        self,
        mut near: TcpStream,
        peer: SocketAddr,
        port: u16,
        member: usize,
        target: SocketAddr,
    ) {
        let processes = self.processes.lock().unwrap().clone();
        let other = processes.iter().position(|id| has_connection(*id, peer.port(), port));
        let is_cut = |cut: &BTreeSet<usize>| {
            cut.contains(&member) || other.is_some_and(|other| cut.contains(&other))
        };
        let mut cut = self.cut.subscribe();
        let copy = async {
            if is_cut(&self.cut.borrow()) {
                // It is not even answered.
                return std::future::pending().await;
            }
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        };
        tokio::select! {
            () = copy => return,
            _ = cut.wait_for(is_cut) => {}
        }
        // What is in between is lost, and nobody is told before the network is whole again.
        let _ = cut.wait_for(|cut| !is_cut(cut)).await;
    }
}

/// Whether a process has a TCP connection from this port to that one on loopback.
fn has_connection(process: u32, from: u16, to: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ends = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
    let inode = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let found = fields.len() > 9 && ends(fields[1], from) && ends(fields[2], to);
        found.then(|| format!("socket:[{}]", fields[9]))
    });
    let Some(inode) = inode else { return false };
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .any(|target| target.as_os_str() == &*inode)
}
