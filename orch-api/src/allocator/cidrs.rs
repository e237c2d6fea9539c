//! ServiceCIDRs: they are ready as soon as they are there, and wait with their end until no
//! Service needs them.
//!
//! Source: `pkg/controller/servicecidrs/servicecidrs_controller.go`,
//! `pkg/controlplane/controller/defaultservicecidr`.
//! Differs: the server does this with the writes themselves, so that no controller has to run; a
//! range that goes is not kept for some seconds more for allocators that have not heard of it.

use std::net::IpAddr;

use async_trait::async_trait;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use orch_core::{
    ApiError, Client, ClientError, Object, ResourceType, Target,
    client::{ListOptions, Read, ReadReply, Write, WriteOptions},
    clock::to_seconds,
};
use serde_json::{Value, json};

use crate::strategy::{Hook, WriteContext};

/// The range that every cluster has.
pub(crate) const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them \
                      or create a new ServiceCIDR";
/// How often a change of a status is tried while others change the same object.
const TRIES: usize = 5;

/// Keeps ServiceCIDRs: the hook of `servicecidrs` and of `ipaddresses`.
#[derive(Debug)]
pub struct ServiceCidrs {
    configured: Vec<IpNet>,
}

impl ServiceCidrs {
    /// Besides what is stored there are the ranges that the server was configured with.
    pub fn new(configured: &[IpNet]) -> Self {
        Self { configured: configured.to_vec() }
    }

    /// Lets go of every range that is to be deleted and that no address needs any more; the others
    /// are told to be in use.
    ///
    /// # Errors
    /// [`ClientError`] of the first call that failed.
    pub async fn settle(&self, ctx: &WriteContext) -> Result<(), ClientError> {
        let ranges = list(&*ctx.client, ResourceType::of::<ServiceCIDR>()).await?;
        let leaving = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
        if !ranges.iter().any(|range| leaving(range) && is_held(range)) {
            return Ok(());
        }
        let mut others = self.configured.clone();
        others.extend(ranges.iter().filter(|range| !leaving(range)).flat_map(cidrs));
        let addresses = list(&*ctx.client, ResourceType::of::<IPAddress>()).await?;
        let needed = |range: &Value| {
            let own: Vec<IpNet> = cidrs(range).collect();
            addresses.iter().any(|address| {
                let name = address["metadata"]["name"].as_str().unwrap_or_default();
                let ip = name.parse::<IpAddr>().ok();
                let inside =
                    |all: &[IpNet]| ip.is_some_and(|ip| all.iter().any(|r| r.contains(&ip)));
                inside(&own) && !inside(&others)
            })
        };
        for range in ranges.iter().filter(|range| leaving(range) && is_held(range)) {
            let name = range["metadata"]["name"].as_str().unwrap_or_default();
            if needed(range) {
                self.tell_of_use(ctx, name).await?;
            } else {
                let release = |range: &mut Value| {
                    if let Some(all) = range["metadata"]["finalizers"].as_array_mut() {
                        all.retain(|one| one != FINALIZER);
                    }
                };
                change(ctx, name, None, release).await?;
            }
        }
        Ok(())
    }

    async fn tell_of_use(&self, ctx: &WriteContext, name: &str) -> Result<(), ClientError> {
        let condition = ready(ctx, "False", "Terminating", IN_USE);
        change(ctx, name, Some("status"), |range| {
            if range["status"]["conditions"][0]["status"] != "False" {
                range["status"] = json!({"conditions": [condition.clone()]});
            }
        })
        .await
    }
}

/// The ranges of a ServiceCIDR.
pub(super) fn cidrs(range: &Value) -> impl Iterator<Item = IpNet> + '_ {
    let all = range["spec"]["cidrs"].as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str()?.parse().ok())
}

/// The ranges that Services may get addresses from now, besides the configured ones.
pub(super) async fn usable(client: &dyn Client) -> Result<Vec<IpNet>, ClientError> {
    let ranges = list(client, ResourceType::of::<ServiceCIDR>()).await?;
    let is_ready = |range: &&Value| {
        let conditions = range["status"]["conditions"].as_array();
        let ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
        range["metadata"]["deletionTimestamp"].is_null()
            && conditions.is_some_and(|all| all.iter().any(ready))
    };
    Ok(ranges.iter().filter(is_ready).flat_map(cidrs).collect())
}

/// Every object of a resource.
pub(super) async fn list(client: &dyn Client, of: ResourceType) -> Result<Vec<Value>, ClientError> {
    let all = Target::collection(of, None);
    match client.read(Read::List(all, ListOptions::default())).await? {
        ReadReply::List(list) => Ok(list.items.iter().map(|object| object.to_value()).collect()),
        _ => Err(ApiError::internal("a list was answered with an object").into()),
    }
}

fn is_held(range: &Value) -> bool {
    let all = range["metadata"]["finalizers"].as_array();
    all.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}

fn ready(ctx: &WriteContext, status: &str, reason: &str, message: &str) -> Value {
    let now = to_seconds(ctx.environment.clock.now()).to_string();
    json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now,
    })
}

/// Changes a ServiceCIDR, again if somebody else was faster; one that is gone is left alone.
async fn change(
    ctx: &WriteContext,
    name: &str,
    subresource: Option<&'static str>,
    how: impl Fn(&mut Value),
) -> Result<(), ClientError> {
    let own = || Target::object(ResourceType::of::<ServiceCIDR>(), None, name);
    for last in (0..TRIES).rev() {
        let object: std::sync::Arc<Object> = match ctx.client.read(Read::Get(own())).await {
            Ok(ReadReply::Object(object)) => object,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        };
        let mut value = object.to_value();
        how(&mut value);
        let target = match subresource {
            Some(subresource) => own().subresource(subresource),
            None => own(),
        };
        let update = Write::Update(target, value, WriteOptions::default());
        match ctx.client.write(update).await {
            Err(error) if error.is_conflict() && last > 0 => {}
            Err(error) if error.is_not_found() => return Ok(()),
            other => return other.map(drop),
        }
    }
    Ok(())
}

#[async_trait]
impl Hook for ServiceCidrs {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        if new["kind"] != "ServiceCIDR" {
            return Ok(());
        }
        let held = &mut new["metadata"]["finalizers"];
        match held.as_array_mut() {
            Some(all) if all.iter().any(|one| one == FINALIZER) => {}
            Some(all) => all.push(FINALIZER.into()),
            None => *held = json!([FINALIZER]),
        }
        let message = if new["metadata"]["name"] == DEFAULT {
            "Kubernetes default Service CIDR is ready"
        } else {
            "Kubernetes Service CIDR is ready"
        };
        new["status"] = json!({"conditions": [ready(ctx, "True", "", message)]});
        Ok(())
    }

    async fn after_mark(&self, ctx: &WriteContext, _marked: &Value) {
        self.settle_or_tell(ctx).await;
    }

    async fn after_delete(&self, ctx: &WriteContext, old: &Value) {
        if old["kind"] == "IPAddress" {
            self.settle_or_tell(ctx).await;
        }
    }
}

impl ServiceCidrs {
    async fn settle_or_tell(&self, ctx: &WriteContext) {
        if let Err(error) = self.settle(ctx).await {
            tracing::warn!(%error, "ServiceCIDRs that should go were not looked at");
        }
    }
}
