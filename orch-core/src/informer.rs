//! A local, current copy of a collection: list, watch, resume, and tell handlers what changed.
//!
//! Source: `k8s.io/client-go/tools/cache` (`Reflector`, `SharedIndexInformer`).

mod state;

use std::{
    any::{Any, TypeId},
    collections::{BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use parking_lot::{Mutex, RwLock};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::AbortHandle;

use self::state::{Index, IndexFn, State};
use crate::{
    awaited::Awaited,
    client::{Client, ClientError, ListOptions, Resources, WatchEvent, WatchOptions},
    environment::Environment,
    object::Object,
    resource::{Key, StaticScope},
};

const BACKOFF_MIN: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a typed object must be for an [`Informer`] to hold it.
pub trait Watchable:
    Metadata<Ty = ObjectMeta, Scope: StaticScope>
    + Serialize
    + DeserializeOwned
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Watchable for K where
    K: Metadata<Ty = ObjectMeta, Scope: StaticScope>
        + Serialize
        + DeserializeOwned
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// One change of the local copy.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object is new here.
    Added(Arc<K>),
    /// The object has another revision. After a gap several revisions may be one change.
    Updated {
        /// What was here before.
        old: Arc<K>,
        /// What is here now.
        new: Arc<K>,
    },
    /// The object is gone, or left the selection. Its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state that the change knows.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => {
                object
            }
        }
    }
}

/// Which part of a collection an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// One namespace; `None` is all of them.
    pub namespace: Option<String>,
    /// Label selector in its string form.
    pub label_selector: Option<String>,
    /// Field selector in its string form.
    pub field_selector: Option<String>,
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Shared<K> {
    state: RwLock<State<K>>,
    /// Held while a change is applied and told, so that a new handler sees every object once.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: Awaited<bool>,
    position: AtomicU64,
}

/// What [`Informers`] does with informers of any type.
trait AnyInformer: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn stop(&self);
}

impl<K: Watchable> AnyInformer for Informer<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stop(&self) {
        self.task.0.abort();
        // Dropped outside of the lock: a handler may hold the last clone of another informer.
        let handlers = std::mem::take(&mut *self.shared.handlers.lock());
        drop(handlers);
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A local copy of a collection that follows the cluster.
///
/// Reads are local and never wait for the network; they may lag behind the cluster. The copy
/// survives disconnections: it resumes its watch where it stopped, and lists again (telling the
/// difference to the handlers) when that is too long ago. Cheap to clone; the task that follows
/// the cluster ends when the last clone is dropped.
///
/// Objects are held in their encoding, and in their typed form while somebody asks for them: a
/// typed form that was not used between two bookmarks of the watch (a minute) is let go, and made
/// again for whoever asks next.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
    task: Arc<AbortOnDrop>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), task: self.task.clone() }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informer({} objects)", self.shared.state.read().objects.len())
    }
}

impl<K: Watchable> Informer<K> {
    /// Starts to follow a collection. Call it inside a tokio runtime.
    pub fn start(client: Arc<dyn Client>, environment: Environment, selection: Selection) -> Self {
        let shared = Arc::new(Shared {
            state: RwLock::new(State::default()),
            handlers: Mutex::new(Vec::new()),
            synced: Awaited::new(false),
            position: AtomicU64::new(0),
        });
        let reflector = Reflector { client, environment, selection, shared: shared.clone() };
        let task = tokio::spawn(reflector.run());
        Self { shared, task: Arc::new(AbortOnDrop(task.abort_handle())) }
    }

    /// Adds an index: `of` gives the values under which [`Informer::by_index`] finds an object.
    /// Adding the same name again replaces the index: components that share an informer name their
    /// indexes after what they hold, so that whoever comes second adds the same one.
    pub fn add_index(&self, name: &'static str, of: IndexFn<K>) {
        let mut state = self.shared.state.write();
        let mut index = Index::new(of);
        for (key, held) in &state.objects {
            if let Some(typed) = held.typed() {
                index.add(&typed, key);
            }
        }
        state.touch();
        state.indexes.insert(name, index);
    }

    /// Calls `handler` for every object that is here (as an addition) and then for every change,
    /// one at a time, in order. The handler must be quick, must not block and must not add
    /// handlers to the same informer: it puts a key into a queue.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        let present: Vec<Arc<K>> = self.shared.state.read().typed().collect();
        for object in present {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Whether the first list has been taken in.
    pub fn has_synced(&self) -> bool {
        self.shared.synced.get()
    }

    /// Waits until the first list has been taken in.
    pub async fn synced(&self) {
        self.shared.synced.wait_for(|synced| synced).await;
    }

    /// The resource version that the copy has reached: it shows every change up to that one, and
    /// its handlers have been told. 0 before the first list, and where versions are no numbers.
    pub fn position(&self) -> u64 {
        self.shared.position.load(Ordering::Acquire)
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.state.read().get(key)
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().typed().collect()
    }

    /// The objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let from = Bound::Included(Key::new(namespace, ""));
        state.touch();
        state
            .objects
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .filter_map(|(_, held)| held.typed())
            .collect()
    }

    /// The objects under a value of an index, by namespace and name. An index that was never
    /// added finds nothing.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.shared.state.read().by_index(name, value).collect()
    }

    /// How many objects [`Informer::by_index`] finds, without looking at them.
    pub fn count_by_index(&self, name: &str, value: &str) -> usize {
        self.shared.state.read().indexes.get(name).map_or(0, |index| index.count(value))
    }

    /// The values of an index under which there are objects, in no order.
    pub fn index_values(&self, name: &str) -> Vec<String> {
        let state = self.shared.state.read();
        let index = state.indexes.get(name);
        index.map(|index| index.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether an object is here, without looking at it.
    pub fn holds(&self, key: &Key) -> bool {
        self.shared.state.read().objects.contains_key(key)
    }

    /// How many objects are here.
    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct Reflector<K> {
    client: Arc<dyn Client>,
    environment: Environment,
    selection: Selection,
    shared: Arc<Shared<K>>,
}

impl<K: Watchable> Reflector<K> {
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        let mut position: Option<String> = None;
        loop {
            let before = position.take();
            let result = match &before {
                None => self.relist().await,
                Some(version) => self.follow(version.clone()).await,
            };
            match result {
                Ok(version) => {
                    position = Some(version);
                    backoff = BACKOFF_MIN;
                }
                // The list is taken at once, unless it is the list itself that has expired.
                Err((_, error)) if error.is_expired() && before.is_some() => {}
                Err((resume, error)) => {
                    tracing::debug!(kind = K::KIND, %error, "watch interrupted");
                    if resume != before {
                        // It worked for a while: this is a first failure, not one more.
                        backoff = BACKOFF_MIN;
                    }
                    let wait = backoff.mul_f64(1.0 + self.environment.random.unit());
                    self.environment.clock.sleep(wait).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    position = resume.filter(|_| !error.is_expired());
                }
            }
        }
    }

    fn resources(&self) -> Resources<K> {
        let namespace = self.selection.namespace.as_deref().unwrap_or_default();
        Resources::namespaced(self.client.clone(), namespace)
    }

    async fn relist(&self) -> Result<String, (Option<String>, ClientError)> {
        let options = ListOptions {
            label_selector: self.selection.label_selector.clone(),
            field_selector: self.selection.field_selector.clone(),
            ..ListOptions::default()
        };
        let list = self.resources().list_objects(options).await.map_err(|e| (None, e))?;
        let mut gone: BTreeSet<Key> = self.shared.state.read().objects.keys().cloned().collect();
        for object in &list.items {
            gone.remove(&object.key());
            self.upsert(object);
        }
        for key in gone {
            self.remove(&key);
        }
        self.reached(&list.resource_version);
        self.shared.synced.set(true);
        Ok(list.resource_version)
    }

    /// Follows the collection until the stream ends; gives the position to resume from.
    async fn follow(&self, version: String) -> Result<String, (Option<String>, ClientError)> {
        let options = WatchOptions {
            label_selector: self.selection.label_selector.clone(),
            field_selector: self.selection.field_selector.clone(),
            resource_version: Some(version.clone()),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let mut position = version;
        let stream = self.resources().watch(options).await;
        let mut stream = stream.map_err(|e| (Some(position.clone()), e))?;
        let mut seen_any = false;
        while let Some(event) = stream.next().await {
            match event.map_err(|e| (Some(position.clone()), e))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    position = object.to_resource_version();
                    self.upsert(&object);
                }
                WatchEvent::Deleted(object) => {
                    position = object.to_resource_version();
                    self.remove(&object.key());
                }
                WatchEvent::Bookmark { resource_version, .. } => {
                    position = resource_version;
                    self.shared.state.write().cool();
                }
            }
            self.reached(&position);
            seen_any = true;
        }
        if !seen_any {
            // A server that ends watches at once must not be asked in a hot loop.
            self.environment.clock.sleep(BACKOFF_MIN).await;
        }
        Ok(position)
    }

    fn reached(&self, version: &str) {
        self.shared.position.store(version.parse().unwrap_or(0), Ordering::Release);
    }

    fn upsert(&self, object: &Arc<Object>) {
        let key = object.key();
        if self.shared.state.read().holds(&key, object) {
            return;
        }
        let typed = match object.decode::<K>() {
            Ok(typed) => typed,
            Err(error) => {
                // The copy keeps the last state that could be read rather than none.
                tracing::warn!(kind = K::KIND, %key, %error, "cannot be decoded");
                return;
            }
        };
        let handlers = self.shared.handlers.lock();
        let old = self.shared.state.write().insert(key, object.clone(), &typed);
        let change = match old {
            None => Change::Added(typed),
            Some(old) => Change::Updated { old, new: typed },
        };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn remove(&self, key: &Key) {
        let handlers = self.shared.handlers.lock();
        let old = self.shared.state.write().remove(key);
        if let Some(old) = old {
            let change = Change::Deleted(old);
            handlers.iter().for_each(|handler| handler(&change));
        }
    }
}

/// One shared [`Informer`] per resource and process: every component that asks for the same type
/// gets the same copy.
#[derive(Clone)]
pub struct Informers {
    client: Arc<dyn Client>,
    environment: Environment,
    started: Arc<Mutex<HashMap<TypeId, Box<dyn AnyInformer>>>>,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informers({} kinds)", self.started.lock().len())
    }
}

impl Informers {
    /// A set that reads through `client`.
    pub fn new(client: Arc<dyn Client>, environment: Environment) -> Self {
        Self { client, environment, started: Arc::default() }
    }

    /// The client that the informers read through.
    pub fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    /// Clock and randomness.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The informer of a type across all namespaces, started on the first call.
    pub fn of<K: Watchable>(&self) -> Informer<K> {
        let mut started = self.started.lock();
        if let Some(informer) = started
            .get(&TypeId::of::<K>())
            .and_then(|any| any.as_any().downcast_ref::<Informer<K>>())
        {
            return informer.clone();
        }
        let informer =
            Informer::start(self.client.clone(), self.environment.clone(), Selection::default());
        started.insert(TypeId::of::<K>(), Box::new(informer.clone()));
        informer
    }

    /// Ends every informer that was started here, and lets go of all handlers: handlers of one
    /// informer often hold another, which would then keep each other alive for ever. The copies
    /// stay as they are.
    pub fn stop(&self) {
        self.started.lock().values().for_each(|informer| informer.stop());
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Weak};

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::{
        client::{DeleteOptions, PatchKind},
        resource::ResourceType,
        testing::{FaultRates, FaultyClient, MemoryClient},
    };

    /// The copy equals the cluster, and the handler's account of the changes equals the copy.
    #[tokio::test(start_paused = true)]
    async fn the_copy_follows_through_faults_and_compactions() {
        let environment = Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), 5);
        let cluster = Arc::new(MemoryClient::new(environment.clone()));
        let rates = FaultRates {
            server_error_permille: 100,
            transport_permille: 100,
            watch_drop_permille: 50,
            expired_permille: 50,
            ..FaultRates::default()
        };
        let faulty = FaultyClient::seeded(cluster.clone(), environment.clone(), rates);
        let informer: Informer<ConfigMap> =
            Informer::start(Arc::new(faulty.clone()), environment.clone(), Selection::default());
        informer.add_index("owner", |map| {
            let labels = map.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get("owner")).into_iter().cloned().collect()
        });
        let told: Arc<Mutex<BTreeMap<Key, Option<String>>>> = Arc::default();
        let account = told.clone();
        informer.on_change(move |change| {
            let meta = &change.object().metadata;
            let mut account = account.lock();
            let before = match change {
                Change::Deleted(_) => account.remove(&Key::of(meta)),
                _ => account.insert(Key::of(meta), meta.resource_version.clone()),
            };
            assert_eq!(before.is_none(), matches!(change, Change::Added(_)), "{change:?}");
        });
        informer.synced().await;

        let maps: Resources<ConfigMap> = Resources::namespaced(cluster.clone(), "d");
        for step in 0..300 {
            let name = format!("m{}", environment.random.below(10));
            let owner = format!("o{}", environment.random.below(3));
            let label = json!({"metadata": {"labels": {"owner": owner}}});
            if maps.patch(&name, PatchKind::Merge, label).await.is_err() {
                let new = json!({"metadata": {"name": name, "namespace": "d"}});
                cluster.seed(&ResourceType::of::<ConfigMap>(), new).unwrap();
            } else if environment.random.below(4) == 0 {
                maps.delete(&name, DeleteOptions::default()).await.unwrap();
            }
            if step % 50 == 0 {
                cluster.compact();
            }
            tokio::time::sleep(Duration::from_millis(environment.random.below(2000))).await;
        }
        tokio::time::sleep(Duration::from_secs(600)).await;

        let truth: BTreeMap<Key, Option<String>> = maps
            .list(ListOptions::default())
            .await
            .unwrap()
            .iter()
            .map(|map| (Key::of(&map.metadata), map.metadata.resource_version.clone()))
            .collect();
        let copy: BTreeMap<Key, Option<String>> = informer
            .list()
            .iter()
            .map(|map| (Key::of(&map.metadata), map.metadata.resource_version.clone()))
            .collect();
        assert!(faulty.injected() > 10, "the faults did happen: {}", faulty.injected());
        assert_eq!(copy, truth);
        assert_eq!(*told.lock(), truth);
        let indexed: usize =
            (0..3).map(|n| informer.by_index("owner", &format!("o{n}")).len()).sum();
        let labelled = informer.list().iter().filter(|m| m.metadata.labels.is_some()).count();
        assert_eq!(indexed, labelled);
    }

    /// What nobody looks at is held in its encoding alone, and is the same for whoever looks again.
    #[tokio::test(start_paused = true)]
    async fn a_typed_form_that_nobody_uses_is_let_go() {
        let environment = Environment::seeded(Timestamp::from_second(1_700_000_000).unwrap(), 5);
        let cluster = Arc::new(MemoryClient::new(environment.clone()));
        let map = |name: &str, owner: &str| {
            let labels = json!({"owner": owner});
            json!({"metadata": {"name": name, "namespace": "d", "labels": labels}})
        };
        let resource = ResourceType::of::<ConfigMap>();
        for name in ["asked", "left", "noise"] {
            cluster.seed(&resource, map(name, "before")).unwrap();
        }
        let informer: Informer<ConfigMap> =
            Informer::start(cluster.clone(), environment, Selection::default());
        informer.add_index("owner", |map| {
            let labels = map.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get("owner")).into_iter().cloned().collect()
        });
        let told: Arc<Mutex<Vec<Change<ConfigMap>>>> = Arc::default();
        let account = told.clone();
        informer.on_change(move |change| {
            if change.object().metadata.name.as_deref() == Some("left") {
                account.lock().push(change.clone());
            }
        });
        informer.synced().await;
        let weak = |name: &str| Arc::downgrade(&informer.get(&Key::new("d", name)).unwrap());
        let (asked, left): (Weak<ConfigMap>, Weak<ConfigMap>) = (weak("asked"), weak("left"));
        told.lock().clear();
        let maps: Resources<ConfigMap> = Resources::namespaced(cluster.clone(), "d");
        for minute in 0..3 {
            // Without a change, a bookmark has nothing to tell.
            let change = json!({"data": {"minute": minute.to_string()}});
            maps.patch("noise", PatchKind::Merge, change).await.unwrap();
            tokio::time::sleep(Duration::from_secs(61)).await;
            assert_eq!(informer.get(&Key::new("d", "asked")).as_ref(), asked.upgrade().as_ref());
        }
        assert!(asked.upgrade().is_some());
        assert!(left.upgrade().is_none());
        assert_eq!(informer.by_index("owner", "before").len(), 3);

        tokio::time::sleep(Duration::from_secs(600)).await;
        maps.patch("left", PatchKind::Merge, map("left", "after")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(informer.by_index("owner", "before").len(), 2);
        assert_eq!(informer.by_index("owner", "after").len(), 1);
        let told = told.lock().pop().unwrap();
        let Change::Updated { old, new } = told else { panic!("{told:?}") };
        assert_eq!(old.metadata.labels.as_ref().unwrap()["owner"], "before");
        assert_eq!(new.metadata.labels.as_ref().unwrap()["owner"], "after");
    }
}
