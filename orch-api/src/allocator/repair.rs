//! Bringing the books and the Services together again after a crash.
//!
//! Source: `pkg/registry/core/service/ipallocator/controller/repairip.go`,
//! `portallocator/controller/repair.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use orch_core::{ClientError, ResourceType};
use serde_json::Value;

use super::{
    ServiceAllocator,
    address_book::{self, MANAGED_BY, MANAGER, Owner, address_of},
    cidrs,
    service::Held,
};
use crate::{ApiServer, auth::UserInfo, registry::Caller, strategy::WriteContext};

/// An address is booked before its Service is there: for so long it may be without one.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What was found wrong about the addresses and ports of Services, and mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Addresses of Services that were booked for nobody, or for another one.
    pub booked: usize,
    /// Addresses that were booked for a Service that does not have them.
    pub released: usize,
    /// Node ports that no Service had, twice in a row with a minute between.
    pub ports_released: usize,
}

impl ApiServer {
    /// Brings the addresses and node ports of Services and the books about them together: after a
    /// crash either may be without the other. Safe at any time, with any number of servers on one
    /// store; the first write of a Service after a start does it too. Upstream's servers do it
    /// every three minutes.
    ///
    /// # Errors
    /// [`ClientError`] of the first call that failed; what was mended until then stays.
    pub async fn repair_services(&self) -> Result<Repaired, ClientError> {
        let caller = Caller::new(Arc::new(UserInfo::master("system:apiserver")), "kube-apiserver");
        let context = self.inner.write_context(&caller, false);
        let repaired = self.inner.services.repair(&context).await?;
        self.inner.service_cidrs.settle(&context).await?;
        Ok(repaired)
    }
}

impl ServiceAllocator {
    /// Mends addresses and ports, and notes which are taken.
    pub(super) async fn repair(&self, ctx: &WriteContext) -> Result<Repaired, ClientError> {
        // Trials look at the same books; they must be in order.
        let ctx = &WriteContext { dry_run: false, ..ctx.clone() };
        let services = cidrs::list(&*ctx.client, ResourceType::of::<Service>()).await?;
        let addresses = cidrs::list(&*ctx.client, address_book::resource()).await?;
        let holders: Vec<(Owner, Held)> =
            services.iter().map(|service| (Owner::of(service), Held::by(service))).collect();
        let found: BTreeMap<IpAddr, &Value> =
            addresses.iter().filter_map(|one| Some((address_of(one)?, one))).collect();
        self.addresses.note(found.keys().copied().collect());
        let mut repaired = Repaired::default();
        for (owner, held) in &holders {
            for ip in &held.addresses {
                repaired.booked +=
                    usize::from(self.rebook(ctx, *ip, owner, &holders, &found).await?);
            }
        }
        let now = ctx.environment.clock.now();
        for (ip, address) in &found {
            if is_orphan(address, *ip, &holders, now) {
                self.addresses.delete(ctx, *ip, address).await?;
                repaired.released += 1;
            }
        }
        repaired.ports_released = self.repair_ports(&holders, now).await?;
        Ok(repaired)
    }

    /// Books an address for the Service that has it, unless it is; whether it had to.
    async fn rebook(
        &self,
        ctx: &WriteContext,
        ip: IpAddr,
        owner: &Owner,
        holders: &[(Owner, Held)],
        found: &BTreeMap<IpAddr, &Value>,
    ) -> Result<bool, ClientError> {
        if let Some(address) = found.get(&ip) {
            let other = Owner::in_address(address);
            if other.as_ref() == Some(owner) {
                return Ok(false);
            }
            if holders.iter().any(|(one, held)| Some(one) == other.as_ref() && held.has(ip)) {
                let (namespace, name) = (&owner.namespace, &owner.name);
                tracing::warn!(%ip, %namespace, %name, "two Services have the same address");
                return Ok(false);
            }
            self.addresses.delete(ctx, ip, address).await?;
        }
        Ok(self.addresses.book(ctx, ip, owner).await?)
    }

    /// Takes the ports that Services have, and gives back those that none had for a while.
    async fn repair_ports(
        &self,
        holders: &[(Owner, Held)],
        now: Timestamp,
    ) -> Result<usize, ClientError> {
        let held: BTreeSet<u16> =
            holders.iter().flat_map(|(_, held)| held.ports.iter().copied()).collect();
        let leaked = self.ports.leaked(&held, now).await?;
        self.ports
            .update(|taken| {
                taken.extend(&held);
                taken.retain(|port| !leaked.contains(port));
            })
            .await?;
        Ok(leaked.len())
    }
}

/// Whether an address was booked for a Service that does not have it, and long enough ago that
/// the Service is not still on its way.
fn is_orphan(address: &Value, ip: IpAddr, holders: &[(Owner, Held)], now: Timestamp) -> bool {
    let Some(owner) = Owner::in_address(address) else { return false };
    if address["metadata"]["labels"][MANAGED_BY] != MANAGER {
        return false;
    }
    let made = address["metadata"]["creationTimestamp"].as_str();
    let made = made.and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
    let has_it = |(one, held): &(Owner, Held)| *one == owner && held.has(ip);
    now.duration_since(made) >= GRACE && !holders.iter().any(has_it)
}

/// How long a port must have been nobody's before it is given back.
pub(super) const PORT_GRACE: SignedDuration = GRACE;
