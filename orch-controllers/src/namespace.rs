//! Namespaces: emptying those that are being deleted.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/namespace`.

mod conditions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus, Pod};
use orch_core::{
    ClientError, Key, ResourceType, Resources, Scope, Target,
    client::{
        Client, DeleteOptions, ListOptions, ObjectList, Propagation, Read, ReadReply, Write,
        WriteOptions,
    },
    informer::{Change, Informer, Informers},
    status::Reason,
};
use serde_json::json;

pub use crate::resource_types::ResourceTypes;
use crate::{Action, Controller, Reconciler, context::Context, reconciler::Reconciled};

const FINALIZER: &str = "kubernetes";

/// The controller of Namespaces.
pub fn namespace(informers: &Informers, types: Arc<dyn ResourceTypes>) -> Controller {
    let context = Context::new(informers, "namespace-controller");
    let namespaces = context.informer::<Namespace>();
    let known = namespaces.clone();
    context
        .builder()
        .watches_own_if::<Namespace>(|change| change.object().metadata.deletion_timestamp.is_some())
        // The last pod of a namespace is what is mostly waited for.
        .watches::<Pod>(move |change| {
            let Change::Deleted(pod) = change else { return Vec::new() };
            let key = Key::cluster(pod.metadata.namespace.clone().unwrap_or_default());
            let going = known.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
            if going { vec![key] } else { Vec::new() }
        })
        .build(NamespaceReconciler { context, namespaces, types })
}

struct NamespaceReconciler {
    context: Context,
    namespaces: Informer<Namespace>,
    types: Arc<dyn ResourceTypes>,
}

/// What is left of a namespace's content.
#[derive(Default)]
pub(crate) struct Remaining {
    /// How many objects, by resource.
    pub(crate) objects: BTreeMap<String, usize>,
    /// How many objects wait for a finalizer, by finalizer.
    pub(crate) finalizers: BTreeMap<String, usize>,
    /// What could not be deleted, and why.
    pub(crate) failures: Vec<String>,
    /// How long until it is worth looking again.
    pub(crate) wait_s: i64,
}

#[async_trait]
impl Reconciler for NamespaceReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let resources = self.context.resources::<Namespace>("");
        let Some(known) = self.namespaces.get(&key) else { return Ok(Action::Done) };
        if known.metadata.deletion_timestamp.is_none() {
            return Ok(Action::Done);
        }
        let Some(namespace) = resources.get_opt(&key.name).await? else { return Ok(Action::Done) };
        if namespace.metadata.uid != known.metadata.uid || !has_finalizer(&namespace) {
            return Ok(Action::Done);
        }
        let namespace = self.mark_terminating(&resources, namespace).await?;
        let types = match self.types.resource_types().await {
            Ok(types) => types,
            Err(error) => {
                let status = conditions::discovery_failed(&namespace, &error, &self.context.time());
                self.write_status(&resources, &namespace, status).await?;
                return Err(error.into());
            }
        };
        let remaining = self.empty(&key.name, &types).await;
        let status = conditions::of(&namespace, &remaining, &self.context.time());
        let namespace = self.write_status(&resources, &namespace, status).await?;
        if let Some(failure) = remaining.failures.first() {
            return Err(crate::ReconcileError::message(failure));
        }
        if remaining.objects.is_empty() {
            self.finalize(&namespace).await?;
            return Ok(Action::Done);
        }
        let wait_s = u64::try_from(remaining.wait_s / 2 + 1).unwrap_or(1);
        Ok(Action::RequeueAfter(Duration::from_secs(wait_s)))
    }
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|f| f == FINALIZER))
}

impl NamespaceReconciler {
    async fn mark_terminating(
        &self,
        resources: &Resources<Namespace>,
        namespace: Arc<Namespace>,
    ) -> Result<Arc<Namespace>, ClientError> {
        let mut status = namespace.status.clone().unwrap_or_default();
        if status.phase.as_deref() == Some("Terminating") {
            return Ok(namespace);
        }
        status.phase = Some("Terminating".to_owned());
        self.write_status(resources, &namespace, status).await
    }

    async fn write_status(
        &self,
        resources: &Resources<Namespace>,
        namespace: &Arc<Namespace>,
        status: NamespaceStatus,
    ) -> Result<Arc<Namespace>, ClientError> {
        if namespace.status.as_ref() == Some(&status) {
            return Ok(namespace.clone());
        }
        let updated = Namespace { status: Some(status), ..namespace.as_ref().clone() };
        resources.update_status(&updated).await
    }

    /// Deletes what is in a namespace, pods before everything else: what they use must not go
    /// while they run.
    async fn empty(&self, name: &str, types: &[ResourceType]) -> Remaining {
        let mut remaining = Remaining::default();
        let namespaced = types.iter().filter(|resource| resource.scope == Scope::Namespaced);
        let (pods, others): (Vec<_>, Vec<_>) =
            namespaced.partition(|resource| resource.group.is_empty() && resource.plural == "pods");
        for stage in [pods, others] {
            for resource in stage {
                if let Err(error) = self.delete_all(name, resource, &mut remaining).await {
                    remaining.failures.push(format!("{resource}: {error}"));
                }
            }
            if !remaining.objects.is_empty() {
                break;
            }
        }
        remaining
    }

    async fn delete_all(
        &self,
        name: &str,
        resource: &ResourceType,
        remaining: &mut Remaining,
    ) -> Result<(), ClientError> {
        let target = Target::collection(resource.clone(), Some(name));
        if self.list(&target).await?.items.is_empty() {
            return Ok(());
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        let all = ListOptions::default();
        match self
            .context
            .client()
            .write(Write::DeleteCollection(target.clone(), options, all))
            .await
        {
            Err(error) if is_unsupported(&error) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let left = self.list(&target).await?;
        if left.items.is_empty() {
            return Ok(());
        }
        *remaining.objects.entry(describe(resource)).or_insert(0) += left.items.len();
        for object in &left.items {
            let meta = object.metadata();
            for finalizer in meta.finalizers.iter().flatten() {
                *remaining.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
            }
            let grace_s = meta.deletion_grace_period_seconds.unwrap_or(0);
            let waits_for_others = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
            let wait_s = if waits_for_others { grace_s.max(15) } else { grace_s };
            remaining.wait_s = remaining.wait_s.max(wait_s);
        }
        Ok(())
    }

    async fn list(&self, target: &Target) -> Result<ObjectList, ClientError> {
        let read = Read::List(target.clone(), ListOptions::default());
        match self.context.client().read(read).await {
            Ok(ReadReply::List(list)) => Ok(list),
            Ok(_) => Ok(ObjectList::default()),
            Err(error) if is_unsupported(&error) => Ok(ObjectList::default()),
            Err(error) => Err(error),
        }
    }

    /// Lets the namespace go.
    async fn finalize(&self, namespace: &Namespace) -> Result<(), ClientError> {
        let spec = namespace.spec.clone().unwrap_or_default();
        let rest: Vec<String> =
            spec.finalizers.into_iter().flatten().filter(|f| f != FINALIZER).collect();
        let mut value =
            serde_json::to_value(namespace).map_err(orch_core::object::DecodeError::Shape)?;
        value["spec"]["finalizers"] = json!(rest);
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let target = Target::object(ResourceType::of::<Namespace>(), None, name);
        let write = Write::Update(target.subresource("finalize"), value, WriteOptions::default());
        match self.context.client().write(write).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The resource is not served (any more), or cannot be listed or deleted as a collection.
fn is_unsupported(error: &ClientError) -> bool {
    matches!(error.reason(), Reason::NotFound | Reason::MethodNotAllowed)
}

fn describe(resource: &ResourceType) -> String {
    format!("{}.{}", resource.plural, resource.group)
}
