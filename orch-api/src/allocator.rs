//! What Services are given: cluster IPs and node ports.
//!
//! Nothing is stored besides the Services themselves: who has what is read from them at first
//! use and kept in memory, so that a restart repairs whatever a crash left behind. Two API servers
//! on one store would each keep their own books: until they share theirs, one of them should take
//! the writes of Services.
//!
//! Source: `pkg/registry/core/service/storage/alloc.go`, `pkg/registry/core/service/ipallocator`,
//! `portallocator`.
//! Differs: no `IPAddress` objects and no bitmaps in the store.

use std::{net::IpAddr, ops::RangeInclusive};

use async_trait::async_trait;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use orch_core::{
    ApiError, ResourceType, Target, client::ListOptions, client::Read, client::ReadReply,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::strategy::{Hook, WriteContext};

mod addresses;
mod cidrs;
mod ports;
mod service;

pub use addresses::AddressRange;
pub(crate) use cidrs::DEFAULT as DEFAULT_SERVICE_CIDR;
pub use cidrs::ServiceCidrs;
pub use ports::PortRange;

/// Where Services get their addresses and ports from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// The ranges of cluster IPs: one, or one of each family; the first is the default family's.
    /// Default: `10.96.0.0/16`.
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
    books: Mutex<Books>,
    loaded: OnceCell<()>,
}

/// Who has what.
#[derive(Debug)]
struct Books {
    addresses: Vec<AddressRange>,
    ports: PortRange,
}

impl ServiceAllocator {
    /// An allocator over these ranges. Reads the existing Services when it is first used.
    pub fn new(ranges: &ServiceRanges) -> Self {
        let addresses = ranges.cluster_ips.iter().map(|range| AddressRange::new(*range)).collect();
        let ports = PortRange::new(ranges.node_ports.clone());
        Self { books: Mutex::new(Books { addresses, ports }), loaded: OnceCell::new() }
    }

    /// Reads what existing Services hold, once.
    async fn load(&self, ctx: &WriteContext) -> Result<(), ApiError> {
        let load = || async {
            let all = Target::collection(ResourceType::of::<Service>(), None);
            let reply = ctx.client.read(Read::List(all, ListOptions::default())).await;
            let list = match reply {
                Ok(ReadReply::List(list)) => list,
                Ok(_) => return Err(ApiError::internal("a list was answered with an object")),
                Err(error) => return Err(ApiError::internal(error)),
            };
            let mut books = self.books.lock();
            for object in list.items {
                books.hold(&service::Held::by(&object.to_value()));
            }
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.copied()
    }
}

impl Books {
    /// Notes what is already held; what lies outside the ranges or is held twice is left alone.
    fn hold(&mut self, held: &service::Held) {
        for ip in &held.addresses {
            self.take_address(*ip);
        }
        for port in &held.ports {
            self.ports.take(*port);
        }
    }

    fn release(&mut self, held: &service::Held) {
        for ip in &held.addresses {
            for range in &mut self.addresses {
                range.release(*ip);
            }
        }
        for port in &held.ports {
            self.ports.release(*port);
        }
    }

    fn take_address(&mut self, ip: IpAddr) -> bool {
        self.addresses.iter_mut().any(|range| range.contains(ip) && range.take(ip))
    }
}

#[async_trait]
impl Hook for ServiceAllocator {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        self.load(ctx).await?;
        let random = &*ctx.environment.random;
        service::allocate(&mut self.books.lock(), random, new, None, ctx.dry_run)
    }

    async fn before_update(
        &self,
        ctx: &WriteContext,
        new: &mut Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        self.load(ctx).await?;
        let random = &*ctx.environment.random;
        service::allocate(&mut self.books.lock(), random, new, Some(old), ctx.dry_run)
    }

    async fn after_update(&self, _ctx: &WriteContext, new: &Value, old: &Value) {
        let gone = service::Held::by(old).without(&service::Held::by(new));
        self.books.lock().release(&gone);
    }

    async fn failed(&self, ctx: &WriteContext, new: &Value, old: Option<&Value>) {
        if ctx.dry_run {
            return;
        }
        let mut taken = service::Held::by(new);
        if let Some(old) = old {
            taken = taken.without(&service::Held::by(old));
        }
        self.books.lock().release(&taken);
    }

    async fn after_delete(&self, _ctx: &WriteContext, old: &Value) {
        self.books.lock().release(&service::Held::by(old));
    }
}
