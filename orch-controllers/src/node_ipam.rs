//! Every node has addresses of its own for its pods: `spec.podCIDRs`.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/nodeipam`, `RangeAllocator`.

mod blocks;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use orch_core::{
    ClientError, Key,
    client::PatchKind,
    informer::{Informer, Informers},
};
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    Action, Controller, Reconciler,
    context::{Context, EventType},
    reconciler::{ReconcileError, Reconciled},
};
use blocks::Blocks;

/// How often a node is written before its addresses are given back.
const WRITES_MAX: u32 = 3;

/// Out of which ranges nodes get their pods' addresses.
///
/// Source: `--cluster-cidr`, `--node-cidr-mask-size*`, `--service-cluster-ip-range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIpamOptions {
    /// One range, or one of each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// The length of a node's prefix in IPv4. Default 24.
    pub mask_size_v4: u8,
    /// The length of a node's prefix in IPv6. Default 64.
    pub mask_size_v6: u8,
    /// Ranges of Services, which no node gets.
    pub service_cidrs: Vec<IpNet>,
}

impl NodeIpamOptions {
    /// These ranges, with upstream's defaults.
    pub fn new(cluster_cidrs: impl Into<Vec<IpNet>>) -> Self {
        Self {
            cluster_cidrs: cluster_cidrs.into(),
            mask_size_v4: 24,
            mask_size_v6: 64,
            service_cidrs: Vec::new(),
        }
    }
}

/// Ranges that nodes cannot get addresses out of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNodeIpam {
    /// There is none, or there are more than two.
    #[error("len of clusters is:{0}, where one or two are allowed")]
    Count(usize),
    /// Two of one family.
    #[error(
        "len of ClusterCIDRs==2 and they are not configured as dual stack (at least one from each IPFamily)"
    )]
    NotDualStack,
    /// A node's prefix is shorter than the range's, or longer than an address.
    #[error("mask size {mask_size} does not lie within {range}")]
    MaskSize {
        /// The range.
        range: IpNet,
        /// The length of a node's prefix.
        mask_size: u8,
    },
    /// More than 65536 nodes' blocks, in IPv6.
    #[error("New CIDR set failed; the node CIDR size is too big")]
    TooMany(IpNet),
}

/// Ranges that nodes can get addresses out of.
#[derive(Clone, Debug)]
pub struct NodeRanges(Vec<Blocks>);

impl NodeRanges {
    /// The ranges of these options.
    ///
    /// # Errors
    /// [`InvalidNodeIpam`] if they cannot be used.
    pub fn new(options: &NodeIpamOptions) -> Result<Self, InvalidNodeIpam> {
        let ranges = &options.cluster_cidrs;
        if !(1..=2).contains(&ranges.len()) {
            return Err(InvalidNodeIpam::Count(ranges.len()));
        }
        let is_v4 = |range: &IpNet| matches!(range, IpNet::V4(_));
        if ranges.len() == 2 && is_v4(&ranges[0]) == is_v4(&ranges[1]) {
            return Err(InvalidNodeIpam::NotDualStack);
        }
        let mut blocks = Vec::with_capacity(ranges.len());
        for range in ranges {
            let size = if is_v4(range) { options.mask_size_v4 } else { options.mask_size_v6 };
            let mut one = Blocks::new(*range, size)?;
            options.service_cidrs.iter().for_each(|services| one.reserve(services));
            blocks.push(one);
        }
        Ok(Self(blocks))
    }
}

/// The controller that gives nodes their pods' addresses.
pub fn node_ipam(informers: &Informers, ranges: &NodeRanges) -> Controller {
    let context = Context::reporting(informers, "node-ipam-controller", "cidrAllocator");
    let nodes = context.informer::<Node>();
    let book = Book { blocks: ranges.0.clone(), held: BTreeMap::new(), is_read: false };
    let builder = context.builder().watches_own::<Node>();
    builder.build(Allocator { context, nodes, book: Mutex::new(book) })
}

/// Which node has which blocks.
#[derive(Debug)]
struct Book {
    blocks: Vec<Blocks>,
    held: BTreeMap<String, Vec<IpNet>>,
    is_read: bool,
}

impl Book {
    /// Takes over what a node has.
    fn occupy(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if self.held.contains_key(&name) {
            return;
        }
        let cidrs: Vec<IpNet> = pod_cidrs(node).filter_map(|cidr| cidr.parse().ok()).collect();
        for (at, cidr) in cidrs.iter().enumerate() {
            let taken = self.blocks.get_mut(at).is_some_and(|blocks| blocks.occupy(cidr));
            if !taken {
                tracing::warn!(node = name, %cidr, "not out of the ranges of this cluster");
            }
        }
        self.held.insert(name, cidrs);
    }

    fn allocate(&mut self, name: &str) -> Result<Vec<IpNet>, String> {
        let mut allocated = Vec::with_capacity(self.blocks.len());
        for (at, blocks) in self.blocks.iter_mut().enumerate() {
            match blocks.take() {
                Some(cidr) => allocated.push(cidr),
                None => {
                    self.give_back(&allocated);
                    return Err(format!(
                        "failed to allocate cidr from cluster cidr at idx:{at}: CIDR allocation \
                         failed; there are no remaining CIDRs left to allocate in the accepted range"
                    ));
                }
            }
        }
        self.held.insert(name.to_owned(), allocated.clone());
        Ok(allocated)
    }

    fn release(&mut self, name: &str) {
        if let Some(held) = self.held.remove(name) {
            self.give_back(&held);
        }
    }

    fn give_back(&mut self, cidrs: &[IpNet]) {
        for (blocks, cidr) in self.blocks.iter_mut().zip(cidrs) {
            blocks.release(cidr);
        }
    }
}

fn pod_cidrs(node: &Node) -> impl Iterator<Item = &String> {
    node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten()
}

/// A node, and what it is to have.
type Assignment = (Arc<Node>, Vec<IpNet>);

struct Allocator {
    context: Context,
    nodes: Informer<Node>,
    book: Mutex<Book>,
}

#[async_trait]
impl Reconciler for Allocator {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let node = self.nodes.get(&key);
        let Some((node, cidrs)) = self.settle(&key.name, node)? else { return Ok(Action::Done) };
        let mut tried = Ok(());
        for _ in 0..WRITES_MAX {
            tried = self.write(&node, &cidrs).await;
            if tried.is_ok() {
                return Ok(Action::Done);
            }
        }
        let Err(error) = tried else { return Ok(Action::Done) };
        self.tell(&node, "CIDRAssignmentFailed");
        // Nobody else may get what this node got although the answer was lost.
        if !error.is_retryable() || error.is_conflict() || error.is_not_found() {
            self.book.lock().release(&key.name);
        }
        Err(error.into())
    }
}

impl Allocator {
    /// Brings the book up to date; gives what is to be written, if something is.
    fn settle(
        &self,
        name: &str,
        node: Option<Arc<Node>>,
    ) -> Result<Option<Assignment>, ReconcileError> {
        let mut book = self.book.lock();
        if !book.is_read {
            book.is_read = true;
            self.nodes.list().iter().filter(|one| has_cidrs(one)).for_each(|one| book.occupy(one));
        }
        let Some(node) = node else {
            book.release(name);
            return Ok(None);
        };
        if has_cidrs(&node) {
            book.occupy(&node);
            return Ok(None);
        }
        if let Some(held) = book.held.get(name) {
            return Ok(Some((node, held.clone())));
        }
        match book.allocate(name) {
            Ok(cidrs) => Ok(Some((node, cidrs))),
            Err(why) => {
                drop(book);
                self.tell(&node, "CIDRNotAvailable");
                Err(ReconcileError::message(why))
            }
        }
    }

    fn tell(&self, node: &Node, what: &str) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: {what}");
        self.context.event(node, EventType::Normal, what, message);
    }

    async fn write(&self, node: &Node, cidrs: &[IpNet]) -> Result<(), ClientError> {
        let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        });
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.context.resources::<Node>("").patch(name, PatchKind::Strategic, patch).await.map(drop)
    }
}

fn has_cidrs(node: &Node) -> bool {
    pod_cidrs(node).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_cannot_be_used_are_refused() {
        let check = |ranges: &[&str], expected: Option<InvalidNodeIpam>| {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            assert_eq!(NodeRanges::new(&NodeIpamOptions::new(ranges)).err(), expected);
        };
        check(&["10.244.0.0/16"], None);
        check(&["10.244.0.0/16", "fd00::/48"], None);
        check(&[], Some(InvalidNodeIpam::Count(0)));
        check(&["10.244.0.0/16", "10.0.0.0/16"], Some(InvalidNodeIpam::NotDualStack));
        let range = "10.244.0.0/25".parse().unwrap();
        check(&["10.244.0.0/25"], Some(InvalidNodeIpam::MaskSize { range, mask_size: 24 }));
        check(&["fd00::/40"], Some(InvalidNodeIpam::TooMany("fd00::/40".parse().unwrap())));
    }
}
