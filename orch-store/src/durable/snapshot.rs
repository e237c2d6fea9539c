//! Snapshots: the live keys at one revision, so that the log before it can go.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{
    format::{self, FILE_HEADER, FRAME_HEADER, Frame, Record, Records, SNAPSHOT_MAGIC},
    log::{corrupt, io_error, numbered, sync_folder},
};
use crate::{
    StoreError,
    engine::{State, index::Index, version::Version},
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

/// Writes a snapshot, then removes the snapshots and segments that it replaces.
pub(super) fn write(folder: &Path, source: &Source, superfluous: &[PathBuf]) -> io::Result<()> {
    let name = folder.join(format!("snapshot-{:020}.snap", source.revision));
    let temporary = name.with_extension("tmp");
    let mut file = Writer::create(&temporary, source.revision)?;
    for (id, ttl_s) in &source.leases {
        file.put(&Record::Grant { id: *id, ttl_s: *ttl_s })?;
    }
    let mut count = 0;
    for entry in
        source.keys.range(&KeyRange::prefix("")).filter_map(|head| head.at(source.revision))
    {
        file.put(&Record::Entry(entry.clone()))?;
        count += 1;
    }
    file.put(&Record::End { count })?;
    file.finish()?;
    fs::rename(&temporary, &name)?;
    sync_folder(folder)?;
    let older = numbered(folder, "snapshot-", ".snap").map_err(io::Error::other)?;
    for (_, path) in older.iter().filter(|(revision, _)| *revision < source.revision) {
        fs::remove_file(path)?;
    }
    // Oldest first: whenever this stops, what is left has no gap.
    superfluous.iter().try_for_each(fs::remove_file)?;
    sync_folder(folder)
}

struct Writer {
    file: BufWriter<File>,
    frame: Vec<u8>,
    number: u64,
}

impl Writer {
    fn create(path: &Path, revision: Revision) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&format::file_header(SNAPSHOT_MAGIC, revision))?;
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

/// Reads the newest snapshot into an empty state; `false` if there is none.
pub(super) fn read(folder: &Path, state: &mut State) -> Result<bool, StoreError> {
    for (_, path) in numbered(folder, "snapshot-", ".tmp")? {
        fs::remove_file(&path).map_err(io_error(&path))?;
    }
    let Some((revision, path)) = numbered(folder, "snapshot-", ".snap")?.pop() else {
        return Ok(false);
    };
    let data = fs::read(&path).map_err(io_error(&path))?;
    let number = format::read_file_header(SNAPSHOT_MAGIC, &data);
    if number.map_err(|what| corrupt(&path, 0, what))? != revision {
        return Err(corrupt(&path, 0, "the revision in the header is not that of the name"));
    }
    state.revision = revision;
    state.compacted = revision;
    let (mut at, mut number, mut count, mut ended) = (FILE_HEADER, 1, 0, false);
    loop {
        match format::read_frame(&data, at, number) {
            Frame::End if ended => return Ok(true),
            Frame::End | Frame::Torn => return Err(corrupt(&path, at, "the file is cut short")),
            Frame::Damaged(what) => return Err(corrupt(&path, at, what)),
            Frame::Whole { payload, next } => {
                for record in Records(payload) {
                    let applied = record.and_then(|record| restore(state, record, &mut count));
                    ended = applied.map_err(|what| corrupt(&path, at + FRAME_HEADER, what))?;
                }
                (at, number) = (next, number + 1);
            }
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
