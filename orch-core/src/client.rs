//! The one way to talk to a cluster.
//!
//! [`Client`] is the contract: three methods over plain request values, and what kinds there are, so
//! that a wrapper (faults, recording, counting) is a few short functions. [`Resources`] is the comfortable, typed face of
//! it. Two implementations exist: the in-process one of `orch-api`, which shares decoded objects by
//! `Arc`, and [`kube::Client`](::kube::Client), which reaches any Kubernetes cluster.

use std::{borrow::Cow, fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::{
    object::{DecodeError, Object},
    resource::{ResourceType, Target},
    status::{ApiError, Reason},
};

mod kube;
mod lines;
mod resources;

pub use lines::lines;
pub use resources::Resources;

/// Why a call to the cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The API answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No answer was had. Whether a write took place is unknown.
    #[error("the API server did not answer")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer could not be understood.
    #[error("the API server's answer could not be decoded")]
    Decode(#[from] DecodeError),
}

impl ClientError {
    /// The API's reason, [`Reason::Unknown`] where the API did not answer.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Api(error) => error.reason(),
            _ => Reason::Unknown,
        }
    }

    /// The object (or the resource) does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Reason::NotFound
    }

    /// The name was taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Reason::AlreadyExists
    }

    /// The write lost against another: read again and try again.
    pub fn is_conflict(&self) -> bool {
        self.reason() == Reason::Conflict
    }

    /// The resource version is too old: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), Reason::Expired | Reason::Gone)
    }

    /// Whether the same call may succeed later. A retried write must be idempotent: after
    /// [`ClientError::Transport`] the first one may have taken place.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api(error) => error.is_retryable(),
            Self::Transport(_) => true,
            Self::Decode(_) => false,
        }
    }
}

/// A request that changes nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Read {
    /// One object, or an object-like subresource such as `scale`.
    Get(Target),
    /// A collection.
    List(Target, ListOptions),
}

/// What a [`Read`] gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadReply {
    /// The object.
    Object(Arc<Object>),
    /// The collection, or a page of it.
    List(ObjectList),
}

/// A page of a collection.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    /// The objects, in the store's order (namespace, then name).
    pub items: Vec<Arc<Object>>,
    /// The revision that the whole list is of. Watch from here to miss nothing.
    pub resource_version: String,
    /// The token for the next page, if there is one.
    pub continue_token: Option<String>,
    /// How many objects are left behind this page, where that is known.
    pub remaining_item_count: Option<i64>,
}

/// Which objects of a collection, and of which revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Label selector in its string form; `None` selects everything.
    pub label_selector: Option<String>,
    /// Field selector in its string form; `None` selects everything.
    pub field_selector: Option<String>,
    /// At most so many objects in a page; `None` is without limit.
    pub limit: Option<u32>,
    /// The token of the page before.
    pub continue_token: Option<String>,
    /// The resource version constraint; `None` asks for the most recent.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`; only with a resource version.
    pub resource_version_match: Option<String>,
}

/// Which changes to watch, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Label selector in its string form; `None` selects everything.
    pub label_selector: Option<String>,
    /// Field selector in its string form; `None` selects everything.
    pub field_selector: Option<String>,
    /// Changes after this resource version. `None` starts with synthetic additions of what exists.
    pub resource_version: Option<String>,
    /// Ask for bookmarks, so that the position advances even when nothing changes.
    pub bookmarks: bool,
    /// Send what exists first, then a bookmark that says so, then the changes (WatchList).
    pub send_initial_events: bool,
    /// End the stream after so many seconds; `None` leaves it to the server.
    pub timeout_s: Option<u32>,
}

/// One change of a watched collection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// An object came into being, or into the selection.
    Added(Arc<Object>),
    /// An object of the selection changed.
    Modified(Arc<Object>),
    /// An object went away, or left the selection. Carries its last state.
    Deleted(Arc<Object>),
    /// Nothing changed up to this resource version.
    Bookmark {
        /// The position to resume from.
        resource_version: String,
        /// Whether this one ends the initial events of a WatchList.
        initial_events_end: bool,
    },
}

/// Changes in the order in which they took place, without gaps. An `Err` is the last item; an
/// [`ClientError::is_expired`] one means that the caller must list again.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ClientError>>;

/// How a patch is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The media type that the body is sent under.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// How strictly unknown and duplicate fields are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped, with a warning. The server's default.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Options of every write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Who writes, for managed fields; `None` lets the server derive it from the caller.
    pub field_manager: Option<Cow<'static, str>>,
    /// Go through everything but the storing.
    pub dry_run: bool,
    /// With server-side apply: take fields over from other managers.
    pub force: bool,
    /// Unknown and duplicate fields; `None` is the server's default ([`FieldValidation::Warn`]).
    pub field_validation: Option<FieldValidation>,
}

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Propagation {
    /// They stay and lose the reference.
    Orphan,
    /// They are deleted after the owner.
    Background,
    /// They are deleted before the owner goes.
    Foreground,
}

impl Propagation {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod has to stop; `None` is the object's own period, zero is at once.
    pub grace_period_s: Option<i64>,
    /// What happens to dependents; `None` is the kind's default.
    pub propagation: Option<Propagation>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only at this resource version.
    pub resource_version: Option<String>,
    /// Go through everything but the deleting.
    pub dry_run: bool,
}

/// A request that changes something.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Write {
    /// Create an object (the target is the collection), or post to a subresource such as
    /// `binding`, `eviction` or `token`.
    Create(Target, Value, WriteOptions),
    /// Replace an object or a subresource. Guarded by `metadata.resourceVersion` when it is set.
    Update(Target, Value, WriteOptions),
    /// Patch an object or a subresource.
    Patch(Target, PatchKind, Value, WriteOptions),
    /// Delete an object.
    Delete(Target, DeleteOptions),
    /// Delete what a list of the collection selects.
    DeleteCollection(Target, DeleteOptions, ListOptions),
}

impl Write {
    /// What the write addresses.
    pub fn target(&self) -> &Target {
        match self {
            Self::Create(t, ..)
            | Self::Update(t, ..)
            | Self::Patch(t, ..)
            | Self::Delete(t, _)
            | Self::DeleteCollection(t, ..) => t,
        }
    }
}

/// What a [`Write`] gives: the object as stored; for a delete the object's last state (it may
/// still exist, with a deletion timestamp) or a `Status`; for subresources what upstream answers.
pub type WriteReply = Arc<Object>;

/// A cluster, seen by one identity.
///
/// - **Order.** A read that starts after a write was acknowledged sees that write, unless it
///   passed a resource version. Watches deliver every change once, in commit order.
/// - **Cancellation.** Dropping a future abandons the call. A dropped write may or may not have
///   taken place, wholly in either case.
/// - **Errors.** [`ClientError::Api`] is the API's answer and means that a write did not take
///   place, unless its reason is [`Reason::Timeout`]; after that and after
///   [`ClientError::Transport`] the outcome is unknown.
///
/// Object-safe: components take `Arc<dyn Client>`.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Reads an object or a collection.
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError>;

    /// Changes an object or a collection.
    async fn write(&self, write: Write) -> Result<WriteReply, ClientError>;

    /// Watches a collection (the target's name and subresource are ignored).
    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError>;

    /// Every resource that can be listed and deleted, custom ones included, each in one version:
    /// what works on objects of all kinds goes through these. Asked again, it gives what there is
    /// by then.
    ///
    /// A client need not know: by default the answer is that there is no such path. One that wraps
    /// another passes the question on.
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Err(ApiError::no_such_path().into())
    }
}

/// What holds a client can be printed; the client itself (which may hold credentials) says no more
/// than that it is one.
impl fmt::Debug for dyn Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl<C: Client + ?Sized> Client for Arc<C> {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        (**self).read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        (**self).write(write).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        (**self).watch(target, options).await
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        (**self).resource_types().await
    }
}
