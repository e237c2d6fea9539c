//! A cluster for each test, a namespace in it, and waiting as upstream's tests do.

use std::{fmt::Debug, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use orch::{Cluster, core::Environment};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// How long upstream's tests wait for what takes no particular time.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A kind of object as these tests handle it.
pub(crate) trait Kind:
    kube::Resource<DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A cluster in virtual time, and a namespace of its own for the test.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl World {
    /// With so many simulated nodes. Call it on a paused runtime of one thread.
    pub(crate) async fn start(nodes: usize) -> Self {
        let epoch = Timestamp::from_second(1_700_000_017).expect("a date");
        let builder = Cluster::builder().environment(Environment::seeded(epoch, 1));
        Self::over(builder.simulated_nodes(nodes).start().await.expect("it starts")).await
    }

    pub(crate) async fn over(cluster: Cluster) -> Self {
        let client = cluster.client();
        let mut world = Self { cluster, client, namespace: String::new() };
        world.namespace = world.new_namespace().await;
        world
    }

    pub(crate) async fn new_namespace(&self) -> String {
        let namespace = object(json!({"metadata": {"generateName": "e2e-"}}));
        let all: Api<Namespace> = Api::all(self.client.clone());
        let created = all.create(&PostParams::default(), &namespace).await;
        created.expect("a namespace").name_any()
    }

    pub(crate) fn api<K: Kind + kube::Resource<Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let created = self.api::<K>().create(&PostParams::default(), &object(value)).await;
        created.expect("it is created")
    }

    /// Checks that there are so many objects of a kind.
    pub(crate) async fn count<K>(&self) -> usize
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        self.api::<K>().list(&ListParams::default()).await.expect("a list").items.len()
    }

    pub(crate) async fn shutdown(self) {
        self.cluster.shutdown().await;
    }
}

/// A typed object.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the kind")
}

/// Asks every half second until `check` gives something, for as long as upstream's test waits.
pub(crate) async fn eventually<T>(
    what: &str,
    at_most: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let found = tokio::time::timeout(at_most, waiting).await;
    found.unwrap_or_else(|_| panic!("not within {at_most:?}: {what}"))
}

/// Asks every five seconds whether `check` still holds, for as long as upstream's test looks.
pub(crate) async fn consistently(
    what: &str,
    at_least: Duration,
    mut check: impl AsyncFnMut() -> bool,
) {
    let end = tokio::time::Instant::now() + at_least;
    while tokio::time::Instant::now() < end {
        assert!(check().await, "no longer: {what}");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Waits until an object is gone.
pub(crate) async fn gone<K: Kind>(api: &Api<K>, name: &str, at_most: Duration) {
    eventually(&format!("{name} is gone"), at_most, async || {
        api.get_opt(name).await.expect("an answer").is_none().then_some(())
    })
    .await;
}

/// Deletes an object of this uid, with this propagation.
pub(crate) async fn delete<K: Kind>(api: &Api<K>, object: &K, mut params: DeleteParams) {
    params.preconditions = Some(Preconditions { uid: object.uid(), resource_version: None });
    api.delete(&object.name_any(), &params).await.expect("it is deleted");
}

/// A strategic merge patch.
pub(crate) async fn patch<K: Kind>(api: &Api<K>, name: &str, patch: Value) -> K {
    let patch = Patch::Strategic(patch);
    api.patch(name, &PatchParams::default(), &patch).await.expect("it is patched")
}

/// Changes an object, again if somebody else changed it meanwhile.
pub(crate) async fn update<K: Kind>(api: &Api<K>, name: &str, change: impl Fn(&mut K)) -> K {
    loop {
        let mut object = api.get(name).await.expect("it is there");
        change(&mut object);
        match api.replace(name, &PostParams::default(), &object).await {
            Ok(updated) => return updated,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("not updated: {error}"),
        }
    }
}

/// The code of an API error.
pub(crate) fn code<T: Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not the API's refusal: {other:?}"),
    }
}

/// Pods that run until they are stopped, and stop at once.
pub(crate) fn pod_template(labels: &Value) -> Value {
    json!({
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "nginx", "image": "registry.example/nginx:v1"}],
        },
    })
}

/// A ReplicationController.
pub(crate) fn replication_controller(name: &str, replicas: i32, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": labels, "template": pod_template(labels)},
    })
}
