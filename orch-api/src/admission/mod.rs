//! Admission: what may still change or refuse a write after it was authorized.

mod certificates;
mod claim_resize;
mod ingress_class;
mod late_client;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod notes;
mod options;
mod pod_security;
mod pod_shape;
pub(crate) mod policy;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod step;
mod storage_class;
mod storage_protection;
mod taint_nodes;
mod toleration_seconds;
pub(crate) mod webhook;

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use orch_core::{ApiError, Client, Environment, Object, Target};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{auth::UserInfo, catalog::Resource, server::Inner};
pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use claim_resize::PersistentVolumeClaimResize;
pub use ingress_class::DefaultIngressClass;
pub use late_client::LateClient;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::{NamespaceLifecycle, create_system_namespaces};
pub use node_restriction::NodeRestriction;
pub use notes::{AuditAnnotations, Notes};
pub use options::RequestOptions;
pub use pod_security::PodSecurity;
pub use policy::{MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
pub use priority::{Priority, create_system_classes};
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub(crate) use step::Step;
pub use storage_class::DefaultStorageClass;
pub use storage_protection::StorageObjectInUseProtection;
pub use taint_nodes::TaintNodesByCondition;
pub use toleration_seconds::DefaultTolerationSeconds;
pub use webhook::{MutatingAdmissionWebhook, ValidatingAdmissionWebhook};

/// What a request does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Create an object, or post to a subresource.
    Create,
    /// Replace or patch an object.
    Update,
    /// Delete an object.
    Delete,
    /// Open a connection (`exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// A write on its way to the store.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// Who writes.
    pub user: Arc<UserInfo>,
    /// What it does.
    pub operation: Operation,
    /// What it addresses. The name is empty while a generated one is not known yet.
    pub target: Target,
    /// The new object; `None` for deletions. Mutating plugins change it in place.
    pub object: Option<Value>,
    /// The object as it is; `None` for creations.
    pub old: Option<Arc<Object>>,
    /// Nothing will be stored: no side effects outside the request.
    pub dry_run: bool,
    /// The options of the write.
    pub options: RequestOptions,
    /// What the client and the audit log are told besides.
    pub notes: Notes,
    /// The server that asks.
    pub origin: Origin,
}

/// The server that a request is made of, and what it knows already: what the plugins of this crate
/// need besides. Empty for a request that no server made, which then meets no webhooks.
#[derive(Clone, Default)]
pub struct Origin {
    pub(crate) server: Weak<Inner>,
    pub(crate) resource: Option<Arc<Resource>>,
    /// What is remembered between the two times that the mutating half may run.
    pub(crate) webhooks: webhook::Rounds,
    pub(crate) policies: webhook::Rounds,
    pub(crate) held: Held,
}

/// What plugins hold for as long as a write is under way.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Origin {
    /// Begins the second round of the mutating half, if somebody changed the object.
    pub(crate) fn begin_again(&mut self) -> bool {
        let wanted = self.webhooks.wanted() || self.policies.wanted();
        self.webhooks.begin(wanted);
        self.policies.begin(wanted);
        wanted
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin")
    }
}

impl AdmissionRequest {
    /// A request that no server makes, without an object yet.
    pub fn new(user: Arc<UserInfo>, operation: Operation, target: Target) -> Self {
        Self {
            user,
            operation,
            target,
            object: None,
            old: None,
            dry_run: false,
            options: RequestOptions::None,
            notes: Notes::default(),
            origin: Origin::default(),
        }
    }

    /// Holds something until the request is over: what it writes is stored then, or never will be.
    pub fn hold(&self, guard: impl Any + Send) {
        self.origin.held.0.lock().push(Box::new(guard));
    }

    /// Whether the request is about this resource itself (not a subresource).
    pub fn is_for(&self, group: &str, plural: &str) -> bool {
        self.target.subresource.is_none()
            && self.target.resource.group == group
            && self.target.resource.plural == plural
    }

    /// Whether the request creates an object of this resource.
    pub fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create && self.is_for(group, plural)
    }

    /// The namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    /// The refusal of this request, worded as upstream words it.
    pub fn refuse(&self, why: &str) -> ApiError {
        let object_name = self.object.as_ref().and_then(|o| o["metadata"]["name"].as_str());
        let name = self.target.name.as_deref().or(object_name).unwrap_or_default();
        let resource = &self.target.resource;
        ApiError::forbidden(&resource.group, &resource.plural, name, why)
    }
}

/// One step of the admission chain. Both methods default to letting everything pass.
///
/// `mutate` runs first for every plugin in order (twice, if a webhook or a policy changed the object: the
/// others may have something to say to that), then defaulting and the kind's own validation,
/// then `validate` for every plugin. Both must be idempotent: a request that loses an optimistic
/// race is admitted again against the newer object. Object-safe.
#[async_trait]
pub trait Admission: Send + Sync + fmt::Debug + 'static {
    /// The name under which the plugin is switched on and off, for example `LimitRanger`.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses the request.
    async fn mutate(&self, _request: &mut AdmissionRequest) -> Result<(), ApiError> {
        Ok(())
    }

    /// Refuses the request, or lets it pass. Must not change the object.
    async fn validate(&self, _request: &AdmissionRequest) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins that upstream switches on by default, in upstream's order. `client` must see the
/// cluster with all rights; a [`LateClient`] solves that the server which the plugins are for is
/// not there yet.
///
/// `Differs:` those that ask an authorizer ([`CertificateApproval`], [`CertificateSigning`]) are not
/// among them, but part of [`AccessControl`](crate::auth::access_control::AccessControl);
/// `StorageObjectInUseProtection` is left out where nobody takes its finalizers away again: add
/// [`StorageObjectInUseProtection`] along with its controllers.
pub fn defaults(client: &Arc<dyn Client>, environment: &Environment) -> Vec<Arc<dyn Admission>> {
    let client = || client.clone();
    vec![
        Arc::new(NamespaceLifecycle::new(client())),
        Arc::new(LimitRanger::new(client())),
        Arc::new(ServiceAccount::new(client(), environment.clone())),
        Arc::new(NodeRestriction),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity::new(client())),
        Arc::new(Priority::new(client())),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(PersistentVolumeClaimResize::new(client())),
        Arc::new(RuntimeClass::new(client())),
        Arc::new(DefaultStorageClass::new(client())),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(DefaultIngressClass::new(client())),
        Arc::new(MutatingAdmissionPolicy),
        Arc::new(MutatingAdmissionWebhook),
        Arc::new(ValidatingAdmissionPolicy),
        Arc::new(ValidatingAdmissionWebhook),
        Arc::new(ResourceQuota::new(client(), environment.clone())),
    ]
}
