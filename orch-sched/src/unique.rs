//! Which labels name a node of their own: no two nodes have the same value.

use std::{collections::HashMap, sync::Arc};

use crate::snapshot::{Cursor, Snapshot};

/// For how many keys values are kept; the one longest out of use goes first.
const KEYS_MAX: usize = 64;

/// The label keys that were asked about, last used first.
#[derive(Default)]
struct Kept(Vec<Values>);

#[derive(Default)]
struct Values {
    key: String,
    cursor: Cursor,
    /// By position.
    rows: Vec<Option<Arc<str>>>,
    nodes: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    /// How many nodes have a value that another has too.
    shared: usize,
}

impl Values {
    fn update(&mut self, snapshot: &Snapshot) {
        let nodes = snapshot.nodes();
        let changed = snapshot.changed_rows(&mut self.cursor, self.rows.len());
        self.rows.resize(changed.rows, None);
        for position in changed.positions {
            let value = nodes.get(position).and_then(|node| node.label(&self.key));
            if self.rows[position].as_deref() != value {
                self.take_out(position);
                if let Some(value) = value {
                    self.put_in(position, value);
                }
            }
        }
        self.rows.truncate(nodes.len());
    }

    fn take_out(&mut self, position: usize) {
        let Some(value) = self.rows[position].take() else { return };
        let Some(count) = self.nodes.get_mut(&value) else { return };
        *count -= 1;
        match *count {
            0 => drop(self.nodes.remove(&value)),
            1 => self.shared -= 2,
            _ => self.shared -= 1,
        }
    }

    fn put_in(&mut self, position: usize, value: &str) {
        let known = self.nodes.get_key_value(value).map(|(value, _)| value.clone());
        let value: Arc<str> = known.unwrap_or_else(|| value.into());
        let count = self.nodes.entry(value.clone()).or_default();
        *count += 1;
        match *count {
            1 => {}
            2 => self.shared += 2,
            _ => self.shared += 1,
        }
        self.rows[position] = Some(value);
    }
}

/// Whether every node that has this label is alone with its value. What is true of such a domain is
/// true of its node, and changes only when the node does.
pub(crate) fn names_nodes(key: &str, snapshot: &Snapshot) -> bool {
    snapshot.keep(|kept: &mut Kept| {
        let at = kept.0.iter().position(|values| values.key == key);
        let at = at.unwrap_or_else(|| {
            kept.0.insert(0, Values { key: key.to_owned(), ..Values::default() });
            kept.0.truncate(KEYS_MAX);
            0
        });
        kept.0[..=at].rotate_right(1);
        kept.0[0].update(snapshot);
        kept.0[0].shared == 0
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::node_info::NodeInfo;

    fn node(name: &str, host: Option<&str>) -> Arc<NodeInfo> {
        let node = json!({"metadata": {"name": name, "labels": {"other": "x"}}});
        let mut node: k8s_openapi::api::core::v1::Node = serde_json::from_value(node).unwrap();
        if let (Some(labels), Some(host)) = (&mut node.metadata.labels, host) {
            labels.insert("host".into(), host.into());
        }
        Arc::new(NodeInfo::new(Arc::new(node), []))
    }

    #[test]
    fn a_label_names_nodes_as_long_as_no_two_share_a_value() {
        let mut snapshot = Snapshot::default();
        let mut check = |change: &dyn Fn(&mut Snapshot), expected: bool| {
            change(&mut snapshot);
            assert_eq!(names_nodes("host", &snapshot), expected);
        };
        check(&|_| {}, true);
        check(&|s| s.set(&node("a", Some("1"))), true);
        check(&|s| s.set(&node("b", None)), true);
        check(&|s| s.set(&node("b", Some("1"))), false);
        check(&|s| s.set(&node("c", Some("1"))), false);
        check(&|s| s.remove("a"), false);
        check(&|s| s.set(&node("c", Some("2"))), true);
        check(&|s| s.set(&node("d", Some("2"))), false);
        check(&|s| s.remove("c"), true);
    }
}
