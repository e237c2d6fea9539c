//! The pods of a node, kept so that a copy costs next to nothing.

use std::{fmt, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};

use crate::pod_info::PodInfo;

/// The pods of a node in the order in which they came. Copies share what does not change
/// afterwards: what a copy and a change cost grows with the logarithm of the number of pods.
#[derive(Clone, Default)]
pub struct NodePods {
    /// By numbers that grow and are not used again.
    pods: OrdMap<u64, Here>,
    next: u64,
}

/// A pod that is compared by what it is, not by what it says.
#[derive(Clone)]
struct Here(Arc<PodInfo>);

impl PartialEq for Here {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The difference between two states of a node.
#[derive(Debug, Default)]
pub(crate) struct Changed<'a> {
    pub(crate) gone: Vec<&'a Arc<PodInfo>>,
    pub(crate) come: Vec<&'a Arc<PodInfo>>,
}

impl NodePods {
    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is no pod.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The pods, in the order in which they came.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.pods.values())
    }

    /// The number under which a pod is here. Looks at all of them.
    pub(crate) fn number_of(&self, uid: &str) -> Option<u64> {
        self.pods.iter().find(|(_, pod)| **pod.0.uid() == *uid).map(|(number, _)| *number)
    }

    /// Adds a pod. Gives the number under which it is here.
    pub(crate) fn push(&mut self, pod: Arc<PodInfo>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.pods.insert(number, Here(pod));
        number
    }

    /// Takes out the pod with this number.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Arc<PodInfo>> {
        self.pods.remove(&number).map(|pod| pod.0)
    }

    /// Which pods went and which came between this state of a node and a later one. What both
    /// share is not looked at.
    pub(crate) fn changed<'a>(&'a self, after: &'a Self) -> Changed<'a> {
        let mut changed = Changed::default();
        for difference in self.pods.diff(&after.pods) {
            let (gone, come) = match difference {
                DiffItem::Add(_, come) => (None, Some(come)),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                DiffItem::Remove(_, gone) => (Some(gone), None),
            };
            changed.gone.extend(gone.map(|pod| &pod.0));
            changed.come.extend(come.map(|pod| &pod.0));
        }
        changed
    }
}

/// The pods of a node, in the order in which they came.
pub struct Iter<'a>(imbl::ordmap::Values<'a, u64, Here, imbl::shared_ptr::DefaultSharedPtr>);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<PodInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|pod| &pod.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'a> IntoIterator for &'a NodePods {
    type Item = &'a Arc<PodInfo>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for NodePods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iter")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use proptest::prelude::*;

    use super::*;

    fn pod(n: usize) -> Arc<PodInfo> {
        let metadata = ObjectMeta { uid: Some(format!("u{n}")), ..ObjectMeta::default() };
        Arc::new(PodInfo::new(Arc::new(Pod { metadata, ..Pod::default() })))
    }

    fn addresses<'a>(pods: impl IntoIterator<Item = &'a Arc<PodInfo>>) -> Vec<*const PodInfo> {
        pods.into_iter().map(Arc::as_ptr).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Remove(prop::sample::Index),
        Clear,
        Far(u64),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..40usize).prop_map(Step::Push),
            8 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => Just(Step::Clear),
            2 => (1..1u64 << 40).prop_map(Step::Far),
            4 => Just(Step::Keep),
        ]
    }

    fn check_changed(before: &(NodePods, Model), after: &(NodePods, Model)) {
        let changed = before.0.changed(&after.0);
        let only = |one: &Model, other: &Model| {
            let same = |(number, pod): &(&u64, &Arc<PodInfo>)| {
                other.get(*number).is_some_and(|own| Arc::ptr_eq(own, pod))
            };
            let own = one.iter().filter(|entry| !same(entry));
            let mut own = addresses(own.map(|(_, pod)| pod));
            own.sort_unstable();
            own
        };
        let (mut gone, mut come) = (addresses(changed.gone), addresses(changed.come));
        gone.sort_unstable();
        come.sort_unstable();
        assert_eq!(gone, only(&before.1, &after.1));
        assert_eq!(come, only(&after.1, &before.1));
    }

    type Model = BTreeMap<u64, Arc<PodInfo>>;

    proptest! {
        /// As a map of pods by their numbers; and between any two states of it, exactly what went
        /// and came is told.
        #[test]
        fn pods_are_as_they_came(steps in prop::collection::vec(step(), 1..40)) {
            let (mut pods, mut model) = (NodePods::default(), Model::new());
            let mut states = vec![(pods.clone(), model.clone())];
            for step in steps {
                match step {
                    Step::Push(count) => for n in 0..count {
                        let pod = pod(n);
                        prop_assert!(model.insert(pods.push(pod.clone()), pod).is_none());
                    },
                    Step::Remove(index) if !model.is_empty() => {
                        let number = *model.keys().nth(index.index(model.len())).unwrap();
                        let (removed, expected) = (pods.remove(number), model.remove(&number));
                        prop_assert!(Arc::ptr_eq(&removed.unwrap(), &expected.unwrap()));
                        prop_assert!(pods.remove(number).is_none());
                    }
                    Step::Remove(_) => prop_assert!(pods.remove(pods.next).is_none()),
                    Step::Clear => for number in std::mem::take(&mut model).into_keys() {
                        prop_assert!(pods.remove(number).is_some());
                    },
                    Step::Far(distance) => pods.next += distance,
                    Step::Keep => states.push((pods.clone(), model.clone())),
                }
                prop_assert_eq!(pods.len(), model.len());
                prop_assert_eq!(pods.is_empty(), model.is_empty());
                prop_assert_eq!(addresses(&pods), addresses(model.values()));
                let uid = model.values().next().map(|pod| pod.uid().clone());
                let number = uid.and_then(|uid| pods.number_of(&uid));
                prop_assert_eq!(number, model.keys().next().copied());
            }
            states.push((pods, model));
            for before in &states {
                states.iter().for_each(|after| check_changed(before, after));
            }
        }
    }
}
