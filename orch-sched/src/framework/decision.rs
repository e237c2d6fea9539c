//! The nodes that fit a pod, ranked.

use std::sync::Arc;

use orch_core::random::Random;

use crate::{
    snapshot::Snapshot,
    standing::{Group, Raw, Standing},
};

/// What is added to the kept scores of the nodes of one bucket and the same raw scores.
pub(super) struct Share {
    pub(super) bucket: usize,
    pub(super) raw: Raw,
    pub(super) added: i64,
}

/// The nodes that fit a pod with their scores.
pub(super) enum Decision {
    /// Every node by itself.
    Listed(Vec<(Arc<str>, i64)>),
    /// Nodes in groups of the same scores.
    Ranked(Box<Standing>, Vec<Share>),
}

impl Decision {
    /// The groups of a ranking with what is added to the sums of each.
    fn groups<'a>(
        standing: &'a Standing,
        shares: &'a [Share],
    ) -> impl Iterator<Item = (&'a Group, i64)> {
        let group =
            |share: &'a Share| Some((standing.group(share.bucket, &share.raw)?, share.added));
        shares.iter().filter_map(group)
    }

    pub(super) fn all(&self, snapshot: &Snapshot) -> Vec<(Arc<str>, i64)> {
        match self {
            Self::Listed(all) => all.clone(),
            Self::Ranked(standing, shares) => {
                let mut all = Vec::new();
                for (group, added) in Self::groups(standing, shares) {
                    for (sum, ties) in group {
                        let names = ties.iter().map(|at| snapshot.nodes()[*at].name().clone());
                        all.extend(names.map(|name| (name, sum + added)));
                    }
                }
                all
            }
        }
    }

    /// The best nodes of a ranking, as lists of positions.
    fn ties<'a>(standing: &'a Standing, shares: &'a [Share]) -> Vec<&'a Vec<usize>> {
        let (mut best, mut ties) = (i64::MIN, Vec::new());
        for (group, added) in Self::groups(standing, shares) {
            let Some((sum, own)) = group.last_key_value() else { continue };
            let total = sum + added;
            if total > best {
                best = total;
                ties.clear();
            }
            if total == best {
                ties.push(own);
            }
        }
        ties
    }

    pub(super) fn best(&self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        match self {
            Self::Listed(all) => {
                let best = all.iter().map(|(_, total)| *total).max();
                let ties = all.iter().filter(|(_, total)| Some(*total) == best);
                ties.map(|(node, _)| node.clone()).collect()
            }
            Self::Ranked(standing, shares) => {
                let ties = Self::ties(standing, shares);
                ties.into_iter().flatten().map(|at| snapshot.nodes()[*at].name().clone()).collect()
            }
        }
    }

    /// One of the best.
    pub(super) fn choose(&self, snapshot: &Snapshot, random: &dyn Random) -> Option<Arc<str>> {
        let pick = |count: usize| if count < 2 { 0 } else { random.below(count as u64) as usize };
        match self {
            Self::Listed(_) => {
                let mut best = self.best(snapshot);
                (!best.is_empty()).then(|| best.swap_remove(pick(best.len())))
            }
            Self::Ranked(standing, shares) => {
                let ties = Self::ties(standing, shares);
                let mut at = pick(ties.iter().map(|ties| ties.len()).sum());
                for ties in ties {
                    if let Some(position) = ties.get(at) {
                        return Some(snapshot.nodes()[*position].name().clone());
                    }
                    at -= ties.len();
                }
                None
            }
        }
    }
}
