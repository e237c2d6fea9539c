//! One line of a recording.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    Resource,
    api::core::v1::{Node, Pod},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The version of the format that is written and read here.
pub(crate) const VERSION: u32 = 1;

/// An object that is written as it is.
#[derive(Debug)]
pub(crate) struct Whole<T>(pub(crate) Arc<T>);

impl<T: Serialize> Serialize for Whole<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|object| Self(Arc::new(object)))
    }
}

/// What happened, in the order in which it took effect.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Line {
    /// The first line, and no other.
    Recording {
        version: u32,
        /// The plugins of each profile.
        profiles: BTreeMap<String, Vec<String>>,
    },
    /// A node came or changed.
    Node(Whole<Node>),
    /// A node went, by its name.
    NodeGone(String),
    /// The cluster shows a pod on its node.
    Pod(Whole<Pod>),
    /// A placed pod went or came to its end, by its uid.
    PodGone(String),
    /// Something else that plugins look up came or changed.
    Set { kind: String, object: Value },
    /// Something else went.
    Gone { kind: String, namespace: String, name: String },
    /// A cycle begins. `seed` breaks the ties of its choice.
    Cycle { seed: u64, pod: Whole<Pod> },
    /// The cycle of a pod, by its uid, took a place.
    Took { uid: String, node: String },
    /// The place was given back.
    Gave { uid: String },
    /// The pod is bound there.
    Bound { uid: String },
    /// Room is made for a pod on this node; on no node any more without one.
    Nominated { node: Option<String>, pod: Whole<Pod> },
}

impl Line {
    /// An object of a kind that has no line of its own.
    pub(super) fn set<K: Resource + Serialize>(object: &K) -> Self {
        // What was decoded can be encoded; `null` would be refused when it is read.
        let object = serde_json::to_value(object).unwrap_or_default();
        Self::Set { kind: K::KIND.to_owned(), object }
    }
}
