//! A cluster that consists of what a recording says, told change by change.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use futures::StreamExt;
use orch_core::{
    Client, ClientError, Key, Object,
    client::{
        ObjectList, Read, ReadReply, WatchEvent, WatchOptions, WatchStream, Write, WriteReply,
    },
    informer::{Informers, Watchable},
    resource::Target,
    status::ApiError,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{ReplayError, Visit, each_kind};

/// One kind's changes on their way to its informer.
struct Channel {
    sender: mpsc::Sender<WatchEvent>,
    /// Taken by the informer's watch.
    receiver: Mutex<Option<mpsc::Receiver<WatchEvent>>>,
    /// How many changes the informer has taken in.
    taken_in: watch::Sender<u64>,
    /// What exists.
    keys: Mutex<BTreeSet<Key>>,
}

/// The cluster. Reads find nothing, writes are refused: whatever there is comes by the watches.
#[derive(Clone, Default)]
pub(super) struct Feed {
    channels: Arc<Mutex<HashMap<String, Arc<Channel>>>>,
}

impl Feed {
    /// Opens a channel for every kind. What is sent waits until the informer watches.
    pub(super) fn open(&self, informers: &Informers) {
        let mut open = Open { feed: self, informers };
        each_kind(&mut open);
    }

    /// Tells the kind's informer, and waits until it knows.
    pub(super) async fn set(&self, kind: &str, mut object: Value) -> Result<(), ReplayError> {
        let channel = self.channel(kind)?;
        // Revisions only have to differ.
        let revision = *channel.taken_in.borrow() + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = Object::from_value(&object);
        let object = Arc::new(object.map_err(|error| ReplayError::Object(error.to_string()))?);
        channel.keys.lock().insert(object.key());
        channel.tell(WatchEvent::Modified(object)).await
    }

    /// Tells the kind's informer that an object is gone.
    pub(super) async fn gone(&self, kind: &str, key: &Key) -> Result<(), ReplayError> {
        let channel = self.channel(kind)?;
        if !channel.keys.lock().remove(key) {
            return Ok(());
        }
        let object = serde_json::json!({
            "kind": kind, "apiVersion": "",
            "metadata": {"name": key.name, "namespace": key.namespace},
        });
        let object = Object::from_value(&object);
        let object = Arc::new(object.map_err(|error| ReplayError::Object(error.to_string()))?);
        channel.tell(WatchEvent::Deleted(object)).await
    }

    fn channel(&self, kind: &str) -> Result<Arc<Channel>, ReplayError> {
        let found = self.channels.lock().get(kind).cloned();
        found.ok_or_else(|| ReplayError::Object(format!("nothing looks up objects of kind {kind}")))
    }
}

impl Channel {
    async fn tell(&self, event: WatchEvent) -> Result<(), ReplayError> {
        let mut taken_in = self.taken_in.subscribe();
        let before = *taken_in.borrow_and_update();
        let stopped = || ReplayError::Object("the informer has stopped".to_owned());
        self.sender.send(event).await.map_err(|_| stopped())?;
        taken_in.wait_for(|now| *now > before).await.map_err(|_| stopped())?;
        Ok(())
    }
}

struct Open<'a> {
    feed: &'a Feed,
    informers: &'a Informers,
}

impl Visit for Open<'_> {
    fn kind<K: Watchable>(&mut self) {
        let (sender, receiver) = mpsc::channel(1);
        let channel = Arc::new(Channel {
            sender,
            receiver: Mutex::new(Some(receiver)),
            taken_in: watch::Sender::new(0),
            keys: Mutex::default(),
        });
        self.feed.channels.lock().insert(K::KIND.to_owned(), channel.clone());
        let count = move |_: &_| channel.taken_in.send_modify(|count| *count += 1);
        self.informers.of::<K>().on_change(count);
    }
}

fn refused() -> ClientError {
    ApiError::no_such_path().into()
}

#[async_trait]
impl Client for Feed {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        match read {
            Read::List(..) => {
                let resource_version = "0".to_owned();
                Ok(ReadReply::List(ObjectList { resource_version, ..ObjectList::default() }))
            }
            _ => Err(refused()),
        }
    }

    async fn write(&self, _: Write) -> Result<WriteReply, ClientError> {
        Err(refused())
    }

    async fn watch(&self, target: Target, _: WatchOptions) -> Result<WatchStream, ClientError> {
        let channel = self.channels.lock().get(&*target.resource.kind).cloned();
        let receiver = channel.and_then(|channel| channel.receiver.lock().take());
        Ok(match receiver {
            Some(receiver) => {
                let next = async |mut changes: mpsc::Receiver<WatchEvent>| {
                    Some((Ok(changes.recv().await?), changes))
                };
                futures::stream::unfold(receiver, next).boxed()
            }
            // Of kinds that no plugin looks up nothing is told.
            None => futures::stream::pending().boxed(),
        })
    }
}
