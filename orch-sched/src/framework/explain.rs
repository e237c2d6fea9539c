//! Why a pod goes where it goes, as data.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{Diagnosis, Failure, Framework, Rejection, fault};
use crate::{
    cycle_state::CycleState,
    extension_point::ExtensionPoint,
    node_info::NodeInfo,
    plugin::{Candidates, SCORE_MAX},
    pod_info::PodInfo,
    snapshot::Snapshot,
    verdict::Verdict,
};

/// What a plugin says about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objection {
    /// The plugin.
    pub plugin: String,
    /// Its words.
    pub reasons: Vec<String>,
    /// Whether it stays, whichever pods go away.
    pub unresolvable: bool,
    /// Whether it is due to pods that wait for room on the node, and not to those that are there.
    pub beside_nominated: bool,
}

/// What a plugin makes of a node that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoreDetail {
    /// As the plugin gives it.
    pub raw: i64,
    /// Beside the other nodes that fit, 0 to 100.
    pub normalized: i64,
    /// Times the plugin's weight.
    pub weighted: i64,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeExplanation {
    /// The node.
    pub node: String,
    /// What all filters have against it; a decision needs to know the first only.
    pub objections: Vec<Objection>,
    /// By plugin, if it fits; plugins that have nothing to say about the pod are left out.
    pub scores: BTreeMap<String, ScoreDetail>,
    /// The weighted sum, if it fits.
    pub total: Option<i64>,
}

/// Why a pod goes where it goes, or nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// The profile.
    pub scheduler_name: String,
    /// What rules all nodes out before any is looked at.
    pub objections: Vec<Objection>,
    /// Every node, by name.
    pub nodes: Vec<NodeExplanation>,
    /// The node on which room was made for the pod, if it fits there: it goes there.
    pub promised: Option<String>,
    /// The best nodes, of which it would get any; none if it fits nowhere.
    pub best: Vec<String>,
    /// The sentence that users read if it fits nowhere, without what preemption adds.
    pub message: Option<String>,
}

fn objection(plugin: &str, verdict: &Verdict, beside_nominated: bool) -> Objection {
    Objection {
        plugin: plugin.to_owned(),
        reasons: verdict.reasons().iter().map(ToString::to_string).collect(),
        unresolvable: matches!(verdict, Verdict::UnschedulableAndUnresolvable(_)),
        beside_nominated,
    }
}

impl Framework {
    /// What every plugin says about every node, whatever others say, with nothing decided. All nodes
    /// are looked at, even if the profile is content with a part of them.
    pub(crate) fn explain(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Explanation, Failure> {
        if let Some(error) = pod.error() {
            return Err(Failure::Fault(error.to_owned()));
        }
        let mut explanation = Explanation {
            pod: pod.key().to_string(),
            scheduler_name: self.scheduler_name.clone(),
            ..Explanation::default()
        };
        let mut state = CycleState::default();
        let prepared = self.diagnosis(snapshot).and_then(|mut diagnosis| {
            let narrowed = self.pre_filter(&mut state, pod, snapshot, &mut diagnosis)?;
            Ok((diagnosis, narrowed))
        });
        let (diagnosis, narrowed) = match prepared {
            Ok(prepared) => prepared,
            Err(Failure::Unschedulable(diagnosis)) => {
                explanation.message = Some(diagnosis.to_string());
                if let Some(verdict) = &diagnosis.pre_filter_verdict {
                    let plugins = diagnosis.rejected_by.iter();
                    let objections = plugins.map(|plugin| objection(plugin, verdict, false));
                    explanation.objections = objections.collect();
                }
                return Ok(explanation);
            }
            Err(fault) => return Err(fault),
        };
        let mut fitting = Vec::new();
        let mut first = Vec::new();
        for node in snapshot.nodes() {
            let out = narrowed.as_ref().is_some_and(|names| !names.contains(&**node.name()));
            let mut found = self.objections(&state, pod, snapshot, &diagnosis, node)?;
            if out && found.is_empty() {
                let plugins: Vec<&str> = diagnosis.rejected_by.iter().map(|name| &**name).collect();
                let words = format!("node(s) didn't satisfy plugin(s) [{}]", plugins.join(" "));
                found.push((plugins.join(" ").into(), Verdict::unresolvable(words), false));
            }
            match found.first() {
                None => fitting.push(node.clone()),
                Some((plugin, verdict, _)) if !out => first.push(Rejection {
                    node: node.name().clone(),
                    plugin: plugin.clone(),
                    verdict: verdict.clone(),
                }),
                Some(_) => {}
            }
            let objections =
                found.iter().map(|(plugin, verdict, beside)| objection(plugin, verdict, *beside));
            let (node, objections) = (node.name().to_string(), objections.collect());
            let node = NodeExplanation { node, objections, ..NodeExplanation::default() };
            explanation.nodes.push(node);
        }
        explanation.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        self.conclude(explanation, (state, diagnosis), pod, snapshot, &fitting, first)
    }

    /// Scores the nodes that fit, or says why none does.
    fn conclude(
        &self,
        mut explanation: Explanation,
        (mut state, mut diagnosis): (CycleState, Box<Diagnosis>),
        pod: &PodInfo,
        snapshot: &Snapshot,
        fitting: &[Arc<NodeInfo>],
        first: Vec<Rejection>,
    ) -> Result<Explanation, Failure> {
        if fitting.is_empty() {
            diagnosis.reject(first);
            explanation.message = Some(diagnosis.to_string());
            return Ok(explanation);
        }
        let scores = self.score_details(&mut state, pod, fitting, snapshot)?;
        for (node, scores) in fitting.iter().zip(scores) {
            let at = explanation.nodes.binary_search_by(|one| one.node.as_str().cmp(node.name()));
            if let Ok(at) = at {
                let one = &mut explanation.nodes[at];
                one.total = Some(scores.values().map(|score| score.weighted).sum());
                one.scores = scores;
            }
        }
        let promised = self.promised(&state, pod, snapshot, &diagnosis)?;
        explanation.promised = promised.map(|node| node.to_string());
        let best = explanation.nodes.iter().filter_map(|node| node.total).max();
        let best = explanation.nodes.iter().filter(|node| best.is_some() && node.total == best);
        let best = best.map(|node| node.node.clone()).collect();
        explanation.best = explanation.promised.clone().map_or(best, |node| vec![node]);
        Ok(explanation)
    }

    /// What the filters have against a node, in their order; first with those who are ahead of the
    /// pod, as a decision asks.
    fn objections(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
        node: &NodeInfo,
    ) -> Result<Vec<(Arc<str>, Verdict, bool)>, Failure> {
        let mut found = Vec::new();
        let trial = self.trial(&diagnosis.skipped, snapshot);
        if let Some(rejection) = trial.contested(state, pod, node)? {
            found.push((rejection.plugin, rejection.verdict, true));
        }
        for (name, filter) in self.filters(&diagnosis.skipped) {
            let verdict = filter.filter(state, pod, node);
            let verdict = verdict.map_err(|error| fault("Filter", name, &error))?;
            if verdict.is_rejection() {
                found.push((name.clone(), verdict, false));
            }
        }
        Ok(found)
    }

    fn score_details(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Result<Vec<BTreeMap<String, ScoreDetail>>, Failure> {
        let skipped = self.pre_score(state, pod, &Candidates::each(nodes), snapshot)?;
        let mut details = vec![BTreeMap::new(); nodes.len()];
        let scoring = self.at(ExtensionPoint::Score);
        for enabled in scoring.filter(|enabled| !skipped.contains(&enabled.name)) {
            let Some(score) = enabled.plugin.as_score() else { continue };
            let failed = |error| fault("Score", &enabled.name, &error);
            let raw: Result<Vec<i64>, _> =
                nodes.iter().map(|node| score.score(state, pod, node)).collect();
            let raw = raw.map_err(failed)?;
            let mut normalized = raw.clone();
            score.normalize(state, pod, nodes, &mut normalized).map_err(failed)?;
            for ((detail, raw), normalized) in details.iter_mut().zip(raw).zip(normalized) {
                if !(0..=SCORE_MAX).contains(&normalized) {
                    let text = format!("returns an invalid score {normalized}");
                    return Err(failed(text.into()));
                }
                let weighted = normalized.saturating_mul(enabled.weight);
                let one = ScoreDetail { raw, normalized, weighted };
                detail.insert(enabled.name.to_string(), one);
            }
        }
        Ok(details)
    }

    /// The same profile with nothing remembered.
    pub(crate) fn fork(&self) -> Self {
        Self {
            scheduler_name: self.scheduler_name.clone(),
            plugins: self.plugins.clone(),
            order: self.order.clone(),
            next_start: std::sync::atomic::AtomicUsize::new(0),
            percentage: self.percentage,
            standings: parking_lot::Mutex::default(),
            extenders: Arc::default(),
            patience: self.patience,
        }
    }
}
