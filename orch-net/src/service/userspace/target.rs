//! Where an address leads, and which endpoint is whose turn.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use orch_core::random::Random;
use parking_lot::Mutex;
use tokio::time::Instant;

/// So many clients' endpoints are remembered for each address; then the stale ones are dropped,
/// and without any the newcomer is not remembered.
const CLIENTS_MAX: usize = 65_536;

#[derive(Debug)]
struct Rules {
    endpoints: Arc<[SocketAddr]>,
    affinity: Option<Duration>,
}

/// The rules of one address, changed while it is served.
#[derive(Debug)]
pub(super) struct Target {
    rules: ArcSwap<Rules>,
    turn: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl Target {
    pub(super) fn new(endpoints: Arc<[SocketAddr]>, affinity: Option<Duration>) -> Self {
        let rules = ArcSwap::from_pointee(Rules { endpoints, affinity });
        Self { rules, turn: AtomicUsize::new(usize::MAX), clients: Mutex::default() }
    }

    pub(super) fn update(&self, endpoints: Arc<[SocketAddr]>, affinity: Option<Duration>) {
        self.rules.store(Arc::new(Rules { endpoints, affinity }));
        if affinity.is_none() {
            self.clients.lock().clear();
        }
    }

    /// Whether traffic may go to this endpoint.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        self.rules.load().endpoints.binary_search(&endpoint).is_ok()
    }

    /// Whether there is nowhere to go.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.load().endpoints.is_empty()
    }

    /// The endpoint for a client, none of those in `except`: its own, where clients keep theirs,
    /// or else the next one in turn.
    pub(super) fn pick(
        &self,
        client: IpAddr,
        except: &[SocketAddr],
        random: &dyn Random,
    ) -> Option<SocketAddr> {
        let rules = self.rules.load();
        let usable = |endpoint: &SocketAddr| {
            rules.endpoints.binary_search(endpoint).is_ok() && !except.contains(endpoint)
        };
        let now = Instant::now();
        if let Some(affinity) = rules.affinity {
            let mut clients = self.clients.lock();
            if let Some((endpoint, since)) = clients.get_mut(&client)
                && now.duration_since(*since) < affinity
                && usable(endpoint)
            {
                *since = now;
                return Some(*endpoint);
            }
        }
        let count = rules.endpoints.len();
        if count == 0 {
            return None;
        }
        let first = self.next_turn(count, random);
        let in_turn = (0..count).map(|offset| rules.endpoints[(first + offset) % count]);
        let chosen = in_turn.into_iter().find(usable)?;
        if let Some(affinity) = rules.affinity {
            self.remember(client, chosen, now, affinity);
        }
        Some(chosen)
    }

    /// Round robin that starts anywhere, so that several proxies do not march in step.
    fn next_turn(&self, count: usize, random: &dyn Random) -> usize {
        let start = || random.below(count as u64) as usize;
        let advance = |turn| Some(if turn == usize::MAX { start() } else { (turn + 1) % count });
        let turn = self.turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
        // The update cannot fail: `advance` always has a value.
        let turn = turn.unwrap_or(0);
        if turn == usize::MAX {
            self.turn.load(Ordering::Relaxed) % count
        } else {
            (turn + 1) % count
        }
    }

    fn remember(&self, client: IpAddr, endpoint: SocketAddr, now: Instant, affinity: Duration) {
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.retain(|_, (_, since)| now.duration_since(*since) < affinity);
        }
        if clients.len() < CLIENTS_MAX || clients.contains_key(&client) {
            clients.insert(client, (endpoint, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use orch_core::random::SeededRandom;

    use super::*;

    fn endpoints(ports: &[u16]) -> Arc<[SocketAddr]> {
        ports.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn turns_and_affinity() {
        let random = SeededRandom::new(1);
        let client = IpAddr::from([10, 9, 9, 9]);
        let target = Target::new(endpoints(&[1, 2, 3]), None);
        let mut seen: Vec<u16> =
            (0..6).map(|_| target.pick(client, &[], &random).unwrap().port()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 1, 2, 2, 3, 3]);
        let two = [endpoints(&[1])[0], endpoints(&[2])[0]];
        assert_eq!(target.pick(client, &two, &random).unwrap().port(), 3);

        target.update(endpoints(&[1, 2, 3]), Some(Duration::from_secs(10)));
        let own = target.pick(client, &[], &random).unwrap();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(9)).await;
            assert_eq!(target.pick(client, &[], &random), Some(own));
        }
        let other = target.pick(client, &[own], &random).unwrap();
        assert_ne!(other, own);
        assert_eq!(target.pick(client, &[], &random), Some(other), "the new one is kept");
        target.update(endpoints(&[]), None);
        assert_eq!(target.pick(client, &[], &random), None);
    }
}
