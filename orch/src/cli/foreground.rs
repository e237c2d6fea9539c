//! What a command needs that runs in the foreground until a signal stops it.

use std::{
    io::{IsTerminal, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Failure;

/// Logs to standard error what `filter` lets through, in the notation of the tracing crate.
pub(super) fn log_to_standard_error(filter: &str) -> Result<(), Failure> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(format!("--log {filter:?}: {error}"), "try info"))?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Runs a command to its end on all of the machine's processors.
pub(super) fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error, "the system gives no threads"))?;
    let result = runtime.block_on(command);
    // Blocking reads, such as a log that is followed, do not keep the process alive.
    runtime.shutdown_background();
    result
}

/// Writes a line to standard output.
pub(super) fn say(line: &str) {
    // Whoever closed our output does not want to read it.
    let mut out = std::io::stdout();
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// An address that clients on this machine can dial.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    }
}

/// SIGINT and SIGTERM, heard from the very start.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen.
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::of(&error, "signals cannot be handled here"))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
