//! Which plugins a scheduler runs, as data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use orch_core::informer::Informers;

use crate::{
    devices::Devices,
    error::BuildError,
    extender::Extender,
    extension_point::ExtensionPoint,
    framework::{Enabled, Framework, Profiles},
    plugin::Plugin,
    plugins::{self, Arguments, GangScheduling, Shared},
    pod_groups::PodGroups,
    waiting::WaitingPods,
};

/// The scheduler name that pods ask for when they ask for none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// The plugins of a default profile and their weights, in the order in which they run.
///
/// Source: `pkg/scheduler/apis/config/v1/default_plugins.go`.
pub const DEFAULT_PLUGINS: &[(&str, i64)] = &[
    ("SchedulingGates", 1),
    ("PrioritySort", 1),
    ("NodeUnschedulable", 1),
    ("NodeName", 1),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 1),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 1),
    ("NodeVolumeLimits", 1),
    ("VolumeBinding", 1),
    ("VolumeZone", 1),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 1),
    ("DefaultPreemption", 1),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 1),
    ("NodeDeclaredFeatures", 1),
];

/// Built-in plugins that are in no default profile, as upstream's feature gates are off: profiles
/// enable them by name.
pub const OPTIONAL_PLUGINS: &[&str] = &["GangScheduling"];

/// See [`Profile::plugin_timeout`].
pub(crate) const PLUGIN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// One line of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginEntry {
    /// The plugin's name.
    pub name: String,
    /// How much its score counts, 1 to 1000000; ignored by plugins that do not score.
    pub weight: i64,
}

/// How one extension point differs from what runs everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginSet {
    /// Plugins that run here. Those of them that run everywhere go first, the others last.
    pub enabled: Vec<PluginEntry>,
    /// Plugins that run everywhere, but not here, unless they are enabled here; `*` stands for all.
    pub disabled: BTreeSet<String>,
}

impl PluginSet {
    pub(crate) fn disables(&self, name: &str) -> bool {
        self.disabled.contains(name) || self.disabled.contains("*")
    }

    /// The plugins that run at one extension point, of those that `implements` accepts: those named
    /// here and everywhere, the others that run everywhere, those named here only.
    fn expanded(
        &self,
        everywhere: &[PluginEntry],
        implements: impl Fn(&str) -> bool,
    ) -> Vec<PluginEntry> {
        let named = |name: &str| self.enabled.iter().any(|entry| entry.name == name);
        let all = !self.disabled.contains("*");
        let is_overriding =
            |entry: &&PluginEntry| all && everywhere.iter().any(|other| other.name == entry.name);
        let overriding = self.enabled.iter().filter(is_overriding);
        let others = everywhere.iter().filter(|entry| {
            !self.disables(&entry.name) && !named(&entry.name) && implements(&entry.name)
        });
        let only_here = self.enabled.iter().filter(|entry| !is_overriding(entry));
        overriding.chain(others).chain(only_here).cloned().collect()
    }
}

/// A scheduler name and the plugins that schedule the pods that ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What pods name in `spec.schedulerName`.
    pub scheduler_name: String,
    /// Every plugin runs at each extension point that it implements, in this order.
    pub plugins: Vec<PluginEntry>,
    /// Once so many percent of the nodes were found to fit, the best of them is taken, 1 to 100.
    /// With `None`, the default, and with 100, every node that fits is considered. At least 100
    /// nodes always are.
    ///
    /// Source: `percentageOfNodesToScore` of `KubeSchedulerConfiguration`.
    /// Differs: upstream's default is a part that falls as the cluster grows.
    pub percentage_of_nodes_to_score: Option<u8>,
    /// How long a plugin may take for an answer at the extension points where it may wait
    /// (PostFilter, PreBind, Bind). Then its pod's cycle fails and names it, and the pod is tried
    /// again; whether a binding came to be, the cluster tells. Default 15 minutes: more than
    /// VolumeBinding waits for a volume by default, whose own limit should stay below this one.
    ///
    /// Differs: upstream waits for ever.
    pub plugin_timeout: Duration,
    /// What is set for the built-in plugins.
    pub arguments: Arguments,
    /// What is set for plugins that are not built in, for those who make them.
    pub custom_arguments: BTreeMap<String, serde_json::Value>,
    /// Extension points at which other plugins run than those above, or in another order.
    pub points: BTreeMap<ExtensionPoint, PluginSet>,
}

impl Default for Profile {
    /// [`DEFAULT_PLUGINS`] under the name [`DEFAULT_SCHEDULER_NAME`].
    fn default() -> Self {
        Self::named(DEFAULT_SCHEDULER_NAME)
    }
}

impl Profile {
    /// [`DEFAULT_PLUGINS`] under another name.
    pub fn named(scheduler_name: &str) -> Self {
        let entry =
            |(name, weight): &(&str, i64)| PluginEntry { name: (*name).into(), weight: *weight };
        Self {
            scheduler_name: scheduler_name.to_owned(),
            plugins: DEFAULT_PLUGINS.iter().map(entry).collect(),
            percentage_of_nodes_to_score: None,
            plugin_timeout: PLUGIN_TIMEOUT,
            arguments: Arguments::default(),
            custom_arguments: BTreeMap::new(),
            points: BTreeMap::new(),
        }
    }

    /// With one more plugin, after the others.
    #[must_use]
    pub fn enable(mut self, name: &str, weight: i64) -> Self {
        self.plugins.push(PluginEntry { name: name.to_owned(), weight });
        self
    }

    /// Content with a choice among so many percent of the nodes, see
    /// [`Profile::percentage_of_nodes_to_score`].
    #[must_use]
    pub fn percentage_of_nodes_to_score(mut self, percentage: u8) -> Self {
        self.percentage_of_nodes_to_score = Some(percentage);
        self
    }

    /// See [`Profile::plugin_timeout`].
    #[must_use]
    pub fn plugin_timeout(mut self, timeout: Duration) -> Self {
        self.plugin_timeout = timeout;
        self
    }

    /// Without a plugin. A name that is not there is ignored, as upstream ignores it.
    #[must_use]
    pub fn disable(mut self, name: &str) -> Self {
        self.plugins.retain(|entry| entry.name != name);
        self
    }

    /// Without any plugin.
    #[must_use]
    pub fn empty(scheduler_name: &str) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            plugins: Vec::new(),
            percentage_of_nodes_to_score: None,
            plugin_timeout: PLUGIN_TIMEOUT,
            arguments: Arguments::default(),
            custom_arguments: BTreeMap::new(),
            points: BTreeMap::new(),
        }
    }
}

type ByName = BTreeMap<String, Arc<dyn Plugin>>;

/// Plugins by name: the built-in ones and those that were added.
pub(crate) struct Registry {
    informers: Informers,
    made: ByName,
    /// The built-in plugins of profiles that set the same for them.
    built_in: Vec<(Arguments, ByName)>,
    shared: Shared,
    groups: PodGroups,
    waiting: WaitingPods,
}

impl Registry {
    pub(crate) fn new(informers: Informers) -> Self {
        Self {
            informers,
            made: BTreeMap::new(),
            built_in: Vec::new(),
            shared: Shared::default(),
            groups: PodGroups::default(),
            waiting: WaitingPods::default(),
        }
    }

    /// With what the scheduler keeps about pods that belong together.
    pub(crate) fn sharing(self, groups: PodGroups, waiting: WaitingPods) -> Self {
        Self { groups, waiting, ..self }
    }

    /// The devices that plugins made so far care for.
    pub(crate) fn devices(&self) -> Option<Arc<Devices>> {
        self.shared.devices()
    }

    pub(crate) fn register(&mut self, plugin: Arc<dyn Plugin>) -> Result<(), BuildError> {
        let name = plugin.name().to_owned();
        let mut built_in = DEFAULT_PLUGINS.iter().map(|(known, _)| known).chain(OPTIONAL_PLUGINS);
        let built_in = built_in.any(|known| *known == name);
        if built_in || self.made.contains_key(&name) {
            return Err(BuildError::DuplicateRegistration(name));
        }
        self.made.insert(name, plugin);
        Ok(())
    }

    fn get(&mut self, profile: &Profile, name: &str) -> Result<Arc<dyn Plugin>, BuildError> {
        if let Some(plugin) = self.made.get(name) {
            return Ok(plugin.clone());
        }
        let same = self.built_in.iter().position(|(arguments, _)| *arguments == profile.arguments);
        let at = same.unwrap_or_else(|| {
            self.built_in.push((profile.arguments.clone(), BTreeMap::new()));
            self.built_in.len() - 1
        });
        let (arguments, made) = &mut self.built_in[at];
        if let Some(plugin) = made.get(name) {
            return Ok(plugin.clone());
        }
        let (profile, plugin) = (profile.scheduler_name.clone(), name.to_owned());
        let (informers, groups) = (&self.informers, self.groups.clone());
        let new = if name == GangScheduling::NAME {
            let gang = GangScheduling::new(informers, groups, self.waiting.clone());
            Some(Arc::new(gang) as Arc<dyn Plugin>)
        } else {
            plugins::built_in(name, informers, arguments, &self.shared)
        };
        let new = new.ok_or(BuildError::UnknownPlugin { profile, plugin })?;
        made.insert(name.to_owned(), new.clone());
        Ok(new)
    }

    pub(crate) fn framework(&mut self, profile: &Profile) -> Result<Framework, BuildError> {
        let scheduler_name = profile.scheduler_name.clone();
        let mut plugins: Vec<Enabled> = Vec::new();
        let percentage = profile.percentage_of_nodes_to_score;
        if let Some(percentage) = percentage
            && !(1..=100).contains(&percentage)
        {
            return Err(BuildError::Percentage { profile: scheduler_name, percentage });
        }
        for entry in &profile.plugins {
            if plugins.iter().any(|enabled| *enabled.name == *entry.name) {
                let (profile, plugin) = (scheduler_name, entry.name.clone());
                return Err(BuildError::DuplicatePlugin { profile, plugin });
            }
            plugins.push(self.enabled(profile, entry)?);
        }
        let everywhere = plugins.len();
        let mut own = BTreeMap::new();
        for (point, set) in &profile.points {
            let entries = set.expanded(&profile.plugins, |name| {
                let plugin = plugins.iter().find(|enabled| *enabled.name == *name);
                plugin.is_some_and(|enabled| point.is_of(&*enabled.plugin))
            });
            own.insert(*point, self.at_point(profile, *point, &entries, &mut plugins)?);
        }
        let framework = Framework::new(scheduler_name, plugins, (everywhere, &own), percentage);
        Ok(framework.patient_for(profile.plugin_timeout))
    }

    fn enabled(&mut self, profile: &Profile, entry: &PluginEntry) -> Result<Enabled, BuildError> {
        let PluginEntry { name, weight } = entry.clone();
        let plugin = self.get(profile, &name)?;
        if !(1..=1_000_000).contains(&weight) {
            let (profile, plugin) = (profile.scheduler_name.clone(), name);
            return Err(BuildError::Weight { profile, plugin, weight });
        }
        let events = plugin.as_events_to_register().map(|registered| registered.events());
        Ok(Enabled { name: name.as_str().into(), plugin, weight, events })
    }

    /// The places of the plugins of one extension point. Those that are nowhere else are added.
    fn at_point(
        &mut self,
        profile: &Profile,
        point: ExtensionPoint,
        entries: &[PluginEntry],
        plugins: &mut Vec<Enabled>,
    ) -> Result<Vec<usize>, BuildError> {
        let mut places = Vec::new();
        for entry in entries {
            let enabled = self.enabled(profile, entry)?;
            let named = || (profile.scheduler_name.clone(), entry.name.clone());
            if !point.is_of(&*enabled.plugin) {
                let (profile, plugin) = named();
                return Err(BuildError::NotExtended { profile, plugin, point: point.name() });
            }
            let known = plugins.iter().position(|have| have.name == enabled.name);
            let at = known.unwrap_or(plugins.len());
            if places.contains(&at) {
                let (profile, plugin) = named();
                return Err(BuildError::DuplicatePlugin { profile, plugin });
            }
            match plugins.get_mut(at) {
                // Only scores have weights, and those given here count.
                Some(have) if point == ExtensionPoint::Score => have.weight = enabled.weight,
                Some(_) => {}
                None => plugins.push(enabled),
            }
            places.push(at);
        }
        Ok(places)
    }

    pub(crate) fn build(
        &mut self,
        profiles: &[Profile],
        extenders: &Arc<[Extender]>,
    ) -> Result<Profiles, BuildError> {
        let mut frameworks: Vec<Framework> = Vec::new();
        let mut sort: Option<Arc<dyn Plugin>> = None;
        for profile in profiles {
            let name = profile.scheduler_name.clone();
            if frameworks.iter().any(|framework| framework.scheduler_name == name) {
                return Err(BuildError::DuplicateProfile(name));
            }
            let framework = self.framework(profile)?.extended_by(extenders.clone());
            let mut sorts = framework.at(ExtensionPoint::QueueSort);
            let missing =
                |extension_point| BuildError::Missing { profile: name.clone(), extension_point };
            let own = sorts.next().ok_or_else(|| missing("QueueSort"))?;
            if sorts.next().is_some() {
                return Err(BuildError::SeveralQueueSorts(name));
            }
            if framework.at(ExtensionPoint::Bind).next().is_none() {
                return Err(missing("Bind"));
            }
            if let Some(other) = sort.as_ref().filter(|other| other.name() != &*own.name) {
                let other = other.name().to_owned();
                return Err(BuildError::DifferentQueueSort(other, own.name.to_string()));
            }
            sort = Some(own.plugin.clone());
            drop(sorts);
            frameworks.push(framework);
        }
        let sort = sort
            .ok_or(BuildError::Missing { profile: String::new(), extension_point: "QueueSort" })?;
        Ok(Profiles::new(frameworks, sort))
    }
}
