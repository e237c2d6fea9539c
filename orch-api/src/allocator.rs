//! What Services are given: cluster IPs and node ports.
//!
//! Who has what is in the store: an `IPAddress` object for each address, which can be created only
//! once, and a map of the node ports, which is changed by compare-and-set. So any number of servers
//! on one store take writes of Services. What a server keeps in memory about addresses is a guess
//! at which are free, to try those first.
//!
//! A crash between the two writes of one Service leaves an address without its Service, or a
//! Service without its address; [`ApiServer::repair_services`](crate::ApiServer::repair_services)
//! finds both, and so does the first write of a Service after a start.
//!
//! Source: `pkg/registry/core/service/storage/alloc.go`, `pkg/registry/core/service/ipallocator`,
//! `portallocator`, KEP-1880.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use async_trait::async_trait;
use ipnet::IpNet;
use orch_core::{ApiError, ClientError, status::FieldError};
use orch_store::Store;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::strategy::{Hook, WriteContext};

mod address_book;
mod addresses;
mod cidrs;
mod port_book;
mod ports;
mod repair;
mod service;

pub use addresses::AddressRange;
pub(crate) use cidrs::DEFAULT as DEFAULT_SERVICE_CIDR;
pub use cidrs::ServiceCidrs;
pub use ports::PortRange;
pub use repair::Repaired;

use address_book::{AddressBook, Owner};
use port_book::PortBook;
use service::Held;

/// Where Services get their addresses and ports from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// The ranges of cluster IPs: one, or one of each family; the first is the default family's.
    /// ServiceCIDRs add to them. Default: `10.96.0.0/16`.
    pub cluster_ips: Vec<IpNet>,
    /// The node ports. Default: 30000 to 32767.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16);
        Self { cluster_ips: vec![IpNet::V4(v4)], node_ports: 30000..=32767 }
    }
}

/// Gives Services their cluster IPs and node ports, and takes them back. Install it as the hook
/// of `services`.
#[derive(Debug)]
pub struct ServiceAllocator {
    configured: Vec<IpNet>,
    addresses: AddressBook,
    ports: PortBook,
    loaded: OnceCell<()>,
}

/// What upstream says of an address of no range.
const OUTSIDE: &str = "the provided network does not match the current range";

impl ServiceAllocator {
    /// An allocator over these ranges and the store that the Services are in. Reads what is there
    /// when it is first used.
    pub fn new(ranges: &ServiceRanges, store: Arc<dyn Store>) -> Self {
        Self {
            configured: ranges.cluster_ips.clone(),
            addresses: AddressBook::default(),
            ports: PortBook::new(PortRange::new(ranges.node_ports.clone()), store),
            loaded: OnceCell::new(),
        }
    }

    /// Reads what existing Services hold, once, and mends what a crash left behind.
    async fn load(&self, ctx: &WriteContext) -> Result<(), ApiError> {
        let load = || async { self.repair(ctx).await.map(drop).map_err(into_api_error) };
        self.loaded.get_or_try_init(load).await.copied()
    }

    /// The ranges of a family, in the order in which they are used.
    async fn ranges(&self, ctx: &WriteContext, v4: bool) -> Result<Vec<AddressRange>, ApiError> {
        let mut all = self.configured.clone();
        for range in cidrs::usable(&*ctx.client).await.map_err(into_api_error)? {
            if !all.contains(&range) {
                all.push(range);
            }
        }
        all.retain(|range| range.addr().is_ipv4() == v4);
        Ok(all.into_iter().map(AddressRange::new).collect())
    }

    /// Gives a Service what it needs and does not have yet: all of it or nothing.
    async fn allocate(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        self.load(ctx).await?;
        service::families(&self.configured, new)?;
        let had = old.map(Held::by).unwrap_or_default();
        let mut taken = Held::default();
        let mut given = self.give_addresses(ctx, new, &had, &mut taken).await;
        if given.is_ok() {
            given = self.give_ports(ctx, new, &had).await;
        }
        if given.is_err() {
            self.release(ctx, new, &taken).await;
        }
        given
    }

    async fn give_addresses(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        had: &Held,
        taken: &mut Held,
    ) -> Result<(), ApiError> {
        let Some(wish) = service::addresses_wished(new) else { return Ok(()) };
        let owner = Owner::of(new);
        let mut all = wish.asked.clone();
        for ip in &wish.asked {
            // What is no address at all is left to validation.
            let Ok(ip) = ip.parse::<IpAddr>() else { return Ok(()) };
            if had.addresses.contains(&ip) || taken.addresses.contains(&ip) {
                continue;
            }
            if let Err(why) = self.book(ctx, ip, &owner).await? {
                let why = format!("failed to allocate IP {ip}: {why}");
                let error = FieldError::invalid("spec.clusterIPs", json!(wish.asked), why);
                return Err(service::invalid(new, error));
            }
            taken.addresses.push(ip);
        }
        for v4 in wish.any {
            let ip = self.book_any(ctx, v4, &owner).await?;
            taken.addresses.push(ip);
            all.push(ip.to_string());
        }
        if let Some(first) = all.first() {
            new["spec"]["clusterIP"] = first.as_str().into();
            new["spec"]["clusterIPs"] = json!(all);
        }
        Ok(())
    }

    /// Books an address that somebody chose; the inner error says why it cannot be had.
    async fn book(
        &self,
        ctx: &WriteContext,
        ip: IpAddr,
        owner: &Owner,
    ) -> Result<Result<(), String>, ApiError> {
        if !self.configured.iter().any(|range| range.addr().is_ipv4() == ip.is_ipv4()) {
            return Ok(Err("not configured on this cluster".into()));
        }
        let ranges = self.ranges(ctx, ip.is_ipv4()).await?;
        if !ranges.iter().any(|range| range.contains(ip)) {
            let around = ranges.iter().find(|range| range.range().contains(&ip));
            return Ok(Err(around.map_or(OUTSIDE.into(), |range| {
                format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                    range.range()
                )
            })));
        }
        let booked = self.addresses.book(ctx, ip, owner).await?;
        Ok(if booked { Ok(()) } else { Err("provided IP is already allocated".into()) })
    }

    /// Books any address of a family. If all seem to be taken the store is asked again, because
    /// other servers give addresses back too.
    async fn book_any(
        &self,
        ctx: &WriteContext,
        v4: bool,
        owner: &Owner,
    ) -> Result<IpAddr, ApiError> {
        let why = |why: &str| ApiError::internal(format!("failed to allocate a serviceIP: {why}"));
        let ranges = self.ranges(ctx, v4).await?;
        if ranges.is_empty() {
            return Err(why(OUTSIDE));
        }
        for refreshed in [false, true] {
            if refreshed {
                self.addresses.refresh(ctx).await.map_err(into_api_error)?;
            }
            while let Some(ip) = self.addresses.free(&ranges, &*ctx.environment.random) {
                if self.addresses.book(ctx, ip, owner).await? {
                    return Ok(ip);
                }
            }
        }
        Err(why("range is full"))
    }

    async fn give_ports(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        had: &Held,
    ) -> Result<(), ApiError> {
        if !service::wishes_ports(new, had) {
            return Ok(());
        }
        let give = |free: &mut ports::FreePorts<'_>| {
            let mut draft = new.clone();
            service::node_ports(free, &mut draft, had)?;
            service::health_port(free, &mut draft, had)?;
            Ok(draft)
        };
        let random = &*ctx.environment.random;
        let given = self.ports.change(random, ctx.dry_run, give).await?;
        *new = given;
        Ok(())
    }

    /// Gives back what a Service does not hold any more. What fails is mended later.
    async fn release(&self, ctx: &WriteContext, service: &Value, gone: &Held) {
        if ctx.dry_run {
            return;
        }
        let owner = Owner::of(service);
        for ip in &gone.addresses {
            if let Err(error) = self.addresses.release(ctx, *ip, &owner).await {
                tracing::warn!(%error, %ip, "the address of a Service was not given back");
            }
        }
        if let Err(error) = self.ports.release(&gone.ports).await {
            tracing::warn!(%error, "the node ports of a Service were not given back");
        }
    }
}

pub(super) fn into_api_error(error: ClientError) -> ApiError {
    match error {
        ClientError::Api(error) => error,
        other => ApiError::internal(other),
    }
}

#[async_trait]
impl Hook for ServiceAllocator {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        self.allocate(ctx, new, None).await
    }

    async fn before_update(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        self.allocate(ctx, new, Some(old)).await
    }

    async fn after_update(&self, ctx: &WriteContext, new: &Value, old: &Value) {
        let gone = Held::by(old).without(&Held::by(new));
        self.release(ctx, old, &gone).await;
    }

    async fn failed(&self, ctx: &WriteContext, new: &Value, old: Option<&Value>) {
        let mut taken = Held::by(new);
        if let Some(old) = old {
            taken = taken.without(&Held::by(old));
        }
        self.release(ctx, new, &taken).await;
    }

    async fn after_delete(&self, ctx: &WriteContext, old: &Value) {
        self.release(ctx, old, &Held::by(old)).await;
    }
}
