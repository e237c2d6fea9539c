//! Writes of one key.

use bytes::Bytes;

use crate::{
    StoreError,
    store::{Precondition, Store, Write},
    testing::space::{Space, key, raw_key},
};

/// Creation, guarded change and deletion of single keys; what a refusal tells.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn writes(store: &dyn Store) {
    let space = Space::cleared(store).await;
    lives(space).await;
    guards(space).await;
    contents(space).await;
    let before = space.revision().await;
    let empty = store.write(Write::put("", "x")).await;
    assert!(matches!(empty, Err(StoreError::Invalid(_))), "an empty key is refused: {empty:?}");
    let empty = store.write(Write::delete("", Precondition::None)).await;
    assert!(matches!(empty, Err(StoreError::Invalid(_))), "an empty key is refused: {empty:?}");
    assert_eq!(space.revision().await, before, "an invalid write changes nothing");
}

/// What a key's history looks like from its creation to its next life.
async fn lives(space: Space<'_>) {
    let start = space.revision().await;
    let (first, previous) = space.committed(Write::create(key("a"), "1")).await;
    assert_eq!((first, previous), (start + 1, None), "a creation takes the next revision");
    let created = space.get("a").await.expect("what was created is there");
    let history = (created.create_revision, created.mod_revision, created.version);
    assert_eq!((history, created.lease), ((first, first, 1), None), "of a creation");

    let (second, previous) = space.committed(Write::update(key("a"), first, "2")).await;
    assert_eq!(second, first + 1, "a change takes the next revision");
    assert_eq!(previous, Some(created), "a write tells what it replaced");
    let third = space.put("a", "2").await;
    assert_eq!(third, second + 1, "writing the same value is a change");
    let entry = space.get("a").await.expect("what was changed is there");
    let history = (entry.create_revision, entry.mod_revision, entry.version);
    assert_eq!(history, (first, third, 3), "changes keep the creation and count up the version");

    let guarded = Write::delete(key("a"), Precondition::ModRevision(third));
    assert_eq!(space.committed(guarded).await, (third + 1, Some(entry)), "of a deletion");
    assert_eq!(space.get("a").await, None, "what was deleted is gone");
    let absent = space.committed(Write::delete(key("a"), Precondition::None)).await;
    assert_eq!(absent, (third + 1, None), "deleting what is not there changes nothing");
    let again = space.put("a", "new life").await;
    let entry = space.get("a").await.expect("what was created again is there");
    let history = (entry.create_revision, entry.mod_revision, entry.version);
    assert_eq!(history, (again, again, 1), "a new life begins from nothing");
}

/// Guards hold or are refused, and a refusal tells what is there.
async fn guards(space: Space<'_>) {
    let first = space.put("g", "1").await;
    let newest = space.put("g", "2").await;
    let present = space.get("g").await;
    for stale in [
        Write::create(key("g"), "3"),
        Write::update(key("g"), first, "3"),
        Write::update(key("g"), newest + 1, "3"),
        Write::update(key("g"), 0, "3"),
        Write::delete(key("g"), Precondition::Absent),
        Write::delete(key("g"), Precondition::ModRevision(first)),
    ] {
        let (current, revision) = space.refused(stale.clone()).await;
        assert_eq!((&current, revision), (&present, newest), "what a refusal of {stale:?} tells");
    }
    for stale in [
        Write::update(key("none"), first, "3"),
        Write::delete(key("none"), Precondition::ModRevision(first)),
    ] {
        let (current, revision) = space.refused(stale.clone()).await;
        assert_eq!((current, revision), (None, newest), "what a refusal of {stale:?} tells");
    }
    assert_eq!(space.revision().await, newest, "refusals change nothing");
    let zero = space.committed(Write::update(key("zero"), 0, "1")).await;
    assert_eq!(zero, (newest + 1, None), "revision 0 guards like absence");
    let nothing = Write::delete(key("none"), Precondition::Absent);
    let nothing = space.committed(nothing).await;
    assert_eq!(nothing, (newest + 1, None), "deleting what must be absent changes nothing");
}

/// Keys and values are bytes, of any kind and size.
async fn contents(space: Space<'_>) {
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    let contents = [
        (raw_key(b"binary/\0"), Bytes::new()),
        (raw_key(b"binary/\0\0"), Bytes::from_static(b"\0\xff\r\n")),
        (raw_key(b"binary/\xfe\xff"), Bytes::from_static("\u{1f980}".as_bytes())),
        (raw_key(&[0xff; 1000]), megabyte),
    ];
    for (key, value) in &contents {
        space.committed(Write::create(key.clone(), value.clone())).await;
    }
    for (key, value) in &contents {
        let (_, previous) = space.committed(Write::delete(key.clone(), Precondition::None)).await;
        let previous = previous.expect("a deletion tells what it removed");
        assert!(previous.key == key && previous.value == value, "{key:?} is not as written");
    }
}
