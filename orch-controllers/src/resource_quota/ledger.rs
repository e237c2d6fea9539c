//! What the objects of all counted kinds use, by namespace.

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::{
    ClientError, Key, Object, ResourceType, Scope, Target,
    awaited::Awaited,
    client::{ListOptions, Read, ReadReply},
    quota::Usage,
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::{
    context::Context,
    follower::{Follow, Follower, Known, Synced},
    resource_types::ResourceTypes,
};

/// A kind of objects that quotas count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counted {
    pub(super) group: String,
    pub(super) plural: String,
}

/// Called with the kind and the namespace of an object that uses something else than before, and
/// whether the object is new.
type Notify = dyn Fn(&Counted, &str, bool) + Send + Sync;

/// By namespace and name.
type Usages = BTreeMap<String, BTreeMap<String, Usage>>;

struct Account {
    resource: ResourceType,
    usages: Arc<Mutex<Usages>>,
    synced: Synced,
    task: AbortHandle,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) struct Ledger {
    context: Context,
    types: Arc<dyn ResourceTypes>,
    notify: Arc<Notify>,
    accounts: Mutex<BTreeMap<Counted, Account>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} kinds)", self.accounts.lock().len())
    }
}

impl Ledger {
    pub(super) fn new(
        context: Context,
        types: Arc<dyn ResourceTypes>,
        notify: impl Fn(&Counted, &str, bool) + Send + Sync + 'static,
    ) -> Self {
        Self { context, types, notify: Arc::new(notify), accounts: Mutex::default() }
    }

    /// Follows a kind from now on, and waits until its objects are known. `false` if there is no
    /// such kind in namespaces.
    pub(super) async fn follow(&self, kind: &Counted) -> Result<bool, ClientError> {
        let known = self.accounts.lock().get(kind).map(|account| account.synced.clone());
        let synced = match known {
            Some(synced) => synced,
            None => {
                let Some(resource) = self.resource(kind).await? else { return Ok(false) };
                let mut accounts = self.accounts.lock();
                let account =
                    accounts.entry(kind.clone()).or_insert_with(|| self.open(kind, resource));
                account.synced.clone()
            }
        };
        synced.wait_for(|synced| synced).await;
        Ok(true)
    }

    async fn resource(&self, kind: &Counted) -> Result<Option<ResourceType>, ClientError> {
        let types = self.types.resource_types().await?;
        Ok(types.into_iter().find(|of| {
            of.scope == Scope::Namespaced && of.group == kind.group && of.plural == kind.plural
        }))
    }

    fn open(&self, kind: &Counted, resource: ResourceType) -> Account {
        let usages = Arc::new(Mutex::new(Usages::new()));
        let synced = Synced::new(Awaited::new(false));
        let follow =
            Booking { kind: kind.clone(), usages: usages.clone(), notify: self.notify.clone() };
        let follower = Follower {
            client: self.context.client().clone(),
            environment: self.context.environment().clone(),
            resource: resource.clone(),
            synced: synced.clone(),
            known: Known::default(),
            follow,
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        Account { resource, usages, synced, task }
    }

    /// Calls `take` with what each object of the kind uses in a namespace.
    pub(super) fn each(&self, kind: &Counted, namespace: &str, take: impl FnMut(&Usage)) {
        let usages = self.accounts.lock().get(kind).map(|account| account.usages.clone());
        let Some(usages) = usages else { return };
        let usages = usages.lock();
        usages.get(namespace).into_iter().flat_map(BTreeMap::values).for_each(take);
    }

    /// As [`Ledger::each`], of the objects that the cluster has now, not of those that were seen.
    pub(super) async fn each_now(
        &self,
        kind: &Counted,
        namespace: &str,
        mut take: impl FnMut(&Usage),
    ) -> Result<(), ClientError> {
        let resource = self.accounts.lock().get(kind).map(|account| account.resource.clone());
        let Some(resource) = resource else { return Ok(()) };
        let list =
            Read::List(Target::collection(resource, Some(namespace)), ListOptions::default());
        let ReadReply::List(list) = self.context.client().read(list).await? else {
            return Ok(());
        };
        for object in &list.items {
            take(&Usage::of(&kind.group, &kind.plural, &object.to_value()));
        }
        Ok(())
    }

    pub(super) fn retain(&self, is_used: impl Fn(&Counted) -> bool) {
        self.accounts.lock().retain(|kind, _| is_used(kind));
    }

    /// Stops to follow kinds that are served no more, or in another version.
    pub(super) async fn forget_outdated(&self) {
        let all_core = self.accounts.lock().keys().all(|kind| kind.group.is_empty());
        if all_core {
            return;
        }
        // Not known for now: they are looked at again the next time.
        let Ok(types) = self.types.resource_types().await else { return };
        self.accounts.lock().retain(|_, account| types.contains(&account.resource));
    }

    /// Follows nothing any more.
    pub(super) fn close(&self) {
        self.accounts.lock().clear();
    }
}

/// Books the objects of one kind.
struct Booking {
    kind: Counted,
    usages: Arc<Mutex<Usages>>,
    notify: Arc<Notify>,
}

impl Follow for Booking {
    fn seen(&mut self, object: &Object, _meta: &ObjectMeta) {
        let Key { namespace, name } = object.key();
        let usage = Usage::of(&self.kind.group, &self.kind.plural, &object.to_value());
        let before = {
            let mut usages = self.usages.lock();
            usages.entry(namespace.clone()).or_default().insert(name, usage.clone())
        };
        if before.as_ref() != Some(&usage) {
            (self.notify)(&self.kind, &namespace, before.is_none());
        }
    }

    fn gone(&mut self, key: &Key, _uid: &str) {
        {
            let mut usages = self.usages.lock();
            let Some(own) = usages.get_mut(&key.namespace) else { return };
            own.remove(&key.name);
            if own.is_empty() {
                usages.remove(&key.namespace);
            }
        }
        (self.notify)(&self.kind, &key.namespace, false);
    }
}
