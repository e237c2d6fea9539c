//! Follows all objects of one kind, by their metadata alone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use orch_core::{
    ClientError, Key, ResourceType, Target,
    client::{Client, ListOptions, Read, ReadReply, WatchEvent, WatchOptions},
    object::Object,
};
use tokio::sync::watch;

use super::Shared;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

pub(super) struct Monitor {
    shared: Arc<Shared>,
    resource: Arc<ResourceType>,
    synced: watch::Sender<bool>,
    uids: HashMap<Key, String>,
}

impl Monitor {
    pub(super) fn new(
        shared: Arc<Shared>,
        resource: ResourceType,
        synced: watch::Sender<bool>,
    ) -> Self {
        Self { shared, resource: Arc::new(resource), synced, uids: HashMap::new() }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.list().await {
                Ok(version) => {
                    backoff = BACKOFF_MIN;
                    self.synced.send_replace(true);
                    self.follow(version).await
                }
                Err(error) => {
                    // A kind that cannot be listed must not hold up all others.
                    self.synced.send_if_modified(|synced| {
                        let served = !error.is_not_found() && error.is_retryable();
                        let changed = !served && !*synced;
                        *synced |= !served;
                        changed
                    });
                    error
                }
            };
            if !error.is_expired() {
                tracing::debug!(resource = %self.resource, %error, "watch interrupted");
                self.shared.context.environment().clock.sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    fn target(&self) -> Target {
        Target::collection(self.resource.as_ref().clone(), None)
    }

    async fn list(&mut self) -> Result<String, ClientError> {
        let client = self.shared.context.client().clone();
        let list = match client.read(Read::List(self.target(), ListOptions::default())).await? {
            ReadReply::List(list) => list,
            _ => return Err(orch_core::object::DecodeError::NoMetadata.into()),
        };
        let mut before = std::mem::take(&mut self.uids);
        for object in &list.items {
            if let Some(uid) = before.remove(&object.key())
                && object.metadata().uid.as_ref() != Some(&uid)
            {
                self.shared.change(|graph| graph.gone(&uid));
            }
            self.seen(object);
        }
        for uid in before.into_values() {
            self.shared.change(|graph| graph.gone(&uid));
        }
        Ok(list.resource_version)
    }

    /// Follows the kind until that ends, and gives why.
    async fn follow(&mut self, version: String) -> ClientError {
        let mut position = version;
        let client = self.shared.context.client().clone();
        loop {
            let options = WatchOptions {
                resource_version: Some(position.clone()),
                bookmarks: true,
                ..WatchOptions::default()
            };
            let mut stream = match client.watch(self.target(), options).await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let mut seen_any = false;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        position = object.resource_version().to_owned();
                        self.seen(&object);
                    }
                    Ok(WatchEvent::Deleted(object)) => {
                        position = object.resource_version().to_owned();
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
                self.shared.context.environment().clock.sleep(BACKOFF_MIN).await;
            }
        }
    }

    fn seen(&mut self, object: &Object) {
        if let Some(uid) = object.metadata().uid.clone() {
            self.uids.insert(object.key(), uid);
        }
        self.shared.change(|graph| graph.seen(&self.resource, object.metadata()));
    }

    fn gone(&mut self, object: &Object) {
        if let Some(uid) = self.uids.remove(&object.key()) {
            self.shared.change(|graph| graph.gone(&uid));
        }
    }
}
