//! `orch store`.

use clap::{Args, Subcommand};

use super::Failure;

mod folder;
mod serve;

/// What `orch store` takes.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Serve a store as etcd in the foreground; Ctrl-C or SIGTERM stops it.
    Serve(serve::ServeArguments),
    /// Write the newest state of a store that nobody has open to a file
    Backup(folder::BackupArguments),
    /// Make a store from a backup
    Restore(folder::RestoreArguments),
    /// Make a store from a snapshot of etcd, as `etcdctl snapshot save` writes it
    Import(folder::ImportArguments),
    /// Read a whole store that nobody has open, and verify every checksum
    Check(folder::CheckArguments),
}

/// Runs a command to its end.
pub(super) fn run(arguments: StoreArguments) -> Result<(), Failure> {
    match arguments.command {
        StoreCommand::Serve(arguments) => serve::run(arguments),
        StoreCommand::Backup(arguments) => folder::backup(&arguments),
        StoreCommand::Restore(arguments) => folder::restore(&arguments),
        StoreCommand::Import(arguments) => folder::import(&arguments),
        StoreCommand::Check(arguments) => folder::check(&arguments),
    }
}
