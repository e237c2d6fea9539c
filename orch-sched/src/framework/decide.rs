//! Decisions that look again only at what changed: pods that are alike share their answers.

use std::{collections::BTreeSet, sync::Arc};

use orch_core::random::Random;
use smallvec::SmallVec;

use super::{Diagnosis, Failure, Framework, Rejection, Search, asked, fault, illegal};
use crate::{
    cycle_state::CycleState,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, GroupKey, Grouping, Reuse, SCORE_MAX},
    pod_info::PodInfo,
    snapshot::Snapshot,
    standing::{Asked, Group, Raw, Scored, Standing},
    verdict::Verdict,
};

/// For how many kinds of pods the state of all nodes is kept; the longest out of use goes first.
const STANDINGS_MAX: usize = 64;

/// For how many versions of one kind of pods the state of all nodes is kept.
const VERSIONS_MAX: usize = 4;

/// The plugins that score a pod, by their places in the profile.
#[derive(Default)]
struct Scorers {
    /// Whose answers last until the node changes.
    kept: Vec<usize>,
    /// Those of them whose answers are normalized.
    normalized: Vec<usize>,
    /// Who is asked for every pod.
    asked: Vec<usize>,
    /// Whether one of the latter must be asked about every node, not only about one of each group.
    by_node: bool,
}

/// What is added to the kept scores of the nodes of one bucket and the same raw scores.
pub(super) struct Share {
    bucket: usize,
    raw: Raw,
    added: i64,
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

impl Framework {
    /// What is known of pods like this one; put back by [`Framework::put_back`]. Pods that are alike
    /// may use volumes of several zones and so on: what is known of a few such versions is kept.
    fn take_standing(&self, pod: &PodInfo, asked: &Asked) -> Standing {
        let mut standings = self.standings.lock();
        let alike = standings.iter().enumerate().filter(|(_, standing)| standing.is_of(pod));
        let (mut count, mut oldest, mut same) = (0, None, None);
        for (at, standing) in alike {
            (count, oldest) = (count + 1, Some(at));
            if standing.is_about(asked) {
                same = Some(at);
                break;
            }
        }
        let found = same.or(oldest.filter(|_| count >= VERSIONS_MAX));
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
        let narrowed = self.pre_filter(state, pod, snapshot, &mut diagnosis)?;
        if let Some(node) = self.promised(state, pod, snapshot, &diagnosis)? {
            return Ok(Decision::Listed(vec![(node, 0)]));
        }
        let sampled = self.percentage.is_some_and(|percent| percent < 100);
        if sampled || narrowed.is_some() {
            let feasible = self.search(state, pod, snapshot, narrowed.as_ref(), diagnosis)?;
            let totals = self.scores(state, pod, &feasible, snapshot)?;
            let names = feasible.iter().map(|node| node.name().clone());
            return Ok(Decision::Listed(names.zip(totals).collect()));
        }
        let (kept, asked) = self.split_filters(&diagnosis.skipped);
        let first = Search::of(self.filters_at(&kept));
        let groupings = self.groupings();
        let versions = groupings.iter().map(|grouping| grouping.version(state)).collect();
        let about = Asked { filters: kept, versions };
        let mut standing = self.take_standing(pod, &about);
        standing.refilter(snapshot, about, |node| {
            if let Some(rejection) = first.rejection(state, pod, node)? {
                return Ok(Err(rejection));
            }
            let mut key = GroupKey::default();
            groupings.iter().for_each(|grouping| grouping.group(state, pod, node, &mut key));
            Ok(Ok(key))
        })?;
        self.give_way(state, pod, snapshot, &diagnosis, &mut standing)?;
        let grouped = |at: &usize| self.filter_reuse(*at) == Some(Reuse::Grouped);
        let by_group = asked.iter().all(grouped);
        let second = Search::of(self.filters_at(&asked));
        if by_group {
            return self.rank(state, pod, snapshot, standing, &second, diagnosis);
        }
        let listed = self.list(state, pod, snapshot, &mut standing, &second, diagnosis);
        if !matches!(listed, Err(Failure::Fault(_))) {
            self.put_back(standing);
        }
        listed
    }

    /// The node on which room was made for the pod, if it fits there: nobody asks for a better one.
    pub(super) fn promised(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Result<Option<Arc<str>>, Failure> {
        let node = pod.nominated_node().and_then(|name| snapshot.node(name));
        let Some(node) = node else { return Ok(None) };
        let trial = self.trial(&diagnosis.skipped, snapshot);
        let fits = trial.rejection(state, pod, node)?.is_none();
        Ok(fits.then(|| node.name().clone()))
    }

    /// Nodes where room is being made for others that go first: they are few, and the pod must fit
    /// beside those too.
    fn give_way(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
        standing: &mut Standing,
    ) -> Result<(), Failure> {
        let contested = snapshot.contested(pod);
        if contested.is_empty() {
            return Ok(());
        }
        let trial = self.trial(&diagnosis.skipped, snapshot);
        for position in contested {
            let rejection = trial.contested(state, pod, &snapshot.nodes()[position])?;
            if let Some(rejection) = rejection {
                standing.overrule(position, rejection);
            }
        }
        Ok(())
    }

    fn groupings(&self) -> SmallVec<[&dyn Grouping; 4]> {
        self.plugins.iter().filter_map(|enabled| enabled.plugin.as_grouping()).collect()
    }

    fn filter_reuse(&self, at: usize) -> Option<Reuse> {
        Some(self.plugins[at].plugin.as_filter()?.reuse())
    }

    /// The filters whose answers last, and those that are asked for every pod. The first rejection
    /// is what users read, so only filters before the first of the latter kind are kept apart.
    fn split_filters(&self, skipped: &BTreeSet<Arc<str>>) -> (Vec<usize>, Vec<usize>) {
        let active = self.places(ExtensionPoint::Filter).iter().copied();
        let active = active.filter(|at| !skipped.contains(&self.plugins[*at].name));
        let mut filters = active.filter_map(|at| Some((at, self.filter_reuse(at)?)));
        let mut kept = Vec::new();
        for (at, reuse) in filters.by_ref() {
            if matches!(reuse, Reuse::Never | Reuse::Grouped) {
                return (kept, [at].into_iter().chain(filters.map(|(at, _)| at)).collect());
            }
            kept.push(at);
        }
        (kept, Vec::new())
    }

    fn scorers(&self, skipped: &BTreeSet<Arc<str>>) -> Scorers {
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
    fn rank(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        mut standing: Standing,
        search: &Search<'_>,
        mut diagnosis: Box<Diagnosis>,
    ) -> Result<Decision, Failure> {
        let (mut open, mut rejections) = (Vec::new(), Vec::new());
        for (at, bucket) in standing.buckets() {
            let head = &snapshot.nodes()[bucket.members()[0]];
            match search.rejection(state, pod, head)? {
                None => open.push(at),
                Some(rejection) => rejections.push((at, rejection)),
            }
        }
        if open.is_empty() {
            let mut all = standing.rejections();
            for (at, rejection) in rejections {
                let names = standing.members(at).iter().map(|at| snapshot.nodes()[*at].name());
                all.extend(names.map(|node| Rejection { node: node.clone(), ..rejection.clone() }));
            }
            diagnosis.reject(all);
            self.put_back(standing);
            return Err(Failure::Unschedulable(diagnosis));
        }
        let members = open.iter().map(|at| standing.members(*at)).collect();
        let candidates = Candidates::grouped(snapshot.nodes(), members);
        let skipped = self.pre_score(state, pod, &candidates, snapshot)?;
        let scorers = self.scorers(&skipped);
        let score = |node: &NodeInfo| self.score_kept(&scorers, state, pod, node);
        standing.rescore(snapshot, &scorers.kept, score)?;
        if scorers.by_node {
            let positions = open.iter().flat_map(|at| standing.members(*at)).copied();
            let positions: Vec<usize> = positions.collect();
            let listed = self.total(&scorers, state, pod, &standing, snapshot, &positions)?;
            self.put_back(standing);
            return Ok(Decision::Listed(listed));
        }
        let shares = self.shares(&scorers, state, pod, snapshot, &standing, &open)?;
        Ok(Decision::Ranked(Box::new(standing), shares))
    }

    /// What is added to each group of the open buckets. One node stands for all of its group.
    fn shares(
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
        let (mut positions, mut rejections) = (Vec::new(), Vec::new());
        for position in standing.buckets().flat_map(|(_, bucket)| bucket.members()) {
            match search.rejection(state, pod, &snapshot.nodes()[*position])? {
                Some(rejection) => rejections.push(rejection),
                None => positions.push(*position),
            }
        }
        if positions.is_empty() {
            rejections.extend(standing.rejections());
            diagnosis.reject(rejections);
            return Err(Failure::Unschedulable(diagnosis));
        }
        let candidates = Candidates::grouped(snapshot.nodes(), positions.chunks(1).collect());
        let skipped = self.pre_score(state, pod, &candidates, snapshot)?;
        let scorers = self.scorers(&skipped);
        let score = |node: &NodeInfo| self.score_kept(&scorers, state, pod, node);
        standing.rescore(snapshot, &scorers.kept, score)?;
        let listed = self.total(&scorers, state, pod, standing, snapshot, &positions)?;
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
    fn total(
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

impl Diagnosis {
    pub(super) fn reject(&mut self, rejections: Vec<Rejection>) {
        let plugins = rejections.iter().map(|one| one.plugin.clone());
        self.rejected_by.extend(plugins);
        self.rejections = rejections;
    }
}
