//! Completion indexes, and sets of them as a status has them: `1,3-5,7`.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job/indexed_job_utils.go`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label with a pod's completion index.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) fn of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()
}

/// A set of indexes, kept as its text has it: what a job of a hundred thousand has completed is a
/// few ranges, whatever their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// The first of each range, and its last. Ranges neither overlap nor touch.
    ranges: BTreeMap<u32, u32>,
    len: usize,
}

fn length(first: u32, last: u32) -> usize {
    (last - first) as usize + 1
}

impl Indexes {
    /// Reads a set; what lies beyond the completions, or cannot be understood, is left out.
    pub(super) fn parse(text: &str, completions: u32) -> Self {
        let mut indexes = Self::default();
        let Some(most) = completions.checked_sub(1) else { return indexes };
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                indexes.insert_range(first, last.min(most));
            }
        }
        indexes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    fn insert_range(&mut self, mut first: u32, mut last: u32) {
        if first > last {
            return;
        }
        // From the last one that may touch it downwards; each is taken in.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            self.ranges.remove(&start);
            self.len -= length(start, end);
            (first, last) = (first.min(start), last.max(end));
        }
        self.ranges.insert(first, last);
        self.len += length(first, last);
    }

    /// The parts of ranges within these bounds.
    fn within(&self, first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> {
        let before = self.ranges.range(..=first).next_back();
        let from = before.filter(|(_, end)| **end >= first).map_or(first, |(start, _)| *start);
        let ranges = self.ranges.range(from..=last.max(from));
        ranges.map(move |(start, end)| ((*start).max(first), (*end).min(last)))
    }

    /// How many indexes are in both.
    pub(super) fn common(&self, other: &Self) -> usize {
        let parts = self.ranges.iter().flat_map(|(first, last)| other.within(*first, *last));
        parts.map(|(first, last)| length(first, last)).sum()
    }

    /// Those that are not in the other one.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (&first, &last) in &self.ranges {
            let mut from = Some(first);
            for (start, end) in other.within(first, last) {
                if let Some(from) = from.filter(|from| *from < start) {
                    rest.insert_range(from, start - 1);
                }
                from = end.checked_add(1);
            }
            if let Some(from) = from {
                rest.insert_range(from, last);
            }
        }
        rest
    }

    /// Those below the completions that are not in here, in order.
    pub(super) fn missing(&self, completions: u32) -> impl Iterator<Item = u32> {
        let mut all = Self::default();
        if let Some(last) = completions.checked_sub(1) {
            all.insert_range(0, last);
        }
        all.without(self).ranges.into_iter().flat_map(|(first, last)| first..=last)
    }
}

impl Extend<u32> for Indexes {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, indexes: I) {
        indexes.into_iter().for_each(|index| self.insert_range(index, index));
    }
}

impl FromIterator<u32> for Indexes {
    fn from_iter<I: IntoIterator<Item = u32>>(indexes: I) -> Self {
        let mut all = Self::default();
        all.extend(indexes);
        all
    }
}

/// Three or more in a row are a range.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use orch_core::random::{Random, SeededRandom};

    use super::*;

    #[test]
    fn sets_survive_their_text() {
        let check = |indexes: &[u32], text: &str| {
            let set: Indexes = indexes.iter().copied().collect();
            assert_eq!(set.to_string(), text);
            assert_eq!(Indexes::parse(text, 100), set);
        };
        check(&[], "");
        check(&[0], "0");
        check(&[1, 3, 4, 5, 7], "1,3-5,7");
        check(&[1, 2, 9], "1,2,9");
        let check = |text: &str, completions, expected: &str| {
            assert_eq!(Indexes::parse(text, completions).to_string(), expected, "{text}");
        };
        check("x,3-4294967295,-,7", 5, "3,4");
        check("4294967294-4294967295", u32::MAX, "4294967294");
        check("5-3,2-4,3-6,9", 8, "2-6");
        check("0-9", 0, "");
    }

    /// Against plain sets of numbers.
    #[test]
    fn ranges_mean_what_plain_sets_mean() {
        let random = SeededRandom::new(7);
        let draw = |below: u64| u32::try_from(random.below(below)).unwrap();
        for _ in 0..500 {
            let count = draw(30);
            let pair = || {
                let mut plain = BTreeSet::new();
                let mut ranges = Indexes::default();
                for _ in 0..count {
                    let (first, length) = (draw(60), draw(4));
                    let last = (first + length).min(59);
                    plain.extend(first..=last);
                    ranges.insert_range(first, last);
                }
                (plain, ranges)
            };
            let ((a, in_a), (b, in_b)) = (pair(), pair());
            assert_eq!(in_a, a.iter().copied().collect::<Indexes>());
            assert_eq!((in_a.len(), in_a.is_empty()), (a.len(), a.is_empty()));
            assert!((0..61).all(|index| in_a.contains(index) == a.contains(&index)));
            assert_eq!(in_a.common(&in_b), a.intersection(&b).count());
            assert_eq!(in_a.without(&in_b), a.difference(&b).copied().collect::<Indexes>());
            let missing: Vec<u32> = (0..50).filter(|index| !a.contains(index)).collect();
            assert_eq!(in_a.missing(50).collect::<Vec<_>>(), missing);
            assert_eq!(Indexes::parse(&in_a.to_string(), 60), in_a);
        }
    }
}
