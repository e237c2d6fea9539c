//! Who owns whom.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/garbagecollector/graph_builder.go`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use orch_core::{Key, ResourceType, Scope};

/// How many absent owners are remembered, so that each is asked for once and not once for each of
/// its dependents.
const ABSENT_MAX: usize = 5000;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// An object to look at, by uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Todo {
    /// Delete it if it has no reason to be.
    Delete(String),
    /// Free its dependents, then let it go.
    Orphan(String),
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) resource: Arc<ResourceType>,
    pub(super) key: Key,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: BTreeSet<String>,
    pub(super) being_deleted: bool,
    /// It waits for its dependents to go first.
    pub(super) deleting_dependents: bool,
    /// It waits for its dependents to be freed.
    orphaning: bool,
    /// Only named by a dependent, never seen.
    pub(super) assumed: bool,
}

/// All objects, by uid.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    by_kind: HashMap<Kind, Arc<ResourceType>>,
    absent: HashSet<(String, String)>,
    absent_order: VecDeque<(String, String)>,
    /// The dependents of owners whose kind is not served, by that kind.
    waiting: BTreeMap<Kind, BTreeSet<String>>,
}

/// Group and kind.
type Kind = (String, String);

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

fn group_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

impl Graph {
    /// These are the kinds that are served. What waits for one that is served now is looked at
    /// again: its owner may have gone before anybody could know it.
    pub(super) fn set_types(&mut self, types: &[ResourceType]) -> Vec<Todo> {
        let mut before = std::mem::take(&mut self.by_kind);
        for resource in types {
            let kind = (resource.group.to_string(), resource.kind.to_string());
            let known = before.remove(&kind).filter(|known| **known == *resource);
            let known = known.unwrap_or_else(|| Arc::new(resource.clone()));
            self.by_kind.entry(kind).or_insert(known);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (served, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
            waiting.into_iter().partition(|(kind, _)| self.by_kind.contains_key(kind));
        self.waiting = waiting;
        let dependents: BTreeSet<String> = served.into_values().flatten().collect();
        dependents.into_iter().flat_map(|uid| self.link(&uid)).collect()
    }

    /// Leads from owners to a dependent that could not be linked before.
    fn link(&mut self, uid: &str) -> Vec<Todo> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let (namespace, owners) = (node.identity.key.namespace.clone(), node.owners.clone());
        let mut todos = self.change_owners(uid, &namespace, &[], &owners);
        todos.push(Todo::Delete(uid.to_owned()));
        todos
    }

    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Where an owner would be, seen from a dependent's namespace. `None` if its kind is unknown.
    pub(super) fn locate(&self, owner: &OwnerReference, namespace: &str) -> Option<Identity> {
        let kind = (group_of(&owner.api_version).to_owned(), owner.kind.clone());
        let resource = self.by_kind.get(&kind)?.clone();
        let namespace = if resource.scope == Scope::Namespaced { namespace } else { "" };
        Some(Identity { resource, key: Key::new(namespace, &*owner.name) })
    }

    /// Whether the owner was found to be absent from that namespace before.
    pub(super) fn is_absent(&self, uid: &str, namespace: &str) -> bool {
        self.absent.contains(&(uid.to_owned(), namespace.to_owned()))
    }

    pub(super) fn note_absent(&mut self, uid: &str, namespace: &str) {
        let entry = (uid.to_owned(), namespace.to_owned());
        if self.absent.insert(entry.clone()) {
            self.absent_order.push_back(entry);
        }
        if self.absent_order.len() > ABSENT_MAX
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// The object is there, like this.
    pub(super) fn seen(&mut self, resource: &Arc<ResourceType>, meta: &ObjectMeta) -> Vec<Todo> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let key = Key::of(meta);
        let owners = meta.owner_references.clone().unwrap_or_default();
        let before = self.nodes.remove(&uid);
        let known = before.as_ref().filter(|node| !node.assumed);
        let was_orphaning = known.is_some_and(|node| node.orphaning);
        let old_owners = known.map(|node| node.owners.clone()).unwrap_or_default();
        let deleting_dependents = known.is_some_and(|node| node.deleting_dependents);
        let being_deleted = meta.deletion_timestamp.is_some();
        // Who deletes something that is going already may ask for another way to go.
        let orphaning = being_deleted && has_finalizer(meta, ORPHAN);
        let node = Node {
            identity: Identity { resource: resource.clone(), key: key.clone() },
            owners: owners.clone(),
            dependents: before.map(|node| node.dependents).unwrap_or_default(),
            being_deleted,
            deleting_dependents: deleting_dependents
                || (being_deleted && has_finalizer(meta, FOREGROUND)),
            orphaning,
            assumed: false,
        };
        let starts = node.deleting_dependents && !deleting_dependents;
        let dependents: Vec<String> = node.dependents.iter().cloned().collect();
        self.nodes.insert(uid.clone(), node);
        let mut todos = self.change_owners(&uid, &key.namespace, &old_owners, &owners);
        if orphaning && !was_orphaning {
            todos.push(Todo::Orphan(uid.clone()));
        }
        if starts {
            todos.extend(dependents.into_iter().map(Todo::Delete));
            todos.push(Todo::Delete(uid));
        }
        todos
    }

    fn change_owners(
        &mut self,
        uid: &str,
        namespace: &str,
        old: &[OwnerReference],
        new: &[OwnerReference],
    ) -> Vec<Todo> {
        let mut todos = Vec::new();
        self.stop_waiting(uid, old);
        for owner in old {
            let now = new.iter().find(|now| now.uid == owner.uid);
            if now.is_none() {
                self.drop_dependent(&owner.uid, uid);
            }
            // An owner that waits may have one dependent less to wait for.
            if now.is_none_or(|now| now.block_owner_deletion != owner.block_owner_deletion) {
                todos.push(Todo::Delete(owner.uid.clone()));
            }
        }
        for owner in new {
            if let Some(node) = self.nodes.get_mut(&owner.uid) {
                node.dependents.insert(uid.to_owned());
                // The owner is elsewhere: the reference will turn out to lead nowhere.
                if !node.identity.key.namespace.is_empty()
                    && node.identity.key.namespace != namespace
                {
                    todos.push(Todo::Delete(uid.to_owned()));
                }
            } else if let Some(identity) = self.locate(owner, namespace) {
                let node = Node {
                    identity,
                    owners: Vec::new(),
                    dependents: BTreeSet::from([uid.to_owned()]),
                    being_deleted: false,
                    deleting_dependents: false,
                    orphaning: false,
                    assumed: true,
                };
                self.nodes.insert(owner.uid.clone(), node);
                todos.push(Todo::Delete(owner.uid.clone()));
            } else {
                let kind = (group_of(&owner.api_version).to_owned(), owner.kind.clone());
                self.waiting.entry(kind).or_default().insert(uid.to_owned());
            }
        }
        todos
    }

    /// The object does not wait for kinds to be served any more, because of these owners at least.
    fn stop_waiting(&mut self, uid: &str, owners: &[OwnerReference]) {
        for owner in owners {
            let kind = (group_of(&owner.api_version).to_owned(), owner.kind.clone());
            if let Some(dependents) = self.waiting.get_mut(&kind) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.waiting.remove(&kind);
                }
            }
        }
    }

    fn drop_dependent(&mut self, owner: &str, dependent: &str) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(dependent);
        if node.assumed && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    /// The object is gone.
    pub(super) fn gone(&mut self, uid: &str) -> Vec<Todo> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.note_absent(uid, &node.identity.key.namespace);
        self.stop_waiting(uid, &node.owners);
        let mut todos: Vec<Todo> = node.dependents.into_iter().map(Todo::Delete).collect();
        for owner in &node.owners {
            self.drop_dependent(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.deleting_dependents) {
                todos.push(Todo::Delete(owner.uid.clone()));
            }
        }
        todos
    }

    /// The dependents that an object which goes in the foreground waits for.
    pub(super) fn blocking(&self, uid: &str) -> Vec<(String, bool)> {
        let dependents = self.nodes.get(uid).map(|node| &node.dependents);
        dependents
            .into_iter()
            .flatten()
            .filter_map(|dependent| Some((dependent, self.nodes.get(dependent)?)))
            .filter(|(_, node)| {
                node.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
            })
            .map(|(dependent, node)| (dependent.clone(), node.deleting_dependents))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{apps::v1::ReplicaSet, core::v1::Pod},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;

    fn meta(uid: &str, owner: Option<&str>) -> ObjectMeta {
        let owners = owner.map(|owner| {
            vec![OwnerReference {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: owner.into(),
                uid: owner.into(),
                block_owner_deletion: Some(true),
                controller: Some(true),
            }]
        });
        ObjectMeta {
            uid: Some(uid.into()),
            name: Some(uid.into()),
            namespace: Some("default".into()),
            owner_references: owners,
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        let sets = Arc::new(ResourceType::of::<ReplicaSet>());
        let pods = Arc::new(ResourceType::of::<Pod>());
        assert_eq!(graph.set_types(&[sets.as_ref().clone(), pods.as_ref().clone()]), []);
        // The dependent comes first: its owner is assumed, and verified.
        let todos = graph.seen(&pods, &meta("pod", Some("set")));
        assert_eq!(todos, [Todo::Delete("set".into())]);
        assert_eq!(graph.seen(&sets, &meta("set", None)), []);
        assert_eq!(graph.blocking("set"), [("pod".to_owned(), false)]);
        assert_eq!(graph.gone("set"), [Todo::Delete("pod".into())]);
        assert!(graph.is_absent("set", "default"));
        assert_eq!(graph.gone("pod"), []);
        assert!(graph.nodes.is_empty());
    }

    #[test]
    fn who_goes_in_the_foreground_may_be_asked_to_free_its_dependents_instead() {
        let mut graph = Graph::default();
        let sets = Arc::new(ResourceType::of::<ReplicaSet>());
        assert_eq!(graph.set_types(&[sets.as_ref().clone()]), []);
        let mut set = meta("set", None);
        assert_eq!(graph.seen(&sets, &set), []);
        set.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        set.finalizers = Some(vec![FOREGROUND.into()]);
        assert_eq!(graph.seen(&sets, &set), [Todo::Delete("set".into())]);
        set.finalizers = Some(vec![ORPHAN.into()]);
        assert_eq!(graph.seen(&sets, &set), [Todo::Orphan("set".into())]);
        assert_eq!(graph.seen(&sets, &set), []);
    }

    #[test]
    fn dependents_of_an_unknown_kind_are_looked_at_once_it_is_served() {
        let mut graph = Graph::default();
        let sets = Arc::new(ResourceType::of::<ReplicaSet>());
        let pods = Arc::new(ResourceType::of::<Pod>());
        assert_eq!(graph.set_types(&[pods.as_ref().clone()]), []);
        assert_eq!(graph.seen(&pods, &meta("pod", Some("set"))), []);
        assert_eq!(graph.seen(&pods, &meta("other", Some("set"))), []);
        assert_eq!(graph.gone("other"), []);
        let both = [sets.as_ref().clone(), pods.as_ref().clone()];
        let todos = graph.set_types(&both);
        // The owner is verified, and so is the dependent.
        assert_eq!(todos, [Todo::Delete("set".into()), Todo::Delete("pod".into())]);
        assert_eq!(graph.blocking("set"), [("pod".to_owned(), false)]);
        assert_eq!(graph.set_types(&both), []);
        // A kind that is served no more tells nothing about its objects.
        graph.set_types(&[pods.as_ref().clone()]);
        let owner = meta("pod", Some("set")).owner_references.unwrap().remove(0);
        assert_eq!(graph.locate(&owner, "default"), None);
    }
}
