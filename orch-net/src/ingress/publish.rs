//! Tells the cluster which ingresses are served, and where.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::networking::v1::{Ingress, IngressClass, IngressClassSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    ClientError, Environment, Key, Resources,
    client::{Client, PatchKind},
    informer::{Informer, Informers},
};
use serde_json::{Value, json};

use super::{IngressOptions, routing::Router};
use crate::changed_keys::ChangedKeys;

const RETRY: Duration = Duration::from_secs(5);

/// Creates the class, and writes `status.loadBalancer` of the ingresses that are served.
pub(super) struct Publisher {
    client: Arc<dyn Client>,
    environment: Environment,
    router: Router,
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    address: Option<IpAddr>,
    class: Option<String>,
    controller: String,
    changed: Arc<ChangedKeys>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({:?})", self.address)
    }
}

impl Publisher {
    pub(super) fn new(
        informers: &Informers,
        router: Router,
        address: Option<IpAddr>,
        options: &IngressOptions,
    ) -> Self {
        Self {
            client: informers.client().clone(),
            environment: informers.environment().clone(),
            router,
            ingresses: informers.of::<Ingress>(),
            classes: informers.of::<IngressClass>(),
            address,
            class: options.class.clone(),
            controller: options.controller.clone(),
            changed: Arc::default(),
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(self) {
        self.router.synced().await;
        while let Err(error) = self.ensure_class().await {
            tracing::warn!(%error, "the ingress class could not be created, trying again");
            self.environment.clock.sleep(RETRY).await;
        }
        self.follow();
        loop {
            self.changed.changed().await;
            let keys = self.changed.take();
            for key in keys {
                if let Err(error) = self.publish(&key).await {
                    tracing::warn!(ingress = %key, %error, "a status could not be written");
                    self.environment.clock.sleep(RETRY).await;
                    self.changed.mark(key);
                }
            }
        }
    }

    fn follow(&self) {
        let changed = Arc::downgrade(&self.changed);
        self.ingresses.on_change(move |change| {
            if let Some(changed) = changed.upgrade() {
                changed.mark(Key::of(&change.object().metadata));
            }
        });
        // A class that comes, goes or changes hands concerns the ingresses that name it.
        let (changed, ingresses) = (Arc::downgrade(&self.changed), self.ingresses.clone());
        self.classes.on_change(move |_| {
            if let Some(changed) = changed.upgrade() {
                ingresses
                    .list()
                    .iter()
                    .for_each(|ingress| changed.mark(Key::of(&ingress.metadata)));
            }
        });
    }

    async fn ensure_class(&self) -> Result<(), ClientError> {
        let Some(name) = &self.class else { return Ok(()) };
        let controller = Some(self.controller.clone());
        let class = IngressClass {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: Some(IngressClassSpec { controller, ..IngressClassSpec::default() }),
        };
        match Resources::<IngressClass>::all(self.client.clone()).create(&class).await {
            Err(error) if error.is_already_exists() => Ok(()),
            created => created.map(drop),
        }
    }

    async fn publish(&self, key: &Key) -> Result<(), ClientError> {
        let Some(ingress) = self.ingresses.get(key) else { return Ok(()) };
        if !self.router.is_ours(&ingress) {
            return Ok(());
        }
        let wanted: Value = match self.address {
            Some(address) => json!([{"ip": address.to_string()}]),
            None => json!([]),
        };
        let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let current = balancer.and_then(|balancer| balancer.ingress.as_ref());
        if serde_json::to_value(current.cloned().unwrap_or_default()).ok().as_ref() == Some(&wanted)
        {
            return Ok(());
        }
        let patch = json!({"status": {"loadBalancer": {"ingress": wanted}}});
        let ingresses = Resources::<Ingress>::namespaced(self.client.clone(), &key.namespace);
        match ingresses.patch_status(&key.name, PatchKind::Merge, patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            patched => patched.map(drop),
        }
    }
}
