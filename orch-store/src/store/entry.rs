//! Keys, their values, and ranges of them.

use bytes::Bytes;

use super::{LeaseId, Revision};

/// A key with its value and history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value, shared, never copied.
    pub value: Bytes,
    /// The revision that created the key (in its present life).
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub mod_revision: Revision,
    /// How often it was written since it was created; 1 after the creation.
    pub version: u64,
    /// The lease that it is attached to, if any.
    pub lease: Option<LeaseId>,
}

/// A range of keys: from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// First key that is not in the range; `None` is open-ended.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// Every key that starts with `prefix`. The empty prefix is everything.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start, end: Some(end.into()) };
            }
        }
        Self { start, end: None }
    }

    /// The key, if the range is exactly one.
    pub fn single(&self) -> Option<&Bytes> {
        let (last, end) = self.end.as_deref()?.split_last()?;
        (*last == 0 && *end == self.start[..]).then_some(&self.start)
    }

    /// Whether the range is that of the empty key, which no store has.
    pub fn is_empty_key(&self) -> bool {
        self.start.is_empty() && self.single().is_some()
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// A question for the keys of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; `None` (and 0, as in etcd) is the newest.
    pub revision: Option<Revision>,
    /// At most so many entries; `None` is without limit.
    pub limit: Option<usize>,
    /// Count the keys, but give no entries.
    pub count_only: bool,
    /// Give entries with empty values.
    pub keys_only: bool,
}

impl RangeRequest {
    /// Everything in `range`, at the newest revision.
    pub fn new(range: KeyRange) -> Self {
        Self { range, revision: None, limit: None, count_only: false, keys_only: false }
    }
}

/// The keys of a range at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's newest revision when the range was read (also the revision read, if none was
    /// asked for).
    pub revision: Revision,
    /// The entries in the order of their keys.
    pub entries: Vec<Entry>,
    /// Whether the limit cut entries off. The next page starts at the last key followed by a zero
    /// byte.
    pub more: bool,
    /// How many keys the whole range holds, the limit notwithstanding.
    pub count: usize,
}
