//! Deleting what has no reason to be, and freeing what is left behind.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/garbagecollector/{garbagecollector.go,operations.go}`.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use orch_core::{
    ClientError, Object, Scope, Target,
    client::{Client, DeleteOptions, PatchKind, Propagation, Read, ReadReply, Write, WriteOptions},
    object::DecodeError,
};
use serde_json::json;

use super::{
    Shared,
    graph::{FOREGROUND, Identity, Node, ORPHAN, Todo},
};
use crate::context::EventType;

pub(super) struct Collector {
    pub(super) shared: Arc<Shared>,
}

/// Why the owners of an object are, or are not, a reason for it to be.
#[derive(Default)]
struct Owners {
    /// They are there, and stay.
    solid: usize,
    /// They go once their dependents are gone.
    waiting: Vec<String>,
    /// They are not there.
    dangling: Vec<String>,
    /// Whether they are there cannot be found out, ever.
    unknowable: bool,
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

fn target(identity: &Identity) -> Target {
    Target::object(identity.resource.as_ref().clone(), identity.key.namespace(), &identity.key.name)
}

impl Collector {
    pub(super) async fn work(self) {
        while let Some(work) = self.shared.queue.get().await {
            self.shared.settled.wait_for(|settled| settled).await;
            let todo = work.item();
            let result = match todo {
                Todo::Delete(uid) => self.consider(uid).await,
                Todo::Orphan(uid) => self.orphan(uid).await,
            };
            match result {
                // What came and went while a watch was down is never seen: it is asked for again.
                Ok(()) if self.is_assumed(todo) => self.shared.queue.add_rate_limited(todo.clone()),
                Ok(()) => self.shared.queue.forget(todo),
                Err(error) => {
                    tracing::debug!(?todo, %error, "will be tried again");
                    self.shared.queue.add_rate_limited(todo.clone());
                }
            }
        }
    }

    /// Whether it is about an object that is only known from what refers to it.
    fn is_assumed(&self, todo: &Todo) -> bool {
        let Todo::Delete(uid) = todo else { return false };
        self.shared.graph.lock().node(uid).is_some_and(|node| node.assumed)
    }

    fn node(&self, uid: &str) -> Option<Node> {
        self.shared.graph.lock().node(uid).cloned()
    }

    async fn live(
        &self,
        identity: &Identity,
        uid: &str,
    ) -> Result<Option<Arc<Object>>, ClientError> {
        match self.shared.context.client().read(Read::Get(target(identity))).await {
            Ok(ReadReply::Object(object)) => {
                Ok(Some(object).filter(|object| object.metadata().uid.as_deref() == Some(uid)))
            }
            Ok(_) => Err(DecodeError::NoMetadata.into()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object if none of its owners stays.
    async fn consider(&self, uid: &str) -> Result<(), ClientError> {
        let Some(node) = self.node(uid) else { return Ok(()) };
        if node.deleting_dependents {
            return self.advance_foreground(uid, &node).await;
        }
        if node.being_deleted {
            return Ok(());
        }
        let Some(live) = self.live(&node.identity, uid).await? else {
            self.shared.change(|graph| graph.gone(uid));
            return Ok(());
        };
        let references = live.metadata().owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let owners = self.judge(&node.identity, uid, &references).await?;
        if owners.unknowable {
            return Ok(());
        }
        if owners.solid > 0 {
            let lost: Vec<String> = owners.dangling.into_iter().chain(owners.waiting).collect();
            return self.drop_owners(&node.identity, live.metadata(), &lost).await;
        }
        let propagation = if !owners.waiting.is_empty() && !node.dependents.is_empty() {
            self.break_cycle(&node, live.metadata()).await?;
            return self.delete(&node.identity, uid, None, Propagation::Foreground).await;
        } else if has_finalizer(live.metadata(), ORPHAN) {
            Propagation::Orphan
        } else if has_finalizer(live.metadata(), FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        // Guarded by the version: the owners may have changed since they were judged.
        let version = live.metadata().resource_version.clone();
        self.delete(&node.identity, uid, version, propagation).await
    }

    async fn judge(
        &self,
        dependent: &Identity,
        uid: &str,
        references: &[OwnerReference],
    ) -> Result<Owners, ClientError> {
        let mut owners = Owners::default();
        let namespace = &dependent.key.namespace;
        for reference in references {
            let located = self.shared.graph.lock().locate(reference, namespace);
            let Some(owner) = located else {
                // A kind that is not served (any more, or not yet): nobody can say.
                owners.unknowable = true;
                continue;
            };
            if owner.resource.scope == Scope::Namespaced
                && dependent.resource.scope == Scope::Cluster
            {
                self.report_misplaced(dependent, uid, reference);
                owners.unknowable = true;
                continue;
            }
            if self.shared.graph.lock().is_absent(&reference.uid, &owner.key.namespace) {
                owners.dangling.push(reference.uid.clone());
                continue;
            }
            match self.live(&owner, &reference.uid).await? {
                None => {
                    self.note_absent(dependent, uid, reference, &owner);
                    owners.dangling.push(reference.uid.clone());
                }
                Some(live) if is_waiting(live.metadata()) => {
                    owners.waiting.push(reference.uid.clone());
                }
                Some(_) => owners.solid += 1,
            }
        }
        Ok(owners)
    }

    fn note_absent(
        &self,
        dependent: &Identity,
        uid: &str,
        reference: &OwnerReference,
        owner: &Identity,
    ) {
        let mut graph = self.shared.graph.lock();
        graph.note_absent(&reference.uid, &owner.key.namespace);
        let elsewhere = graph
            .node(&reference.uid)
            .is_some_and(|node| node.identity.key.namespace != owner.key.namespace);
        drop(graph);
        if elsewhere {
            self.report_misplaced(dependent, uid, reference);
        }
    }

    /// An owner in another namespace is none, and its author should know.
    fn report_misplaced(&self, dependent: &Identity, uid: &str, owner: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(dependent.resource.api_version()),
            kind: Some(dependent.resource.kind.to_string()),
            namespace: dependent.key.namespace().map(str::to_owned),
            name: Some(dependent.key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version,
            owner.kind,
            dependent.key.namespace,
            owner.name,
            owner.uid,
            dependent.key.namespace,
        );
        let context = &self.shared.context;
        context.event_about(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Two objects that own each other would wait for each other.
    async fn break_cycle(&self, node: &Node, live: &ObjectMeta) -> Result<(), ClientError> {
        let cyclic = {
            let graph = self.shared.graph.lock();
            node.dependents
                .iter()
                .any(|uid| graph.node(uid).is_some_and(|node| node.deleting_dependents))
        };
        if !cyclic {
            return Ok(());
        }
        let mut owners = live.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.patch(&node.identity, json!({"metadata": {
            "uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": owners,
        }}))
        .await
    }

    /// Deletes what an object waits for, or lets it go if that is nothing.
    async fn advance_foreground(&self, uid: &str, node: &Node) -> Result<(), ClientError> {
        let blocking = self.shared.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return self.remove_finalizer(&node.identity, uid, FOREGROUND).await;
        }
        for (dependent, already) in blocking {
            if !already {
                self.shared.queue.add(Todo::Delete(dependent));
            }
        }
        Ok(())
    }

    /// Frees the dependents of an object that is to leave them behind.
    async fn orphan(&self, uid: &str) -> Result<(), ClientError> {
        let Some(node) = self.node(uid) else { return Ok(()) };
        let lost = [uid.to_owned()];
        for dependent in &node.dependents {
            let Some(known) = self.node(dependent) else { continue };
            if let Some(live) = self.live(&known.identity, dependent).await? {
                self.drop_owners(&known.identity, live.metadata(), &lost).await?;
            }
        }
        self.remove_finalizer(&node.identity, uid, ORPHAN).await
    }

    async fn drop_owners(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        lost: &[String],
    ) -> Result<(), ClientError> {
        let owners = live.owner_references.clone().unwrap_or_default();
        let left: Vec<&OwnerReference> =
            owners.iter().filter(|owner| !lost.contains(&owner.uid)).collect();
        if left.len() == owners.len() {
            return Ok(());
        }
        self.patch(
            identity,
            json!({"metadata": {
                "uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": left,
            }}),
        )
        .await
    }

    async fn remove_finalizer(
        &self,
        identity: &Identity,
        uid: &str,
        name: &str,
    ) -> Result<(), ClientError> {
        let Some(live) = self.live(identity, uid).await? else { return Ok(()) };
        let meta = live.metadata();
        if !has_finalizer(meta, name) {
            return Ok(());
        }
        let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != name).collect();
        self.patch(
            identity,
            json!({"metadata": {
                "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": left,
            }}),
        )
        .await
    }

    async fn patch(
        &self,
        identity: &Identity,
        patch: serde_json::Value,
    ) -> Result<(), ClientError> {
        let options = WriteOptions::default();
        let write = Write::Patch(target(identity), PatchKind::Merge, patch, options);
        match self.shared.context.client().write(write).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(
        &self,
        identity: &Identity,
        uid: &str,
        resource_version: Option<String>,
        propagation: Propagation,
    ) -> Result<(), ClientError> {
        let options = DeleteOptions {
            propagation: Some(propagation),
            uid: Some(uid.to_owned()),
            resource_version,
            ..DeleteOptions::default()
        };
        match self.shared.context.client().write(Write::Delete(target(identity), options)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_waiting(owner: &ObjectMeta) -> bool {
    owner.deletion_timestamp.is_some() && has_finalizer(owner, FOREGROUND)
}
