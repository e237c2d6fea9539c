//! The write-ahead log: numbered frames in numbered segments.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    DurableOptions,
    disk::{Disk, corrupt, io_error, numbered, sync_folder},
    format::{self, CLOSED_MAGIC, FILE_HEADER, FileHeader, Record},
    segment::{self, OpenSegment, Segment},
};
use crate::{StoreError, store::Revision};

/// Says where the log ended when it was closed in order.
const CLOSED: &str = "CLOSED";

/// The log, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    sync: bool,
    segment_bytes: u64,
    closed: Vec<Segment>,
    current: OpenSegment,
    next_number: u64,
}

impl Log {
    /// Reads every record in order and opens the log for appending. `complete`: nothing may be
    /// missing at the beginning (there is no snapshot); `apply` gives the revision that its
    /// record led to, or what is wrong with it.
    pub(super) fn open(
        folder: &Path,
        options: &DurableOptions,
        disk: Arc<dyn Disk>,
        complete: bool,
        apply: &mut dyn FnMut(Record) -> Result<Revision, String>,
    ) -> Result<Self, StoreError> {
        let Found { mut segments, next, made_with, torn_until } = read(folder, complete, apply)?;
        let length = options.segment_bytes.max(FILE_HEADER as u64);
        let current = match segments.pop() {
            Some(segment) => {
                let length = made_with.max(segment.end);
                OpenSegment::reopen(segment, torn_until, length, disk.clone())
            }
            None => OpenSegment::create(folder, next, length, 0, disk.clone()),
        };
        let current = current.map_err(no_space)?;
        remove_marker(folder).map_err(io_error(folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            disk,
            sync: options.durability == super::Durability::SyncedBeforeAck,
            segment_bytes: length,
            closed: segments,
            current,
            next_number: next,
        })
    }

    /// Makes room for a frame of so many bytes. An error leaves the log as it was: this can be
    /// tried again.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.current.fits(bytes) {
            return Ok(());
        }
        let reserved = match self.current.is_empty() {
            true => self.current.grow(bytes),
            false => self.rotate(bytes),
        };
        reserved.map_err(no_space)
    }

    fn rotate(&mut self, bytes: usize) -> Result<(), StoreError> {
        let length = self.segment_bytes.max((FILE_HEADER + bytes) as u64);
        let last = self.current.segment.last_revision;
        let disk = self.disk.clone();
        let new = OpenSegment::create(&self.folder, self.next_number, length, last, disk)?;
        let old = std::mem::replace(&mut self.current, new);
        self.closed.push(old.close());
        Ok(())
    }

    /// Appends a frame (its payload after [`FRAME_HEADER`](format::FRAME_HEADER) free bytes) for
    /// which room was made, and makes it durable. After an error the log must not be written to
    /// any more.
    pub(super) fn append(
        &mut self,
        frame: &mut [u8],
        revision: Revision,
    ) -> Result<(), StoreError> {
        format::seal_frame(frame, self.next_number);
        self.current.write(frame, self.sync)?;
        if self.sync {
            self.current.sync()?;
        }
        self.next_number += 1;
        self.current.segment.last_revision = revision;
        Ok(())
    }

    fn superfluous(&self, revision: Revision) -> usize {
        self.closed.iter().take_while(|segment| segment.last_revision <= revision).count()
    }

    /// The segments that a snapshot at `revision` makes superfluous, oldest first, and how many
    /// bytes they are.
    pub(super) fn reclaimable(&self, revision: Revision) -> (Vec<PathBuf>, u64) {
        let old = &self.closed[..self.superfluous(revision)];
        let paths = old.iter().map(|segment| segment.path.clone()).collect();
        (paths, old.iter().map(|segment| segment.end).sum())
    }

    /// Forgets the segments that a snapshot at `revision` has replaced.
    pub(super) fn forget(&mut self, revision: Revision) {
        self.closed.drain(..self.superfluous(revision));
    }

    /// How many bytes the log has on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.closed.iter().map(|segment| segment.end).sum::<u64>() + self.current.segment.end
    }

    /// Closes the log in order: everything is on disk, and it is written down where it ends, so
    /// that a file which is cut short later is known to be. Where that cannot be written, on a full
    /// disk, the log is left as a crash would leave it, which is not damage.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.current.sync_all()?;
        let Segment { first, end, .. } = self.current.segment;
        let header = FileHeader { number: first, length: end };
        let temporary = self.folder.join("CLOSED.tmp");
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&header.encode(CLOSED_MAGIC))?;
            file.sync_all()?;
            fs::rename(&temporary, self.folder.join(CLOSED))?;
            sync_folder(&self.folder)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            io_error(&self.folder)(error)
        })?;
        // Only now: without the note, a file that is shorter than it was made is damaged.
        self.current.close();
        Ok(())
    }
}

/// What is there of a log.
pub(super) struct Found {
    segments: Vec<Segment>,
    /// The number of the next frame.
    next: u64,
    /// The length that the last segment was made with.
    made_with: u64,
    /// Where a write ends that was cut off in it; 0 if none was.
    torn_until: u64,
}

/// A full disk that was met before anything was written.
fn no_space(error: StoreError) -> StoreError {
    match error {
        StoreError::Io(path, error) if error.kind() == io::ErrorKind::StorageFull => {
            StoreError::NoSpace(path)
        }
        other => other,
    }
}

/// Reads every record in order, and changes nothing. `complete` and `apply`: see [`Log::open`].
pub(super) fn read(
    folder: &Path,
    complete: bool,
    apply: &mut dyn FnMut(Record) -> Result<Revision, String>,
) -> Result<Found, StoreError> {
    let files = numbered(folder, "log-", ".wal")?;
    let mut next = match files.first() {
        Some((number, path)) if complete && *number != 1 => {
            return Err(corrupt(path, 0, "the segments before this one are missing"));
        }
        Some((number, _)) => *number,
        None => 1,
    };
    let marker = read_marker(folder)?;
    let mut segments: Vec<Segment> = Vec::new();
    let (mut length, mut made_with, mut torn_until) = (0, 0, 0);
    for (index, (number, path)) in files.iter().enumerate() {
        if *number != next {
            let what = format!("the segment with frame {next} is missing before this one");
            return Err(corrupt(path, 0, what));
        }
        // A log that was closed in order has no write that was cut off.
        let may_be_torn = index + 1 == files.len() && marker.is_none();
        let mut scan = segment::read(path, next, may_be_torn, apply)?;
        let before = segments.last().map_or(0, |segment| segment.last_revision);
        scan.segment.last_revision = scan.segment.last_revision.max(before);
        (next, length, made_with) = (scan.next, scan.length, scan.made_with);
        torn_until = scan.torn_until;
        segments.push(scan.segment);
    }
    check_end(folder, segments.last(), marker, length, made_with)?;
    Ok(Found { segments, next, made_with, torn_until })
}

/// Where the log ended when it was closed in order.
fn read_marker(folder: &Path) -> Result<Option<FileHeader>, StoreError> {
    let path = folder.join(CLOSED);
    let data = match fs::read(&path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(&path)(error)),
    };
    let header = FileHeader::decode(CLOSED_MAGIC, &data);
    header.map(Some).map_err(|what| corrupt(&path, 0, what))
}

/// Gone before anything is written behind the place that it names.
fn remove_marker(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(CLOSED)) {
        Ok(()) => sync_folder(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes sure that nothing is missing at the end.
fn check_end(
    folder: &Path,
    last: Option<&Segment>,
    marker: Option<FileHeader>,
    length: u64,
    made_with: u64,
) -> Result<(), StoreError> {
    match (last, marker) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(corrupt(&folder.join(CLOSED), 0, "the log is missing")),
        (Some(last), Some(marker)) if (last.first, last.end) != (marker.number, marker.length) => {
            let FileHeader { number, length } = marker;
            let what = format!("the log ended in segment {number} at offset {length}");
            Err(corrupt(&last.path, last.end as usize, what))
        }
        (Some(last), None) if length < made_with => {
            let what = format!("the file is shorter than it was made ({made_with} bytes)");
            Err(corrupt(&last.path, length as usize, what))
        }
        (Some(_), _) => Ok(()),
    }
}
