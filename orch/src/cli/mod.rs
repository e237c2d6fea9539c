//! What the command line takes and does.

use clap::{Parser, Subcommand};

mod choices;
mod failure;
mod up;

pub(crate) use failure::Failure;

/// A Kubernetes-compatible orchestrator in one process.
#[derive(Debug, Parser)]
#[command(name = "orch", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a cluster in the foreground; Ctrl-C or SIGTERM stops it.
    Up(up::UpArguments),
}

/// Runs a command to its end.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Up(arguments) => up::run(arguments),
    }
}
