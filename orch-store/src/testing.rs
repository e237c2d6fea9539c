//! The conformance suite that every store runs, ours and yours.
//!
//! The functions panic, saying what was wrong, on a store that does not keep the contract. They
//! work in a key space of their own (`/conformance/`), so that a store in use, such as a shared
//! etcd, can be examined; but they compact it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, future};

use crate::StoreError;
use crate::store::{
    Entry, Event, EventKind, KeyRange, Leases, Operation, Precondition, RangeRequest, Revision,
    Store, WatchItem, WatchRequest, WatchStream, Write, WriteOutcome,
};

const ROOT: &str = "/conformance/";

fn key(name: impl fmt::Display) -> Bytes {
    format!("{ROOT}{name}").into()
}

fn everything(revision: Option<Revision>) -> RangeRequest {
    RangeRequest { revision, ..RangeRequest::new(KeyRange::prefix(ROOT)) }
}

async fn committed(store: &dyn Store, write: Write) -> (Revision, Option<Entry>) {
    match store.write(write.clone()).await {
        Ok(WriteOutcome::Committed { revision, previous }) => (revision, previous),
        other => panic!("{write:?} was not committed: {other:?}"),
    }
}

async fn put(store: &dyn Store, name: &str, value: &str) -> Revision {
    committed(store, Write::put(key(name), value.to_owned())).await.0
}

async fn delete(store: &dyn Store, name: &str) -> Revision {
    committed(store, Write::delete(key(name), Precondition::None)).await.0
}

async fn clear(store: &dyn Store) -> Revision {
    let found = store.range(everything(None)).await.expect("a range of everything");
    for entry in found.entries {
        committed(store, Write::delete(entry.key, Precondition::None)).await;
    }
    store.range(everything(None)).await.expect("a range of everything").revision
}

async fn values(store: &dyn Store, revision: Option<Revision>) -> Vec<(Bytes, Bytes)> {
    let found = store.range(everything(revision)).await.expect("a range");
    found.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

async fn watch(store: &dyn Store, range: KeyRange, from: Option<Revision>) -> WatchStream {
    store.watch(WatchRequest { range, from }).await.expect("a watch")
}

/// The next `count` events; progress items between them are passed over, order is checked.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        match stream.next().await {
            Some(Ok(WatchItem::Events(batch))) => {
                assert!(!batch.is_empty(), "a watch delivered an empty batch");
                let last = events.last().map_or(0, |event| event.entry.mod_revision);
                let first = batch[0].entry.mod_revision;
                assert!(first > last, "a revision ({first}) was split or repeated after {last}");
                let ordered = batch.is_sorted_by_key(|event| event.entry.mod_revision);
                assert!(ordered, "a batch is out of order: {batch:?}");
                events.extend(batch.iter().cloned());
            }
            Some(Ok(WatchItem::Progress(_))) => {}
            other => panic!("a watch ended early: {other:?} after {events:?}"),
        }
    }
    events
}

/// Every part of the suite for [`Store`].
///
/// # Panics
/// If the store does not keep the contract.
pub async fn conformance(store: Arc<dyn Store>) {
    writes(&*store).await;
    ranges(&*store).await;
    watches(&*store).await;
    progress(&*store).await;
    compaction(&*store).await;
    concurrency(store.clone()).await;
    clear(&*store).await;
}

async fn writes(store: &dyn Store) {
    let start = clear(store).await;
    let (first, previous) = committed(store, Write::create(key("a"), "1")).await;
    assert_eq!((first, previous), (start + 1, None), "a creation takes the next revision");
    let refused = store.write(Write::create(key("a"), "2")).await.expect("a refusal is a value");
    let WriteOutcome::PreconditionFailed { current: Some(current), revision } = refused else {
        panic!("creating what exists: {refused:?}");
    };
    assert_eq!((&current.value[..], current.version, revision), (&b"1"[..], 1, first));
    let (second, previous) = committed(store, Write::update(key("a"), first, "2")).await;
    assert_eq!((second, previous.map(|entry| entry.value)), (first + 1, Some("1".into())));
    for stale in [
        Write::update(key("a"), first, "3"),
        Write::delete(key("a"), Precondition::ModRevision(first)),
        Write::update(key("none"), first, "3"),
        Write::delete(key("none"), Precondition::ModRevision(first)),
    ] {
        let outcome = store.write(stale.clone()).await.expect("a refusal is a value");
        let refused = matches!(outcome, WriteOutcome::PreconditionFailed { .. });
        assert!(refused, "{stale:?} went through: {outcome:?}");
    }
    let found = store.range(RangeRequest::new(KeyRange::key(key("a")))).await.expect("a range");
    let entry = &found.entries[0];
    let history = (entry.create_revision, entry.mod_revision, entry.version);
    assert_eq!((history, found.revision), ((first, second, 2), second), "failures change nothing");
    let guarded = Write::delete(key("a"), Precondition::ModRevision(second));
    assert_eq!(committed(store, guarded).await.0, second + 1);
    let absent = committed(store, Write::delete(key("a"), Precondition::None)).await;
    assert_eq!(absent, (second + 1, None), "deleting what is not there changes nothing");
    let again = put(store, "a", "new life").await;
    let found = store.range(RangeRequest::new(KeyRange::key(key("a")))).await.expect("a range");
    assert_eq!((found.entries[0].create_revision, found.entries[0].version), (again, 1));
    let empty = store.write(Write::put("", "x")).await;
    assert!(matches!(empty, Err(StoreError::Invalid(_))), "an empty key: {empty:?}");
}

async fn ranges(store: &dyn Store) {
    clear(store).await;
    for name in ["b", "a", "c", "a/x", "a0"] {
        put(store, name, name).await;
    }
    let snapshot = put(store, "d", "d").await;
    delete(store, "b").await;
    let newest = put(store, "a", "changed").await;
    let names = |entries: &[Entry]| -> Vec<String> {
        let name = |entry: &Entry| String::from_utf8_lossy(&entry.key[ROOT.len()..]).into_owned();
        entries.iter().map(name).collect()
    };
    let now = store.range(everything(None)).await.expect("a range");
    assert_eq!(names(&now.entries), ["a", "a/x", "a0", "c", "d"], "in the order of bytes");
    assert_eq!((now.count, now.more, now.revision), (5, false, newest));
    let past = store.range(everything(Some(snapshot))).await.expect("a range");
    assert_eq!(names(&past.entries), ["a", "a/x", "a0", "b", "c", "d"]);
    assert_eq!((&past.entries[0].value[..], past.revision), (&b"a"[..], newest));

    // Pages at one revision, whatever happens between them.
    let mut pages = Vec::new();
    let mut request = RangeRequest { limit: Some(2), ..everything(Some(snapshot)) };
    loop {
        let page = store.range(request.clone()).await.expect("a page");
        assert_eq!(page.count, 6 - pages.len(), "the count is that of the whole rest");
        pages.extend(names(&page.entries));
        put(store, "b", "again").await;
        let Some(last) = page.entries.last().filter(|_| page.more) else { break };
        request.range.start = [&last.key[..], b"\0"].concat().into();
    }
    assert_eq!(pages, ["a", "a/x", "a0", "b", "c", "d"]);
    let count = RangeRequest { count_only: true, ..everything(Some(snapshot)) };
    let count = store.range(count).await.expect("a count");
    assert_eq!((count.count, count.entries.len(), count.more), (6, 0, false));
    let some = KeyRange { start: key("a0"), end: Some(key("c")) };
    let some = store.range(RangeRequest::new(some)).await.expect("a range");
    assert_eq!(names(&some.entries), ["a0", "b"], "the end is exclusive");
    let future = store.range(everything(Some(some.revision + 1))).await;
    assert!(matches!(future, Err(StoreError::Future { .. })), "the future: {future:?}");
}

async fn watches(store: &dyn Store) {
    clear(store).await;
    let prefix = KeyRange::prefix(key("w/"));
    let mut live = watch(store, prefix.clone(), None).await;
    let mut single = watch(store, KeyRange::key(key("w/b")), None).await;
    let bounded = KeyRange { start: key("w/a"), end: Some(key("w/b")) };
    let mut bounded = watch(store, bounded, None).await;
    let first = put(store, "w/a", "1").await;
    put(store, "elsewhere", "x").await;
    put(store, "w/b", "1").await;
    put(store, "w/a", "2").await;
    let deleted = delete(store, "w/a").await;
    let last = put(store, "w/b", "2").await;
    let mut future = watch(store, prefix.clone(), Some(last + 2)).await;
    let all = events(&mut live, 5).await;
    let seen: Vec<_> = all.iter().map(|event| event.entry.mod_revision).collect();
    assert_eq!(seen, [first, first + 2, first + 3, deleted, last]);
    assert_eq!(all[0].previous, None);
    assert_eq!(all[2].previous.as_ref().map(|entry| &entry.value[..]), Some(&b"1"[..]));
    assert_eq!((all[3].kind, &all[3].entry.value[..]), (EventKind::Delete, &b""[..]));
    assert_eq!(all[3].previous.as_ref().map(|entry| entry.mod_revision), Some(first + 3));
    assert_eq!(events(&mut single, 2).await, [all[1].clone(), all[4].clone()]);
    assert_eq!(events(&mut bounded, 3).await, [all[0].clone(), all[2].clone(), all[3].clone()]);

    // From the past, and on into the present without gap or repeat.
    let mut resumed = watch(store, prefix, Some(first + 1)).await;
    put(store, "w/c", "1").await;
    let late = put(store, "w/c", "2").await;
    let resumed = events(&mut resumed, 6).await;
    assert_eq!(resumed[..4], all[1..]);
    assert_eq!(resumed[5].entry.mod_revision, late);
    let only = events(&mut future, 1).await;
    assert_eq!(only[0].entry.mod_revision, late, "a watch from the future waits for it");
    drop(live);
    put(store, "w/c", "after a watcher left").await;
}

async fn progress(store: &dyn Store) {
    clear(store).await;
    let mut quiet = watch(store, KeyRange::prefix(key("quiet/")), None).await;
    let newest = put(store, "noise", "x").await;
    loop {
        store.request_progress().await.expect("a request for progress");
        match quiet.next().await {
            Some(Ok(WatchItem::Progress(revision))) if revision >= newest => break,
            Some(Ok(WatchItem::Progress(_))) => {}
            other => panic!("instead of progress: {other:?}"),
        }
    }
}

async fn compaction(store: &dyn Store) {
    clear(store).await;
    let first = put(store, "a", "1").await;
    put(store, "gone", "1").await;
    delete(store, "gone").await;
    let kept = put(store, "a", "2").await;
    let newest = put(store, "a", "3").await;
    store.compact(kept).await.expect("a compaction");
    let old = store.range(everything(Some(kept - 1))).await;
    assert!(matches!(old, Err(StoreError::Compacted { .. })), "behind a compaction: {old:?}");
    assert_eq!(values(store, Some(kept)).await, [(key("a"), "2".into())]);
    assert_eq!(values(store, None).await, [(key("a"), "3".into())]);
    let behind = WatchRequest { range: KeyRange::prefix(ROOT), from: Some(first) };
    let behind = match store.watch(behind).await {
        Ok(mut items) => items.next().await.expect("an item").err(),
        Err(error) => Some(error),
    };
    assert!(matches!(behind, Some(StoreError::Compacted { .. })), "a watch behind: {behind:?}");
    let mut on = watch(store, KeyRange::prefix(ROOT), Some(kept + 1)).await;
    let event = events(&mut on, 1).await.remove(0);
    let previous = event.previous.map(|entry| entry.mod_revision);
    assert_eq!((event.entry.mod_revision, previous), (newest, Some(kept)));
    let again = store.compact(kept).await;
    assert!(matches!(again, Err(StoreError::Compacted { .. })), "compacting twice: {again:?}");
    let future = store.compact(newest + 1_000_000).await;
    assert!(matches!(future, Err(StoreError::Future { .. })), "the future: {future:?}");
}

/// Many writers of one counter: every increment that was acknowledged is there, no revision is
/// given twice, and a watcher sees each.
async fn concurrency(store: Arc<dyn Store>) {
    const WRITERS: u64 = 8;
    const INCREMENTS: u64 = 20;
    clear(&*store).await;
    let mut seen = watch(&*store, KeyRange::key(key("counter")), None).await;
    put(&*store, "counter", "0").await;
    let writers = (0..WRITERS).map(|_| async {
        let mut revisions = Vec::new();
        while (revisions.len() as u64) < INCREMENTS {
            let range = RangeRequest::new(KeyRange::key(key("counter")));
            let found = store.range(range).await.expect("a range").entries.remove(0);
            let value: u64 = String::from_utf8_lossy(&found.value).parse().expect("a number");
            let next = (value + 1).to_string();
            let write = Write::update(key("counter"), found.mod_revision, next);
            if let WriteOutcome::Committed { revision, .. } =
                store.write(write).await.expect("a write")
            {
                revisions.push(revision);
            }
        }
        revisions
    });
    let revisions: Vec<Revision> = future::join_all(writers).await.concat();
    let total = WRITERS * INCREMENTS;
    assert_eq!(revisions.iter().collect::<BTreeSet<_>>().len() as u64, total);
    assert_eq!(values(&*store, None).await, [(key("counter"), total.to_string().into())]);
    let events = events(&mut seen, usize::try_from(total + 1).expect("small")).await;
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.entry.value, number.to_string(), "the counter went by ones");
    }
}

/// The suite for [`Leases`]. One lease is left to expire: a second on the store's clock.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn lease_conformance<S: Store + Leases>(store: &S) {
    clear(store).await;
    let leased = |name: &str, id| {
        let operation = Operation::Put { value: "x".into(), lease: Some(id) };
        Write { key: key(name), precondition: Precondition::None, operation }
    };
    let id = store.grant(None, 600).await.expect("a lease");
    assert!(matches!(store.grant(Some(id), 60).await, Err(StoreError::LeaseExists(i)) if i == id));
    assert!(matches!(store.grant(None, 0).await, Err(StoreError::Invalid(_))));
    assert_eq!(store.keep_alive(id).await.expect("a keep-alive"), Some(600));
    let mut seen = watch(store, KeyRange::prefix(ROOT), None).await;
    for name in ["l/1", "l/2", "l/3"] {
        committed(store, leased(name, id)).await;
    }
    // A put without the lease takes the key off it.
    put(store, "l/2", "free").await;
    events(&mut seen, 4).await;
    assert!(store.revoke(id).await.expect("a revocation"));
    let ended = events(&mut seen, 2).await;
    let one = ended.iter().all(|event| {
        event.kind == EventKind::Delete && event.entry.mod_revision == ended[0].entry.mod_revision
    });
    assert!(one, "a revocation is one revision of deletions: {ended:?}");
    assert_eq!(values(store, None).await, [(key("l/2"), "free".into())]);
    assert!(!store.revoke(id).await.expect("a second revocation"));
    assert_eq!(store.keep_alive(id).await.expect("a keep-alive"), None);
    let orphan = store.write(leased("l/4", id)).await;
    assert!(matches!(orphan, Err(StoreError::LeaseNotFound(i)) if i == id), "{orphan:?}");

    let short = store.grant(None, 1).await.expect("a lease");
    committed(store, leased("l/5", short)).await;
    let expired = events(&mut seen, 2).await;
    assert_eq!((expired[1].kind, &expired[1].entry.key), (EventKind::Delete, &key("l/5")));
    assert_eq!(store.keep_alive(short).await.expect("a keep-alive"), None);
    clear(store).await;
}
