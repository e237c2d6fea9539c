//! The node's Lease: the cheap sign of life.
//!
//! Source: `k8s.io/component-helpers/apimachinery/lease/controller.go`.

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
    loop {
        if let Err(error) = renew(context, &leases).await {
            tracing::debug!(%error, node = context.node_name, "the lease was not renewed");
        }
        context.environment.clock.sleep(context.options.heartbeat).await;
    }
}

async fn renew(context: &Context, leases: &Resources<Lease>) -> Result<(), ClientError> {
    let name = context.node_name.as_str();
    let now = MicroTime(context.environment.clock.now());
    let Some(known) = leases.get_opt(name).await? else {
        let node = context.node.lock().clone();
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.into(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(NAMESPACE.into()),
                owner_references: (!owner.uid.is_empty()).then(|| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.into()),
                lease_duration_seconds: Some(DURATION_S),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        return leases.create(&lease).await.map(|_| ());
    };
    let mut lease = (*known).clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(name.into());
    spec.lease_duration_seconds = Some(DURATION_S);
    spec.renew_time = Some(now);
    leases.update(&lease).await.map(|_| ())
}
