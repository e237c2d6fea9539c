//! A store as one moment left it.

use crate::{
    StoreError,
    engine::Frozen,
    store::{Entry, KeyRange, RangeRequest, RangeResponse, Revision},
};

/// Everything that a store held at one moment, with its uncompacted history. Taken in constant
/// time; reading it takes no lock, and neither later writes nor compactions change it. It keeps
/// alive what it shows: drop it when done.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orch_store::StoreError> {
/// use orch_store::{KeyRange, MemoryStore, Store, Write};
///
/// let store = MemoryStore::default();
/// store.write(Write::create("/pods/a", "1")).await?;
/// let snapshot = store.snapshot();
/// store.write(Write::put("/pods/a", "2")).await?;
/// assert_eq!(snapshot.get(b"/pods/a").unwrap().value, "1");
/// assert_eq!(snapshot.entries(&KeyRange::prefix("/pods/")).count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    frozen: Frozen,
}

impl Snapshot {
    pub(crate) fn new(frozen: Frozen) -> Self {
        Self { frozen }
    }

    /// The revision of the moment.
    pub fn revision(&self) -> Revision {
        self.frozen.revision
    }

    /// One key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.frozen.keys.get(key).and_then(|head| head.live())
    }

    /// The keys of a range in order, nothing copied.
    pub fn entries<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Entry> {
        self.frozen.keys.range(range).filter_map(|head| head.live())
    }

    /// Answers a range as the store would have at that moment, at any revision that was not
    /// compacted then.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.frozen.range(request)
    }
}
