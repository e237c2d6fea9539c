//! A server as a cluster has it: upstream's access control and admission, the system's own
//! objects, and nobody else about.

use std::{net::SocketAddr, sync::Arc};

use kube::Client;
use orch_api::{
    ApiServer, Bootstrap,
    admission::LateClient,
    auth::{
        UserInfo,
        access_control::{AccessControl, AccessOptions},
    },
};
use orch_core::Environment;
use orch_store::MemoryStore;
use serde_json::{Value, json};

use super::objects::{Objects, call};

/// Where the server says that it is reached.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 6443);

/// A server, its store, and a client of its administrator.
pub(super) struct World {
    pub(super) server: ApiServer,
    pub(super) client: Client,
    pub(super) store: Arc<MemoryStore>,
}

impl World {
    pub(super) async fn start() -> Self {
        let environment = Environment::system();
        let store = Arc::new(MemoryStore::default());
        let late = LateClient::new();
        let own: Arc<dyn orch_core::Client> = late.clone();
        let access = AccessControl::new(&own, &environment, AccessOptions::default()).unwrap();
        let server = ApiServer::builder(store.clone())
            .environment(environment)
            .access_control(&access)
            .late_client(late)
            .build();
        server
            .bootstrap(&Bootstrap { roles: true, address: Some(ADDRESS), ..Bootstrap::default() })
            .await
            .unwrap();
        let client = server.kube_client(UserInfo::master("e2e"), "default");
        Self { server, client, store }
    }

    /// A server with a namespace.
    pub(super) async fn with_namespace(name: &str) -> Self {
        let world = Self::start().await;
        world.namespace(name).await;
        world
    }

    /// Makes a namespace with the account that a controller would give it.
    pub(super) async fn namespace(&self, name: &str) {
        let namespaces = self.all("v1", "Namespace").await;
        namespaces.create(json!({"metadata": {"name": name}})).await;
        let accounts = self.of("v1", "ServiceAccount", name).await;
        accounts.create(json!({"metadata": {"name": "default"}})).await;
    }

    /// The objects of a kind in a namespace.
    pub(super) async fn of(&self, api_version: &str, kind: &str, namespace: &str) -> Objects {
        Objects::find(&self.client, api_version, kind, Some(namespace)).await
    }

    /// The objects of a kind without a namespace, or those of all namespaces.
    pub(super) async fn all(&self, api_version: &str, kind: &str) -> Objects {
        Objects::find(&self.client, api_version, kind, None).await
    }

    /// What a path answers.
    pub(super) async fn get(&self, path: &str) -> Value {
        call(&self.client, "GET", path, &[], None).await.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    /// Checks that the discovery documents lead from `/apis` to these resources.
    pub(super) async fn discover(&self, group: &str, version: &str, resources: &[&str]) {
        let group_version = format!("{group}/{version}");
        let has = |document: &Value| {
            let versions = document["versions"].as_array().unwrap();
            versions.iter().any(|v| v["version"] == version && v["groupVersion"] == *group_version)
        };
        let groups = self.get("/apis").await;
        let found = groups["groups"].as_array().unwrap().iter().find(|one| one["name"] == group);
        assert!(found.is_some_and(has), "{group_version} is not in /apis");
        let one = self.get(&format!("/apis/{group}")).await;
        assert!(one["name"] == group && has(&one), "{one}");
        let list = self.get(&format!("/apis/{group_version}")).await;
        assert_eq!(list["groupVersion"], group_version);
        for resource in resources {
            let listed = list["resources"].as_array().unwrap();
            assert!(listed.iter().any(|one| one["name"] == *resource), "{resource}: {list}");
        }
    }
}
