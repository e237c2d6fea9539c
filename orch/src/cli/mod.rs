//! What the command line takes and does.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod choices;
mod failure;
mod foreground;
mod store;
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
    /// The store by itself, without a cluster
    Store(store::StoreArguments),
}

/// The exit code of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Says what is wrong with a command line, in one line; or shows the help that was asked for.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    // What follows the first paragraph is how to use the command, which its help shows better.
    let text = error.to_string();
    let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let command = match std::env::args().nth(1).as_deref() {
        Some("store") => "store serve",
        _ => "up",
    };
    eprintln!("orch: {}", Failure::new(what, format!("see `orch {command} --help`")));
    ExitCode::from(USAGE)
}

/// Runs a command to its end.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Up(arguments) => up::run(arguments),
        Command::Store(arguments) => store::run(arguments),
    }
}
