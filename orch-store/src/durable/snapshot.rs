//! Snapshots: the live keys at one revision, so that the log before it can go.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use super::{
    disk::{corrupt, io_error, numbered, sync_folder},
    format::{
        self, FILE_HEADER, FRAME_HEADER, FileHeader, PAYLOAD_MAX, Record, Records, SNAPSHOT_MAGIC,
    },
};
use crate::{
    StoreError,
    engine::{Engine, State, index::Index, version::Version},
    store::{KeyRange, LeaseId, Revision},
};

/// So many bytes go into one frame.
const CHUNK: usize = 1 << 20;

/// What a snapshot is made of. The map is persistent: writers go on meanwhile.
pub(super) struct Source {
    pub(super) revision: Revision,
    pub(super) keys: Index,
    pub(super) leases: Vec<(LeaseId, i64)>,
}

impl Source {
    /// Everything as it is now, as of `revision` or of the newest.
    pub(super) fn of(engine: &Engine, revision: Option<Revision>) -> Self {
        let state = engine.state.read();
        Self {
            revision: revision.unwrap_or(state.revision),
            keys: state.keys.clone(),
            leases: state.leases.iter().collect(),
        }
    }
}

/// Writes a snapshot, then removes the snapshots and segments that it replaces.
pub(super) fn replace(
    folder: &Path,
    source: &Source,
    superfluous: &[PathBuf],
) -> Result<(), StoreError> {
    let path = folder.join(format!("snapshot-{:020}.snap", source.revision));
    write(&path, source)?;
    let older = numbered(folder, "snapshot-", ".snap")?;
    let older = older.iter().filter(|(revision, _)| *revision < source.revision);
    // Oldest first: whenever this stops, what is left has no gap.
    let mut gone = older.map(|(_, path)| path).chain(superfluous);
    gone.try_for_each(|path| fs::remove_file(path).map_err(io_error(path)))?;
    sync_folder(folder).map_err(io_error(folder))
}

/// Writes a snapshot. It has its name only once it is whole and on disk.
pub(super) fn write(path: &Path, source: &Source) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let whole = || {
        let mut file = Writer::create(&temporary, source.revision)?;
        for (id, ttl_s) in &source.leases {
            file.put(&Record::Grant { id: *id, ttl_s: *ttl_s })?;
        }
        let everything = KeyRange::prefix("");
        let mut count = 0;
        for head in source.keys.range(&everything) {
            let Some(entry) = head.at(source.revision) else { continue };
            file.put(&Record::Entry(entry.clone()))?;
            count += 1;
        }
        file.put(&Record::End { count })?;
        file.finish()?;
        fs::rename(&temporary, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    whole().map_err(|error| {
        // Half a snapshot would only take space.
        let _ = fs::remove_file(&temporary);
        io_error(path)(error)
    })
}

struct Writer {
    file: BufWriter<File>,
    frame: Vec<u8>,
    number: u64,
}

impl Writer {
    fn create(path: &Path, revision: Revision) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        let header = FileHeader { number: revision, length: 0 };
        file.write_all(&header.encode(SNAPSHOT_MAGIC))?;
        Ok(Self { file, frame: vec![0; FRAME_HEADER], number: 1 })
    }

    fn put(&mut self, record: &Record) -> io::Result<()> {
        format::put_record(&mut self.frame, record);
        if self.frame.len() >= CHUNK { self.flush_frame() } else { Ok(()) }
    }

    fn flush_frame(&mut self) -> io::Result<()> {
        if self.frame.len() > FRAME_HEADER {
            format::seal_frame(&mut self.frame, self.number);
            self.file.write_all(&self.frame)?;
            self.frame.truncate(FRAME_HEADER);
            self.number += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush_frame()?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// Reads the newest snapshot of a folder into an empty state; `false` if there is none.
pub(super) fn read(folder: &Path, state: &mut State) -> Result<bool, StoreError> {
    let Some((revision, path)) = numbered(folder, "snapshot-", ".snap")?.pop() else {
        return Ok(false);
    };
    if read_file(&path, state)? != revision {
        return Err(corrupt(&path, 0, "the revision in the header is not that of the name"));
    }
    Ok(true)
}

/// Reads a snapshot into an empty state; gives its revision. Holds one frame of it at a time.
pub(super) fn read_file(path: &Path, state: &mut State) -> Result<Revision, StoreError> {
    let file = File::open(path).map_err(io_error(path))?;
    let mut reader = Reader { file: BufReader::with_capacity(CHUNK, file), path, at: 0 };
    let header = reader.take(FILE_HEADER)?;
    let header = FileHeader::decode(SNAPSHOT_MAGIC, &header);
    let revision = header.map_err(|what| corrupt(path, 0, what))?.number;
    state.revision = revision;
    state.compacted = revision;
    let (mut number, mut count, mut ended) = (1, 0, false);
    while !ended {
        let at = reader.at;
        let payload = reader.frame(number)?;
        for record in Records(&payload) {
            let applied = record.and_then(|record| restore(state, record, &mut count));
            ended = applied.map_err(|what| corrupt(path, at + FRAME_HEADER, what))?;
        }
        number += 1;
    }
    match reader.file.fill_buf() {
        Ok([]) => Ok(revision),
        Ok(_) => Err(corrupt(path, reader.at, "something follows the end")),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Reads a snapshot's file from its beginning to its end.
struct Reader<'a> {
    file: BufReader<File>,
    path: &'a Path,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => self.at += length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt(self.path, self.at, "the file is cut short"));
            }
            Err(error) => return Err(io_error(self.path)(error)),
        }
        Ok(bytes)
    }

    /// The payload of the next frame, which must have this number.
    fn frame(&mut self, number: u64) -> Result<Vec<u8>, StoreError> {
        let at = self.at;
        let header = self.take(FRAME_HEADER)?;
        let header = format::read_frame_header(&header);
        let (length, found, checksum) = header
            .ok_or_else(|| corrupt(self.path, at, "the checksum of a header does not match"))?;
        if found != number || length > PAYLOAD_MAX {
            return Err(corrupt(self.path, at, "a frame has a number out of order"));
        }
        let payload = self.take(length)?;
        match crc32c::crc32c(&payload) == checksum {
            true => Ok(payload),
            false => Err(corrupt(self.path, at, "the checksum of a frame does not match")),
        }
    }
}

/// Puts one record into the state; `true` at the end.
fn restore(state: &mut State, record: Record, count: &mut u64) -> Result<bool, &'static str> {
    match record {
        Record::Grant { id, ttl_s } => state.leases.grant(id, ttl_s),
        Record::Entry(entry) => {
            *count += 1;
            state.leases.attach(&entry.key, None, entry.lease);
            state.keys.insert(Version::restored(entry));
        }
        Record::End { count: expected } if expected == *count => return Ok(true),
        Record::End { .. } => return Err("the number of entries is not the one recorded"),
        _ => return Err("a record that does not belong into a snapshot"),
    }
    Ok(false)
}
