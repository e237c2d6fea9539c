//! The bytes on disk; the layout is told in [`crate::durable`].

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    engine::version::Version,
    store::{Entry, LeaseId, Revision},
};

/// The version of the format that is written.
pub(super) const FORMAT_VERSION: u32 = 2;
/// First bytes of a log segment.
pub(super) const LOG_MAGIC: &[u8; 8] = b"ORCHWAL\n";
/// First bytes of a snapshot.
pub(super) const SNAPSHOT_MAGIC: &[u8; 8] = b"ORCHSNP\n";
/// First bytes of the file that says where the log ends.
pub(super) const CLOSED_MAGIC: &[u8; 8] = b"ORCHEND\n";
/// Length of a file's header: magic, version, number, length, checksum.
pub(super) const FILE_HEADER: usize = 32;
/// Length of a frame's header: payload length, number, payload checksum, header checksum.
pub(super) const FRAME_HEADER: usize = 20;
/// The longest payload of a frame.
pub(super) const PAYLOAD_MAX: usize = 1 << 30;
/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// What a file's header says besides its kind and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// The first frame's number, or a snapshot's revision.
    pub(super) number: u64,
    /// The length that the file was made with; 0 for a snapshot. Where the log ends, in the file
    /// that says so.
    pub(super) length: u64,
}

impl FileHeader {
    pub(super) fn encode(self, magic: &[u8; 8]) -> [u8; FILE_HEADER] {
        let mut header = [0; FILE_HEADER];
        header[..8].copy_from_slice(magic);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[12..20].copy_from_slice(&self.number.to_le_bytes());
        header[20..28].copy_from_slice(&self.length.to_le_bytes());
        let checksum = crc32c::crc32c(&header[..28]);
        header[28..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Reads the header at the beginning of a file, or tells what is wrong with it.
    pub(super) fn decode(magic: &[u8; 8], data: &[u8]) -> Result<Self, String> {
        let header = data.get(..FILE_HEADER).ok_or("the header is cut short")?;
        if header[..8] != magic[..] {
            return Err("the file does not begin with the magic bytes of its kind".into());
        }
        match u32_at(header, 8) {
            FORMAT_VERSION => {}
            other => {
                return Err(format!(
                    "format version {other} is not known (this is {FORMAT_VERSION})"
                ));
            }
        }
        if crc32c::crc32c(&header[..28]) != u32_at(header, 28) {
            return Err("the header's checksum does not match".into());
        }
        Ok(Self { number: u64_at(header, 12), length: u64_at(header, 20) })
    }
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| data[at + i]))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| data[at + i]))
}

/// Fills in the header of a frame whose payload begins at `FRAME_HEADER`.
pub(super) fn seal_frame(frame: &mut [u8], number: u64) {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER);
    // Longer payloads are refused before they get here.
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..12].copy_from_slice(&number.to_le_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let checksum = crc32c::crc32c(&header[..16]);
    header[16..].copy_from_slice(&checksum.to_le_bytes());
}

/// What is found where a frame should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The end of the file, or nothing but zeros up to there.
    End,
    /// A whole frame's payload; the next frame begins at `next`.
    Whole { payload: &'a [u8], next: usize },
    /// A write that was cut off: nobody was told that it took place.
    Torn,
    /// Damage that no cut-off write explains.
    Damaged(&'static str),
}

/// A frame's header: the payload's length, the frame's number, the payload's checksum.
pub(super) fn read_frame_header(header: &[u8]) -> Option<(usize, u64, u32)> {
    let matches = crc32c::crc32c(&header[..16]) == u32_at(header, 16);
    matches.then(|| (u32_at(header, 0) as usize, u64_at(header, 4), u32_at(header, 12)))
}

/// Reads the frame at `at`, which must have this number.
///
/// A frame is written only when the one before it is on disk. So nothing follows one that was cut
/// off, and damage to one that is followed by another is not a cut-off write.
pub(super) fn read_frame(data: &[u8], at: usize, number: u64) -> Frame<'_> {
    let rest = &data[at..];
    // The rest of the file is looked at only where no frame begins.
    if is_zero(&rest[..rest.len().min(FRAME_HEADER)]) && is_zero(rest) {
        return Frame::End;
    }
    let Some(header) = rest.get(..FRAME_HEADER) else { return Frame::Torn };
    let Some((length, found, checksum)) = read_frame_header(header) else {
        return match header_was_cut(data, at) && !has_frame(rest, number) {
            true => Frame::Torn,
            false => Frame::Damaged("the checksum of a frame's header does not match"),
        };
    };
    if found != number {
        return Frame::Damaged("a frame has a number out of order");
    }
    let next = at + FRAME_HEADER + length;
    let Some(payload) = data.get(at + FRAME_HEADER..next) else {
        return Frame::Damaged("a frame is longer than its file");
    };
    if crc32c::crc32c(payload) == checksum {
        return Frame::Whole { payload, next };
    }
    if is_zero(&data[next..]) && has_unwritten_part(data, at, next) {
        return Frame::Torn;
    }
    Frame::Damaged("the checksum of a frame does not match")
}

fn is_zero(data: &[u8]) -> bool {
    // Compared block by block, which the processor does many bytes at a time.
    data.chunks(4096).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Whether a frame with a later number than `number` begins anywhere.
fn has_frame(data: &[u8], number: u64) -> bool {
    let header =
        |bytes: &[u8]| read_frame_header(bytes).is_some_and(|(_, found, _)| found > number);
    data.windows(FRAME_HEADER).any(header)
}

/// Whether a sector was never written that has a part of the frame's header at `at`, or nothing
/// was written behind it: payloads do not begin with zeros.
fn header_was_cut(data: &[u8], at: usize) -> bool {
    let end = at + FRAME_HEADER;
    let boundary = ((at / SECTOR + 1) * SECTOR).min(end);
    is_zero(&data[at..boundary])
        || (boundary < end && is_zero(&data[boundary..end]))
        || is_zero(&data[end..])
}

/// Whether a sector's part of `from..to` is all zero, as after a write that the power cut off, or
/// the end is, as after one that failed half-way.
fn has_unwritten_part(data: &[u8], from: usize, to: usize) -> bool {
    if to - from >= 16 && is_zero(&data[to - 16..to]) {
        return true;
    }
    let mut start = from;
    while start < to {
        let end = ((start / SECTOR + 1) * SECTOR).min(to);
        // A few zero bytes at the beginning are ordinary data.
        if (end - start >= 16 || end == to) && is_zero(&data[start..end]) {
            return true;
        }
        start = end;
    }
    false
}

/// One change within a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put { key: Bytes, value: Bytes, lease: Option<LeaseId> },
    Delete { key: Bytes },
}

/// One record of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The changes of one revision.
    Commit { revision: Revision, changes: Vec<Change> },
    /// A lease was granted.
    Grant { id: LeaseId, ttl_s: i64 },
    /// A lease ended.
    Revoke { id: LeaseId },
    /// The past up to a revision was forgotten.
    Compact { revision: Revision },
    /// In a snapshot: a key as it was.
    Entry(Entry),
    /// In a snapshot: the end, with the number of entries.
    End { count: u64 },
}

const COMMIT: u8 = 1;
const GRANT: u8 = 2;
const REVOKE: u8 = 3;
const COMPACT: u8 = 4;
const ENTRY: u8 = 5;
const END: u8 = 6;
const PUT: u8 = 1;
const DELETE: u8 = 2;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends the commit of the versions of one revision.
pub(super) fn put_commit(out: &mut Vec<u8>, versions: &[Arc<Version>]) {
    let Some(first) = versions.first() else { return };
    out.push(COMMIT);
    out.extend_from_slice(&first.entry.mod_revision.to_le_bytes());
    out.extend_from_slice(&(versions.len() as u32).to_le_bytes());
    for version in versions {
        let entry = &version.entry;
        out.push(if version.deleted { DELETE } else { PUT });
        put_bytes(out, &entry.key);
        if !version.deleted {
            out.extend_from_slice(&entry.lease.unwrap_or(0).to_le_bytes());
            put_bytes(out, &entry.value);
        }
    }
}

/// Appends a record without changes.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Commit { .. } => unreachable!("commits are written from versions"),
        Record::Grant { id, ttl_s } => {
            out.push(GRANT);
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&ttl_s.to_le_bytes());
        }
        Record::Revoke { id } => {
            out.push(REVOKE);
            out.extend_from_slice(&id.to_le_bytes());
        }
        Record::Compact { revision } => {
            out.push(COMPACT);
            out.extend_from_slice(&revision.to_le_bytes());
        }
        Record::Entry(entry) => {
            out.push(ENTRY);
            for number in [entry.create_revision, entry.mod_revision, entry.version] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&entry.lease.unwrap_or(0).to_le_bytes());
            put_bytes(out, &entry.key);
            put_bytes(out, &entry.value);
        }
        Record::End { count } => {
            out.push(END);
            out.extend_from_slice(&count.to_le_bytes());
        }
    }
}

/// Takes records off a payload.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Records<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a record is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32_at(self.take(4)?, 0))
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64_at(self.take(8)?, 0))
    }

    fn i64(&mut self) -> Result<i64, &'static str> {
        Ok(self.u64()?.cast_signed())
    }

    fn lease(&mut self) -> Result<Option<LeaseId>, &'static str> {
        Ok(Some(self.i64()?).filter(|id| *id != 0))
    }

    /// Copied, so that a small value does not keep its whole segment in memory.
    fn bytes(&mut self) -> Result<Bytes, &'static str> {
        let length = self.u32()? as usize;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    fn change(&mut self) -> Result<Change, &'static str> {
        match self.byte()? {
            PUT => {
                let key = self.bytes()?;
                let lease = self.lease()?;
                Ok(Change::Put { key, lease, value: self.bytes()? })
            }
            DELETE => Ok(Change::Delete { key: self.bytes()? }),
            _ => Err("a change of an unknown kind"),
        }
    }

    fn record(&mut self) -> Result<Record, &'static str> {
        Ok(match self.byte()? {
            COMMIT => {
                let revision = self.u64()?;
                let count = self.u32()?;
                let changes = (0..count).map(|_| self.change()).collect::<Result<_, _>>()?;
                Record::Commit { revision, changes }
            }
            GRANT => Record::Grant { id: self.i64()?, ttl_s: self.i64()? },
            REVOKE => Record::Revoke { id: self.i64()? },
            COMPACT => Record::Compact { revision: self.u64()? },
            ENTRY => {
                let [create_revision, mod_revision, version] =
                    [self.u64()?, self.u64()?, self.u64()?];
                let lease = self.lease()?;
                let (key, value) = (self.bytes()?, self.bytes()?);
                Record::Entry(Entry { key, value, create_revision, mod_revision, version, lease })
            }
            END => Record::End { count: self.u64()? },
            _ => return Err("a record of an unknown kind"),
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.record())
    }
}
