//! What a controller has done and not yet seen.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/controller_utils.go`, `ControllerExpectations`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::{ClientError, Key};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Action;

/// After so long a controller acts even if it has not seen what it did: a watch may have
/// skipped an object that lived shortly.
const EXPIRY: Duration = Duration::from_secs(300);

/// For so long an owner of which something is expected is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps a controller from doing twice what its local copy does not show yet.
///
/// Before it creates or deletes objects for an owner, the controller says how many; whoever watches
/// the objects says when they show up. In between the owner is not [satisfied], and the controller
/// creates and deletes nothing more for it. Deletions are counted by uid, because an object that
/// is being deleted may be reported more than once.
///
/// [satisfied]: Expectations::satisfied
#[derive(Debug, Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<Key, Expected>>,
}

#[derive(Debug)]
struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    /// That the owner itself goes.
    end: bool,
    /// The resource version at which everything is there that was created.
    by: By,
    since: Instant,
}

/// At which resource version a copy of the cluster shows what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Nothing has been done yet.
    Nothing,
    Version(u64),
    /// Nobody knows.
    Unknown,
}

impl Expected {
    fn fulfilled(&self) -> bool {
        self.creations <= 0 && self.deletions.is_empty() && !self.end
    }

    fn expired(&self) -> bool {
        self.since.elapsed() >= EXPIRY
    }

    /// What is expected from now on has its own time: nothing of before is waited for any more.
    fn renew(&mut self) {
        if self.fulfilled() || self.expired() {
            *self = Self::new();
        }
    }
}

impl Expectations {
    /// Expects `count` objects to be created for an owner, besides what is expected already.
    pub fn expect_creations(&self, owner: &Key, count: usize) {
        let mut all = self.by_owner.lock();
        let entry = all.entry(owner.clone()).or_insert_with(Expected::new);
        entry.renew();
        entry.creations += i64::try_from(count).unwrap_or(i64::MAX);
    }

    /// Expects the objects with these uids to be deleted.
    pub fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        let mut all = self.by_owner.lock();
        let entry = all.entry(owner.clone()).or_insert_with(Expected::new);
        entry.renew();
        entry.deletions.extend(uids);
    }

    /// Expects the owner to go, because the cluster has it no more: what is created for it until
    /// that is seen, garbage collection deletes at once, and it would be created again.
    ///
    /// `Differs:` upstream goes round in this circle until its watch tells it.
    pub fn expect_end(&self, owner: &Key) {
        let mut all = self.by_owner.lock();
        let entry = all.entry(owner.clone()).or_insert_with(Expected::new);
        entry.renew();
        entry.end = true;
    }

    /// What became of a write of the owner itself: nothing where the cluster has it no more, whose
    /// end is expected from now on.
    pub(crate) fn written<T>(
        &self,
        owner: &Key,
        answer: Result<T, ClientError>,
    ) -> Result<Option<T>, ClientError> {
        match answer {
            Err(error) if error.is_not_found() => {
                self.expect_end(owner);
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// An object of the owner showed up, or will never.
    pub fn creation_observed(&self, owner: &Key) {
        if let Some(entry) = self.by_owner.lock().get_mut(owner) {
            entry.creations -= 1;
        }
    }

    /// An object of the owner is going, is gone, or will not go.
    pub fn deletion_observed(&self, owner: &Key, uid: &str) {
        if let Some(entry) = self.by_owner.lock().get_mut(owner) {
            entry.deletions.remove(uid);
        }
    }

    /// Whether everything that was expected for the owner has been seen, or too long ago.
    pub fn satisfied(&self, owner: &Key) -> bool {
        let all = self.by_owner.lock();
        all.get(owner).is_none_or(|entry| entry.fulfilled() || entry.expired())
    }

    /// The action, but the owner is looked at again at the latest when what is expected for it has
    /// expired: a watch that never shows it wakes nobody.
    ///
    /// `Differs:` upstream waits for the next change, or for the periodic resynchronization.
    pub fn or_expiry(&self, owner: &Key, action: Action) -> Action {
        let all = self.by_owner.lock();
        let Some(entry) = all.get(owner).filter(|entry| !entry.fulfilled()) else { return action };
        let left = EXPIRY.saturating_sub(entry.since.elapsed());
        match action {
            Action::RequeueAfter(earlier) if earlier <= left => action,
            _ if left.is_zero() => action,
            _ => Action::RequeueAfter(left),
        }
    }

    /// An object that is expected was created with this resource version: who has seen that
    /// version has seen the object, or it is gone since. A version that is no number says nothing.
    pub(crate) fn created_at(&self, owner: &Key, version: Option<&str>) {
        if let Some(entry) = self.by_owner.lock().get_mut(owner) {
            let version = version.and_then(|version| version.parse().ok());
            entry.by = match (entry.by, version) {
                (By::Unknown, _) | (_, None) => By::Unknown,
                (By::Nothing, Some(version)) => By::Version(version),
                (By::Version(before), Some(version)) => By::Version(before.max(version)),
            };
        }
    }

    /// How long to leave an owner alone whose objects are seen through a copy that has reached
    /// `position`: nothing can be done for it until what is expected is seen, which is looked for
    /// then, and each look in between would cost as much as the owner is large, and show a part of
    /// what is about to be there. A copy that is known to be behind is waited for as long as it is;
    /// otherwise it is a moment. What a copy skips, because it was made and gone while its watch was
    /// down, is expected no more once the copy has got past it.
    ///
    /// `Differs:` upstream looks, and writes the status, at each change in between; it makes what it
    /// has made again if it does not see it within five minutes.
    pub(crate) fn pause(&self, owner: &Key, meta: &ObjectMeta, position: u64) -> Option<Duration> {
        let mut all = self.by_owner.lock();
        let entry = all.get_mut(owner).filter(|entry| !entry.fulfilled())?;
        let mut left = PAUSE.saturating_sub(entry.since.elapsed());
        if let By::Version(version) = entry.by
            && entry.creations > 0
            // Of a cluster whose versions are no numbers nobody knows where the copy is.
            && position > 0
        {
            if position < version {
                left = PAUSE;
            } else {
                entry.creations = 0;
            }
        }
        let waits = !entry.fulfilled() && !left.is_zero() && meta.deletion_timestamp.is_none();
        waits.then_some(left)
    }

    /// Expects nothing for an owner any more: it is gone.
    pub fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}

impl Expected {
    fn new() -> Self {
        let (deletions, since) = (HashSet::new(), Instant::now());
        Self { creations: 0, deletions, end: false, by: By::Nothing, since }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_left_alone_for_a_moment_while_something_is_expected() {
        let (expectations, owner) = (Expectations::default(), Key::new("a", "b"));
        let (meta, millis) = (ObjectMeta::default(), Duration::from_millis);
        assert_eq!(expectations.pause(&owner, &meta, 9), None);
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(millis(300)).await;
        assert_eq!(expectations.pause(&owner, &meta, 9), Some(millis(700)));
        let going = ObjectMeta {
            deletion_timestamp: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        };
        assert_eq!(expectations.pause(&owner, &going, 9), None);
        tokio::time::advance(millis(700)).await;
        assert_eq!(expectations.pause(&owner, &meta, 9), None);
        expectations.expect_creations(&owner, 1);
        expectations.creation_observed(&owner);
        expectations.creation_observed(&owner);
        expectations.expect_creations(&owner, 1);
        assert!(expectations.pause(&owner, &meta, 9).is_some());
        expectations.creation_observed(&owner);
        assert_eq!(expectations.pause(&owner, &meta, 9), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_copy_has_got_past_is_not_expected_any_more() {
        let (expectations, owner) = (Expectations::default(), Key::new("a", "b"));
        let meta = ObjectMeta::default();
        expectations.expect_creations(&owner, 2);
        expectations.created_at(&owner, Some("12"));
        expectations.created_at(&owner, Some("11"));
        tokio::time::advance(EXPIRY * 2).await;
        assert_eq!(expectations.pause(&owner, &meta, 11), Some(PAUSE), "it is known to be behind");
        assert_eq!(expectations.pause(&owner, &meta, 12), None);
        assert!(expectations.satisfied(&owner));

        // Of what has no such version it is waited for until it expires.
        expectations.expect_creations(&owner, 2);
        expectations.created_at(&owner, Some("15"));
        expectations.created_at(&owner, Some("x"));
        tokio::time::advance(PAUSE).await;
        assert_eq!(expectations.pause(&owner, &meta, 20), None);
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(EXPIRY).await;
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_satisfied_once_all_is_seen_or_too_long_ago() {
        let (expectations, owner) = (Expectations::default(), Key::new("a", "b"));
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(expectations.satisfied(&owner));

        expectations.expect_deletions(&owner, ["u".to_owned()]);
        expectations.deletion_observed(&owner, "other");
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_secs(1)).await;
        let left = Action::RequeueAfter(EXPIRY - Duration::from_secs(1));
        assert_eq!(expectations.or_expiry(&owner, Action::Done), left);
        let earlier = Action::RequeueAfter(Duration::from_secs(2));
        assert_eq!(expectations.or_expiry(&owner, earlier), earlier);
        tokio::time::advance(EXPIRY).await;
        assert!(expectations.satisfied(&owner));
        assert_eq!(expectations.or_expiry(&owner, Action::Done), Action::Done);
        // What is expected after that is waited for as long again.
        expectations.expect_creations(&owner, 1);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(expectations.satisfied(&owner));

        expectations.expect_end(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.forget(&owner);
        assert!(expectations.satisfied(&owner));
    }
}
