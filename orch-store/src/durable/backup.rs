//! Backups: the newest state in one file, taken while the store works, and folders made from one.

use std::path::Path;

use super::{
    DurableStore,
    disk::{io_error, numbered},
    lock,
    snapshot::{self, Source},
};
use crate::{
    StoreError,
    engine::State,
    store::{KeyRange, Revision},
};

impl DurableStore {
    /// Writes the newest state, leases included, to a file that must not exist yet; gives its
    /// revision. Blocks its thread; writers and readers go on meanwhile. The file has its name
    /// only once it is whole and on disk.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the file exists, [`StoreError::Io`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use orch_store::{DurableOptions, DurableStore, Store, Write};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let store = DurableStore::open(folder.path().join("a"), DurableOptions::default())?;
    /// store.write(Write::create("/k", "v")).await?;
    /// store.backup(folder.path().join("backup"))?;
    ///
    /// DurableStore::restore(folder.path().join("backup"), folder.path().join("b"), 0)?;
    /// let restored = DurableStore::open(folder.path().join("b"), DurableOptions::default())?;
    /// assert_eq!(restored.revision(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backup(&self, file: impl AsRef<Path>) -> Result<Revision, StoreError> {
        let file = file.as_ref();
        if file.exists() {
            return Err(StoreError::Invalid(format!("{} exists already", file.display())));
        }
        let source = Source::of(&self.inner.engine, None);
        snapshot::write(file, &source)?;
        Ok(source.revision)
    }

    /// Makes a folder from a backup, to be opened then; gives its revision. `revisions_ahead` is
    /// added to the backup's revision: with more than were given after the backup was taken, no
    /// client sees a revision again that it knows, and watches from before get
    /// [`StoreError::Compacted`] and begin anew, as with etcd's `--bump-revision`. 0 is for stores
    /// that nobody remembers.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the folder has a store already, [`StoreError::Corrupt`] for a
    /// damaged backup, [`StoreError::Locked`], [`StoreError::Io`].
    pub fn restore(
        file: impl AsRef<Path>,
        folder: impl AsRef<Path>,
        revisions_ahead: u64,
    ) -> Result<Revision, StoreError> {
        let (file, folder) = (file.as_ref(), folder.as_ref());
        let mut state = State::default();
        let revision = snapshot::read_file(file, &mut state)?;
        let revision = revision.checked_add(revisions_ahead).filter(|r| *r <= i64::MAX as u64);
        let revision = revision
            .ok_or_else(|| StoreError::Invalid("the revision is out of range".to_owned()))?;
        let _lock = lock(folder)?;
        for (prefix, suffix) in [("log-", ".wal"), ("snapshot-", ".snap")] {
            if !numbered(folder, prefix, suffix)?.is_empty() {
                let what = format!("{} has a store already", folder.display());
                return Err(StoreError::Invalid(what));
            }
        }
        let leases = state.leases.iter().collect();
        let source = Source { revision, keys: state.keys, leases };
        snapshot::write(&folder.join(format!("snapshot-{revision:020}.snap")), &source)?;
        Ok(revision)
    }

    /// Reads a whole folder and its checksums without changing it; gives the newest revision and
    /// the number of live keys.
    ///
    /// # Errors
    /// As [`DurableStore::open`].
    pub fn check(folder: impl AsRef<Path>) -> Result<(Revision, usize), StoreError> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            let missing = std::io::ErrorKind::NotFound;
            return Err(io_error(folder)(missing.into()));
        }
        let _lock = lock(folder)?;
        let mut state = State::default();
        let found = snapshot::read(folder, &mut state)?;
        super::log::read(folder, !found, &mut |record| super::replay(&mut state, record))?;
        Ok((state.revision, state.keys.count(&KeyRange::prefix(""))))
    }
}
