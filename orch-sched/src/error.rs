//! What can go wrong when a scheduler is put together.

/// A fault inside a plugin. Not a verdict: the pod is tried again later.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The scheduler cannot be built as described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A profile names a plugin that nobody registered.
    #[error("profile {profile:?} names the plugin {plugin:?}, which does not exist")]
    UnknownPlugin {
        /// The profile's scheduler name.
        profile: String,
        /// The plugin.
        plugin: String,
    },
    /// A profile names a plugin twice.
    #[error("profile {profile:?} names the plugin {plugin:?} twice")]
    DuplicatePlugin {
        /// The profile's scheduler name.
        profile: String,
        /// The plugin.
        plugin: String,
    },
    /// A profile names a plugin for an extension point that the plugin does not implement.
    #[error("profile {profile:?}: plugin {plugin:?} does not extend {point} plugin")]
    NotExtended {
        /// The profile's scheduler name.
        profile: String,
        /// The plugin.
        plugin: String,
        /// The extension point.
        point: &'static str,
    },
    /// Two plugins of one name were registered.
    #[error("a plugin called {0:?} is registered already")]
    DuplicateRegistration(String),
    /// Two profiles have the same scheduler name.
    #[error("there are two profiles for the scheduler name {0:?}")]
    DuplicateProfile(String),
    /// A profile has no plugin for an extension point that needs one.
    #[error("profile {profile:?} has no plugin for {extension_point}")]
    Missing {
        /// The profile's scheduler name.
        profile: String,
        /// `QueueSort` or `Bind`.
        extension_point: &'static str,
    },
    /// All profiles share one queue and must sort it alike.
    #[error("the profiles sort the queue differently: {0:?} and {1:?}")]
    DifferentQueueSort(String, String),
    /// Only one plugin of a profile can sort the queue.
    #[error("profile {0:?} has more than one plugin that sorts the queue")]
    SeveralQueueSorts(String),
    /// A scoring plugin's weight is out of range.
    #[error(
        "profile {profile:?} gives the plugin {plugin:?} a weight of {weight}, not 1 to 1000000"
    )]
    Weight {
        /// The profile's scheduler name.
        profile: String,
        /// The plugin.
        plugin: String,
        /// What was asked for.
        weight: i64,
    },
    /// The part of the nodes to score is out of range.
    #[error("profile {profile:?} asks for {percentage} percent of the nodes, not 1 to 100")]
    Percentage {
        /// The profile's scheduler name.
        profile: String,
        /// What was asked for.
        percentage: u8,
    },
}
