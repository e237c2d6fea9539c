//! Addresses that are given out: `IPAddress` objects, which refer to their Services.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::networking::v1::IPAddress;
use orch_core::{
    ApiError, ClientError, ResourceType, Target,
    client::{DeleteOptions, Read, ReadReply, Write, WriteOptions},
    random::Random,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{AddressRange, cidrs, into_api_error};
use crate::strategy::WriteContext;

/// Who made an object for an address. Those of others are left alone.
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "ipallocator.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// A Service, as the object of an address refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Owner {
    /// The Service itself.
    pub(super) fn of(service: &Value) -> Self {
        let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default().to_owned();
        Self { namespace: text("namespace"), name: text("name") }
    }

    /// The Service that an address refers to, if it is one.
    pub(super) fn in_address(address: &Value) -> Option<Self> {
        let parent = &address["spec"]["parentRef"];
        let text = |field: &str| parent[field].as_str().unwrap_or_default();
        (text("group").is_empty() && text("resource") == "services")
            .then(|| Self { namespace: text("namespace").into(), name: text("name").into() })
    }
}

/// Books addresses, and guesses which are free.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    taken: Mutex<BTreeSet<IpAddr>>,
}

pub(super) fn resource() -> ResourceType {
    ResourceType::of::<IPAddress>()
}

fn object(ip: IpAddr) -> Target {
    Target::object(resource(), None, &ip.to_string())
}

impl AddressBook {
    /// An address that seems to be free, of the first range that has one.
    pub(super) fn free(&self, ranges: &[AddressRange], random: &dyn Random) -> Option<IpAddr> {
        let taken = self.taken.lock();
        ranges.iter().find_map(|range| range.free(random, &taken))
    }

    /// Notes what the store has.
    pub(super) fn note(&self, addresses: BTreeSet<IpAddr>) {
        *self.taken.lock() = addresses;
    }

    /// Reads what the store has.
    pub(super) async fn refresh(&self, ctx: &WriteContext) -> Result<(), ClientError> {
        let all = cidrs::list(&*ctx.client, resource()).await?;
        self.note(all.iter().filter_map(address_of).collect());
        Ok(())
    }

    /// Books an address for a Service; `false` if it is taken. On trial nothing is booked.
    pub(super) async fn book(
        &self,
        ctx: &WriteContext,
        ip: IpAddr,
        owner: &Owner,
    ) -> Result<bool, ApiError> {
        let body = json!({
            "metadata": {"name": ip.to_string(), "labels": {
                FAMILY: if ip.is_ipv4() { "IPv4" } else { "IPv6" },
                MANAGED_BY: MANAGER,
            }},
            "spec": {"parentRef": {
                "resource": "services", "namespace": owner.namespace, "name": owner.name,
            }},
        });
        let options = WriteOptions { dry_run: ctx.dry_run, ..WriteOptions::default() };
        let create = Write::Create(Target::collection(resource(), None), body, options);
        let booked = match ctx.client.write(create).await {
            Ok(_) => true,
            Err(error) if error.is_already_exists() => false,
            Err(error) => return Err(into_api_error(error)),
        };
        if !booked || !ctx.dry_run {
            self.taken.lock().insert(ip);
        }
        Ok(booked)
    }

    /// Gives an address back if it is still that Service's.
    pub(super) async fn release(
        &self,
        ctx: &WriteContext,
        ip: IpAddr,
        owner: &Owner,
    ) -> Result<(), ClientError> {
        let found = match ctx.client.read(Read::Get(object(ip))).await {
            Ok(ReadReply::Object(found)) => found.to_value(),
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {
                self.taken.lock().remove(&ip);
                return Ok(());
            }
        };
        if Owner::in_address(&found).as_ref() != Some(owner) {
            return Ok(());
        }
        self.delete(ctx, ip, &found).await
    }

    /// Deletes exactly this object of an address.
    pub(super) async fn delete(
        &self,
        ctx: &WriteContext,
        ip: IpAddr,
        found: &Value,
    ) -> Result<(), ClientError> {
        let uid = found["metadata"]["uid"].as_str().map(str::to_owned);
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        match ctx.client.write(Write::Delete(object(ip), options)).await {
            // Another one has the name by now: its own.
            Err(error) if error.is_conflict() => return Ok(()),
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        self.taken.lock().remove(&ip);
        Ok(())
    }
}

/// The address that an object is for.
pub(super) fn address_of(object: &Value) -> Option<IpAddr> {
    object["metadata"]["name"].as_str()?.parse().ok()
}
