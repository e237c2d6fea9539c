//! Leases.

use bytes::Bytes;

use crate::{
    StoreError,
    store::{
        EventKind, LeaseId, LeaseStatus, LeasedStore, Operand, Operation, Operator, Precondition,
        Put, PutLease, Step, Transaction, Write,
    },
    testing::{
        space::{Space, all, always, compare, key},
        watcher::revisions,
    },
};

fn leased(name: &str, id: LeaseId) -> Write {
    let operation = Operation::Put { value: "x".into(), lease: Some(id) };
    Write { key: key(name), precondition: Precondition::None, operation }
}

async fn grant(store: &dyn LeasedStore, id: Option<LeaseId>, ttl_s: i64) -> LeaseId {
    let granted = store.grant(id, ttl_s).await.expect("a lease is granted");
    assert!(id.is_none_or(|id| id == granted), "the id that was asked for is granted");
    granted
}

async fn status(store: &dyn LeasedStore, id: LeaseId) -> LeaseStatus {
    let status = store.lease(id).await.expect("the status of a lease");
    status.expect("a lease that was granted is there")
}

async fn keys(store: &dyn LeasedStore, id: LeaseId) -> Vec<Bytes> {
    status(store, id).await.keys
}

/// Grants, attachment, status and revocation.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn leases(store: &dyn LeasedStore) {
    let space = Space::cleared(store).await;
    let before = space.revision().await;
    let id = grant(store, None, 600).await;
    let exists = store.grant(Some(id), 60).await;
    let exists = matches!(exists, Err(StoreError::LeaseExists(taken)) if taken == id);
    assert!(exists, "an id in use is not granted again");
    for ttl_s in [0, -1, i64::MAX] {
        let refused = store.grant(None, ttl_s).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{ttl_s} s: {refused:?}");
    }
    let granted = status(store, id).await;
    assert_eq!((granted.granted_ttl_s, granted.keys), (600, vec![]), "a lease without keys");
    let left = granted.remaining.as_secs_f64();
    assert!((590.0..=600.0).contains(&left), "of 600 s are left {left} s");
    assert_eq!(store.keep_alive(id).await.expect("a keep-alive"), Some(600));
    let listed = store.leases().await.expect("a list of leases");
    assert!(listed.contains(&id) && listed.is_sorted(), "leases are listed in order: {listed:?}");

    // An id that was free a moment ago can be chosen.
    let chosen = grant(store, None, 600).await;
    assert!(chosen != id && chosen > 0, "every lease has an id of its own");
    assert!(store.revoke(chosen).await.expect("a revocation"), "there was such a lease");
    grant(store, Some(chosen), 700).await;
    assert_eq!(status(store, chosen).await.granted_ttl_s, 700, "the new lease of an old id");
    let now = space.revision().await;
    assert_eq!(now, before, "leases without keys take no revision");
    attachment(store, id, chosen).await;
    assert!(store.revoke(chosen).await.expect("a revocation"), "there was such a lease");
}

/// Which keys hang on a lease, and what its end does to them.
async fn attachment(store: &dyn LeasedStore, id: LeaseId, other: LeaseId) {
    let space = Space { store };
    for name in ["l/3", "l/1", "l/2", "l/4", "l/5"] {
        space.committed(leased(name, id)).await;
    }
    let entry = space.get("l/1").await.expect("what was put is there");
    assert_eq!(entry.lease, Some(id), "an entry names its lease");
    let names = |names: &[&str]| -> Vec<Bytes> { names.iter().map(key).collect() };
    let all_five = names(&["l/1", "l/2", "l/3", "l/4", "l/5"]);
    assert_eq!(keys(store, id).await, all_five, "the keys of a lease, in order");
    space.put("l/2", "free").await;
    space.committed(leased("l/3", other)).await;
    space.delete("l/4").await;
    space.delete("l/5").await;
    space.put("l/5", "free").await;
    assert_eq!(space.get("l/2").await.and_then(|entry| entry.lease), None, "a put detaches");
    assert_eq!(keys(store, id).await, names(&["l/1"]), "puts and deletions detach");
    assert_eq!(keys(store, other).await, names(&["l/3"]), "a put attaches to another lease");
    space.committed(leased("l/6", id)).await;

    let mut seen = space.watch(all(), None).await;
    let before = space.revision().await;
    assert!(store.revoke(id).await.expect("a revocation"), "there was such a lease");
    let ended = seen.batch().await;
    let told: Vec<_> = ended.iter().map(|event| (event.kind, event.entry.key.clone())).collect();
    let expected = names(&["l/1", "l/6"]).into_iter().map(|key| (EventKind::Delete, key));
    assert!(told.iter().cloned().eq(expected), "the keys of a lease end with it: {told:?}");
    assert_eq!(revisions(&ended), [before + 1; 2], "a revocation is one revision");
    let left: Vec<_> = space.values(None).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, names(&["l/2", "l/3", "l/5"]), "no other keys end");
    gone(store, id).await;
    assert!(!store.revoke(id).await.expect("a revocation"), "there is no such lease any more");
}

/// A lease that has ended is nowhere to be seen.
async fn gone(store: &dyn LeasedStore, id: LeaseId) {
    let (status, listed) = (store.lease(id).await, store.leases().await);
    assert_eq!(status.expect("a status"), None, "a lease that ended has no status");
    assert!(!listed.expect("a list").contains(&id), "a lease that ended is not listed");
    let kept = store.keep_alive(id).await.expect("a keep-alive");
    assert_eq!(kept, None, "a lease that ended cannot be kept alive");
    let orphan = store.write(leased("orphan", id)).await;
    let refused = matches!(orphan, Err(StoreError::LeaseNotFound(missing)) if missing == id);
    assert!(refused, "no key is attached to a lease that ended: {orphan:?}");
    assert_eq!(Space { store }.get("orphan").await, None, "what was refused is not there");
}

/// Leases within transactions.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn lease_transactions(store: &dyn LeasedStore) {
    let space = Space::cleared(store).await;
    let (low, high) = (grant(store, Some(0x00c0_ffee_0001), 600).await, 0x00c0_ffee_0002);
    grant(store, Some(high), 600).await;
    let put = |name: &str, value: Option<&str>, lease| {
        let value = value.map(|value| value.to_owned().into());
        Step::Put(Put { key: key(name), value, lease })
    };
    let set = |id| PutLease::Set(Some(id));
    let both = vec![put("t/1", Some("1"), set(low)), put("t/2", Some("2"), set(low))];
    space.transact(always(both)).await;
    assert_eq!(keys(store, low).await, [key("t/1"), key("t/2")], "puts attach");
    for (operator, operand, expected) in [
        (Operator::Equal, low, true),
        (Operator::Equal, 0, false),
        (Operator::NotEqual, high, true),
        (Operator::Less, high, true),
        (Operator::Greater, 0, true),
        (Operator::Greater, low, false),
    ] {
        let compare = vec![compare("t/1", operator, Operand::Lease(operand))];
        let outcome = space.transact(Transaction { compare, ..<_>::default() }).await;
        assert_eq!(outcome.succeeded, expected, "a lease, {operator:?} {operand}");
    }
    let kept = vec![put("t/1", Some("new"), PutLease::Keep), put("t/2", None, set(high))];
    space.transact(always(kept)).await;
    assert_eq!(keys(store, low).await, [key("t/1")], "the lease is kept, with a new value");
    assert_eq!(keys(store, high).await, [key("t/2")], "the value is kept, with a new lease");
    let values = [(key("t/1"), "new".into()), (key("t/2"), "2".into())];
    assert_eq!(space.values(None).await, values);
    space.transact(always(vec![put("t/1", None, PutLease::Set(None))])).await;
    assert_eq!(keys(store, low).await, [] as [Bytes; 0], "the value is kept, without a lease");
    space.transact(always(vec![Step::Delete(all())])).await;
    assert_eq!(keys(store, high).await, [] as [Bytes; 0], "a deletion detaches");
    for id in [low, high] {
        assert!(store.revoke(id).await.expect("a revocation"), "there was such a lease");
    }
}

/// Leases end by themselves, unless they are kept alive.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn lease_expiry(store: &dyn LeasedStore) {
    let space = Space::cleared(store).await;
    let long = grant(store, None, 600).await;
    // The store may grant more than so short a time.
    let short = grant(store, None, 1).await;
    let granted = status(store, short).await.granted_ttl_s;
    assert!(granted >= 1, "at least what was asked for is granted, not {granted} s");
    assert_eq!(store.keep_alive(short).await.expect("a keep-alive"), Some(granted));
    let mut seen = space.watch(all(), None).await;
    space.committed(leased("e/2", short)).await;
    space.committed(leased("e/1", short)).await;
    space.committed(leased("e/long", long)).await;
    let before = seen.events(3).await[2].entry.mod_revision;
    let expired = seen.batch().await;
    let told: Vec<_> = expired.iter().map(|event| (event.kind, event.entry.key.clone())).collect();
    assert_eq!(told, ["e/1", "e/2"].map(|name| (EventKind::Delete, key(name))), "what expires");
    assert_eq!(revisions(&expired), [before + 1; 2], "an expiry is one revision");
    gone(store, short).await;
    assert_eq!(keys(store, long).await, [key("e/long")], "other leases go on");
    assert!(store.revoke(long).await.expect("a revocation"), "there was such a lease");
}
