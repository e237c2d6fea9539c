//! Completion indexes, and sets of them as a status has them: `1,3-5,7`.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/job/indexed_job_utils.go`.

use std::{collections::BTreeSet, fmt::Write};

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label with a pod's completion index.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) fn of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()
}

/// Reads a set; what lies beyond the completions, or cannot be understood, is left out.
pub(super) fn parse(text: &str, completions: u32) -> BTreeSet<u32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            indexes.extend(first..=last.min(completions.saturating_sub(1)));
        }
    }
    indexes.retain(|index| *index < completions);
    indexes
}

/// Writes a set: three or more in a row as a range.
pub(super) fn print(indexes: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _infallible = match last - first {
            0 => write!(text, "{first}"),
            1 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_their_text() {
        let check = |indexes: &[u32], text: &str| {
            let set: BTreeSet<u32> = indexes.iter().copied().collect();
            assert_eq!(print(&set), text);
            assert_eq!(parse(text, 100), set);
        };
        check(&[], "");
        check(&[0], "0");
        check(&[1, 3, 4, 5, 7], "1,3-5,7");
        check(&[1, 2, 9], "1,2,9");
        assert_eq!(parse("x,3-4294967295,-,7", 5), BTreeSet::from([3, 4]));
    }
}
