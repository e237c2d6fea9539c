//! ResourceQuotas: how much of what a namespace may use is used.
//!
//! Admission charges what is created; this controller counts what is there, so that what is
//! deleted or over is given back, and what was charged and never stored too.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/resourcequota`.
//! Differs: only kinds that some quota counts are followed; objects that nobody charged are noticed
//! after a second, where upstream takes up to five minutes.

mod ledger;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus},
        resource::v1::{DeviceClass, ResourceClaim},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use orch_core::{
    ClientError, Key, Resources,
    client::ListOptions,
    extended_resource::DeviceClasses,
    informer::{Change, Informer, Informers},
    quota::{self, Amounts, Extended, Usage, parsed},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ledger::{Counted, Ledger};
use crate::{
    Action, Reconciler, WorkQueue, context::Context, manager::Runnable, reconciler::Reconciled,
    resource_types::ResourceTypes,
};

/// How often everything is counted anew.
///
/// Source: `--resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);

/// How long a new object may wait to be counted: admission has charged for it already.
const NEW_WAIT: Duration = Duration::from_secs(1);

/// How long a quota must have been unchanged before its usage is lowered: what admission has charged
/// for is stored by then, and seen. Otherwise the last of something could be given away twice.
const QUIET: Duration = Duration::from_secs(1);

/// When each quota was seen to change last.
type Changed = Mutex<HashMap<Key, Instant>>;

/// The controller of ResourceQuotas over all kinds that `types` gives.
pub fn resource_quota(informers: &Informers, types: Arc<dyn ResourceTypes>) -> Runnable {
    let context = Context::new(informers, "resourcequota-controller");
    let quotas = context.informer::<ResourceQuota>();
    let builder = context.builder();
    let queue = builder.queue().clone();
    let (concerned, told) = (quotas.clone(), queue.clone());
    let notify = move |counted: &Counted, namespace: &str, is_new: bool| {
        tell(&concerned, &told, counted, namespace, is_new);
    };
    let ledger = Arc::new(Ledger::new(context.clone(), types, notify));
    let changed = Arc::new(Changed::default());
    let seen = changed.clone();
    let controller = builder
        .watches::<ResourceQuota>(move |change| {
            let key = Key::of(&change.object().metadata);
            match change {
                // The status is written by this controller and by admission.
                Change::Updated { old, new } => {
                    seen.lock().insert(key.clone(), Instant::now());
                    if old.spec == new.spec { Vec::new() } else { vec![key] }
                }
                Change::Added(_) => vec![key],
                Change::Deleted(_) => {
                    seen.lock().remove(&key);
                    vec![key]
                }
            }
        })
        .build(QuotaReconciler {
            context: context.clone(),
            quotas: quotas.clone(),
            ledger: ledger.clone(),
            changed,
        });
    Runnable::new("resourcequota-controller", move |stop: CancellationToken| async move {
        let resync = resync(&context, &quotas, &queue, &ledger, &stop);
        tokio::join!(controller.run(stop.clone()), resync);
        ledger.close();
    })
}

/// Counts anew for the quotas of a namespace that count the kind of an object.
fn tell(
    quotas: &Informer<ResourceQuota>,
    queue: &WorkQueue,
    counted: &Counted,
    namespace: &str,
    is_new: bool,
) {
    for quota in quotas.list_in(namespace) {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        let mut names = hard.into_iter().flat_map(|hard| hard.keys());
        if !names.any(|name| Counted::all(name).any(|one| one == *counted)) {
            continue;
        }
        let key = Key::of(&quota.metadata);
        queue.add_after(key, if is_new { NEW_WAIT } else { Duration::ZERO });
    }
}

async fn resync(
    context: &Context,
    quotas: &Informer<ResourceQuota>,
    queue: &WorkQueue,
    ledger: &Ledger,
    stop: &CancellationToken,
) {
    loop {
        let sleep = context.environment().clock.sleep(RESYNC);
        if stop.run_until_cancelled(sleep).await.is_none() {
            return;
        }
        ledger.forget_outdated().await;
        quotas.list().iter().for_each(|quota| queue.add(Key::of(&quota.metadata)));
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Counting {
    /// What was seen: what admission has charged for may not be among it yet.
    Local,
    /// What the cluster has. Before something is given back, so that it is not given away twice.
    Latest,
}

struct QuotaReconciler {
    context: Context,
    quotas: Informer<ResourceQuota>,
    ledger: Arc<Ledger>,
    changed: Arc<Changed>,
}

#[async_trait]
impl Reconciler for QuotaReconciler {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(quota) = self.quotas.get(&key) else {
            self.forget_unused();
            return Ok(Action::Done);
        };
        let Some(spec) = quota.spec.as_ref() else { return Ok(Action::Done) };
        let hard = parsed(spec.hard.as_ref());
        let status = quota.status.clone().unwrap_or_default();
        let before = parsed(status.used.as_ref());
        let total = |counted: Amounts| {
            let mut used = before.clone();
            used.extend(counted);
            used.retain(|name, _| hard.contains_key(name));
            used
        };
        let mut used = total(self.count(&key.namespace, spec, &hard, Counting::Local).await?);
        let known =
            status.hard.is_some() && status.used.is_some() && hard == parsed(status.hard.as_ref());
        if known && used == before {
            return Ok(Action::Done);
        }
        let lowers = before.iter().any(|(name, amount)| used.get(name).is_none_or(|u| u < amount));
        if lowers {
            if let Some(wait) = self.restless(&key) {
                return Ok(Action::RequeueAfter(wait));
            }
            used = total(self.count(&key.namespace, spec, &hard, Counting::Latest).await?);
            if known && used == before {
                // What was seen is behind. More will be seen.
                return Ok(Action::Done);
            }
        }
        self.write(&key, &quota, used).await?;
        Ok(Action::Done)
    }
}

impl QuotaReconciler {
    /// How long until the quota has been unchanged for long enough.
    fn restless(&self, key: &Key) -> Option<Duration> {
        let since = self.changed.lock().get(key)?.elapsed();
        QUIET.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// What is used of everything that the quota limits and that can be counted.
    async fn count(
        &self,
        namespace: &str,
        spec: &ResourceQuotaSpec,
        hard: &Amounts,
        counting: Counting,
    ) -> Result<Amounts, ClientError> {
        let mut used = Amounts::new();
        let mut kinds: Vec<Counted> = hard.keys().flat_map(|name| Counted::all(name)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let now = self.context.now();
        for kind in kinds {
            if !self.ledger.follow(&kind).await? {
                continue;
            }
            let names = hard.keys().filter(|name| Counted::by(name).as_ref() == Some(&kind));
            used.extend(names.map(|name| (name.clone(), orch_core::quantity::Amount::ZERO)));
            let take = |usage: &Usage| {
                if usage.is_in_scope(spec) {
                    for (name, amount) in usage.amounts(now) {
                        if let Some(sum) = used.get_mut(name) {
                            *sum += amount;
                        }
                    }
                }
            };
            match counting {
                Counting::Local => self.ledger.each(&kind, namespace, take),
                Counting::Latest => self.ledger.each_now(&kind, namespace, take).await?,
            }
            let devices = hard.keys().any(|name| quota::is_of_devices(name));
            if devices && kind == Counted::claims() {
                for (name, amount) in self.of_devices(namespace, spec).await? {
                    used.entry(name).and_modify(|sum| *sum += amount);
                }
            }
        }
        Ok(used)
    }

    /// What claims for devices use under the names of extended resources. It depends on more than
    /// the claims, so that all of that is looked at as it is now.
    async fn of_devices(
        &self,
        namespace: &str,
        spec: &ResourceQuotaSpec,
    ) -> Result<Amounts, ClientError> {
        let mut classes = DeviceClasses::default();
        let known: Resources<DeviceClass> = Resources::all(self.context.client().clone());
        for class in known.list(ListOptions::default()).await? {
            classes.set(&class);
        }
        let all = ListOptions::default;
        let claims = self.context.resources::<ResourceClaim>(namespace).list_objects(all()).await?;
        let pods = self.context.resources::<Pod>(namespace).list_objects(all()).await?;
        let claims: Vec<_> = claims.items.iter().map(|claim| claim.to_value()).collect();
        let pods = pods.items.iter().map(|pod| pod.to_value());
        let extended = Extended::new(classes, pods, &claims);
        let (mut used, now) = (Amounts::new(), self.context.now());
        for claim in &claims {
            if Usage::of("resource.k8s.io", "resourceclaims", claim).is_in_scope(spec) {
                quota::add(&mut used, &extended.of(claim, now));
            }
        }
        Ok(used)
    }

    async fn write(
        &self,
        key: &Key,
        quota: &ResourceQuota,
        used: Amounts,
    ) -> Result<(), ClientError> {
        let quantities = |amounts: Amounts| {
            amounts.into_iter().map(|(name, amount)| (name, Quantity::from(amount))).collect()
        };
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let status = ResourceQuotaStatus {
            hard: Some(hard.unwrap_or_default()),
            used: Some(quantities(used)),
        };
        let updated = ResourceQuota { status: Some(status), ..quota.clone() };
        let quotas = self.context.resources::<ResourceQuota>(&key.namespace);
        match quotas.update_status(&updated).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Stops to follow the kinds that no quota counts any more.
    fn forget_unused(&self) {
        let quotas = self.quotas.list();
        let specs = quotas.iter().filter_map(|quota| quota.spec.as_ref());
        let names = specs.flat_map(|spec| spec.hard.iter().flat_map(|hard| hard.keys()));
        let used: Vec<Counted> = names.flat_map(|name| Counted::all(name)).collect();
        self.ledger.retain(|kind| used.contains(kind));
    }
}

impl Counted {
    fn claims() -> Self {
        Self { group: "resource.k8s.io".to_owned(), plural: "resourceclaims".to_owned() }
    }

    /// The kinds whose objects use what a quota limits under this name.
    fn all(name: &str) -> impl Iterator<Item = Self> + use<> {
        let devices = quota::is_of_devices(name).then(Self::claims);
        Self::by(name).into_iter().chain(devices)
    }

    /// The kind to which a quota's name belongs.
    fn by(name: &str) -> Option<Self> {
        let (group, plural) = quota::counted(name)?;
        quota::is_counted(&group, &plural)
            .then(|| Self { group: group.into_owned(), plural: plural.into_owned() })
    }
}
