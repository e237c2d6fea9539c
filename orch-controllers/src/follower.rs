//! Follows all objects of one kind, whatever kind that is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::{
    Client, ClientError, Environment, Key, Object, ResourceType, Target,
    awaited::Awaited,
    client::{ListOptions, Read, ReadReply, WatchEvent, WatchOptions},
    object::DecodeError,
};
use parking_lot::Mutex;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What is told of the objects of a kind, one at a time.
pub(crate) trait Follow: Send + 'static {
    /// The object is there, like this.
    fn seen(&mut self, object: &Object, meta: &ObjectMeta);
    /// The object of this name and uid is gone.
    fn gone(&mut self, key: &Key, uid: &str);
}

/// The uids of the objects that a follower knows, by name.
pub(crate) type Known = Arc<Mutex<BTreeMap<Key, String>>>;

/// Whether the first list of a kind was taken in, or will never be.
pub(crate) type Synced = Arc<Awaited<bool>>;

/// Lists a kind, watches it, and lists it again after a gap.
pub(crate) struct Follower<F> {
    pub(crate) client: Arc<dyn Client>,
    pub(crate) environment: Environment,
    pub(crate) resource: ResourceType,
    pub(crate) synced: Synced,
    /// Survives the follower: who follows the kind in another version finds out what is gone.
    pub(crate) known: Known,
    pub(crate) follow: F,
}

impl<F: Follow> Follower<F> {
    /// Follows the kind until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.list().await {
                Ok(version) => {
                    backoff = BACKOFF_MIN;
                    self.synced.set(true);
                    self.watch(version).await
                }
                Err(error) => {
                    // A kind that cannot be listed must not hold up all others.
                    if error.is_not_found() || !error.is_retryable() {
                        self.synced.set(true);
                    }
                    error
                }
            };
            if !error.is_expired() {
                tracing::debug!(resource = %self.resource, %error, "watch interrupted");
                self.environment.clock.sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    fn target(&self) -> Target {
        Target::collection(self.resource.clone(), None)
    }

    async fn list(&mut self) -> Result<String, ClientError> {
        let read = Read::List(self.target(), ListOptions::default());
        let list = match self.client.read(read).await? {
            ReadReply::List(list) => list,
            _ => return Err(DecodeError::NoMetadata.into()),
        };
        let mut before = std::mem::take(&mut *self.known.lock());
        for object in &list.items {
            let key = object.key();
            if let Some(uid) = before.remove(&key)
                && object.glance_metadata().uid.as_ref() != Some(&uid)
            {
                self.follow.gone(&key, &uid);
            }
            self.seen(object);
        }
        for (key, uid) in before {
            self.follow.gone(&key, &uid);
        }
        Ok(list.resource_version)
    }

    /// Watches the kind until that ends, and gives why.
    async fn watch(&mut self, version: String) -> ClientError {
        let mut position = version;
        loop {
            let options = WatchOptions {
                resource_version: Some(position.clone()),
                bookmarks: true,
                ..WatchOptions::default()
            };
            let mut stream = match self.client.watch(self.target(), options).await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let mut seen_any = false;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        position = object.to_resource_version();
                        self.seen(&object);
                    }
                    Ok(WatchEvent::Deleted(object)) => {
                        position = object.to_resource_version();
                        self.gone(&object);
                    }
                    Ok(WatchEvent::Bookmark { resource_version, .. }) => {
                        position = resource_version;
                    }
                    Ok(_) => {}
                    Err(error) => return error,
                }
                seen_any = true;
            }
            if !seen_any {
                // A server that ends watches at once must not be asked in a hot loop.
                self.environment.clock.sleep(BACKOFF_MIN).await;
            }
        }
    }

    fn seen(&mut self, object: &Object) {
        let meta = object.glance_metadata();
        if let Some(uid) = meta.uid.clone() {
            self.known.lock().insert(object.key(), uid);
        }
        self.follow.seen(object, &meta);
    }

    fn gone(&mut self, object: &Object) {
        let key = object.key();
        let known = self.known.lock().remove(&key);
        if let Some(uid) = known {
            self.follow.gone(&key, &uid);
        }
    }
}
