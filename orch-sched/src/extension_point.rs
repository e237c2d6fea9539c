//! The extension points by name.

use crate::plugin::Plugin;

/// An extension point of the framework. In the order in which a pod meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionPoint {
    /// Before a pod enters the queue.
    PreEnqueue,
    /// Orders the queue.
    QueueSort,
    /// Before any node.
    PreFilter,
    /// Which nodes fit.
    Filter,
    /// When none does.
    PostFilter,
    /// Before scoring.
    PreScore,
    /// Which node is best.
    Score,
    /// The pod takes its place.
    Reserve,
    /// It is held back, or not.
    Permit,
    /// Before it is bound.
    PreBind,
    /// It is bound.
    Bind,
    /// After it was bound.
    PostBind,
}

impl ExtensionPoint {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
        Self::PostBind,
    ];

    /// The name, `PreFilter`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreEnqueue => "PreEnqueue",
            Self::QueueSort => "QueueSort",
            Self::PreFilter => "PreFilter",
            Self::Filter => "Filter",
            Self::PostFilter => "PostFilter",
            Self::PreScore => "PreScore",
            Self::Score => "Score",
            Self::Reserve => "Reserve",
            Self::Permit => "Permit",
            Self::PreBind => "PreBind",
            Self::Bind => "Bind",
            Self::PostBind => "PostBind",
        }
    }

    /// The field of upstream's configuration, `preFilter`.
    pub fn field(self) -> &'static str {
        match self {
            Self::PreEnqueue => "preEnqueue",
            Self::QueueSort => "queueSort",
            Self::PreFilter => "preFilter",
            Self::Filter => "filter",
            Self::PostFilter => "postFilter",
            Self::PreScore => "preScore",
            Self::Score => "score",
            Self::Reserve => "reserve",
            Self::Permit => "permit",
            Self::PreBind => "preBind",
            Self::Bind => "bind",
            Self::PostBind => "postBind",
        }
    }

    /// Whether a plugin implements it.
    pub fn is_of(self, plugin: &dyn Plugin) -> bool {
        match self {
            Self::PreEnqueue => plugin.as_pre_enqueue().is_some(),
            Self::QueueSort => plugin.as_queue_sort().is_some(),
            Self::PreFilter => plugin.as_pre_filter().is_some(),
            Self::Filter => plugin.as_filter().is_some(),
            Self::PostFilter => plugin.as_post_filter().is_some(),
            Self::PreScore => plugin.as_pre_score().is_some(),
            Self::Score => plugin.as_score().is_some(),
            Self::Reserve => plugin.as_reserve().is_some(),
            Self::Permit => plugin.as_permit().is_some(),
            Self::PreBind => plugin.as_pre_bind().is_some(),
            Self::Bind => plugin.as_bind().is_some(),
            Self::PostBind => plugin.as_post_bind().is_some(),
        }
    }
}
