//! The nodes of the tree.

use std::sync::Arc;

use bytes::Bytes;

use super::search::Hints;
use crate::engine::version::Version;

/// So many keys or children a node has at most.
const WIDTH: usize = 64;

/// A node with less than this is joined to its neighbour, if both fit into one.
const NARROW: usize = WIDTH / 4;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf { heads: Vec<Arc<Version>>, hints: Hints },
    Inner { children: Vec<Child>, hints: Hints },
}

/// A part of the tree below an inner node.
#[derive(Clone, Debug)]
pub(super) struct Child {
    node: Arc<Node>,
    /// No key of this child is less, unless the child is the first.
    low: Bytes,
    /// How many live keys it has.
    live: usize,
}

/// What removing a key took out.
pub(super) struct Removed {
    pub(super) version: Arc<Version>,
    /// Whether the node has become narrow.
    narrow: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self::leaf(Vec::new())
    }
}

fn head_key(head: &Arc<Version>) -> &[u8] {
    &head.entry.key
}

fn low(child: &Child) -> &[u8] {
    &child.low
}

fn live(head: &Arc<Version>) -> usize {
    usize::from(!head.deleted)
}

/// Where a full list is cut, after something was inserted at `index`: keys that come in order
/// leave full nodes behind.
fn cut(length: usize, index: usize) -> usize {
    if index + 1 == length { length - 1 } else { length / 2 }
}

impl Child {
    fn of(node: Node) -> Self {
        let low = match &node {
            Node::Leaf { heads, .. } => heads.first().map(|head| head.entry.key.clone()),
            Node::Inner { children, .. } => children.first().map(|child| child.low.clone()),
        };
        Self { live: node.live(), low: low.unwrap_or_default(), node: Arc::new(node) }
    }
}

impl Node {
    fn leaf(heads: Vec<Arc<Version>>) -> Self {
        let hints = Hints::of(heads.iter().map(head_key));
        Self::Leaf { heads, hints }
    }

    fn inner(children: Vec<Child>) -> Self {
        let hints = Hints::of(children.iter().map(low));
        Self::Inner { children, hints }
    }

    /// The node above two.
    pub(super) fn parent(left: Arc<Self>, right: Self) -> Self {
        let left = Child::of(Arc::unwrap_or_clone(left));
        Self::inner(vec![left, Child::of(right)])
    }

    /// How many live keys are below this node.
    pub(super) fn live(&self) -> usize {
        match self {
            Self::Leaf { heads, .. } => heads.iter().map(live).sum(),
            Self::Inner { children, .. } => children.iter().map(|child| child.live).sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf { heads, .. } => heads.len(),
            Self::Inner { children, .. } => children.len(),
        }
    }

    /// The child that is the only one.
    pub(super) fn only_child(&self) -> Option<Arc<Self>> {
        match self {
            Self::Inner { children, .. } if children.len() == 1 => Some(children[0].node.clone()),
            _ => None,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Version>> {
        match self {
            Self::Leaf { heads, hints } => {
                let index = hints.search(key, |index| head_key(&heads[index])).ok()?;
                Some(&heads[index])
            }
            Self::Inner { children, hints } => children[child(children, hints, key)].node.get(key),
        }
    }

    /// Gives what was replaced, and the right half if the node had to be cut.
    pub(super) fn insert(&mut self, version: Arc<Version>) -> (Option<Arc<Version>>, Option<Self>) {
        match self {
            Self::Leaf { heads, hints } => {
                let key = version.entry.key.clone();
                match hints.search(&key, |index| head_key(&heads[index])) {
                    Ok(index) => (Some(std::mem::replace(&mut heads[index], version)), None),
                    Err(index) => {
                        heads.insert(index, version);
                        if heads.len() <= WIDTH {
                            hints.insert(index, &key, heads.iter().map(head_key));
                            return (None, None);
                        }
                        let right = heads.split_off(cut(heads.len(), index));
                        *hints = Hints::of(heads.iter().map(head_key));
                        (None, Some(Self::leaf(right)))
                    }
                }
            }
            Self::Inner { children, hints } => {
                let index = child(children, hints, &version.entry.key);
                let added = live(&version);
                let target = &mut children[index];
                let (replaced, right) = Arc::make_mut(&mut target.node).insert(version);
                target.live = target.live + added - replaced.as_ref().map_or(0, live);
                let Some(right) = right else { return (replaced, None) };
                let right = Child::of(right);
                target.live -= right.live;
                let key = right.low.clone();
                children.insert(index + 1, right);
                if children.len() <= WIDTH {
                    hints.insert(index + 1, &key, children.iter().map(low));
                    return (replaced, None);
                }
                let right = children.split_off(cut(children.len(), index + 1));
                *hints = Hints::of(children.iter().map(low));
                (replaced, Some(Self::inner(right)))
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Removed> {
        let version = match self {
            Self::Leaf { heads, hints } => {
                let index = hints.search(key, |index| head_key(&heads[index])).ok()?;
                hints.remove(index);
                heads.remove(index)
            }
            Self::Inner { children, hints } => {
                let index = child(children, hints, key);
                let target = &mut children[index];
                let removed = Arc::make_mut(&mut target.node).remove(key)?;
                target.live -= live(&removed.version);
                if removed.narrow && children.len() > 1 {
                    join(children, index.min(children.len() - 2));
                    *hints = Hints::of(children.iter().map(low));
                }
                removed.version
            }
        };
        Some(Removed { version, narrow: self.len() < NARROW })
    }

    /// How many live keys are less than `key`.
    pub(super) fn live_below(&self, key: &[u8]) -> usize {
        match self {
            Self::Leaf { heads, hints } => {
                let index = hints.search(key, |index| head_key(&heads[index]));
                heads[..index.unwrap_or_else(|index| index)].iter().map(live).sum()
            }
            Self::Inner { children, hints } => {
                let index = child(children, hints, key);
                let before: usize = children[..index].iter().map(|child| child.live).sum();
                before + children[index].node.live_below(key)
            }
        }
    }

    /// The heads from `start` on and before `end`, leaf by leaf.
    pub(super) fn leaves<'a>(&'a self, start: &[u8], end: Option<&'a [u8]>) -> Leaves<'a> {
        let mut way = Vec::new();
        let mut node = self;
        loop {
            match node {
                Self::Leaf { heads, hints } => {
                    let index = hints.search(start, |index| head_key(&heads[index]));
                    let from = index.unwrap_or_else(|index| index);
                    return Leaves { way, leaf: Some((node, from)), end };
                }
                Self::Inner { children, hints } => {
                    let index = child(children, hints, start);
                    way.push((children.as_slice(), index + 1));
                    node = &children[index].node;
                }
            }
        }
    }
}

/// The child that a key belongs to.
fn child(children: &[Child], hints: &Hints, key: &[u8]) -> usize {
    match hints.search(key, |index| low(&children[index])) {
        Ok(index) => index,
        Err(index) => index.saturating_sub(1),
    }
}

/// Makes one child of two neighbours, if they fit, or takes out one that is empty.
fn join(children: &mut Vec<Child>, left: usize) {
    let fits = children[left].node.len() + children[left + 1].node.len() <= WIDTH;
    if !fits {
        return;
    }
    let right = children.remove(left + 1);
    let target = &mut children[left];
    target.live += right.live;
    let right = Arc::unwrap_or_clone(right.node);
    let node = Arc::make_mut(&mut target.node);
    *node = match (std::mem::take(node), right) {
        (Node::Leaf { mut heads, .. }, Node::Leaf { heads: more, .. }) => {
            heads.extend(more);
            Node::leaf(heads)
        }
        (Node::Inner { mut children, .. }, Node::Inner { children: more, .. }) => {
            children.extend(more);
            Node::inner(children)
        }
        _ => unreachable!("all leaves of the tree are at one depth"),
    };
}

/// Walks over leaves.
pub(super) struct Leaves<'a> {
    way: Vec<(&'a [Child], usize)>,
    leaf: Option<(&'a Node, usize)>,
    end: Option<&'a [u8]>,
}

impl<'a> Leaves<'a> {
    fn next_leaf(&mut self) -> Option<(&'a Node, usize)> {
        if let Some(leaf) = self.leaf.take() {
            return Some(leaf);
        }
        loop {
            let (children, next) = self.way.last_mut()?;
            let Some(child) = children.get(*next) else {
                self.way.pop();
                continue;
            };
            *next += 1;
            match &*child.node {
                leaf @ Node::Leaf { .. } => return Some((leaf, 0)),
                Node::Inner { children, .. } => self.way.push((children, 0)),
            }
        }
    }
}

impl<'a> Iterator for Leaves<'a> {
    type Item = &'a [Arc<Version>];

    fn next(&mut self) -> Option<Self::Item> {
        let Some((Node::Leaf { heads, hints }, from)) = self.next_leaf() else { return None };
        let mut to = heads.len();
        if let (Some(end), Some(last)) = (self.end, heads.last())
            && head_key(last) >= end
        {
            let index = hints.search(end, |index| head_key(&heads[index]));
            to = index.unwrap_or_else(|index| index).max(from);
            self.way.clear();
        }
        Some(&heads[from..to])
    }
}
