//! A cluster in memory, for unit tests of whatever talks through [`Client`].

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    client::{
        Client, ClientError, ObjectList, Read, ReadReply, WatchOptions, WatchStream, Write,
        WriteReply,
    },
    environment::Environment,
    object::Object,
    resource::{Key, ResourceType, Target},
    status::ApiError,
};

mod filter;
mod store;
mod watching;
mod writes;

use filter::Filter;
use store::Store;

/// A fake cluster: objects of any resource, kept as JSON, without an API server.
///
/// It keeps what controllers rely on: uids, creation timestamps, resource versions, generations,
/// optimistic concurrency, isolation of `status`, finalizers and graceful deletion, label and field
/// selectors, pages, watches with history and bookmarks, `binding`, `eviction`, `scale` and
/// `finalize`. What happens is a function of the calls and of the [`Environment`].
///
/// Differs from an API server: nothing is defaulted or validated beyond metadata, namespaces need
/// not exist, there is no access control, and server-side apply is a merge that creates. A test
/// that is about those wants the server itself.
///
/// ```
/// # use std::sync::Arc;
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use orch_core::{Environment, Resources, testing::MemoryClient};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orch_core::ClientError> {
/// let cluster = Arc::new(MemoryClient::new(Environment::system()));
/// let maps: Resources<ConfigMap> = Resources::namespaced(cluster, "default");
/// let mut map = ConfigMap::default();
/// map.metadata.name = Some("settings".into());
/// assert!(maps.create(&map).await?.metadata.uid.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryClient {
    shared: Arc<Shared>,
}

struct Shared {
    environment: Environment,
    store: Mutex<Store>,
    revision: watch::Sender<u64>,
}

impl fmt::Debug for MemoryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryClient(revision {})", self.revision())
    }
}

impl MemoryClient {
    /// An empty cluster.
    pub fn new(environment: Environment) -> Self {
        let store = Mutex::new(Store::default());
        Self { shared: Arc::new(Shared { environment, store, revision: watch::Sender::new(0) }) }
    }

    /// The revision of the latest change.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Puts an object in (or over) as it is, status included. What a server would set (uid,
    /// creation timestamp) is set where it is missing.
    ///
    /// # Errors
    /// [`ClientError::Decode`] if the value is not an object with metadata.
    pub fn seed(&self, resource: &ResourceType, object: Value) -> Result<Arc<Object>, ClientError> {
        let mut store = self.shared.store.lock();
        let seeded = writes::seed(&mut store, &self.shared.environment, resource, object);
        self.publish(&store);
        seeded
    }

    /// [`MemoryClient::seed`] for a typed object.
    ///
    /// # Errors
    /// [`ClientError::Decode`] if it does not serialize to an object with metadata.
    pub fn seed_typed<K>(&self, object: &K) -> Result<Arc<K>, ClientError>
    where
        K: crate::informer::Watchable,
        K::Scope: crate::resource::StaticScope,
    {
        let value = serde_json::to_value(object).map_err(crate::object::DecodeError::Shape)?;
        Ok(self.seed(&ResourceType::of::<K>(), value)?.decode()?)
    }

    /// Forgets the history: a watch from before now is answered with 410 Expired, as after a
    /// compaction.
    pub fn compact(&self) {
        self.shared.store.lock().compact();
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &ResourceType) -> usize {
        self.shared.store.lock().count(resource)
    }

    fn publish(&self, store: &Store) {
        let revision = store.revision();
        self.shared.revision.send_if_modified(|current| {
            let newer = *current < revision;
            *current = revision;
            newer
        });
    }

    fn get(&self, target: &Target) -> Result<Arc<Object>, ClientError> {
        let store = self.shared.store.lock();
        let object = store.get(&target.resource, &key_of(target)?)?;
        match target.subresource.as_deref() {
            None | Some("status") => Ok(object.clone()),
            Some("scale") => Ok(Arc::new(Object::from_value(&writes::scale_of(object)?)?)),
            Some(_) => Err(ApiError::no_such_path().into()),
        }
    }
}

/// The key that a call names.
fn key_of(target: &Target) -> Result<Key, ApiError> {
    let name = target.name.as_deref().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::bad_request("name must be provided"))?;
    Ok(Key::new(target.namespace.clone().unwrap_or_default(), name))
}

#[async_trait]
impl Client for MemoryClient {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        match read {
            Read::Get(target) => Ok(ReadReply::Object(self.get(&target)?)),
            Read::List(target, options) => {
                let filter = Filter::of_list(&target, &options)?;
                let list: ObjectList = self.shared.store.lock().list(&target, &filter, &options)?;
                Ok(ReadReply::List(list))
            }
        }
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        let mut store = self.shared.store.lock();
        let written = writes::write(&mut store, &self.shared.environment, write);
        self.publish(&store);
        written
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        watching::watch(self.shared.clone(), target, &options)
    }

    /// Those of which there are objects or have been.
    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        Ok(self.shared.store.lock().resource_types())
    }
}
