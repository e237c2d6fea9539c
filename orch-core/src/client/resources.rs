//! The typed face of a [`Client`].

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use futures::StreamExt;
use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Client, ClientError, DeleteOptions, ListOptions, ObjectList, PatchKind, Read, ReadReply,
    WatchEvent, WatchOptions, WatchStream, Write, WriteOptions,
};
use crate::{
    object::{DecodeError, Object},
    resource::{Key, ResourceType, StaticScope, Target},
};

/// Objects of one type in one namespace, or across all of them.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use orch_core::client::{Client, Resources, ClientError};
/// # use k8s_openapi::api::core::v1::Pod;
/// # async fn demo(client: Arc<dyn Client>) -> Result<(), ClientError> {
/// let pods: Resources<Pod> = Resources::namespaced(client, "default");
/// let web = pods.get("web").await?;
/// println!("{:?}", web.status);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Resources<K> {
    client: Arc<dyn Client>,
    resource: ResourceType,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Resources<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> Resources<K>
where
    K: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
    K::Scope: StaticScope,
{
    /// Across all namespaces, or of a cluster-scoped resource.
    pub fn all(client: Arc<dyn Client>) -> Self {
        Self { client, resource: ResourceType::of::<K>(), namespace: None, kind: PhantomData }
    }

    /// In one namespace. An empty name is the same as [`Resources::all`].
    pub fn namespaced(client: Arc<dyn Client>, namespace: &str) -> Self {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Self { namespace, ..Self::all(client) }
    }

    /// The resource.
    pub fn resource(&self) -> &ResourceType {
        &self.resource
    }

    fn collection(&self) -> Target {
        Target::collection(self.resource.clone(), self.namespace.as_deref())
    }

    fn object(&self, name: &str) -> Target {
        Target::object(self.resource.clone(), self.namespace.as_deref(), name)
    }

    /// One object.
    ///
    /// # Errors
    /// [`ClientError`]; a missing object is [`ClientError::is_not_found`].
    pub async fn get(&self, name: &str) -> Result<Arc<K>, ClientError> {
        match self.client.read(Read::Get(self.object(name))).await? {
            ReadReply::Object(object) => Ok(object.decode()?),
            ReadReply::List(_) => Err(DecodeError::NoMetadata.into()),
        }
    }

    /// One object, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`], except for a missing object.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Arc<K>>, ClientError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The raw page of a list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_objects(&self, options: ListOptions) -> Result<ObjectList, ClientError> {
        match self.client.read(Read::List(self.collection(), options)).await? {
            ReadReply::List(list) => Ok(list),
            ReadReply::Object(_) => Err(DecodeError::NoMetadata.into()),
        }
    }

    /// All objects that the options select, decoded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Arc<K>>, ClientError> {
        let list = self.list_objects(options).await?;
        list.items.iter().map(|o| Ok(o.decode()?)).collect()
    }

    /// The changes of the collection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn watch(&self, options: WatchOptions) -> Result<WatchStream, ClientError> {
        self.client.watch(self.collection(), options).await
    }

    /// Creates an object in its own namespace (`metadata.namespace`), or in this one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create(&self, object: &K) -> Result<Arc<K>, ClientError> {
        Ok(self.create_object(object).await?.decode()?)
    }

    /// [`Resources::create`] for those who do not look at what was created: it is not decoded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_object(&self, object: &K) -> Result<Arc<Object>, ClientError> {
        let namespace = object.metadata().namespace.as_deref().or(self.namespace.as_deref());
        let target = Target::collection(self.resource.clone(), namespace);
        self.client.write(Write::Create(target, encode(object)?, WriteOptions::default())).await
    }

    fn own_target(&self, object: &K) -> Target {
        let key = Key::of(object.metadata());
        let namespace = key.namespace().or(self.namespace.as_deref());
        Target::object(self.resource.clone(), namespace, &key.name)
    }

    /// Replaces an object; fails with a conflict if its resource version is set and stale.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update(&self, object: &K) -> Result<Arc<K>, ClientError> {
        let write =
            Write::Update(self.own_target(object), encode(object)?, WriteOptions::default());
        Ok(self.client.write(write).await?.decode()?)
    }

    /// Replaces an object's status; everything else of `object` is ignored.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update_status(&self, object: &K) -> Result<Arc<K>, ClientError> {
        let target = self.own_target(object).subresource("status");
        let write = Write::Update(target, encode(object)?, WriteOptions::default());
        Ok(self.client.write(write).await?.decode()?)
    }

    /// Patches an object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch(
        &self,
        name: &str,
        kind: PatchKind,
        patch: Value,
    ) -> Result<Arc<K>, ClientError> {
        Ok(self.patch_object(name, kind, patch).await?.decode()?)
    }

    /// [`Resources::patch`] for those who do not look at what became of the object: it is not
    /// decoded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch_object(
        &self,
        name: &str,
        kind: PatchKind,
        patch: Value,
    ) -> Result<Arc<Object>, ClientError> {
        let write = Write::Patch(self.object(name), kind, patch, WriteOptions::default());
        self.client.write(write).await
    }

    /// Patches an object's status.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch_status(
        &self,
        name: &str,
        kind: PatchKind,
        patch: Value,
    ) -> Result<Arc<K>, ClientError> {
        let target = self.object(name).subresource("status");
        let write = Write::Patch(target, kind, patch, WriteOptions::default());
        Ok(self.client.write(write).await?.decode()?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(
        &self,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Arc<Object>, ClientError> {
        self.client.write(Write::Delete(self.object(name), options)).await
    }

    /// Posts to a subresource such as `binding` or `eviction` and gives back what it answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_sub<T: Serialize + Sync>(
        &self,
        name: &str,
        subresource: &'static str,
        body: &T,
    ) -> Result<Arc<Object>, ClientError> {
        let target = self.object(name).subresource(subresource);
        self.client.write(Write::Create(target, encode(body)?, WriteOptions::default())).await
    }
}

impl<K> Resources<K>
where
    K: DeserializeOwned + Send + Sync + 'static,
{
    /// Waits until the watched events satisfy `done` and returns the object that did.
    /// Ends with `None` if the stream ends first.
    ///
    /// # Errors
    /// [`ClientError`] from the watch.
    pub async fn first_match(
        stream: WatchStream,
        mut done: impl FnMut(&K) -> bool + Send,
    ) -> Result<Option<Arc<K>>, ClientError> {
        let mut stream = stream;
        while let Some(event) = stream.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event? {
                let typed = object.decode::<K>()?;
                if done(&typed) {
                    return Ok(Some(typed));
                }
            }
        }
        Ok(None)
    }
}

fn encode<T: Serialize>(object: &T) -> Result<Value, ClientError> {
    Ok(serde_json::to_value(object).map_err(DecodeError::Shape)?)
}
