//! What every namespace has: a `default` ServiceAccount, and the certificate of the API server;
//! and the tokens of ServiceAccounts that lie in secrets.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/serviceaccount/serviceaccounts_controller.go`,
//! `k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher`.

mod tokens;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::collections::BTreeMap;

use async_trait::async_trait;
use orch_core::{
    Key,
    informer::{Change, Informer, Informers, Watchable},
};

use crate::{Action, Controller, Reconciler, context::Context, pods, reconciler::Reconciled};

pub use tokens::{TokenError, TokenGenerator, service_account_token};

const ACCOUNT: &str = "default";
const CONFIG_MAP: &str = "kube-root-ca.crt";

/// The controller that gives every namespace a ServiceAccount `default`.
pub fn service_account(informers: &Informers) -> Controller {
    let context = Context::new(informers, "serviceaccount-controller");
    let present = PerNamespace::<ServiceAccount> {
        namespaces: context.informer(),
        objects: context.informer(),
        context,
        wanted: ServiceAccount {
            metadata: ObjectMeta { name: Some(ACCOUNT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        },
        repairs: |_, _| None,
    };
    present.controller(ACCOUNT)
}

/// The controller that gives every namespace a ConfigMap `kube-root-ca.crt` with the certificates
/// (PEM) by which clients know the API server.
pub fn root_ca_publisher(informers: &Informers, root_ca_pem: &str) -> Controller {
    let context = Context::new(informers, "root-ca-certificate-publisher-controller");
    let description = "Contains a CA bundle that can be used to verify the kube-apiserver when \
        using internal endpoints such as the internal service IP or kubernetes.default.svc. No \
        other usage is guaranteed across distributions of Kubernetes clusters.";
    let annotations =
        BTreeMap::from([("kubernetes.io/description".to_owned(), description.to_owned())]);
    let published = PerNamespace::<ConfigMap> {
        namespaces: context.informer(),
        objects: context.informer(),
        context,
        wanted: ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_MAP.to_owned()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("ca.crt".to_owned(), root_ca_pem.to_owned())])),
            ..ConfigMap::default()
        },
        repairs: |actual, wanted| {
            let annotated = wanted.metadata.annotations.iter().flatten().all(|(name, value)| {
                let actual = actual.metadata.annotations.as_ref();
                actual.and_then(|annotations| annotations.get(name)) == Some(value)
            });
            (actual.data != wanted.data || !annotated).then(|| {
                let mut repaired = actual.clone();
                repaired.data.clone_from(&wanted.data);
                let annotations = repaired.metadata.annotations.get_or_insert_default();
                annotations.extend(wanted.metadata.annotations.clone().unwrap_or_default());
                repaired
            })
        },
    };
    published.controller(CONFIG_MAP)
}

/// One object of one name in every namespace that is not on its way out.
struct PerNamespace<K> {
    context: Context,
    namespaces: Informer<Namespace>,
    objects: Informer<K>,
    wanted: K,
    repairs: fn(&K, &K) -> Option<K>,
}

impl<K: Watchable + Clone> PerNamespace<K> {
    fn controller(self, name: &'static str) -> Controller {
        self.context
            .builder()
            .watches::<Namespace>(|change| match change {
                Change::Deleted(_) => Vec::new(),
                _ => vec![Key::of(&change.object().metadata)],
            })
            .watches::<K>(move |change| {
                let meta = change.object().metadata();
                if meta.name.as_deref() != Some(name) {
                    return Vec::new();
                }
                vec![Key::cluster(meta.namespace.clone().unwrap_or_default())]
            })
            .build(self)
    }
}

#[async_trait]
impl<K: Watchable + Clone> Reconciler for PerNamespace<K> {
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(Action::Done) };
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        if namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
            return Ok(Action::Done);
        }
        let name = self.wanted.metadata().name.clone().unwrap_or_default();
        let resources = self.context.resources::<K>(&key.name);
        if let Some(actual) = self.objects.get(&Key::new(&*key.name, name)) {
            if let Some(repaired) = (self.repairs)(&actual, &self.wanted) {
                resources.update(&repaired).await?;
            }
            return Ok(Action::Done);
        }
        match resources.create(&self.wanted).await {
            // The namespace may have gone meanwhile; both are as good as done.
            Err(error)
                if error.is_already_exists()
                    || error.is_not_found()
                    || pods::is_namespace_terminating(&error) =>
            {
                Ok(Action::Done)
            }
            result => result.map(|_| Action::Done).map_err(Into::into),
        }
    }
}
