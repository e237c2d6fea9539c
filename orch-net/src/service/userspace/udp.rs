//! Forwarding of UDP packets: each client has a socket of its own towards its endpoint.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::{net::UdpSocket, task::AbortHandle, time::Instant};

use super::{Shared, target::Target};

const PACKET_MAX: usize = 65_536;

#[derive(Debug)]
struct Session {
    endpoint: SocketAddr,
    socket: Arc<UdpSocket>,
    used: Arc<Mutex<Instant>>,
    replies: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

type Sessions = Arc<Mutex<HashMap<SocketAddr, Session>>>;

/// Forwards until it is aborted; the clients' sockets end with it.
pub(super) async fn serve(shared: Arc<Shared>, socket: UdpSocket, target: Arc<Target>) {
    let (socket, sessions) = (Arc::new(socket), Sessions::default());
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // An earlier reply met a closed port: nothing that concerns this socket.
            Err(error) => {
                tracing::debug!(%error, "receiving failed");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let known = {
            let mut sessions = sessions.lock();
            // An endpoint that has left the rules is not kept: there is no connection to finish.
            sessions.retain(|peer, session| *peer != client || target.has(session.endpoint));
            sessions.get(&client).map(|session| {
                *session.used.lock() = Instant::now();
                session.socket.clone()
            })
        };
        let upstream = match known {
            Some(upstream) => upstream,
            None => match open(&shared, &socket, &sessions, client, &target).await {
                Ok(Some(upstream)) => upstream,
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, %client, "a packet could not be forwarded");
                    continue;
                }
            },
        };
        // Lost packets are the protocol's business.
        let _ = upstream.send(&packet[..length]).await;
    }
}

async fn open(
    shared: &Arc<Shared>,
    socket: &Arc<UdpSocket>,
    sessions: &Sessions,
    client: SocketAddr,
    target: &Target,
) -> io::Result<Option<Arc<UdpSocket>>> {
    if sessions.lock().len() >= shared.options.udp_clients_max {
        tracing::debug!(%client, "too many clients, dropping a packet");
        return Ok(None);
    }
    let Some(endpoint) = target.pick(client.ip(), &[], &*shared.environment.random) else {
        return Ok(None);
    };
    let any: IpAddr = match endpoint {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let upstream = Arc::new(UdpSocket::bind((any, 0)).await?);
    upstream.connect(endpoint).await?;
    let used = Arc::new(Mutex::new(Instant::now()));
    let replies = {
        // Weak, so that the service's address is free as soon as it is not served any more.
        let (socket, sessions) = (Arc::downgrade(socket), Arc::downgrade(sessions));
        let (shared, upstream, used) = (shared.clone(), upstream.clone(), used.clone());
        tokio::spawn(async move {
            let pass = pass_replies(&shared, &socket, client, &upstream, &used);
            shared.stopped.run_until_cancelled(pass).await;
            if let Some(sessions) = sessions.upgrade() {
                sessions.lock().remove(&client);
            }
        })
    };
    let replies = replies.abort_handle();
    let session = Session { endpoint, socket: upstream.clone(), used, replies };
    sessions.lock().insert(client, session);
    Ok(Some(upstream))
}

/// Passes replies back until nothing has gone either way for the idle time.
async fn pass_replies(
    shared: &Shared,
    socket: &Weak<UdpSocket>,
    client: SocketAddr,
    upstream: &UdpSocket,
    used: &Mutex<Instant>,
) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let end = *used.lock() + shared.options.udp_idle;
        match tokio::time::timeout_at(end, upstream.recv(&mut packet)).await {
            Ok(Ok(length)) => {
                *used.lock() = Instant::now();
                let Some(socket) = socket.upgrade() else { return };
                let _ = socket.send_to(&packet[..length], client).await;
            }
            // The endpoint's port is closed: the next packet finds another endpoint.
            Ok(Err(_)) => return,
            Err(_) if *used.lock() + shared.options.udp_idle > Instant::now() => {}
            Err(_) => return,
        }
    }
}
