//! Claims, classes and slices as they are known, and what is promised on top of that.
//!
//! Source: `pkg/scheduler/framework/plugins/dynamicresources/dra_manager.go` and
//! `allocateddevices.go`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Weak},
};

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use orch_core::{
    Key,
    awaited::Awaited,
    extended_resource::{DeviceClasses, claimant},
    informer::{Change, Informer, Informers},
};
use parking_lot::Mutex;

use super::{
    allocator::{Allocator, Patience},
    frozen::{Frozen, News},
    inventory::Inventory,
    selectors::Selectors,
    slice::Slice,
    usage::Usage,
};
use crate::node_info::NodeInfo;

/// A claim: what the cluster says, and what the scheduler knows better.
#[derive(Debug, Default)]
struct Known {
    observed: Option<Arc<ResourceClaim>>,
    /// The claim as the scheduler wrote it, until the cluster says the same.
    assumed: Option<Arc<ResourceClaim>>,
    /// The claim as it will be once the scheduler has written it.
    promised: Option<Arc<ResourceClaim>>,
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

fn version(claim: &ResourceClaim) -> u64 {
    let version = claim.metadata.resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

impl Known {
    fn current(&self) -> Option<&Arc<ResourceClaim>> {
        self.assumed.as_ref().or(self.observed.as_ref())
    }

    /// The claim whose devices are taken.
    fn counted(&self) -> Option<Arc<ResourceClaim>> {
        self.promised.as_ref().or(self.current()).cloned()
    }
}

/// What drivers offer, and what is taken of it.
type Now = (Arc<Inventory>, Arc<Usage>);

/// What a claim is called that is not written yet. No object can have such a name.
pub(crate) const UNWRITTEN: &str = "<extended-resources>";

/// Where a claim is known. Those that are not written yet share their name.
fn key_of(claim: &ResourceClaim) -> Key {
    let mut key = Key::of(&claim.metadata);
    if key.name == UNWRITTEN {
        key.name.push_str(claim.metadata.uid.as_deref().unwrap_or_default());
    }
    key
}

#[derive(Debug, Default)]
struct State {
    claims: HashMap<Key, Known>,
    /// Claims that were made for extended resources, by the uid of their pods.
    of_pods: HashMap<String, BTreeSet<Key>>,
    extended: DeviceClasses,
    slices: BTreeMap<String, Arc<Slice>>,
    /// Made when it is asked for, after slices changed.
    inventory: Option<Arc<Inventory>>,
    usage: Arc<Usage>,
    news: News,
}

impl State {
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Known)) {
        let known = self.claims.entry(key.clone()).or_default();
        let before = known.counted();
        change(known);
        let after = known.counted();
        if known.promised.is_none() && known.current().is_none() {
            self.claims.remove(key);
        }
        let Some(inventory) = &self.inventory else { return };
        let [before, after] = [&before, &after].map(|claim| claim.as_deref().and_then(allocation));
        if before == after {
            return;
        }
        let usage = Arc::make_mut(&mut self.usage);
        for (allocation, more) in [(before, false), (after, true)] {
            if let Some(allocation) = allocation {
                usage.count(allocation, inventory, more);
                self.news.note(allocation, inventory);
            }
        }
    }

    /// Keeps account of whose claims for extended resources were seen.
    fn seen(&mut self, key: &Key, claim: &ResourceClaim, there: bool) {
        let Some(pod) = claimant(&claim.metadata) else { return };
        let own = self.of_pods.entry(pod.to_owned()).or_default();
        if there {
            own.insert(key.clone());
        } else {
            own.remove(key);
        }
        if own.is_empty() {
            self.of_pods.remove(pod);
        }
    }

    fn inventory(&mut self) -> Now {
        if let Some(inventory) = &self.inventory {
            return (inventory.clone(), self.usage.clone());
        }
        let inventory = Arc::new(Inventory::of(&self.slices));
        let mut usage = Usage::of(inventory.len());
        for claim in self.claims.values().filter_map(Known::counted) {
            if let Some(allocation) = allocation(&claim) {
                usage.count(allocation, &inventory, true);
            }
        }
        self.usage = Arc::new(usage);
        self.inventory = Some(inventory.clone());
        (inventory, self.usage.clone())
    }
}

/// All that is known of devices, kept up to date by informers. Shared by all profiles.
pub(crate) struct Devices {
    state: Mutex<State>,
    selectors: Selectors,
    classes: Informer<DeviceClass>,
    /// How often the classes behind extended resources changed.
    mapping: Awaited<u64>,
    /// How many claims for extended resources were seen.
    seen: Awaited<u64>,
    /// Held so that they go on.
    _claims: Informer<ResourceClaim>,
    _slices: Informer<ResourceSlice>,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Devices({} slices, {} claims)", state.slices.len(), state.claims.len())
    }
}

fn more(count: &mut u64) -> bool {
    *count += 1;
    true
}

fn with(devices: &Weak<Devices>, change: impl FnOnce(&mut State)) {
    if let Some(devices) = devices.upgrade() {
        change(&mut devices.state.lock());
    }
}

impl Devices {
    /// Follows claims, classes and slices. The informers outlive this: their handlers do not keep
    /// it alive.
    pub(crate) fn follow(informers: &Informers) -> Arc<Self> {
        let (claims, slices) = (informers.of::<ResourceClaim>(), informers.of::<ResourceSlice>());
        let devices = Arc::new(Self {
            state: Mutex::default(),
            selectors: Selectors::default(),
            classes: informers.of(),
            mapping: Awaited::new(0),
            seen: Awaited::new(0),
            _claims: claims.clone(),
            _slices: slices.clone(),
        });
        let weak = Arc::downgrade(&devices);
        claims.on_change(move |change| {
            let Some(devices) = weak.upgrade() else { return };
            devices.state.lock().claim_changed(change);
            if claimant(&change.object().metadata).is_some() {
                devices.seen.update(more);
            }
        });
        let weak = Arc::downgrade(&devices);
        slices.on_change(move |change| with(&weak, |state| state.slice_changed(change)));
        let weak = Arc::downgrade(&devices);
        devices.classes.on_change(move |change| {
            let Some(devices) = weak.upgrade() else { return };
            if devices.state.lock().class_changed(change) {
                devices.mapping.update(more);
            }
        });
        devices
    }

    pub(super) fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    pub(crate) fn class(&self, name: &str) -> Option<Arc<DeviceClass>> {
        self.classes.get(&Key::cluster(name))
    }

    /// The class behind an extended resource.
    pub(crate) fn behind(&self, resource: &str) -> Option<Arc<DeviceClass>> {
        self.state.lock().extended.behind(resource).cloned()
    }

    /// Changes whenever other classes stand behind extended resources than before.
    pub(crate) fn mapping(&self) -> u64 {
        self.mapping.get()
    }

    /// A claim that was made for the extended resources of a pod; the first by name.
    pub(crate) fn claim_of_pod(&self, uid: &str) -> Option<Arc<ResourceClaim>> {
        let state = self.state.lock();
        let mut keys = state.of_pods.get(uid)?.iter();
        keys.find_map(|key| state.claims.get(key)?.current().cloned())
    }

    /// Waits until the cluster was seen to have a claim that was made for extended resources.
    pub(crate) async fn observed(&self, claim: &ResourceClaim) {
        let key = key_of(claim);
        let is_there = || {
            let state = self.state.lock();
            let observed = state.claims.get(&key).and_then(|known| known.observed.as_ref());
            observed.is_some_and(|observed| observed.metadata.uid == claim.metadata.uid)
        };
        self.seen.wait_for(|_| is_there()).await;
    }

    /// How many devices of a class a node reaches, and how many of them somebody has.
    ///
    /// Source: `pkg/scheduler/framework/plugins/noderesources/resource_allocation.go`,
    /// `calculateDRAResourceTotals`.
    pub(crate) fn totals(&self, class: &DeviceClass, node: &NodeInfo) -> (i64, i64) {
        let (inventory, usage) = self.state.lock().inventory();
        inventory.totals(&usage, class, node, &self.selectors).unwrap_or_default()
    }

    /// The newest state of a claim.
    pub(crate) fn claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        let state = self.state.lock();
        state.claims.get(&Key::new(namespace, name))?.current().cloned()
    }

    /// Whether a claim is about to be allocated for some pod.
    pub(crate) fn is_promised(&self, claim: &ResourceClaim) -> bool {
        let state = self.state.lock();
        let known = state.claims.get(&key_of(claim));
        let promised = known.and_then(|known| known.promised.as_ref());
        promised.is_some_and(|promised| promised.metadata.uid == claim.metadata.uid)
    }

    /// The devices of a claim are taken from now on.
    pub(crate) fn promise(&self, claim: &Arc<ResourceClaim>) {
        let key = key_of(claim);
        self.state.lock().change(&key, |known| known.promised = Some(claim.clone()));
    }

    /// A claim is not to be allocated any more, or it has been.
    pub(crate) fn forget_promise(&self, claim: &ResourceClaim) -> bool {
        let key = key_of(claim);
        let mut forgotten = false;
        self.state.lock().change(&key, |known| {
            let promised = known.promised.as_ref();
            if promised.is_some_and(|promised| promised.metadata.uid == claim.metadata.uid) {
                known.promised = None;
                forgotten = true;
            }
        });
        forgotten
    }

    /// A claim was written: it counts as such before the cluster says so.
    pub(crate) fn assume(&self, claim: &Arc<ResourceClaim>) {
        let key = key_of(claim);
        self.state.lock().change(&key, |known| {
            let observed = known.observed.as_ref();
            let is_news = observed.is_some_and(|observed| {
                observed.metadata.uid == claim.metadata.uid && version(observed) < version(claim)
            });
            if is_news {
                known.assumed = Some(claim.clone());
            }
        });
    }

    /// What was assumed of a claim may be wrong.
    pub(crate) fn restore(&self, claim: &ResourceClaim) {
        let key = key_of(claim);
        self.state.lock().change(&key, |known| known.assumed = None);
    }

    /// The devices as they are now, and where something changed.
    pub(super) fn look<T>(&self, look: impl FnOnce(Now, &News) -> T) -> T {
        let mut state = self.state.lock();
        let now = state.inventory();
        look(now, &state.news)
    }

    /// Finds devices for some claims with the cluster as it was, or as it is now.
    pub(crate) fn allocator(
        self: &Arc<Self>,
        claims: &[Arc<ResourceClaim>],
        frozen: Option<Frozen>,
        patience: Patience,
    ) -> Allocator {
        let at = frozen.map(|frozen| (frozen.inventory, frozen.usage));
        let at = at.unwrap_or_else(|| self.state.lock().inventory());
        Allocator::new(self.clone(), at, claims, &|name| self.class(name), patience)
    }
}

impl State {
    fn claim_changed(&mut self, change: &Change<ResourceClaim>) {
        let key = Key::of(&change.object().metadata);
        if let Change::Updated { old, .. } = change {
            // After a gap, a claim and its namesake may look like one claim that changed.
            self.seen(&key, old, false);
        }
        self.seen(&key, change.object(), !matches!(change, Change::Deleted(_)));
        match change {
            Change::Deleted(_) => self.change(&key, |known| {
                (known.observed, known.assumed) = (None, None);
            }),
            Change::Added(claim) | Change::Updated { new: claim, .. } => {
                self.change(&key, |known| {
                    let assumed = known.assumed.as_ref();
                    let is_older = assumed.is_some_and(|assumed| {
                        assumed.metadata.uid == claim.metadata.uid
                            && version(claim) < version(assumed)
                    });
                    known.observed = Some(claim.clone());
                    if !is_older {
                        known.assumed = None;
                    }
                });
            }
        }
    }

    fn class_changed(&mut self, change: &Change<DeviceClass>) -> bool {
        match change {
            Change::Deleted(class) => {
                self.extended.remove(class.metadata.name.as_deref().unwrap_or_default())
            }
            Change::Added(class) | Change::Updated { new: class, .. } => self.extended.set(class),
        }
    }

    fn slice_changed(&mut self, change: &Change<ResourceSlice>) {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        match change {
            Change::Deleted(_) => drop(self.slices.remove(&name)),
            Change::Added(slice) | Change::Updated { new: slice, .. } => {
                self.slices.insert(name, Arc::new(Slice::read(slice.clone())));
            }
        }
        self.inventory = None;
    }
}
