//! Why a pod fits nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{node_info::NodeInfo, snapshot::Snapshot, verdict::Verdict};

/// One node's answer.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The node.
    pub node: Arc<str>,
    /// The plugin that ruled it out.
    pub plugin: Arc<str>,
    /// Its verdict.
    pub verdict: Verdict,
}

/// Why a pod fits nowhere. Display is upstream's sentence.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub total_nodes: usize,
    /// What was found out about each node that was looked at.
    pub rejections: Vec<Rejection>,
    /// What ruled all nodes out at once.
    pub pre_filter_message: String,
    /// What plugins that tried to make room had to say.
    pub post_filter_message: String,
    /// The plugins whose rejection a change of the cluster may lift.
    pub rejected_by: BTreeSet<Arc<str>>,
    /// How many nodes PreFilter left out, and the words for it.
    pub(super) left_out: Option<(usize, String)>,
    /// PreFilter's verdict on all nodes at once.
    pub(super) pre_filter_verdict: Option<Verdict>,
    /// The plugins that have nothing to filter.
    pub(super) skipped: BTreeSet<Arc<str>>,
    /// What is said instead of all that.
    pub(super) instead: Option<String>,
}

impl Diagnosis {
    /// Why a pod does not fit these nodes, and the others for one reason.
    pub fn of(total_nodes: usize, rejections: Vec<Rejection>, others: &str) -> Self {
        let left_out = total_nodes.saturating_sub(rejections.len());
        let left_out = (left_out > 0).then(|| (left_out, others.to_owned()));
        Self { total_nodes, rejections, left_out, ..Self::default() }
    }

    /// A pod that fits, but whose pod group does not.
    pub(crate) fn of_group(words: String, rejected_by: BTreeSet<Arc<str>>) -> Self {
        Self { instead: Some(words), rejected_by, ..Self::default() }
    }

    /// The nodes that the pod would fit if other pods went away, as far as is known.
    pub fn resolvable<'a>(&'a self, snapshot: &'a Snapshot) -> Vec<&'a Arc<NodeInfo>> {
        match &self.pre_filter_verdict {
            Some(Verdict::Unschedulable(_)) => return snapshot.nodes().iter().collect(),
            Some(_) => return Vec::new(),
            None => {}
        }
        let rejections = self.rejections.iter();
        let may_help = rejections.filter(|one| matches!(one.verdict, Verdict::Unschedulable(_)));
        may_help.filter_map(|one| snapshot.node(&one.node)).collect()
    }

    /// What somebody outside has against nodes that fitted.
    pub(crate) fn add(&mut self, rejections: Vec<Rejection>, by: &str) {
        self.rejections.extend(rejections);
        self.rejected_by.insert(by.into());
    }

    /// What was found out about a node.
    pub fn verdict_on(&self, node: &str) -> Option<&Verdict> {
        let one = self.rejections.iter().find(|one| *one.node == *node);
        one.map(|one| &one.verdict).or(self.pre_filter_verdict.as_ref())
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(words) = &self.instead {
            return f.write_str(words);
        }
        if self.total_nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.total_nodes)?;
        if self.pre_filter_message.is_empty() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for reason in self.rejections.iter().flat_map(|one| one.verdict.reasons()) {
                *counts.entry(reason).or_default() += 1;
            }
            if let Some((count, reason)) = &self.left_out {
                *counts.entry(reason).or_default() += count;
            }
            let mut lines: Vec<String> =
                counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            lines.sort();
            if !lines.is_empty() {
                write!(f, " {}.", lines.join(", "))?;
            }
        } else {
            write!(f, " {}.", self.pre_filter_message)?;
        }
        if !self.post_filter_message.is_empty() {
            write!(f, " {}", self.post_filter_message)?;
        }
        Ok(())
    }
}
