//! `orch store backup`, `restore`, `import` and `check`: the folder of a store that is not in use.

use std::path::PathBuf;

use clap::Args;
use orch::store::{
    DurableOptions, DurableStore, Revision, StoreError,
    serve::{ImportError, import_snapshot},
};

use crate::cli::{Failure, foreground};

/// What `orch store backup` takes.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Folder of the store
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The backup, which must not exist yet
    file: PathBuf,
}

/// What `orch store restore` takes.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Folder for the store, which must not have one yet
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Added to the backup's revision, so that clients see no revision twice; more than were
    /// given since the backup
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    revisions_ahead: u64,
    /// The backup
    file: PathBuf,
}

/// What `orch store import` takes.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Folder for the store, which must be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The snapshot of etcd
    file: PathBuf,
}

/// What `orch store check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Folder of the store
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Why a store cannot be opened, and what to do.
pub(super) fn not_opened(error: &StoreError) -> Failure {
    let mend = match error {
        StoreError::Locked(_) => "stop the other orch, or choose another --data-dir",
        StoreError::Corrupt(_) => "restore the folder from a backup, or start anew in another",
        StoreError::Invalid(_) => "choose another name",
        _ => "choose a folder that can be written with --data-dir DIR",
    };
    Failure::of(error, mend)
}

fn tell(folder: &std::path::Path, revision: Revision, keys: usize) {
    let plural = if keys == 1 { "" } else { "s" };
    let folder = folder.display();
    foreground::say(&format!("orch: {folder} is at revision {revision} with {keys} key{plural}"));
}

/// Writes a backup.
pub(super) fn backup(arguments: &BackupArguments) -> Result<(), Failure> {
    let BackupArguments { data_dir, file } = arguments;
    // Opening would create what is not there.
    if !data_dir.is_dir() {
        let what = format!("there is no folder {}", data_dir.display());
        return Err(Failure::new(what, "choose that of a store with --data-dir DIR"));
    }
    let store = DurableStore::open(data_dir, DurableOptions::default());
    let store = store.map_err(|error| not_opened(&error))?;
    let revision = store.backup(file).map_err(|error| not_opened(&error))?;
    let file = file.display();
    foreground::say(&format!("orch: revision {revision} is in {file}"));
    Ok(())
}

/// Makes a store from a backup.
pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { data_dir, revisions_ahead, file } = arguments;
    let restored = DurableStore::restore(file, data_dir, *revisions_ahead);
    restored.map_err(|error| not_opened(&error))?;
    check(&CheckArguments { data_dir: data_dir.clone() })
}

/// Makes a store from a snapshot of etcd.
pub(super) fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let ImportArguments { data_dir, file } = arguments;
    let store = DurableStore::open(data_dir, DurableOptions::default());
    let store = store.map_err(|error| not_opened(&error))?;
    foreground::run(async {
        import_snapshot(file, &store).await.map(drop).map_err(|error| {
            let mend = match error {
                ImportError::NotEmpty => "choose a folder without a store with --data-dir DIR",
                _ => "name a file that `etcdctl snapshot save` wrote",
            };
            Failure::of(&error, mend)
        })
    })?;
    drop(store);
    check(&CheckArguments { data_dir: data_dir.clone() })
}

/// Verifies a folder.
pub(super) fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let checked = DurableStore::check(&arguments.data_dir);
    let (revision, keys) = checked.map_err(|error| not_opened(&error))?;
    tell(&arguments.data_dir, revision, keys);
    Ok(())
}
