//! Who scores the nodes that fit, and what comes of it.

use std::{collections::BTreeSet, sync::Arc};

use super::{Failure, Framework, asked, decision::Share, fault, illegal};
use crate::{
    cycle_state::CycleState,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, Reuse, SCORE_MAX},
    pod_info::PodInfo,
    snapshot::Snapshot,
    standing::{Raw, Scored, Standing},
    verdict::Verdict,
};

/// The plugins that score a pod, by their places in the profile.
#[derive(Default)]
pub(super) struct Scorers {
    /// Whose answers last until the node changes.
    pub(super) kept: Vec<usize>,
    /// Those of them whose answers are normalized.
    normalized: Vec<usize>,
    /// Who is asked for every pod.
    asked: Vec<usize>,
    /// Whether one of the latter must be asked about every node, not only about one of each group.
    pub(super) by_node: bool,
}

impl Framework {
    pub(super) fn scorers(&self, skipped: &BTreeSet<Arc<str>>) -> Scorers {
        let mut scorers = Scorers::default();
        for at in self.places(ExtensionPoint::Score).iter().copied() {
            let enabled = &self.plugins[at];
            let Some(score) = enabled.plugin.as_score() else { continue };
            if skipped.contains(&enabled.name) {
                continue;
            }
            match score.reuse() {
                Reuse::Never => {
                    scorers.asked.push(at);
                    scorers.by_node = true;
                }
                Reuse::Grouped => scorers.asked.push(at),
                Reuse::UntilNodeChanges => scorers.kept.push(at),
                Reuse::BeforeNormalization => {
                    scorers.kept.push(at);
                    scorers.normalized.push(at);
                }
            }
        }
        scorers
    }

    /// The filters are asked about one node of each bucket.

    pub(super) fn score_kept(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Scored, Failure> {
        let (mut sum, mut raw) = (0i64, Raw::new());
        for at in &scorers.kept {
            let enabled = &self.plugins[*at];
            let Some(score) = enabled.plugin.as_score() else { continue };
            let own = asked("Score", &enabled.name, || score.score(state, pod, node))?;
            if scorers.normalized.contains(at) {
                raw.push(own);
            } else {
                sum = sum.saturating_add(self.weighed(*at, own)?);
            }
        }
        Ok(Scored::new(sum, raw))
    }

    fn weighed(&self, at: usize, score: i64) -> Result<i64, Failure> {
        let enabled = &self.plugins[at];
        if (0..=SCORE_MAX).contains(&score) {
            return Ok(score.saturating_mul(enabled.weight));
        }
        let text = format!("returns an invalid score {score}, not 0 to {SCORE_MAX}");
        Err(fault("Score", &enabled.name, &text.into()))
    }

    /// What is added to each group of the open buckets. One node stands for all of its group.
    pub(super) fn shares(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        standing: &Standing,
        open: &[usize],
    ) -> Result<Vec<Share>, Failure> {
        let (mut shares, mut heads) = (Vec::new(), Vec::new());
        for bucket in open {
            for (raw, group) in standing.groups(*bucket) {
                let Some(head) = group.values().next().and_then(|ties| ties.first()) else {
                    continue;
                };
                shares.push(Share { bucket: *bucket, raw: raw.clone(), added: 0 });
                heads.push(snapshot.nodes()[*head].clone());
            }
        }
        let raws: Vec<&Raw> = shares.iter().map(|share| &share.raw).collect();
        let mut added = self.normalized(scorers, state, pod, &heads, &raws)?;
        self.add_asked(scorers, state, pod, &heads, &mut added)?;
        shares.iter_mut().zip(added).for_each(|(share, added)| share.added = added);
        Ok(shares)
    }

    /// What the normalized plugins add to each node, or group of nodes, of these raw scores.
    fn normalized(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        raws: &[&Raw],
    ) -> Result<Vec<i64>, Failure> {
        let mut added = vec![0i64; nodes.len()];
        for (nth, at) in scorers.normalized.iter().enumerate() {
            let scores = raws.iter().map(|raw| raw[nth]).collect();
            self.add_normalized(*at, state, pod, nodes, scores, &mut added)?;
        }
        Ok(added)
    }

    fn add_normalized(
        &self,
        at: usize,
        state: &CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        mut scores: Vec<i64>,
        totals: &mut [i64],
    ) -> Result<(), Failure> {
        let enabled = &self.plugins[at];
        let Some(score) = enabled.plugin.as_score() else { return Ok(()) };
        asked("Score", &enabled.name, || score.normalize(state, pod, nodes, &mut scores))?;
        for (total, score) in totals.iter_mut().zip(scores) {
            *total = total.saturating_add(self.weighed(at, score)?);
        }
        Ok(())
    }

    /// The totals of listed nodes: what was kept, and what is asked now.
    pub(super) fn total(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        standing: &Standing,
        snapshot: &Snapshot,
        positions: &[usize],
    ) -> Result<Vec<(Arc<str>, i64)>, Failure> {
        let nodes: Vec<_> = positions.iter().map(|at| snapshot.nodes()[*at].clone()).collect();
        let kept = positions.iter().filter_map(|position| standing.scored(*position));
        let kept: Vec<&Scored> = kept.collect();
        let raws: Vec<&Raw> = kept.iter().map(|scored| &scored.raw).collect();
        let mut totals = self.normalized(scorers, state, pod, &nodes, &raws)?;
        totals.iter_mut().zip(&kept).for_each(|(total, scored)| *total += scored.sum);
        self.add_asked(scorers, state, pod, &nodes, &mut totals)?;
        Ok(nodes.iter().map(|node| node.name().clone()).zip(totals).collect())
    }

    fn add_asked(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        totals: &mut [i64],
    ) -> Result<(), Failure> {
        for at in &scorers.asked {
            let enabled = &self.plugins[*at];
            let Some(score) = enabled.plugin.as_score() else { continue };
            let scores = asked("Score", &enabled.name, || {
                nodes.iter().map(|node| score.score(state, pod, node)).collect()
            })?;
            self.add_normalized(*at, state, pod, nodes, scores, totals)?;
        }
        Ok(())
    }

    /// Which plugins have nothing to score.
    pub(super) fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &Candidates<'_>,
        snapshot: &Snapshot,
    ) -> Result<BTreeSet<Arc<str>>, Failure> {
        let mut skipped = BTreeSet::new();
        for enabled in self.at(ExtensionPoint::PreScore) {
            let Some(pre_score) = enabled.plugin.as_pre_score() else { continue };
            let prepare = || pre_score.pre_score(state, pod, nodes, snapshot);
            match asked("PreScore", &enabled.name, prepare)? {
                Verdict::Success => {}
                Verdict::Skip => {
                    skipped.insert(enabled.name.clone());
                }
                verdict => return Err(illegal("PreScore", &enabled.name, &verdict)),
            }
        }
        Ok(skipped)
    }
}
