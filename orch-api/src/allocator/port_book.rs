//! Node ports that are given out: one object in the store, changed by compare-and-set.
//!
//! Source: `pkg/registry/core/service/allocator/storage`, `pkg/registry/core/rangeallocation`.
//! Differs: the object is JSON, as everything in the store is here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use orch_core::{ApiError, random::Random};
use orch_store::{
    KeyRange, Operation, Precondition, RangeRequest, Revision, Store, Write, WriteOutcome,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    ports::{FreePorts, PortRange},
    repair::PORT_GRACE,
};
use crate::cache::store_error;

const KEY: &str = "/registry/ranges/servicenodeports";
/// How often a change is tried while other servers change the map too.
const TRIES: usize = 64;

/// The map of node ports.
#[derive(Debug)]
pub(super) struct PortBook {
    range: PortRange,
    store: Arc<dyn Store>,
    /// Ports that are taken and that no Service had, and when that was seen first.
    suspects: Mutex<BTreeMap<u16, Timestamp>>,
}

impl PortBook {
    pub(super) fn new(range: PortRange, store: Arc<dyn Store>) -> Self {
        Self { range, store, suspects: Mutex::default() }
    }

    /// The ports that are taken, and the revision that says so (0 if there is none).
    async fn read(&self) -> Result<(BTreeSet<u16>, Revision), ApiError> {
        let request = RangeRequest::new(KeyRange::key(KEY));
        let found = self.store.range(request).await.map_err(store_error)?;
        let Some(entry) = found.entries.first() else { return Ok((BTreeSet::new(), 0)) };
        let map: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
        Ok((decode(&map), entry.mod_revision))
    }

    async fn write(&self, taken: &BTreeSet<u16>, at: Revision) -> Result<bool, ApiError> {
        let value = Bytes::from(encode(&self.range, taken).to_string());
        let precondition =
            if at == 0 { Precondition::Absent } else { Precondition::ModRevision(at) };
        let operation = Operation::Put { value, lease: None };
        let write = Write { key: KEY.into(), precondition, operation };
        let done = self.store.write(write).await.map_err(store_error)?;
        Ok(matches!(done, WriteOutcome::Committed { .. }))
    }

    /// Lets somebody take ports, again if another server was faster; nothing is stored on trial,
    /// after an error, or if none was taken.
    pub(super) async fn change<T>(
        &self,
        random: &dyn Random,
        dry_run: bool,
        take: impl Fn(&mut FreePorts<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        for _ in 0..TRIES {
            let (taken, at) = self.read().await?;
            let before = taken.len();
            let mut free = FreePorts::new(&self.range, taken, random);
            let result = take(&mut free)?;
            if dry_run || free.taken().len() == before || self.write(free.taken(), at).await? {
                return Ok(result);
            }
        }
        Err(busy())
    }

    /// Gives ports back.
    pub(super) async fn release(&self, ports: &[u16]) -> Result<(), ApiError> {
        if ports.is_empty() {
            return Ok(());
        }
        self.update(|taken| taken.retain(|port| !ports.contains(port))).await
    }

    /// The ports that are taken and were nobody's for a while, given who has which now.
    pub(super) async fn leaked(
        &self,
        held: &BTreeSet<u16>,
        now: Timestamp,
    ) -> Result<BTreeSet<u16>, ApiError> {
        let (taken, _) = self.read().await?;
        let mut suspects = self.suspects.lock();
        suspects.retain(|port, _| taken.contains(port) && !held.contains(port));
        for port in taken.difference(held) {
            suspects.entry(*port).or_insert(now);
        }
        let old = suspects.iter().filter(|(_, since)| now.duration_since(**since) >= PORT_GRACE);
        Ok(old.map(|(port, _)| *port).collect())
    }

    /// Changes the map as a whole.
    pub(super) async fn update(&self, change: impl Fn(&mut BTreeSet<u16>)) -> Result<(), ApiError> {
        for _ in 0..TRIES {
            let (before, at) = self.read().await?;
            let mut after = before.clone();
            change(&mut after);
            if after == before || self.write(&after, at).await? {
                return Ok(());
            }
        }
        Err(busy())
    }
}

fn busy() -> ApiError {
    ApiError::internal("the map of node ports changed again and again")
}

/// A bit for each port of the range, as a number: the first port is the lowest bit.
fn encode(range: &PortRange, taken: &BTreeSet<u16>) -> Value {
    let first = range.first();
    let inside = || taken.iter().filter(|port| range.contains(**port)).map(|port| port - first);
    let bytes = inside().max().map_or(0, |highest| usize::from(highest) / 8 + 1);
    let mut data = vec![0u8; bytes];
    for offset in inside().map(usize::from) {
        data[bytes - 1 - offset / 8] |= 1 << (offset % 8);
    }
    json!({
        "kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
        "range": range.text(), "data": STANDARD.encode(data),
    })
}

fn decode(map: &Value) -> BTreeSet<u16> {
    let range = map["range"].as_str().unwrap_or_default();
    let first = range.split('-').next().and_then(|first| first.parse::<usize>().ok());
    let data = STANDARD.decode(map["data"].as_str().unwrap_or_default()).unwrap_or_default();
    let bits = data.iter().rev().enumerate().flat_map(|(at, byte)| {
        (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit)
    });
    bits.filter_map(|offset| u16::try_from(first? + offset).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_ports_is_read_as_it_was_written() {
        let range = PortRange::new(30000..=32767);
        let check = |ports: &[u16], data: &str| {
            let taken: BTreeSet<u16> = ports.iter().copied().collect();
            let map = encode(&range, &taken);
            assert_eq!(map["data"], data);
            assert_eq!(map["range"], "30000-32767");
            assert_eq!(decode(&map), taken);
        };
        check(&[], "");
        check(&[30000], "AQ==");
        check(&[30000, 30009], "AgE=");
        check(
            &[30000, 30007, 30008, 32767],
            &STANDARD.encode({
                let mut bytes = vec![0u8; 346];
                (bytes[0], bytes[344], bytes[345]) = (0x80, 0x01, 0x81);
                bytes
            }),
        );
    }
}
