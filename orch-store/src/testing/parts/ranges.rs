//! Ranges of keys, now and in the past.

use bytes::Bytes;

use crate::{
    StoreError,
    store::{KeyRange, RangeRequest, Revision, Store},
    testing::space::{ROOT, Space, everything, key, names, raw_key},
};

/// Order, snapshots, pages, counts, and ranges of every shape.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn ranges(store: &dyn Store) {
    let space = Space::cleared(store).await;
    let empty = space.revision().await;
    for name in ["b", "a", "c", "a/x", "a0"] {
        space.put(name, name).await;
    }
    let snapshot = space.put("d", "d").await;
    space.delete("b").await;
    let newest = space.put("a", "changed").await;
    let now = space.range(everything(None)).await;
    assert_eq!(names(&now.entries), ["a", "a/x", "a0", "c", "d"], "in the order of bytes");
    assert_eq!((now.count, now.more, now.revision), (5, false, newest));
    assert_eq!(space.range(everything(Some(0))).await, now, "revision 0 is the newest");
    assert_eq!(space.range(everything(Some(newest))).await, now, "the newest, by its number");
    let past = space.range(everything(Some(snapshot))).await;
    assert_eq!(names(&past.entries), ["a", "a/x", "a0", "b", "c", "d"], "a snapshot of the past");
    let of_a = (&past.entries[0].value[..], past.entries[0].version, past.revision);
    assert_eq!(of_a, (&b"a"[..], 1, newest), "the past as it was, and the store's revision");
    let before = space.range(everything(Some(empty))).await;
    assert_eq!((before.entries.len(), before.count, before.more), (0, 0, false), "before it all");
    let future = store.range(everything(Some(newest + 1))).await;
    assert!(matches!(future, Err(StoreError::Future { .. })), "the future: {future:?}");

    pages(space, snapshot).await;
    limits(space, snapshot).await;
    shapes(space).await;
    bytes(space).await;
}

/// Pages at one revision, whatever happens between them.
async fn pages(space: Space<'_>, snapshot: Revision) {
    let mut pages = Vec::new();
    let mut request = RangeRequest { limit: Some(2), ..everything(Some(snapshot)) };
    loop {
        let page = space.range(request.clone()).await;
        assert_eq!(page.count, 6 - pages.len(), "the count is that of the whole rest");
        pages.extend(names(&page.entries));
        space.put("b", "again").await;
        space.delete("d").await;
        let Some(last) = page.entries.last().filter(|_| page.more) else { break };
        request.range.start = [&last.key[..], b"\0"].concat().into();
    }
    assert_eq!(pages, ["a", "a/x", "a0", "b", "c", "d"], "pages of one revision");
}

/// Limits, counts, and keys without values.
async fn limits(space: Space<'_>, snapshot: Revision) {
    for (limit, given, more) in
        [(None, 6, false), (Some(0), 0, true), (Some(1), 1, true), (Some(6), 6, false)]
            .into_iter()
            .chain([(Some(5), 5, true), (Some(7), 6, false)])
    {
        let page = space.range(RangeRequest { limit, ..everything(Some(snapshot)) }).await;
        let told = (page.entries.len(), page.more, page.count);
        assert_eq!(told, (given, more, 6), "entries, more and count at a limit of {limit:?}");
    }
    for limit in [None, Some(2)] {
        let count = RangeRequest { count_only: true, limit, ..everything(Some(snapshot)) };
        let count = space.range(count).await;
        let told = (count.count, count.entries.len(), count.more);
        assert_eq!(told, (6, 0, false), "a count is of everything, and gives no entries");
    }
    let whole = space.range(everything(Some(snapshot))).await;
    let keys = RangeRequest { keys_only: true, ..everything(Some(snapshot)) };
    let keys = space.range(keys).await;
    assert_eq!((keys.count, keys.more), (6, false), "keys are counted");
    for (key, entry) in keys.entries.iter().zip(&whole.entries) {
        assert!(key.value.is_empty(), "only keys were asked for: {key:?}");
        let history = (&key.key, key.create_revision, key.mod_revision, key.version);
        let expected = (&entry.key, entry.create_revision, entry.mod_revision, entry.version);
        assert_eq!(history, expected, "keys come with their history");
    }
}

/// Ranges from here to there, in every direction.
async fn shapes(space: Space<'_>) {
    space.delete("b").await;
    space.put("d", "d").await;
    let of = |start: &str, end: &str| KeyRange { start: key(start), end: Some(key(end)) };
    for (range, expected, why) in [
        (of("a0", "c"), &["a0"][..], "the end is exclusive"),
        (of("a0", "c\0"), &["a0", "c"], "the end is exclusive"),
        (of("", "a0"), &["a", "a/x"], "the start is inclusive"),
        (of("c", "a"), &[], "a reversed range is empty"),
        (of("a", "a"), &[], "a range that ends where it begins is empty"),
        (of("a1", "a2"), &[], "between two keys is nothing"),
        (KeyRange::key(key("a")), &["a"], "a key is not its extensions"),
        (KeyRange::key(key("b")), &[], "a deleted key is not there"),
        (KeyRange::prefix(key("a/")), &["a/x"], "a prefix"),
        (KeyRange::prefix(key("a")), &["a", "a/x", "a0"], "a prefix has its own key"),
    ] {
        let found = space.range(RangeRequest::new(range)).await;
        assert_eq!(names(&found.entries), expected, "{why}");
        assert_eq!((found.count, found.more), (expected.len(), false), "{why}");
    }
    let open = RangeRequest::new(KeyRange { start: key("c"), end: None });
    let open = space.range(open).await;
    let mine = open.entries.iter().filter(|entry| entry.key.starts_with(ROOT.as_bytes()));
    let mine: Vec<_> = mine.cloned().collect();
    assert_eq!(names(&mine), ["c", "d"], "a range without an end goes on to the last key");
    let whole = space.range(RangeRequest::new(KeyRange::prefix(""))).await;
    assert!(whole.entries.is_sorted_by(|a, b| a.key < b.key), "every key, once, in order");
    assert_eq!(whole.count, whole.entries.len());
    let mine = whole.entries.iter().filter(|entry| entry.key.starts_with(ROOT.as_bytes()));
    assert_eq!(mine.count(), 5, "the empty prefix is everything");
    match space.store.range(RangeRequest::new(KeyRange::key(""))).await {
        Ok(nothing) => assert_eq!(nothing.count, 0, "no store has the empty key: {nothing:?}"),
        Err(error) => assert!(matches!(error, StoreError::Invalid(_)), "the empty key: {error:?}"),
    }
}

/// Keys are bytes and ordered as such.
async fn bytes(space: Space<'_>) {
    let keys: [&[u8]; 8] =
        [b"x", b"x\0", b"x\0\0", b"x\x01", b"x\x7f", b"x\x80", b"x\xff", b"x\xff\xff"];
    for name in keys.iter().rev() {
        let write = crate::Write::put(raw_key(name), Bytes::copy_from_slice(name));
        space.committed(write).await;
    }
    space.put("y", "y").await;
    let found = space.range(RangeRequest::new(KeyRange::prefix(key("x")))).await;
    let names: Vec<_> = found.entries.iter().map(|entry| &entry.key[ROOT.len()..]).collect();
    assert_eq!(names, keys, "keys are in the order of their bytes");
    assert!(found.entries.iter().zip(keys).all(|(entry, name)| entry.value == name));
    let highest = space.range(RangeRequest::new(KeyRange::prefix(raw_key(b"x\xff")))).await;
    assert_eq!(highest.count, 2, "the prefix after which no byte is greater");
    let one = space.range(RangeRequest::new(KeyRange::key(raw_key(b"x\0")))).await;
    assert_eq!(one.count, 1, "a key that ends with a zero byte is one key");
}
