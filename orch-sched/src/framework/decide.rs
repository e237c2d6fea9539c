//! Decisions that look again only at what changed: pods that are alike share their answers.

use std::{collections::BTreeSet, sync::Arc};

use orch_core::random::Random;
use smallvec::SmallVec;

use super::{Diagnosis, Failure, Framework, Narrowed, Rejection, Search, fault, illegal};
use crate::{
    cycle_state::CycleState,
    node_info::NodeInfo,
    plugin::{Reuse, SCORE_MAX},
    pod_info::PodInfo,
    snapshot::Snapshot,
    standing::{Raw, Scored, Standing},
    verdict::Verdict,
};

/// For how many kinds of pods the state of all nodes is kept; the longest out of use goes first.
const STANDINGS_MAX: usize = 64;

/// The plugins that score a pod, by their places in the profile.
struct Scorers {
    /// Whose answers last until the node changes.
    kept: Vec<usize>,
    /// Those of them whose answers are normalized.
    normalized: Vec<usize>,
    /// Who must be asked for every pod.
    asked: Vec<usize>,
}

/// The nodes that fit a pod with their scores.
pub(super) enum Decision {
    /// Every node by itself.
    Listed(Vec<(Arc<str>, i64)>),
    /// Nodes in groups of the same raw scores; what normalization adds to each group.
    Ranked(Box<Standing>, Vec<i64>),
}

impl Decision {
    pub(super) fn all(&self, snapshot: &Snapshot) -> Vec<(Arc<str>, i64)> {
        match self {
            Self::Listed(all) => all.clone(),
            Self::Ranked(standing, added) => {
                let groups = standing.groups().values().zip(added);
                let nodes = groups.flat_map(|(group, added)| {
                    group
                        .iter()
                        .flat_map(move |(sum, ties)| ties.iter().map(move |t| (t, sum + added)))
                });
                let nodes = nodes.map(|(at, total)| (snapshot.nodes()[*at].name().clone(), total));
                nodes.collect()
            }
        }
    }

    /// The best nodes of a ranking, as lists of positions.
    fn ties<'a>(standing: &'a Standing, added: &[i64]) -> Vec<&'a Vec<usize>> {
        let tops = || {
            let groups = standing.groups().values().zip(added);
            groups.filter_map(|(group, added)| {
                let (sum, ties) = group.last_key_value()?;
                Some((sum + added, ties))
            })
        };
        let best = tops().map(|(total, _)| total).max();
        tops().filter(|(total, _)| Some(*total) == best).map(|(_, ties)| ties).collect()
    }

    pub(super) fn best(&self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        match self {
            Self::Listed(all) => {
                let best = all.iter().map(|(_, total)| *total).max();
                let ties = all.iter().filter(|(_, total)| Some(*total) == best);
                ties.map(|(node, _)| node.clone()).collect()
            }
            Self::Ranked(standing, added) => {
                let ties = Self::ties(standing, added);
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
            Self::Ranked(standing, added) => {
                let ties = Self::ties(standing, added);
                let at = pick(ties.iter().map(|ties| ties.len()).sum());
                let position = ties.into_iter().flatten().nth(at)?;
                Some(snapshot.nodes()[*position].name().clone())
            }
        }
    }
}

impl Framework {
    /// What is known of pods like this one; put back by [`Framework::put_back`].
    fn take_standing(&self, pod: &PodInfo) -> Standing {
        let mut standings = self.standings.lock();
        let found = standings.iter().position(|standing| standing.is_of(pod));
        found.map_or_else(|| Standing::new(pod.pod().clone()), |at| standings.remove(at))
    }

    fn put_back(&self, standing: Standing) {
        let mut standings = self.standings.lock();
        standings.insert(0, standing);
        standings.truncate(STANDINGS_MAX);
    }

    /// Gives a decision's state back for the next pod.
    pub(super) fn release(&self, decision: Decision) {
        if let Decision::Ranked(standing, _) = decision {
            self.put_back(*standing);
        }
    }

    /// The nodes that fit a pod with their scores; at least one.
    pub(super) fn decide(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Decision, Failure> {
        if let Some(error) = pod.error() {
            return Err(Failure::Fault(error.to_owned()));
        }
        let mut diagnosis = self.diagnosis(snapshot)?;
        let (skipped, narrowed) = self.pre_filter(state, pod, snapshot, &mut diagnosis)?;
        let sampled = self.percentage.is_some_and(|percent| percent < 100);
        if sampled || narrowed.is_some() {
            let filtered: Narrowed = (skipped, narrowed);
            let feasible = self.search(state, pod, snapshot, filtered, diagnosis)?;
            let totals = self.scores(state, pod, &feasible, snapshot)?;
            let names = feasible.iter().map(|node| node.name().clone());
            return Ok(Decision::Listed(names.zip(totals).collect()));
        }
        let mut standing = self.take_standing(pod);
        let (kept, asked) = self.split_filters(&skipped);
        let search = |filters: &[usize]| Search::of(self.filters_at(filters));
        let first = search(&kept);
        standing.refilter(snapshot, &kept, |node| first.rejection(state, pod, node))?;
        if asked.is_empty() {
            return self.rank(state, pod, snapshot, standing, diagnosis);
        }
        let second = search(&asked);
        let listed = self.list(state, pod, snapshot, &mut standing, &second, diagnosis);
        if !matches!(listed, Err(Failure::Fault(_))) {
            self.put_back(standing);
        }
        listed
    }

    /// The filters whose answers last, and those that are asked for every pod. The first rejection
    /// is what users read, so only filters before the first of the latter kind are kept apart.
    fn split_filters(&self, skipped: &BTreeSet<Arc<str>>) -> (Vec<usize>, Vec<usize>) {
        let active = self.plugins.iter().enumerate();
        let active = active.filter(|(_, enabled)| !skipped.contains(&enabled.name));
        let mut filters = active.filter_map(|(at, e)| Some((at, e.plugin.as_filter()?.reuse())));
        let mut kept = Vec::new();
        for (at, reuse) in filters.by_ref() {
            if reuse == Reuse::Never {
                return (kept, [at].into_iter().chain(filters.map(|(at, _)| at)).collect());
            }
            kept.push(at);
        }
        (kept, Vec::new())
    }

    fn scorers(&self, skipped: &BTreeSet<Arc<str>>) -> Scorers {
        let mut scorers = Scorers { kept: Vec::new(), normalized: Vec::new(), asked: Vec::new() };
        for (at, enabled) in self.plugins.iter().enumerate() {
            let Some(score) = enabled.plugin.as_score() else { continue };
            if skipped.contains(&enabled.name) {
                continue;
            }
            match score.reuse() {
                Reuse::Never => scorers.asked.push(at),
                Reuse::UntilNodeChanges => scorers.kept.push(at),
                Reuse::BeforeNormalization => {
                    scorers.kept.push(at);
                    scorers.normalized.push(at);
                }
            }
        }
        scorers
    }

    /// Every node that the kept filters let through is a candidate.
    fn rank(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        mut standing: Standing,
        mut diagnosis: Box<Diagnosis>,
    ) -> Result<Decision, Failure> {
        if standing.feasible().0.is_empty() {
            diagnosis.reject(standing.rejections());
            self.put_back(standing);
            return Err(Failure::Unschedulable(diagnosis));
        }
        let skipped = self.pre_score(state, pod, standing.feasible().0, snapshot)?;
        let scorers = self.scorers(&skipped);
        standing.rescore(&scorers.kept, |node| self.score_kept(&scorers, state, pod, node))?;
        if !scorers.asked.is_empty() {
            let (nodes, positions) = standing.feasible();
            let listed = self.total(&scorers, state, pod, &standing, nodes, positions)?;
            self.put_back(standing);
            return Ok(Decision::Listed(listed));
        }
        let nodes = |ties: &Vec<usize>| snapshot.nodes()[ties[0]].clone();
        let groups = standing.groups();
        // One node stands for all of its group: normalization looks at the scores alone.
        let heads = groups.values().filter_map(|group| group.values().next().map(nodes));
        let heads: Vec<Arc<NodeInfo>> = heads.collect();
        let raws: Vec<&Raw> = groups.keys().collect();
        let added = self.normalized(&scorers, state, pod, &heads, &raws)?;
        Ok(Decision::Ranked(Box::new(standing), added))
    }

    /// The candidates are asked one by one.
    fn list(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        standing: &mut Standing,
        search: &Search<'_>,
        mut diagnosis: Box<Diagnosis>,
    ) -> Result<Decision, Failure> {
        let (mut nodes, mut positions, mut rejections) = (Vec::new(), Vec::new(), Vec::new());
        let (candidates, at) = standing.feasible();
        for (node, position) in candidates.iter().zip(at) {
            match search.rejection(state, pod, node)? {
                Some(rejection) => rejections.push(rejection),
                None => {
                    nodes.push(node.clone());
                    positions.push(*position);
                }
            }
        }
        if nodes.is_empty() {
            rejections.extend(standing.rejections());
            diagnosis.reject(rejections);
            return Err(Failure::Unschedulable(diagnosis));
        }
        let skipped = self.pre_score(state, pod, &nodes, snapshot)?;
        let scorers = self.scorers(&skipped);
        standing.rescore(&scorers.kept, |node| self.score_kept(&scorers, state, pod, node))?;
        let listed = self.total(&scorers, state, pod, standing, &nodes, &positions)?;
        Ok(Decision::Listed(listed))
    }

    fn score_kept(
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
            let own = score.score(state, pod, node);
            let own = own.map_err(|error| fault("Score", &enabled.name, &error))?;
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
        let normalized = score.normalize(state, pod, nodes, &mut scores);
        normalized.map_err(|error| fault("Score", &enabled.name, &error))?;
        for (total, score) in totals.iter_mut().zip(scores) {
            *total = total.saturating_add(self.weighed(at, score)?);
        }
        Ok(())
    }

    /// The totals of listed nodes: what was kept, and what is asked now.
    fn total(
        &self,
        scorers: &Scorers,
        state: &CycleState,
        pod: &PodInfo,
        standing: &Standing,
        nodes: &[Arc<NodeInfo>],
        positions: &[usize],
    ) -> Result<Vec<(Arc<str>, i64)>, Failure> {
        let kept: SmallVec<[&Scored; 16]> =
            positions.iter().filter_map(|position| standing.scored(*position)).collect();
        let raws: Vec<&Raw> = kept.iter().map(|scored| &scored.raw).collect();
        let mut totals = self.normalized(scorers, state, pod, nodes, &raws)?;
        totals.iter_mut().zip(&kept).for_each(|(total, scored)| *total += scored.sum);
        for at in &scorers.asked {
            let enabled = &self.plugins[*at];
            let Some(score) = enabled.plugin.as_score() else { continue };
            let scores = nodes.iter().map(|node| score.score(state, pod, node));
            let scores: Result<Vec<i64>, _> = scores.collect();
            let scores = scores.map_err(|error| fault("Score", &enabled.name, &error))?;
            self.add_normalized(*at, state, pod, nodes, scores, &mut totals)?;
        }
        Ok(nodes.iter().map(|node| node.name().clone()).zip(totals).collect())
    }

    /// Which plugins have nothing to score.
    pub(super) fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<BTreeSet<Arc<str>>, Failure> {
        let mut skipped = BTreeSet::new();
        for enabled in &self.plugins {
            let Some(pre_score) = enabled.plugin.as_pre_score() else { continue };
            let verdict = pre_score.pre_score(state, pod, nodes, snapshot);
            match verdict.map_err(|error| fault("PreScore", &enabled.name, &error))? {
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

impl Diagnosis {
    pub(super) fn reject(&mut self, rejections: Vec<Rejection>) {
        let plugins = rejections.iter().map(|one| one.plugin.clone());
        self.rejected_by.extend(plugins);
        self.rejections = rejections;
    }
}
