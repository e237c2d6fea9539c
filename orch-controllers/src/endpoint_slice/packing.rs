//! Which slices to create, change and delete, so that as few as possible are touched.
//!
//! Source: `k8s.io/endpointslice/reconciler.go`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Groups, hints};

/// How many endpoints a slice holds at most.
///
/// Source: `--max-endpoints-per-slice`.
const CAPACITY: usize = 100;

/// Slices to write.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    /// Those that are right as they are, but for their labels perhaps.
    keep: Vec<Arc<EndpointSlice>>,
}

/// An endpoint is the same one as long as it is of the same pod.
pub(super) fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    uid.unwrap_or_else(|| endpoint.addresses.join(","))
}

struct Slot {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Plan {
    /// Distributes the groups of one address family over its slices.
    pub(super) fn pack(
        &mut self,
        groups: Groups,
        existing: &[Arc<EndpointSlice>],
        describe: impl Fn() -> EndpointSlice,
    ) {
        let placeholder = describe();
        let touched = self.touched();
        let mut left = self.distribute(groups, existing, CAPACITY, describe);
        if self.touched() == touched {
            self.keep_a_placeholder(&mut left, placeholder);
        }
        self.delete.extend(left);
    }

    /// The same for slices of another size, and without a slice that says that there is nothing.
    pub(super) fn pack_all(
        &mut self,
        groups: Groups,
        existing: &[Arc<EndpointSlice>],
        capacity: usize,
        describe: impl Fn() -> EndpointSlice,
    ) {
        let left = self.distribute(groups, existing, capacity, describe);
        self.delete.extend(left);
    }

    /// All slices that there will be.
    pub(super) fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        let kept = self.keep.iter().map(AsRef::as_ref);
        self.create.iter().chain(&self.update).chain(kept)
    }

    /// The ready endpoints of the slices that change.
    pub(super) fn changing(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        let slices = self.create.iter_mut().chain(&mut self.update);
        let endpoints = slices.flat_map(|slice| slice.endpoints.iter_mut().flatten());
        endpoints.filter(|endpoint| hints::is_ready(endpoint))
    }

    /// Lets slices that were right as they are change, unless they may stay.
    pub(super) fn change_unless(&mut self, mut may_stay: impl FnMut(&EndpointSlice) -> bool) {
        for slice in std::mem::take(&mut self.keep) {
            if may_stay(&slice) {
                self.keep.push(slice);
            } else {
                self.update.push(slice.as_ref().clone());
            }
        }
    }

    /// Takes all hints away.
    pub(super) fn without_hints(&mut self) {
        self.change_unless(|slice| {
            !slice.endpoints.iter().flatten().any(|endpoint| endpoint.hints.is_some())
        });
        for slice in self.create.iter_mut().chain(&mut self.update) {
            slice.endpoints.iter_mut().flatten().for_each(|endpoint| endpoint.hints = None);
        }
    }

    /// Adds what another plan does.
    pub(super) fn merge(&mut self, other: Self) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
        self.keep.extend(other.keep);
    }

    fn touched(&self) -> usize {
        self.create.len() + self.update.len() + self.keep.len()
    }

    /// Gives the slices that nobody needs any more.
    fn distribute(
        &mut self,
        groups: Groups,
        existing: &[Arc<EndpointSlice>],
        capacity: usize,
        describe: impl Fn() -> EndpointSlice,
    ) -> Vec<Arc<EndpointSlice>> {
        let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
        let mut created = Vec::new();
        for (ports, endpoints) in groups.into_values() {
            let (own, others) = left.into_iter().partition(|slice| same_ports(slice, &ports));
            left = others;
            let rest = self.fill(own, endpoints, capacity, &mut left);
            for chunk in rest.chunks(capacity) {
                let mut slice = describe();
                slice.endpoints = Some(chunk.to_vec());
                slice.ports = (!ports.is_empty()).then(|| ports.clone());
                created.push(slice);
            }
        }
        // A slice that nobody needs any more becomes one that is needed.
        for slice in created {
            match left.pop() {
                Some(unused) => {
                    let metadata = unused.metadata.clone();
                    self.update.push(EndpointSlice { metadata, ..slice });
                }
                None => self.create.push(slice),
            }
        }
        left
    }

    /// Puts endpoints where they are already, and new ones where slices change anyway. Gives those
    /// for which there is no room.
    fn fill(
        &mut self,
        slices: Vec<Arc<EndpointSlice>>,
        endpoints: Vec<Endpoint>,
        capacity: usize,
        unused: &mut Vec<Arc<EndpointSlice>>,
    ) -> Vec<Endpoint> {
        let mut wanted: HashMap<String, Endpoint> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let mut slots: Vec<Slot> = slices
            .into_iter()
            .map(|slice| {
                let known = slice.endpoints.as_deref().unwrap_or_default();
                let endpoints: Vec<Endpoint> =
                    known.iter().filter_map(|known| wanted.remove(&identity(known))).collect();
                let changed = endpoints != known;
                Slot { slice, endpoints, changed }
            })
            .collect();
        let mut rest: Vec<Endpoint> = wanted.into_values().collect();
        rest.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        // Changed slices first, then those with the most in them.
        slots.sort_by_key(|slot| (!slot.changed, std::cmp::Reverse(slot.endpoints.len())));
        for slot in &mut slots {
            let room = capacity.saturating_sub(slot.endpoints.len());
            // An unchanged slice is touched only if that saves another.
            if rest.is_empty() || (!slot.changed && rest.len() > room) {
                continue;
            }
            slot.endpoints.extend(rest.drain(..room.min(rest.len())));
            slot.changed = true;
        }
        for slot in slots {
            if slot.endpoints.is_empty() {
                unused.push(slot.slice);
            } else if slot.changed {
                let mut slice = slot.slice.as_ref().clone();
                slice.endpoints = Some(slot.endpoints);
                self.update.push(slice);
            } else {
                self.keep.push(slot.slice);
            }
        }
        rest
    }

    /// A service without endpoints has one empty slice, so that one can tell that it was seen.
    fn keep_a_placeholder(
        &mut self,
        unused: &mut Vec<Arc<EndpointSlice>>,
        placeholder: EndpointSlice,
    ) {
        match unused.pop() {
            None => self.create.push(placeholder),
            Some(slice) if is_placeholder(&slice) => self.keep.push(slice),
            Some(slice) => {
                let mut emptied = slice.as_ref().clone();
                (emptied.endpoints, emptied.ports) = (None, None);
                self.update.push(emptied);
            }
        }
    }

    /// Gives the slices these annotations and no others.
    pub(super) fn annotate(&mut self, annotations: &BTreeMap<String, String>) {
        let wanted = (!annotations.is_empty()).then(|| annotations.clone());
        for slice in std::mem::take(&mut self.keep) {
            if slice.metadata.annotations == wanted {
                self.keep.push(slice);
            } else {
                self.update.push(slice.as_ref().clone());
            }
        }
        for slice in &mut self.update {
            slice.metadata.annotations.clone_from(&wanted);
        }
    }

    /// Lets the slices follow the service's labels.
    pub(super) fn relabel(&mut self, labels: &BTreeMap<String, String>) {
        for slice in std::mem::take(&mut self.keep) {
            if slice.metadata.labels.as_ref() == Some(labels) {
                self.keep.push(slice);
            } else {
                self.update.push(slice.as_ref().clone());
            }
        }
        for slice in self.update.iter_mut().chain(&mut self.create) {
            slice.metadata.labels = Some(labels.clone());
        }
    }
}

/// What ports are ordered and compared by.
pub(super) fn order(port: &EndpointPort) -> (String, String, Option<i32>, Option<String>) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&port.name), text(&port.protocol), port.port, port.app_protocol.clone())
}

fn is_placeholder(slice: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty)
        && slice.ports.as_ref().is_none_or(Vec::is_empty)
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    let sorted = |ports: &[EndpointPort]| {
        let mut ports: Vec<_> = ports.iter().map(order).collect();
        ports.sort();
        ports
    };
    let known = slice.ports.as_deref().unwrap_or_default();
    sorted(known) == sorted(ports) && (!known.is_empty() || !is_placeholder(slice))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn endpoint(number: usize) -> Endpoint {
        Endpoint {
            addresses: vec![format!("10.0.{}.{}", number / 250, number % 250)],
            target_ref: Some(ObjectReference {
                uid: Some(number.to_string()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }

    fn ports() -> Vec<EndpointPort> {
        vec![EndpointPort { name: Some("http".into()), port: Some(80), ..EndpointPort::default() }]
    }

    fn groups(numbers: impl Iterator<Item = usize>) -> Groups {
        Groups::from([("p".to_owned(), (ports(), numbers.map(endpoint).collect()))])
    }

    fn slices(plan: Plan) -> Vec<Arc<EndpointSlice>> {
        plan.create.into_iter().chain(plan.update).map(Arc::new).chain(plan.keep).collect()
    }

    #[test]
    fn one_change_touches_one_slice() {
        let mut plan = Plan::default();
        plan.pack(groups(0..250), &[], EndpointSlice::default);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (3, 0, 0));
        let existing = slices(plan);

        let mut plan = Plan::default();
        plan.pack(groups((0..250).filter(|n| *n != 17)), &existing, EndpointSlice::default);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));

        let mut plan = Plan::default();
        plan.pack(groups(0..251), &existing, EndpointSlice::default);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    }

    #[test]
    fn no_endpoints_leave_one_empty_slice() {
        let mut plan = Plan::default();
        plan.pack(Groups::new(), &[], EndpointSlice::default);
        assert_eq!(plan.create.len(), 1);
        let placeholder = slices(plan);

        let mut plan = Plan::default();
        plan.pack(Groups::new(), &placeholder, EndpointSlice::default);
        assert!(plan.create.is_empty() && plan.update.is_empty() && plan.delete.is_empty());

        // The placeholder becomes the first real slice.
        let mut plan = Plan::default();
        plan.pack(groups(0..3), &placeholder, EndpointSlice::default);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    }
}
