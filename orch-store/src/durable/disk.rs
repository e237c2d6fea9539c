//! The file operations that can fail while the store runs, so that tests can make them fail.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::FallocateFlags, io::Errno};

use crate::StoreError;

/// What the log needs of a disk.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Makes a file at least so long, with space reserved for all of it. What is new reads as
    /// zero.
    fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // A file system without reservations still gives the length.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if file.metadata()?.len() < length => {
                file.set_len(length)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes all bytes at an offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
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

/// Removes what was begun and never finished.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    for prefix in ["log-", "snapshot-"] {
        for (_, path) in numbered(folder, prefix, ".tmp")? {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}
