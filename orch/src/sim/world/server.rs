//! The API server of a simulated cluster, and the store under it.

use std::sync::Arc;

use orch_api::{
    ApiServer, Bootstrap, ServerOptions, admission::StorageObjectInUseProtection, auth::UserInfo,
};
use orch_controllers::volumes::{LocalPath, ensure_storage_class};
use orch_core::Environment;
use orch_store::{Control, Faults, FaultyStore, MemoryStore, Store};

use crate::sim::faults::StoreFaults;

/// The store as its API server sees it. Nothing fails until it is told to.
pub(super) fn faulty(
    store: &MemoryStore,
    environment: Environment,
    plan: StoreFaults,
) -> (Arc<dyn Store>, Option<Control>) {
    let store = Arc::new(store.clone());
    let chance = |permille: u32| f64::from(permille) / 1000.0;
    let faults = Faults {
        unavailable: chance(plan.unavailable_permille),
        unknown: chance(plan.unknown_permille),
        ..Faults::default()
    };
    if faults == Faults::default() {
        return (store, None);
    }
    let store = FaultyStore::new(store, environment, faults);
    let control = store.control();
    control.spare(true);
    (Arc::new(store), Some(control))
}

pub(super) async fn server(store: Arc<dyn Store>, environment: &Environment) -> ApiServer {
    let api = ApiServer::builder(store)
        .environment(environment.clone())
        .options(ServerOptions::default())
        // Quotas are kept by admission, and claims get their class from it.
        .default_admission()
        .admission(Arc::new(StorageObjectInUseProtection))
        .build();
    let bootstrap =
        Bootstrap { roles: false, api_services: false, client_authority: None, address: None };
    api.bootstrap(&bootstrap).await.expect("the server starts");
    let client = api.client(UserInfo::master("system:orch"));
    let class = LocalPath::storage_class();
    ensure_storage_class(client, &class).await.expect("a storage class");
    api
}
