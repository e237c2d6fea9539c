//! The node's Lease: the cheap sign of life.
//!
//! Source: `k8s.io/component-helpers/apimachinery/lease/controller.go`.

use std::sync::Arc;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use orch_core::{ClientError, Resources};

use super::Context;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_S: i32 = 40;

/// Renews the lease for ever, a quarter of its duration apart.
pub(super) async fn keep(context: &Context) {
    let leases = Resources::<Lease>::namespaced(context.client.clone(), NAMESPACE);
    let mut latest = None;
    loop {
        match renew(context, &leases, latest.take()).await {
            Ok(lease) => latest = Some(lease),
            Err(error) => {
                tracing::debug!(%error, node = context.node_name, "the lease was not renewed");
            }
        }
        context.environment.clock.sleep(context.options.heartbeat).await;
    }
}

/// Writes the lease as it was written last, without reading it before: nobody else has a reason to
/// change it, and if somebody did, or removed it, that write fails and it is read.
async fn renew(
    context: &Context,
    leases: &Resources<Lease>,
    latest: Option<Arc<Lease>>,
) -> Result<Arc<Lease>, ClientError> {
    if let Some(latest) = latest {
        match leases.update(&renewed(context, &latest)).await {
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            answered => return answered,
        }
    }
    match leases.get_opt(&context.node_name).await? {
        Some(known) => leases.update(&renewed(context, &known)).await,
        None => leases.create(&renewed(context, &new(context))).await,
    }
}

/// A lease of the node, which goes with it.
fn new(context: &Context) -> Lease {
    let node = context.node.lock().clone();
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: context.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(context.node_name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: (!owner.uid.is_empty()).then(|| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

/// The same, held by this node from now on.
fn renewed(context: &Context, known: &Lease) -> Lease {
    let mut lease = known.clone();
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(context.node_name.clone());
    spec.lease_duration_seconds = Some(DURATION_S);
    spec.renew_time = Some(MicroTime(context.environment.clock.now()));
    lease
}
