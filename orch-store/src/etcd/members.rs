//! etcd's members, and which of them to ask.
//!
//! A call goes to the member with the fewest open calls among those that are well. One that
//! refuses calls, breaks connections or lets the deadline pass is not asked again until it has
//! answered a question for its health; one that has been silent for a while, with calls open, is
//! passed over. Where nobody is well, everybody is asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    Inner,
    auth::{Auth, Headers},
    outcome::{Cause, Failure},
};
use crate::protocol::etcdserverpb::{
    self as pb, auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient,
};

/// A member that has calls open and has said nothing for so long is passed over.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a member may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) const RETRY_FIRST: Duration = Duration::from_millis(50);

type Connection = InterceptedService<Channel, Headers>;

/// One member's services. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) index: usize,
    pub(super) kv: KvClient<Connection>,
    pub(super) lease: LeaseClient<Connection>,
    pub(super) watch: WatchClient<Connection>,
    pub(super) maintenance: MaintenanceClient<Connection>,
    pub(super) auth: AuthClient<Connection>,
}

impl Clients {
    fn new(index: usize, endpoint: &Endpoint, auth: &Arc<Auth>) -> Self {
        let channel = endpoint.connect_lazy();
        let with = |auth| InterceptedService::new(channel.clone(), Headers { auth });
        let connection = with(Some(auth.clone()));
        // How large an answer is, is decided by what was asked for and what is stored.
        let unlimited = usize::MAX;
        Self {
            index,
            kv: KvClient::new(connection.clone()).max_decoding_message_size(unlimited),
            lease: LeaseClient::new(connection.clone()).max_decoding_message_size(unlimited),
            watch: WatchClient::new(connection.clone()).max_decoding_message_size(unlimited),
            maintenance: MaintenanceClient::new(connection),
            auth: AuthClient::new(with(None)),
        }
    }
}

#[derive(Debug)]
struct Member {
    clients: Clients,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    failed: bool,
    open: usize,
    /// When it last said something, or the first of the open calls began.
    heard: Instant,
    /// Whether its progress can be trusted; `None` before it was asked.
    ordered_progress: Option<bool>,
}

impl Health {
    /// Less is better.
    fn rank(&self, now: Instant) -> (bool, usize) {
        let silent = self.open > 0 && now.duration_since(self.heard) > SILENCE;
        (self.failed || silent, self.open)
    }
}

/// All members.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    next: AtomicUsize,
}

/// A call that is open at a member, until it is dropped.
pub(super) struct Opened<'a> {
    member: &'a Member,
}

impl Opened<'_> {
    pub(super) fn clients(&self) -> Clients {
        self.member.clients.clone()
    }

    /// The member has said something.
    pub(super) fn heard(&self) {
        self.member.health.lock().heard = Instant::now();
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.member.health.lock().open -= 1;
    }
}

impl Members {
    pub(super) fn new(endpoints: &[Endpoint], auth: &Arc<Auth>) -> Self {
        let health =
            || Health { failed: false, open: 0, heard: Instant::now(), ordered_progress: None };
        let member = |(index, endpoint)| Member {
            clients: Clients::new(index, endpoint, auth),
            health: Mutex::new(health()),
        };
        let all = endpoints.iter().enumerate().map(member).collect();
        Self { all, next: AtomicUsize::new(0) }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn clients(&self, index: usize) -> Clients {
        self.all[index].clients.clone()
    }

    /// The best member that is not among those tried.
    pub(super) fn open(&self, tried: &[usize]) -> Option<Opened<'_>> {
        let now = Instant::now();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len();
        let turns = (0..count).map(|turn| first.wrapping_add(turn) % count);
        let left = turns.filter(|index| !tried.contains(index));
        let best = left.min_by_key(|index| self.all[*index].health.lock().rank(now))?;
        let member = &self.all[best];
        let mut health = member.health.lock();
        if health.open == 0 {
            health.heard = now;
        }
        health.open += 1;
        drop(health);
        Some(Opened { member })
    }

    /// Puts down that a member let somebody down; `true` if it was well before.
    fn fail(&self, index: usize) -> bool {
        let mut health = self.all[index].health.lock();
        // It may come back as another version.
        health.ordered_progress = None;
        !std::mem::replace(&mut health.failed, true)
    }
}

impl Inner {
    /// A member let a call or a watch down: others are asked until it says that it is well.
    pub(super) fn member_failed(self: &Arc<Self>, index: usize) {
        if self.members.fail(index) {
            tokio::spawn(recover(Arc::downgrade(self), index));
        }
    }

    /// Whether a member's progress follows the events that it is about. Before 3.4.25 and 3.5.8
    /// it could overtake them.
    pub(super) async fn has_ordered_progress(&self, index: usize) -> bool {
        let health = &self.members.all[index].health;
        let known = health.lock().ordered_progress;
        if let Some(known) = known {
            return known;
        }
        let mut maintenance = self.members.clients(index).maintenance;
        let status = maintenance.status(pb::StatusRequest {});
        let Ok(Ok(status)) = tokio::time::timeout(PROBE_TIMEOUT, status).await else {
            return false;
        };
        let ordered = orders_progress(&status.get_ref().version);
        health.lock().ordered_progress = Some(ordered);
        ordered
    }
}

/// Source: etcd's pull requests 15695 and 15599, and
/// `k8s.io/apiserver/pkg/storage/feature/feature_support_checker.go`.
fn orders_progress(version: &str) -> bool {
    let number = |part: &str| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse::<u64>().unwrap_or(0)
    };
    let mut parts = version.split('.').map(number);
    let mut part = || parts.next().unwrap_or(0);
    match (part(), part(), part()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        version => version >= (3, 6, 0),
    }
}

/// Asks a failed member how it is until it is well, or the store is gone.
async fn recover(store: std::sync::Weak<Inner>, index: usize) {
    let mut pause = RETRY_FIRST;
    loop {
        let Some(inner) = store.upgrade() else { return };
        let mut maintenance = inner.members.clients(index).maintenance;
        let sleep = inner.pause(pause);
        pause = (pause * 2).min(inner.options.watch_retry_max);
        drop(inner);
        sleep.await;
        let status = maintenance.status(pb::StatusRequest {});
        let well = match tokio::time::timeout(PROBE_TIMEOUT, status).await {
            Ok(Ok(status)) => status.get_ref().leader != 0,
            // Who refuses us knows how things are.
            Ok(Err(status)) => matches!(Failure::from(status).cause, Cause::Token | Cause::Denied),
            Err(_) => false,
        };
        if well {
            if let Some(inner) = store.upgrade() {
                inner.members.all[index].health.lock().failed = false;
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_order_progress() {
        for (version, ordered) in [
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.0-pre", false),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("", false),
        ] {
            assert_eq!(orders_progress(version), ordered, "{version}");
        }
    }

    fn members(count: usize) -> Members {
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        Members::new(&vec![endpoint; count], &Arc::new(Auth::new(None)))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_go_to_members_that_answer() {
        let members = members(3);
        let chosen = |tried: &[usize]| members.open(tried).map(|opened| opened.clients().index);
        // In turns, as long as nothing is open.
        let mut turns = [(); 3].map(|()| chosen(&[]).unwrap());
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2]);
        // One with an open call is asked only after the others.
        let open = members.open(&[1, 2]).unwrap();
        assert!((0..6).all(|_| chosen(&[]) != Some(0)));
        // One that is silent comes after those that have more to do.
        let others = [members.open(&[0, 2]), members.open(&[0, 2]), members.open(&[0, 1])];
        let busy = members.open(&[0, 1]);
        assert_eq!(chosen(&[]), Some(0));
        tokio::time::advance(SILENCE * 2).await;
        others.iter().flatten().chain(&busy).for_each(Opened::heard);
        assert_ne!(chosen(&[]), Some(0));
        open.heard();
        assert_eq!(chosen(&[]), Some(0));
        drop((others, busy, open));
        // One that failed is asked only when nobody else is left.
        assert!(members.fail(1) && !members.fail(1));
        assert!((0..6).all(|_| chosen(&[]) != Some(1)));
        assert_eq!(chosen(&[0, 2]), Some(1));
        assert_eq!(chosen(&[0, 1, 2]), None);
    }
}
