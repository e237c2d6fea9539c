//! Forwarding of TCP connections.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{Shared, target::Target};

/// Pause after accepting failed, and between rounds over endpoints of which none answers.
const PAUSE: Duration = Duration::from_millis(100);
const BUFFER: usize = 16 << 10;

/// Accepts until it is aborted. Connections are tasks of their own and outlive it.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, target: Arc<Target>) {
    loop {
        // The permit first: who cannot be served yet waits in the kernel, not in memory.
        let Ok(permit) = shared.connections.clone().acquire_owned().await else { return };
        let (client, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                shared.environment.clock.sleep(PAUSE).await;
                continue;
            }
        };
        let (shared, target) = (shared.clone(), target.clone());
        tokio::spawn(async move {
            let forward = forward(&shared, client, address.ip(), &target);
            shared.stopped.run_until_cancelled(forward).await;
            drop(permit);
        });
    }
}

async fn forward(shared: &Shared, mut client: TcpStream, address: IpAddr, target: &Target) {
    let Some(mut endpoint) = connect(shared, address, target).await else {
        // A reset, as the kernel proxies refuse: the client must not take this for an end.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = endpoint.set_nodelay(true);
    let copied = copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await;
    if copied.is_err() {
        // Pass the reset on instead of making a clean end of it.
        let _ = client.set_zero_linger();
        let _ = endpoint.set_zero_linger();
    }
}

/// A connection to some endpoint. Goes over them until one answers or the deadline is there; the
/// rules may change meanwhile.
async fn connect(shared: &Shared, client: IpAddr, target: &Target) -> Option<TcpStream> {
    let deadline = Instant::now() + shared.options.connect_deadline;
    let mut failed = Vec::new();
    loop {
        let Some(endpoint) = target.pick(client, &failed, &*shared.environment.random) else {
            if target.is_empty() || Instant::now() >= deadline {
                return None;
            }
            failed.clear();
            shared.environment.clock.sleep(PAUSE).await;
            continue;
        };
        let timeout = shared.options.connect_timeout;
        match tokio::time::timeout(timeout, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "trying another endpoint"),
            Err(_) => tracing::debug!(%endpoint, "no answer in time, trying another endpoint"),
        }
        failed.push(endpoint);
    }
}
