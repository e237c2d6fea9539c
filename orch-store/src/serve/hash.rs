//! A checksum of the living keys at a revision, to compare two stores with.

use prost::Message as _;

use super::{convert::key_value, shared::Shared};
use crate::{StoreError, store::Revision};

impl Shared {
    /// CRC-32C of every key as it is at `revision`, in the order of keys: each one's encoding as
    /// a message, after its length. The same for every store that holds the same.
    pub(super) async fn hash(&self, revision: Revision) -> Result<u32, StoreError> {
        let mut hash = crc32c::crc32c(b"key");
        let mut buffer = Vec::new();
        let add = |entries: Vec<crate::store::Entry>| {
            for entry in entries {
                buffer.clear();
                let message = key_value(entry);
                buffer.extend_from_slice(&(message.encoded_len() as u64).to_be_bytes());
                message.encode_raw(&mut buffer);
                hash = crc32c::crc32c_append(hash, &buffer);
            }
        };
        self.each_page(revision, add).await?;
        Ok(hash)
    }
}
