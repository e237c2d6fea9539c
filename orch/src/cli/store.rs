//! `orch store`.

use clap::{Args, Subcommand};

use super::Failure;

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
}

/// Runs a command to its end.
pub(super) fn run(arguments: StoreArguments) -> Result<(), Failure> {
    match arguments.command {
        StoreCommand::Serve(arguments) => serve::run(arguments),
    }
}
