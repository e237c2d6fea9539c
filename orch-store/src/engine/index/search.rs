//! Where a key is among sorted ones, with as few looks at the keys themselves as possible.

use std::cmp::Ordering;

/// For a sorted list of keys: how long the prefix is that all of them share, and of each the eight
/// bytes that follow. A key lies somewhere else in memory; these lie side by side.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    prefix: usize,
    next: Vec<u64>,
}

/// The bytes from `at` on as a number that sorts as they do; bytes that are not there are zero.
fn hint(key: &[u8], at: usize) -> u64 {
    let rest = &key[at.min(key.len())..];
    match rest.first_chunk() {
        Some(whole) => u64::from_be_bytes(*whole),
        None => {
            let mut padded = [0; 8];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Hints {
    /// The hints of keys in order.
    pub(super) fn of<'a>(keys: impl DoubleEndedIterator<Item = &'a [u8]> + Clone) -> Self {
        let (Some(first), Some(last)) = (keys.clone().next(), keys.clone().next_back()) else {
            return Self::default();
        };
        let prefix = common(first, last);
        Self { prefix, next: keys.map(|key| hint(key, prefix)).collect() }
    }

    /// Where `key` is, or where it would be; `at` gives the keys.
    pub(super) fn search<'a>(
        &self,
        key: &[u8],
        at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        if self.next.is_empty() {
            return Err(0);
        }
        let shared = &at(0)[..self.prefix];
        let start = &key[..key.len().min(self.prefix)];
        match start.cmp(shared) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.next.len()),
            Ordering::Equal => {}
        }
        let wanted = hint(key, self.prefix);
        let from = self.next.partition_point(|hint| *hint < wanted);
        let same = self.next[from..].partition_point(|hint| *hint == wanted);
        let (mut low, mut high) = (from, from + same);
        while low < high {
            let middle = low + (high - low) / 2;
            match at(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Takes in a key that was inserted at `index`; `keys` are all of them, it included.
    pub(super) fn insert<'a>(
        &mut self,
        index: usize,
        key: &[u8],
        keys: impl DoubleEndedIterator<Item = &'a [u8]> + Clone,
    ) {
        let (first, last) = (keys.clone().next(), keys.clone().next_back());
        // The others share the prefix; the newcomer does if it shares it with one of them.
        let other = if index == 0 { last } else { first };
        if self.next.is_empty() || common(key, other.unwrap_or(key)) < self.prefix {
            *self = Self::of(keys);
        } else {
            self.next.insert(index, hint(key, self.prefix));
        }
    }

    /// Takes out the key at `index`.
    pub(super) fn remove(&mut self, index: usize) {
        self.next.remove(index);
    }
}
