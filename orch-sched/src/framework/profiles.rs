//! All profiles of a scheduler.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use orch_core::Key;

use super::{Enabled, Framework};
use crate::{
    event::{ClusterChange, Hint},
    extension_point::ExtensionPoint,
    plugin::Plugin,
    pod_info::PodInfo,
    queue::QueuedPod,
};

/// All profiles of a scheduler, by the scheduler name that pods ask for.
#[derive(Debug)]
pub(crate) struct Profiles {
    by_name: HashMap<String, Arc<Framework>>,
    /// The queue's order, the same for all.
    sort: Arc<dyn Plugin>,
}

impl Profiles {
    pub(crate) fn new(frameworks: Vec<Framework>, sort: Arc<dyn Plugin>) -> Self {
        let by_name = frameworks
            .into_iter()
            .map(|framework| (framework.scheduler_name.clone(), Arc::new(framework)))
            .collect();
        Self { by_name, sort }
    }

    /// The profile that a pod asks for; `None` if it asks for another scheduler.
    pub(crate) fn of(&self, pod: &PodInfo) -> Option<&Arc<Framework>> {
        self.by_name.get(pod.scheduler_name())
    }

    /// The names of the plugins of each.
    pub(crate) fn plugins(&self) -> BTreeMap<String, Vec<String>> {
        let names = |framework: &Framework| {
            framework.plugins.iter().map(|enabled| enabled.name.to_string()).collect()
        };
        let all = self.by_name.iter();
        all.map(|(name, framework)| (name.clone(), names(framework))).collect()
    }

    /// All of them with nothing remembered.
    pub(crate) fn fork(&self) -> impl Iterator<Item = Framework> {
        self.by_name.values().map(|framework| framework.fork())
    }

    pub(crate) fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self.sort.as_queue_sort().map_or(Ordering::Equal, |sort| sort.compare(a, b))
    }

    /// The plugin that keeps the pod out of the queue, if one does.
    pub(crate) fn gate(&self, pod: &PodInfo) -> Option<Arc<str>> {
        let framework = self.of(pod).into_iter();
        let mut plugins = framework.flat_map(|framework| framework.at(ExtensionPoint::PreEnqueue));
        let holds = |enabled: &&Enabled| {
            let pre_enqueue = enabled.plugin.as_pre_enqueue();
            pre_enqueue.is_some_and(|gate| gate.pre_enqueue(pod).is_rejection())
        };
        plugins.find(holds).map(|enabled| enabled.name.clone())
    }

    /// Whether a plugin of this name is in any profile.
    pub(crate) fn have(&self, plugin: &str) -> bool {
        self.by_name.values().any(|framework| framework.enabled(plugin).is_some())
    }

    /// Whether any profile's plugin of this name wants to hear of a change.
    pub(crate) fn listens(&self, plugin: &str, change: &ClusterChange) -> bool {
        let mut known = self.by_name.values().filter_map(|framework| framework.enabled(plugin));
        let mut known = known.by_ref().peekable();
        // What nobody here said is asked about after every change: an extender's refusal.
        known.peek().is_none()
            || known.any(|enabled| {
                let events = enabled.events.as_ref();
                events.is_none_or(|events| events.iter().any(|event| event.includes(change)))
            })
    }

    /// Whether a change may help a pod that a plugin rejected.
    pub(crate) fn hint(&self, pod: &PodInfo, plugin: &str, change: &ClusterChange) -> Hint {
        let enabled = self.of(pod).and_then(|framework| framework.enabled(plugin));
        let Some(enabled) = enabled else { return Hint::Queue };
        let Some(events) = &enabled.events else { return Hint::Queue };
        if !events.iter().any(|event| event.includes(change)) {
            return Hint::Skip;
        }
        let registered = enabled.plugin.as_events_to_register();
        registered.map_or(Hint::Queue, |registered| registered.hint(pod, change))
    }

    /// What a pod that a plugin rejected depends on.
    pub(crate) fn depends_on(&self, pod: &PodInfo, plugin: &str) -> Vec<Key> {
        let enabled = self.of(pod).and_then(|framework| framework.enabled(plugin));
        let registered = enabled.and_then(|enabled| enabled.plugin.as_events_to_register());
        registered.map_or_else(Vec::new, |registered| registered.depends_on(pod))
    }

    /// What a change is about, in the words of a plugin; `None` if it may help any pod that any
    /// profile's plugin of this name rejected.
    pub(crate) fn about(&self, plugin: &str, change: &ClusterChange) -> Option<Key> {
        let known = self.by_name.values().filter_map(|framework| framework.enabled(plugin));
        let mut words = known.map(|one| one.plugin.as_events_to_register()?.about(change));
        let first = words.next()??;
        words.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        use crate::plugins::{NodeResourcesFit, PrioritySort, SchedulingGates};
        let plugins: [Arc<dyn Plugin>; 3] = [
            Arc::new(SchedulingGates),
            Arc::new(PrioritySort),
            Arc::new(NodeResourcesFit::default()),
        ];
        let enabled = |plugin: &Arc<dyn Plugin>| Enabled {
            name: plugin.name().into(),
            plugin: plugin.clone(),
            weight: 1,
            events: plugin.as_events_to_register().map(|registered| registered.events()),
        };
        let plugins: Vec<Enabled> = plugins.iter().map(enabled).collect();
        let everywhere = (plugins.len(), &BTreeMap::new());
        let framework = Framework::new("default-scheduler".into(), plugins, everywhere, None);
        Self::new(vec![framework], Arc::new(PrioritySort))
    }
}
