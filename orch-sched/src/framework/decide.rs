//! Decisions that look again only at what changed: pods that are alike share their answers.

use std::{collections::BTreeSet, sync::Arc};

use smallvec::SmallVec;

use super::{Diagnosis, Failure, Framework, Rejection, Search, decision::Decision};
use crate::{
    cycle_state::CycleState,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, GroupKey, Grouping, Reuse},
    pod_info::PodInfo,
    snapshot::Snapshot,
    standing::{Asked, Standing},
};

/// For how many kinds of pods the state of all nodes is kept; the longest out of use goes first.
const STANDINGS_MAX: usize = 64;

/// For how many versions of one kind of pods the state of all nodes is kept.
const VERSIONS_MAX: usize = 4;

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
}

impl Diagnosis {
    pub(super) fn reject(&mut self, rejections: Vec<Rejection>) {
        let plugins = rejections.iter().map(|one| one.plugin.clone());
        self.rejected_by.extend(plugins);
        self.rejections = rejections;
    }
}
