//! ResourceQuotas: what a namespace may use.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`,
//! `k8s.io/kubernetes/pkg/quota/v1/evaluator/core`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1 as core,
    resource::v1::{DeviceClass, ResourceClaim},
};
use orch_core::{
    ApiError, Client, Environment, ResourceType, Resources, Target,
    client::{ListOptions, Read, ReadReply},
    extended_resource::DeviceClasses,
    quantity::Amount,
    quota::{self, Amounts, Extended, Usage, parsed},
};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::service_account::into_api_error;

/// How often a charge that lost against another is tried again.
const ATTEMPTS_MAX: usize = 16;

/// Refuses what exceeds a quota, and charges what does not, by compare-and-set on the quota's
/// status: two API servers cannot both give away the last of something.
///
/// `Differs:` upstream relies on a controller to lower the usage again. Here, before something is
/// refused, the usage is counted anew, so that a quota is never full of objects that are gone.
#[derive(Debug)]
pub struct ResourceQuota {
    client: Arc<dyn Client>,
    environment: Environment,
    pending: Arc<Mutex<AllPending>>,
}

/// What was admitted and may not be stored yet, by namespace, and how many there were so far.
#[derive(Debug, Default)]
struct AllPending {
    count: u64,
    by_namespace: HashMap<String, BTreeMap<u64, Pending>>,
}

#[derive(Clone, Debug)]
struct Pending {
    plural: String,
    name: String,
    object: Value,
}

/// Something is pending until this is dropped.
struct UnderWay {
    pending: Arc<Mutex<AllPending>>,
    namespace: String,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        let Some(own) = pending.by_namespace.get_mut(&self.namespace) else { return };
        own.remove(&self.number);
        if own.is_empty() {
            pending.by_namespace.remove(&self.namespace);
        }
    }
}

/// A charge: the quota, as far as it concerns the request.
struct Charge {
    quota: Arc<core::ResourceQuota>,
    /// What the request adds, of the resources that the quota limits.
    delta: Amounts,
}

fn hard(quota: &core::ResourceQuota) -> Amounts {
    parsed(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

fn used(quota: &core::ResourceQuota) -> Amounts {
    parsed(quota.status.as_ref().and_then(|status| status.used.as_ref()))
}

fn name(quota: &core::ResourceQuota) -> &str {
    quota.metadata.name.as_deref().unwrap_or_default()
}

fn printed(amounts: impl Iterator<Item = (String, Amount)>) -> String {
    amounts.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

impl ResourceQuota {
    /// Reads and charges quotas through `client`.
    pub fn new(client: Arc<dyn Client>, environment: Environment) -> Self {
        Self { client, environment, pending: Arc::default() }
    }

    fn usage(request: &AdmissionRequest, object: &Value) -> Usage {
        let resource = &request.target.resource;
        Usage::of(&resource.group, &resource.plural, object)
    }

    fn quotas(&self, namespace: &str) -> Resources<core::ResourceQuota> {
        Resources::namespaced(self.client.clone(), namespace)
    }

    /// The quotas that limit something that the request adds.
    async fn charges(
        &self,
        request: &AdmissionRequest,
        object: &Value,
        delta: &Amounts,
    ) -> Result<Vec<Charge>, ApiError> {
        let quotas = self.quotas(request.namespace());
        let list = quotas.list_objects(ListOptions::default()).await.map_err(into_api_error)?;
        let usage = Self::usage(request, object);
        let mut charges = Vec::new();
        for item in list.items {
            let quota = item.decode::<core::ResourceQuota>().map_err(ApiError::internal)?;
            let is_pod = request.is_for("", "pods");
            let Some(spec) = quota.spec.as_ref() else { continue };
            if !usage.is_in_scope(spec) {
                continue;
            }
            let hard = hard(&quota);
            if is_pod && request.operation == Operation::Create {
                self.require_amounts(request, &quota, &hard, object)?;
            }
            let limited = delta.iter().filter(|(name, _)| hard.contains_key(*name));
            let delta: Amounts = limited.map(|(n, a)| (n.clone(), *a)).collect();
            if !delta.is_empty() {
                charges.push(Charge { quota, delta });
            }
        }
        Ok(charges)
    }

    /// A quota on a compute resource requires that every container says what it needs of it.
    #[expect(clippy::unused_self, reason = "part of the plugin's steps")]
    fn require_amounts(
        &self,
        request: &AdmissionRequest,
        quota: &core::ResourceQuota,
        hard: &Amounts,
        pod: &Value,
    ) -> Result<(), ApiError> {
        let missing = quota::missing_amounts(hard, &pod["spec"]);
        if missing.is_empty() {
            return Ok(());
        }
        let name = name(quota);
        Err(request.refuse(&format!("failed quota: {name}: must specify {}", missing.join("; "))))
    }

    /// The objects of a kind in the request's namespace: those that are stored, and those that were
    /// admitted and may not be stored yet.
    async fn objects(
        &self,
        request: &AdmissionRequest,
        resource: ResourceType,
    ) -> Result<Vec<Value>, ApiError> {
        // Before the list: what is stored in between is in both.
        let mut pending = self.pending_of(request, &resource.plural);
        let collection = Target::collection(resource, Some(request.namespace()));
        let reply = self.client.read(Read::List(collection, ListOptions::default())).await;
        let ReadReply::List(list) = reply.map_err(into_api_error)? else {
            return Err(ApiError::internal("a list was answered with an object"));
        };
        let names = list.items.iter().filter_map(|object| object.metadata().name.as_deref());
        let stored: HashSet<&str> = names.collect();
        pending.retain(|one| !stored.contains(&*one.name));
        let stored = list.items.iter().map(|object| object.to_value());
        Ok(stored.chain(pending.into_iter().map(|one| one.object)).collect())
    }

    /// Counts what is used of the resources of a charge, now.
    async fn count(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
    ) -> Result<Amounts, ApiError> {
        let mut total: Amounts =
            charge.delta.keys().map(|name| (name.clone(), Amount::ZERO)).collect();
        let spec = charge.quota.spec.clone().unwrap_or_default();
        let today = self.environment.clock.now();
        let mut take = |usage: &Usage, more: &Amounts, own: bool| {
            let amounts =
                usage.amounts(today).filter(|(name, _)| own || quota::is_of_devices(name));
            let more = more.iter().map(|(name, amount)| (name.as_str(), *amount));
            for (name, amount) in amounts.chain(more).filter(|_| usage.is_in_scope(&spec)) {
                if let Some(sum) = total.get_mut(name) {
                    *sum += amount;
                }
            }
        };
        let mut kinds = vec![request.target.resource.clone()];
        if charge.delta.keys().any(|name| quota::is_of_devices(name)) {
            kinds = vec![ResourceType::of::<core::Pod>(), ResourceType::of::<ResourceClaim>()];
        }
        for kind in kinds {
            let objects = self.objects(request, kind.clone()).await?;
            let extended = match &*kind.plural {
                "resourceclaims" => self.extended(request, charge.delta.keys(), &objects).await?,
                _ => None,
            };
            for object in &objects {
                let own = kind.plural == request.target.resource.plural;
                let more = extended.as_ref().map(|extended| extended.of(object, today));
                let usage = Usage::of(&kind.group, &kind.plural, object);
                take(&usage, &more.unwrap_or_default(), own);
            }
        }
        Ok(total)
    }

    /// What decides what claims for devices use under the names of extended resources; `None` if
    /// none of these names is such a one.
    async fn extended(
        &self,
        request: &AdmissionRequest,
        names: impl IntoIterator<Item = &String>,
        claims: &[Value],
    ) -> Result<Option<Extended>, ApiError> {
        if !names.into_iter().any(|name| quota::is_of_devices(name)) {
            return Ok(None);
        }
        let known: Resources<DeviceClass> = Resources::all(self.client.clone());
        let mut classes = DeviceClasses::default();
        for class in known.list(ListOptions::default()).await.map_err(into_api_error)? {
            classes.set(&class);
        }
        let pods = self.objects(request, ResourceType::of::<core::Pod>()).await?;
        Ok(Some(Extended::new(classes, pods, claims)))
    }

    /// What a claim for devices uses under the names of extended resources, as far as some quota
    /// limits any.
    async fn of_devices(
        &self,
        request: &AdmissionRequest,
        object: &Value,
    ) -> Result<Amounts, ApiError> {
        if !request.is_for("resource.k8s.io", "resourceclaims") {
            return Ok(Amounts::new());
        }
        let quotas = self.quotas(request.namespace()).list(ListOptions::default()).await;
        let quotas = quotas.map_err(into_api_error)?;
        let names: Vec<String> = quotas.iter().flat_map(|quota| hard(quota).into_keys()).collect();
        if !names.iter().any(|name| quota::is_of_devices(name)) {
            return Ok(Amounts::new());
        }
        let mut claims = self.objects(request, request.target.resource.clone()).await?;
        claims.push(object.clone());
        let extended = self.extended(request, &names, &claims).await?;
        let now = self.environment.clock.now();
        Ok(extended.map(|extended| extended.of(object, now)).unwrap_or_default())
    }

    /// Checks one quota; counts anew where its status does not say or says that it is full.
    /// Gives the usage to start from, or nothing if that was written down lower than it was.
    async fn check(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
    ) -> Result<Option<Amounts>, ApiError> {
        let hard = hard(&charge.quota);
        let excess = |used: &Amounts| -> Vec<String> {
            let exceeds = |(name, more): (&String, &Amount)| {
                let before = used.get(name).copied().unwrap_or_default();
                hard.get(name).filter(|most| before + *more > **most).map(|_| name.clone())
            };
            charge.delta.iter().filter_map(exceeds).collect()
        };
        let mut used = used(&charge.quota);
        let known = charge.delta.keys().all(|name| used.contains_key(name));
        let full = !excess(&used).is_empty();
        if !known || full {
            used.extend(self.count(request, charge).await?);
        }
        let over = excess(&used);
        if over.is_empty() && known && full && !request.dry_run {
            // A charge on top of what is gone might leave the status as it is: then nobody who
            // read the quota before would lose against it, and what it gives away is given twice.
            self.write_used(request, &charge.quota, used).await?;
            return Ok(None);
        }
        if over.is_empty() {
            return Ok(Some(used));
        }
        let of = |amounts: &Amounts| {
            printed(
                over.iter()
                    .map(|name| (name.clone(), amounts.get(name).copied().unwrap_or_default())),
            )
        };
        Err(request.refuse(&format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            name(&charge.quota),
            of(&charge.delta),
            of(&used),
            of(&hard)
        )))
    }

    /// Writes the new usage; `false` if somebody else wrote the quota meanwhile.
    async fn charge(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
        mut used: Amounts,
    ) -> Result<bool, ApiError> {
        quota::add(&mut used, &charge.delta);
        self.write_used(request, &charge.quota, used).await
    }

    async fn write_used(
        &self,
        request: &AdmissionRequest,
        quota: &core::ResourceQuota,
        used: Amounts,
    ) -> Result<bool, ApiError> {
        let mut quota = quota.clone();
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let status = quota.status.get_or_insert_default();
        status.hard = hard;
        status.used = Some(used.into_iter().map(|(n, a)| (n, a.to_quantity())).collect());
        match self.quotas(request.namespace()).update_status(&quota).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            // The quota is gone: nothing is limited by it any more.
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(into_api_error(error)),
        }
    }

    /// Checks and charges all quotas once; `false` if one of them was written meanwhile.
    async fn attempt(
        &self,
        request: &AdmissionRequest,
        object: &Value,
        delta: &Amounts,
    ) -> Result<bool, ApiError> {
        let mut checked = Vec::new();
        for charge in self.charges(request, object, delta).await? {
            let Some(used) = self.check(request, &charge).await? else { return Ok(false) };
            checked.push((charge, used));
        }
        if request.dry_run || checked.is_empty() {
            return Ok(true);
        }
        let mut all = true;
        for (charge, used) in checked {
            all &= self.charge(request, &charge, used).await?;
        }
        if all {
            self.remember(request, object);
        }
        Ok(all)
    }

    fn remember(&self, request: &AdmissionRequest, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if request.operation != Operation::Create || name.is_empty() {
            return;
        }
        let one = Pending {
            plural: request.target.resource.plural.to_string(),
            name: name.to_owned(),
            object: object.clone(),
        };
        let namespace = request.namespace().to_owned();
        let mut pending = self.pending.lock();
        pending.count += 1;
        let number = pending.count;
        pending.by_namespace.entry(namespace.clone()).or_default().insert(number, one);
        drop(pending);
        request.hold(UnderWay { pending: self.pending.clone(), namespace, number });
    }

    /// What was admitted of a kind and may not be stored yet.
    fn pending_of(&self, request: &AdmissionRequest, plural: &str) -> Vec<Pending> {
        let pending = self.pending.lock();
        let own = pending.by_namespace.get(request.namespace());
        let own = own.into_iter().flat_map(BTreeMap::values);
        own.filter(|one| one.plural == plural).cloned().collect()
    }
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let resource = &request.target.resource;
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let concerned =
            writes && request.target.subresource.is_none() && !request.namespace().is_empty();
        let Some(object) = request.object.as_ref().filter(|_| concerned) else { return Ok(()) };
        let (group, plural) = (&*resource.group, &*resource.plural);
        let may_charge = match request.operation {
            Operation::Create => quota::is_counted(group, plural),
            _ => quota::is_measured(group, plural),
        };
        if !may_charge {
            return Ok(());
        }
        let now = self.environment.clock.now();
        let own = |(name, amount): (&str, Amount)| (name.to_owned(), amount);
        let mut delta: Amounts = Self::usage(request, object).amounts(now).map(own).collect();
        if let Some(old) = &request.old {
            for (name, amount) in Self::usage(request, &old.to_value()).amounts(now) {
                *delta.entry(name.to_owned()).or_default() -= amount;
            }
        } else {
            // What a claim wants does not change.
            delta.extend(self.of_devices(request, object).await?);
        }
        delta.retain(|_, amount| *amount > Amount::ZERO);
        if delta.is_empty() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS_MAX {
            if self.attempt(request, object, &delta).await? {
                return Ok(());
            }
        }
        Err(ApiError::conflict(
            "",
            "resourcequotas",
            "",
            "the object has been modified; please apply your changes to the latest version and try again",
        ))
    }
}
