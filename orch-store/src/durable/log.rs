//! The write-ahead log: numbered frames in numbered segments.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::format::{self, FILE_HEADER, FRAME_HEADER, Frame, LOG_MAGIC, Record, Records};
use crate::{StoreError, store::Revision};

/// The file operations that can fail while the store runs, so that tests can make them fail.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Appends bytes to a file.
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Makes what was written survive a loss of power.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The real disk.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {}

/// An error of input/output with the path it met.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| StoreError::Io(path, error)
}

/// Makes creations, renames and removals in a folder survive a loss of power.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A finding of damage, with the place.
pub(super) fn corrupt(path: &Path, offset: usize, what: impl fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{} at offset {offset}: {what}", path.display()))
}

/// The files of a folder named `<prefix><number><suffix>`, by number.
pub(super) fn numbered(
    folder: &Path,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
    /// The newest revision committed in it or before it.
    last_revision: Revision,
}

/// The log, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    sync: bool,
    segment_bytes: u64,
    closed: Vec<Segment>,
    current: Segment,
    file: File,
    next_number: u64,
}

/// What reading a segment came to.
struct Scan {
    /// Where the whole frames end.
    end: usize,
    length: usize,
    next_number: u64,
}

impl Log {
    /// Reads every record in order and opens the log for appending. `first` is the number of the
    /// first frame if nothing may be missing (there is no snapshot); `apply` gives the revision
    /// that its record led to, or what is wrong with it.
    pub(super) fn open(
        folder: &Path,
        options: &super::DurableOptions,
        disk: Arc<dyn Disk>,
        complete: bool,
        apply: &mut dyn FnMut(Record) -> Result<Revision, String>,
    ) -> Result<Self, StoreError> {
        let files = numbered(folder, "log-", ".wal")?;
        let mut next = match files.first() {
            Some((number, path)) if complete && *number != 1 => {
                return Err(corrupt(path, 0, "the segments before this one are missing"));
            }
            Some((number, _)) => *number,
            None => 1,
        };
        let mut closed = Vec::new();
        let mut revision = 0;
        for (index, (number, path)) in files.iter().enumerate() {
            if *number != next {
                let what = format!("the segment with frame {next} is missing before this one");
                return Err(corrupt(path, 0, what));
            }
            let last = index + 1 == files.len();
            let scan = read_segment(path, next, last, &mut |record| {
                revision = apply(record)?;
                Ok(())
            })?;
            if scan.end < scan.length {
                cut(path, scan.end)?;
            }
            next = scan.next_number;
            let bytes = scan.end as u64;
            closed.push(Segment { path: path.clone(), bytes, last_revision: revision });
        }
        let (current, file) = match closed.pop() {
            Some(segment) if segment.bytes >= FILE_HEADER as u64 => {
                let open = OpenOptions::new().append(true).open(&segment.path);
                let file = open.map_err(io_error(&segment.path))?;
                (segment, file)
            }
            // A segment whose very header was cut off, or none at all.
            _ => create(folder, next).map_err(io_error(folder))?,
        };
        Ok(Self {
            folder: folder.to_owned(),
            disk,
            sync: options.durability == super::Durability::SyncedBeforeAck,
            segment_bytes: options.segment_bytes,
            closed,
            current,
            file,
            next_number: next,
        })
    }

    /// Appends a frame (its payload after [`FRAME_HEADER`] free bytes) and makes it durable.
    /// After an error the log must not be written to any more.
    pub(super) fn append(
        &mut self,
        frame: &mut [u8],
        revision: Revision,
    ) -> Result<(), StoreError> {
        if self.current.bytes >= self.segment_bytes {
            let rotated = create(&self.folder, self.next_number);
            let (segment, file) = rotated.map_err(io_error(&self.folder))?;
            self.closed.push(std::mem::replace(&mut self.current, segment));
            self.file = file;
        }
        format::seal_frame(frame, self.next_number);
        let mut write = || {
            self.disk.append(&mut self.file, frame)?;
            if self.sync { self.disk.sync(&self.file) } else { Ok(()) }
        };
        write().map_err(io_error(&self.current.path))?;
        self.next_number += 1;
        self.current.bytes += frame.len() as u64;
        self.current.last_revision = revision;
        Ok(())
    }

    /// How many bytes a snapshot at `revision` would make superfluous.
    pub(super) fn reclaimable(&self, revision: Revision) -> u64 {
        let old = self.closed.iter().take_while(|segment| segment.last_revision <= revision);
        old.map(|segment| segment.bytes).sum()
    }

    /// Gives away the segments that a snapshot at `revision` makes superfluous, oldest first.
    pub(super) fn take_superfluous(&mut self, revision: Revision) -> Vec<PathBuf> {
        let keep = self.closed.iter().position(|segment| segment.last_revision > revision);
        let old = self.closed.drain(..keep.unwrap_or(self.closed.len()));
        old.map(|segment| segment.path).collect()
    }

    /// Makes everything durable; for an orderly end in the relaxed mode.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
    }
}

/// Starts a segment whose first frame will have this number.
fn create(folder: &Path, number: u64) -> io::Result<(Segment, File)> {
    let path = folder.join(format!("log-{number:020}.wal"));
    // Truncating: a segment whose header was cut off may be there, and holds nothing.
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
    file.write_all(&format::file_header(LOG_MAGIC, number))?;
    file.sync_all()?;
    sync_folder(folder)?;
    Ok((Segment { path, bytes: FILE_HEADER as u64, last_revision: 0 }, file))
}

/// Takes a torn tail off a segment.
fn cut(path: &Path, length: usize) -> Result<(), StoreError> {
    tracing::warn!(path = %path.display(), length, "cutting off a write that was never completed");
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length as u64)?;
        file.sync_all()
    };
    cut().map_err(io_error(path))
}

fn read_segment(
    path: &Path,
    first: u64,
    last: bool,
    apply: &mut dyn FnMut(Record) -> Result<(), String>,
) -> Result<Scan, StoreError> {
    let data = fs::read(path).map_err(io_error(path))?;
    let length = data.len();
    if last && (length < FILE_HEADER || data.iter().all(|byte| *byte == 0)) {
        // The power went while the segment was being created.
        return Ok(Scan { end: 0, length, next_number: first });
    }
    let number = format::read_file_header(LOG_MAGIC, &data).map_err(|e| corrupt(path, 0, e))?;
    if number != first {
        return Err(corrupt(path, 0, "the number in the header is not that of the name"));
    }
    let mut scan = Scan { end: FILE_HEADER, length, next_number: first };
    loop {
        match format::read_frame(&data, scan.end, scan.next_number) {
            Frame::End => return Ok(scan),
            Frame::Torn if last => return Ok(scan),
            Frame::Torn => return Err(corrupt(path, scan.end, "a frame is cut short")),
            Frame::Damaged(what) => return Err(corrupt(path, scan.end, what)),
            Frame::Whole { payload, next } => {
                for record in Records(payload) {
                    let applied = record.map_err(str::to_owned).and_then(&mut *apply);
                    applied.map_err(|what| corrupt(path, scan.end + FRAME_HEADER, what))?;
                }
                scan.end = next;
                scan.next_number += 1;
            }
        }
    }
}
