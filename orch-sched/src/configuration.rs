//! `KubeSchedulerConfiguration` files, as upstream's scheduler reads them.
//!
//! Source: `k8s.io/kube-scheduler/config/v1`, `pkg/scheduler/apis/config`.

use std::time::Duration;

use orch_core::status::FieldError;
use serde_json::Value;

use self::{
    election::election,
    extenders::extenders,
    reader::{Complaints, Reader},
};
use crate::profile::{DEFAULT_SCHEDULER_NAME, Profile};

mod election;
mod extenders;
mod plugin_arguments;
mod plugin_sets;
mod reader;

pub use election::{ClientConnection, LeaderElection};
pub use extenders::{ExtenderConfiguration, ExtenderTls, ManagedResource};

const VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// The file is not such a configuration. Display is upstream's message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// It is neither YAML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is something else, or of another version.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Version {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// It has fields that do not exist, or of other types.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    /// Arguments of a plugin cannot be decoded.
    #[error("decoding .profiles[{profile}].pluginConfig[{entry}]: {message}")]
    Arguments {
        /// Which profile.
        profile: usize,
        /// Which of its entries.
        entry: usize,
        /// What is wrong.
        message: String,
    },
    /// What it says makes no sense.
    #[error("{}", aggregate(.0))]
    Invalid(Vec<FieldError>),
}

fn aggregate(errors: &[FieldError]) -> String {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) }
}

/// What a file says, with upstream's defaults where it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfiguration {
    /// One or more, with different scheduler names.
    pub profiles: Vec<Profile>,
    /// Services that take part in decisions.
    pub extenders: Vec<ExtenderConfiguration>,
    /// Of several schedulers, one works.
    pub leader_election: LeaderElection,
    /// How the cluster is reached.
    pub client_connection: ClientConnection,
    /// How many goroutines upstream uses. The default is 16.
    /// Differs: it has no effect here.
    pub parallelism: i32,
    /// A pod that failed is not tried again sooner. The default is 1 s.
    pub pod_initial_backoff: Duration,
    /// A pod that failed often is tried again after so long. The default is 10 s.
    pub pod_max_backoff: Duration,
    /// Whether profiling is served. The default is to.
    /// Differs: it has no effect here.
    pub enable_profiling: bool,
    /// Whether it includes contention. The default is to.
    /// Differs: it has no effect here.
    pub enable_contention_profiling: bool,
    /// Whether a scheduler that does not lead fills its caches only when it does.
    /// Differs: it has no effect here.
    pub delay_cache_until_active: bool,
}

impl std::str::FromStr for SchedulerConfiguration {
    type Err = ConfigurationError;

    /// Reads YAML or JSON.
    fn from_str(text: &str) -> Result<Self, ConfigurationError> {
        let value: Value = serde_saphyr::from_str(text)
            .map_err(|error| ConfigurationError::Syntax(error.to_string()))?;
        Self::from_value(&value)
    }
}

impl SchedulerConfiguration {
    /// Reads the object.
    ///
    /// # Errors
    /// [`ConfigurationError`] with upstream's message.
    pub fn from_value(value: &Value) -> Result<Self, ConfigurationError> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != VERSION || kind != KIND {
            return Err(ConfigurationError::Version { kind, version });
        }
        let mut complaints = Complaints::default();
        let mut errors = Vec::new();
        let mut reader = Reader::new("", Some(value), &mut complaints);
        let _checked: [Option<&Value>; 2] = ["apiVersion", "kind"].map(|name| reader.value(name));
        let read = read(reader, &mut complaints, &mut errors)?;
        if !complaints.0.is_empty() {
            return Err(ConfigurationError::Strict(complaints.0));
        }
        if errors.is_empty() { Ok(read) } else { Err(ConfigurationError::Invalid(errors)) }
    }
}

fn read(
    mut reader: Reader<'_>,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> Result<SchedulerConfiguration, ConfigurationError> {
    let client = reader.object("clientConnection", complaints);
    let client_connection = ClientConnection::read(client, complaints, errors);
    let leader_election = election(reader.object("leaderElection", complaints), complaints, errors);
    let parallelism = reader.get("parallelism", complaints).unwrap_or(16);
    if parallelism <= 0 {
        let words = "should be an integer value greater than zero";
        errors.push(FieldError::invalid("parallelism", parallelism, words));
    }
    let everywhere = percentage(&mut reader, complaints, &mut Vec::new());
    let profiles = profiles(&mut reader, everywhere, complaints, errors)?;
    percentage(&mut reader, &mut Complaints::default(), errors);
    let initial: i64 = reader.get("podInitialBackoffSeconds", complaints).unwrap_or(1);
    let max: i64 = reader.get("podMaxBackoffSeconds", complaints).unwrap_or(10);
    if initial <= 0 {
        let words = "must be greater than 0";
        errors.push(FieldError::invalid("podInitialBackoffSeconds", initial, words));
    }
    if max < initial {
        let words = "must be greater than or equal to PodInitialBackoffSeconds";
        errors.push(FieldError::invalid("podMaxBackoffSeconds", max, words));
    }
    let listed = reader.objects("extenders", complaints);
    let extenders = extenders(listed, complaints, errors);
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let mut flag = |name, default| reader.get(name, complaints).unwrap_or(default);
    let configuration = SchedulerConfiguration {
        enable_profiling: flag("enableProfiling", true),
        enable_contention_profiling: flag("enableContentionProfiling", true),
        delay_cache_until_active: flag("delayCacheUntilActive", false),
        profiles,
        extenders,
        leader_election,
        client_connection,
        parallelism,
        pod_initial_backoff: seconds(initial),
        pod_max_backoff: seconds(max),
    };
    reader.finish(complaints);
    Ok(configuration)
}

/// How many percent of the nodes are enough; zero leaves it to the scheduler.
fn percentage(
    reader: &mut Reader<'_>,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> Option<u8> {
    let name = "percentageOfNodesToScore";
    let percentage: i32 = reader.get(name, complaints)?;
    if !(0..=100).contains(&percentage) {
        let field = reader.path_of(name);
        errors.push(FieldError::invalid(field, percentage, "not in valid range [0-100]"));
    }
    u8::try_from(percentage).ok()
}

fn profiles(
    reader: &mut Reader<'_>,
    everywhere: Option<u8>,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> Result<Vec<Profile>, ConfigurationError> {
    let listed = reader.objects("profiles", complaints);
    let only = listed.len() == 1;
    let mut profiles: Vec<Profile> = Vec::new();
    for (at, mut own) in listed.into_iter().enumerate() {
        let path = format!("profiles[{at}]");
        let name: Option<String> = own.get("schedulerName", complaints);
        let name = name.or_else(|| only.then(|| DEFAULT_SCHEDULER_NAME.to_owned()));
        let name = name.unwrap_or_default();
        let mut profile = Profile::named(&name);
        let percentage = percentage(&mut own, complaints, errors).or(everywhere);
        profile.percentage_of_nodes_to_score = percentage.filter(|percentage| *percentage > 0);
        plugin_sets::read(own.object("plugins", complaints), &mut profile, complaints);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.schedulerName"), ""));
        }
        let configured = own.objects("pluginConfig", complaints);
        plugin_configuration(at, configured, &mut profile, complaints, errors)?;
        own.finish(complaints);
        if let Some(same) = profiles.iter().position(|p| p.scheduler_name == name) {
            let other = format!("profiles[{same}].schedulerName");
            errors.push(FieldError::duplicate(format!("{path}.schedulerName"), other));
        }
        profiles.push(profile);
    }
    if profiles.is_empty() {
        let percentage_of_nodes_to_score = everywhere.filter(|percentage| *percentage > 0);
        profiles.push(Profile { percentage_of_nodes_to_score, ..Profile::default() });
    }
    check_queue_sort(&profiles, errors);
    Ok(profiles)
}

/// All pods wait in one queue.
fn check_queue_sort(profiles: &[Profile], errors: &mut Vec<FieldError>) {
    let sort = |profile: &Profile| {
        profile.points.get(&crate::ExtensionPoint::QueueSort).cloned().unwrap_or_default()
    };
    let first = profiles.first().map(sort).unwrap_or_default();
    if first.enabled.len() > 1 {
        let field = "profiles[0].plugins.queueSort.Enabled";
        let words = "only one queue sort plugin can be enabled";
        errors.push(FieldError::invalid(field, first.enabled.len(), words));
    }
    for (at, profile) in profiles.iter().enumerate().skip(1) {
        if sort(profile) != first {
            let names: Vec<String> =
                sort(profile).enabled.into_iter().map(|one| one.name).collect();
            let field = format!("profiles[{at}].plugins.queueSort");
            errors.push(FieldError::invalid(field, names, "has to match for all profiles"));
        }
    }
}

fn plugin_configuration(
    at: usize,
    configured: Vec<Reader<'_>>,
    profile: &mut Profile,
    complaints: &mut Complaints,
    errors: &mut Vec<FieldError>,
) -> Result<(), ConfigurationError> {
    let mut seen: Vec<String> = Vec::new();
    for (entry, mut one) in configured.into_iter().enumerate() {
        let path = format!("profiles[{at}].pluginConfig[{entry}]");
        let plugin: String = one.get("name", complaints).unwrap_or_default();
        let value = one.value("args");
        one.finish(complaints);
        if seen.contains(&plugin) {
            errors.push(FieldError::duplicate(path.as_str(), plugin.as_str()));
        }
        if plugin_arguments::WITH_ARGUMENTS.contains(&plugin.as_str()) {
            let failed = |message| ConfigurationError::Arguments { profile: at, entry, message };
            check_kind(&plugin, value).map_err(failed)?;
            let arguments = (&*format!("{path}.args"), value);
            let found = plugin_arguments::read(&plugin, arguments, &mut profile.arguments, errors);
            if !found.0.is_empty() {
                let error = ConfigurationError::Strict(found.0);
                return Err(failed(format!("decoding args for plugin {plugin}: {error}")));
            }
        } else if let Some(value) = value {
            profile.custom_arguments.insert(plugin.clone(), value.clone());
        }
        seen.push(plugin);
    }
    Ok(())
}

/// Arguments may name their kind, and then it must be the plugin's.
fn check_kind(plugin: &str, arguments: Option<&Value>) -> Result<(), String> {
    let text = |name: &str| arguments.and_then(|value| value[name].as_str());
    let (version, kind) = (text("apiVersion").unwrap_or(VERSION), text("kind"));
    let expected = format!("{plugin}Args");
    match kind {
        Some(kind) if kind != expected || version != VERSION => Err(format!(
            "args for plugin {plugin} were not of type {VERSION}, Kind={expected}, \
             got {version}, Kind={kind}"
        )),
        _ => Ok(()),
    }
}
