//! Segments of the log: files that are made at their full length before anything is written to
//! them, so that a write changes no metadata and a file that is too short is known to be damaged.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::{Disk, corrupt, io_error, sync_folder},
    format::{self, FILE_HEADER, FRAME_HEADER, FileHeader, Frame, LOG_MAGIC, Record, Records},
};
use crate::{StoreError, store::Revision};

/// Small writes are put on blocks that hold zeros already: writing to blocks that were only
/// reserved makes the file system note that they are in use, at each sync.
const ZEROED_AHEAD: u64 = 256 << 10;
/// Writes of this size are spared that: they fill whole blocks themselves.
const LARGE_WRITE: usize = 64 << 10;

/// A segment, as far as its place in the log goes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The number of its first frame.
    pub(super) first: u64,
    /// Where its frames end.
    pub(super) end: u64,
    /// The newest revision committed in it or before it.
    pub(super) last_revision: Revision,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Segment,
    disk: Arc<dyn Disk>,
    file: File,
    allocated: u64,
    zeroed: u64,
}

/// The name of the segment with this first frame.
fn name(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("log-{first:020}.wal"))
}

impl OpenSegment {
    /// Makes a segment of `length` bytes. It has its name only once it is whole and on disk.
    pub(super) fn create(
        folder: &Path,
        first: u64,
        length: u64,
        last_revision: Revision,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let path = name(folder, first);
        let temporary = path.with_extension("tmp");
        let make = || {
            let file = File::create(&temporary)?;
            disk.allocate(&file, length)?;
            let header = FileHeader { number: first, length };
            disk.write_at(&file, &header.encode(LOG_MAGIC), 0)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_folder(folder)?;
            Ok(file)
        };
        let file = make().map_err(|error| {
            // Half a file would take the space that is missing.
            let _ = fs::remove_file(&temporary);
            io_error(&path)(error)
        })?;
        let end = FILE_HEADER as u64;
        let segment = Segment { path, first, end, last_revision };
        Ok(Self { segment, disk, file, allocated: length, zeroed: end })
    }

    /// Opens a segment that was read, to go on where its frames end; what is left of a write that
    /// was cut off reaches to `torn_until`.
    pub(super) fn reopen(
        segment: Segment,
        torn_until: u64,
        length: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let error = || io_error(&segment.path);
        let file = OpenOptions::new().write(true).open(&segment.path);
        let file = file.map_err(error())?;
        let prepare = || {
            // What a write that was cut off left behind is cleared: a later, shorter write must not
            // leave the rest of it standing. Never by cutting the file, which a full disk might not
            // let grow again.
            let rest = usize::try_from(torn_until.saturating_sub(segment.end)).unwrap_or(0);
            disk.write_at(&file, &vec![0; rest], segment.end)?;
            disk.allocate(&file, length)?;
            file.sync_all()
        };
        prepare().map_err(error())?;
        let zeroed = segment.end;
        Ok(Self { segment, disk, file, allocated: length, zeroed })
    }

    /// Whether so many more bytes fit in.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.segment.end + bytes as u64 <= self.allocated
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segment.end == FILE_HEADER as u64
    }

    /// Makes room for so many more bytes.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), StoreError> {
        let length = self.segment.end + bytes as u64;
        self.disk.allocate(&self.file, length).map_err(io_error(&self.segment.path))?;
        self.allocated = length;
        Ok(())
    }

    /// Appends a sealed frame.
    pub(super) fn write(&mut self, frame: &[u8], zero_ahead: bool) -> Result<(), StoreError> {
        let end = self.segment.end + frame.len() as u64;
        let write = || {
            self.disk.write_at(&self.file, frame, self.segment.end)?;
            if !zero_ahead || end <= self.zeroed || frame.len() >= LARGE_WRITE {
                return Ok(self.zeroed);
            }
            let zeroed = (end + ZEROED_AHEAD).min(self.allocated);
            self.disk.write_at(&self.file, &vec![0; (zeroed - end) as usize], end)?;
            Ok(zeroed)
        };
        self.zeroed = write().map_err(io_error(&self.segment.path))?;
        self.segment.end = end;
        Ok(())
    }

    /// Makes what was written survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync(&self.file).map_err(io_error(&self.segment.path))
    }

    /// Makes everything survive a loss of power, whether or not each write did.
    pub(super) fn sync_all(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(io_error(&self.segment.path))
    }

    /// Gives back what was not used, if that can be done; nothing more will be written.
    pub(super) fn close(self) -> Segment {
        let cut = self.file.set_len(self.segment.end).and_then(|()| self.file.sync_all());
        if let Err(error) = cut {
            tracing::warn!(path = %self.segment.path.display(), %error, "a segment keeps its length");
        }
        self.segment
    }
}

/// What reading a segment came to.
pub(super) struct Scan {
    pub(super) segment: Segment,
    /// The number of the frame after the last.
    pub(super) next: u64,
    /// The length of the file, and the one that it was made with.
    pub(super) length: u64,
    pub(super) made_with: u64,
    /// Where a write that was cut off ends; 0 if none was.
    pub(super) torn_until: u64,
}

/// Reads a segment whose first frame has the number `first`. In the last one of a log the last
/// write may have been cut off; nobody was told that it took place.
pub(super) fn read(
    path: &Path,
    first: u64,
    last: bool,
    apply: &mut dyn FnMut(Record) -> Result<Revision, String>,
) -> Result<Scan, StoreError> {
    let data = fs::read(path).map_err(io_error(path))?;
    let header = FileHeader::decode(LOG_MAGIC, &data).map_err(|what| corrupt(path, 0, what))?;
    if header.number != first {
        return Err(corrupt(path, 0, "the number in the header is not that of the name"));
    }
    let (mut end, mut next, mut last_revision) = (FILE_HEADER, first, 0);
    let mut torn_until = 0;
    loop {
        match format::read_frame(&data, end, next) {
            Frame::End => break,
            Frame::Torn if last => {
                tracing::warn!(path = %path.display(), end, "a write was never completed");
                let last = data.iter().rposition(|byte| *byte != 0);
                torn_until = last.map_or(0, |last| last as u64 + 1);
                break;
            }
            Frame::Torn => return Err(corrupt(path, end, "a frame is cut short")),
            Frame::Damaged(what) => return Err(corrupt(path, end, what)),
            Frame::Whole { payload, next: after } => {
                for record in Records(payload) {
                    let applied = record.map_err(str::to_owned).and_then(&mut *apply);
                    last_revision =
                        applied.map_err(|what| corrupt(path, end + FRAME_HEADER, what))?;
                }
                (end, next) = (after, next + 1);
            }
        }
    }
    let segment = Segment { path: path.to_owned(), first, end: end as u64, last_revision };
    Ok(Scan { segment, next, length: data.len() as u64, made_with: header.length, torn_until })
}
