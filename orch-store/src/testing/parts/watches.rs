//! Watches.

use futures::future;

use crate::{
    store::{EventKind, KeyRange, Store},
    testing::{
        space::{Space, all, key},
        watcher::revisions,
    },
};

/// So many watch at once.
const MANY: usize = 100;

/// What watchers of different ranges see, from now, the past and the future.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn watches(store: &dyn Store) {
    let space = Space::cleared(store).await;
    contents(space).await;
    starts(space).await;
    many(space).await;
}

/// Which changes, with what was there before.
async fn contents(space: Space<'_>) {
    let prefix = KeyRange::prefix(key("w/"));
    let bounded = KeyRange { start: key("w/a"), end: Some(key("w/b")) };
    let open = KeyRange { start: key("w/b"), end: None };
    let mut live = space.watch(prefix, None).await;
    let mut single = space.watch(KeyRange::key(key("w/b")), None).await;
    let mut bounded = space.watch(bounded, Some(0)).await;
    let mut open = space.watch(open, None).await;
    let first = space.put("w/a", "1").await;
    space.put("elsewhere", "x").await;
    space.put("w/b", "1").await;
    space.put("w/a", "2").await;
    let before = space.get("w/a").await;
    let deleted = space.delete("w/a").await;
    space.delete("w/a").await;
    let last = space.put("w/b", "2").await;
    space.put("w", "x").await;
    let all = live.events(5).await;
    let expected = [first, first + 2, first + 3, deleted, last];
    assert_eq!(revisions(&all), expected, "every change of the range, and no other");
    assert_eq!((all[0].kind, all[0].previous.as_ref()), (EventKind::Put, None), "a creation");
    assert_eq!(all[2].previous.as_ref(), Some(&all[0].entry), "a change tells what was before");
    assert_eq!(all[2].entry.version, 2, "an event has the entry whole");
    assert_eq!((all[3].kind, &all[3].entry.value[..]), (EventKind::Delete, &b""[..]), "a deletion");
    assert_eq!(all[3].entry.key, key("w/a"), "a deletion names the key");
    assert_eq!(all[3].previous, before, "a deletion tells what was before");
    let of_b = [all[1].clone(), all[4].clone()];
    assert_eq!(single.events(2).await, of_b, "a watch of one key");
    assert_eq!(open.events(2).await, of_b, "a watch without an end");
    let of_a = [all[0].clone(), all[2].clone(), all[3].clone()];
    assert_eq!(bounded.events(3).await, of_a, "the end of a watch's range is exclusive");
}

/// From the past on into the present, and from the future.
async fn starts(space: Space<'_>) {
    let range = KeyRange::prefix(key("s/"));
    let first = space.put("s/1", "1").await;
    space.put("elsewhere", "x").await;
    let third = space.delete("s/1").await;
    let mut whole = space.watch(range.clone(), Some(first)).await;
    let mut rest = space.watch(range.clone(), Some(first + 1)).await;
    let mut next = space.watch(range.clone(), Some(third + 1)).await;
    let mut now = space.watch(range.clone(), None).await;
    let mut future = space.watch(range, Some(third + 3)).await;
    for value in ["4", "5", "6", "7"] {
        space.put("s/2", value).await;
    }
    let whole = whole.events(6).await;
    let seen = revisions(&whole);
    let expected = [first, third, third + 1, third + 2, third + 3, third + 4];
    assert_eq!(seen, expected, "from the past into the present, without gap or repeat");
    let told = whole[1].previous.as_ref().map(|entry| &entry.value[..]);
    assert_eq!(told, Some(&b"1"[..]), "the past tells what was before, too");
    assert_eq!(rest.events(5).await, whole[1..], "the start is inclusive");
    assert_eq!(next.events(4).await, whole[2..], "from the next change");
    assert_eq!(now.events(4).await, whole[2..], "from the moment that the call returned");
    assert_eq!(future.events(2).await, whole[4..], "a watch from the future waits for it");
}

/// Many watchers see the same, each in its range, and one that leaves changes nothing.
async fn many(space: Space<'_>) {
    let range = |index: usize| match index % 3 {
        0 => KeyRange::prefix(key("m/")),
        1 => KeyRange::key(key(format_args!("m/{}", index % 10))),
        _ => KeyRange { start: key("m/3"), end: Some(key("m/7")) },
    };
    let watchers = (0..MANY).map(|index| space.watch(range(index), None));
    let mut watchers = future::join_all(watchers).await;
    let mut everything = space.watch(all(), None).await;
    for round in 0..3 {
        for name in 0..10 {
            space.put(&format!("m/{name}"), "x").await;
        }
        let truth = everything.events(10).await;
        let reads = watchers.iter_mut().enumerate().map(async |(index, watcher)| {
            let range = range(index);
            let wanted = truth.iter().filter(|event| range.contains(&event.entry.key));
            let wanted: Vec<_> = wanted.cloned().collect();
            let got = watcher.events(wanted.len()).await;
            assert_eq!(got, wanted, "watcher {index} of {range:?} in round {round}");
        });
        future::join_all(reads).await;
        // Some leave, having read everything.
        watchers.truncate(watchers.len() / 2);
    }
    let mut unread = space.watch(all(), None).await;
    space.put("m/0", "unread").await;
    let left = space.watch(all(), None).await;
    space.put("m/0", "left").await;
    drop(left);
    let last = space.put("m/0", "last").await;
    assert_eq!(everything.until(last).await.0.len(), 3, "others go on when one leaves");
    assert_eq!(unread.until(last).await.0.len(), 3, "others go on when one leaves");
}
