//! Streams into and out of containers as data.

use std::fmt;

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::error::RuntimeError;

/// Something to read from.
pub type ByteSource = Box<dyn AsyncRead + Send + Unpin>;
/// Something to write to. Shutting it down closes it.
pub type ByteSink = Box<dyn AsyncWrite + Send + Unpin>;

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What to run, and which streams to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal; standard error is then part of standard output.
    pub tty: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error; not with a terminal.
    pub stderr: bool,
}

/// A running command, or an attachment, with its streams.
///
/// Dropping it ends an attachment, and kills a command that was run by exec.
pub struct StreamSession {
    /// Standard input, if it was asked for.
    pub stdin: Option<ByteSink>,
    /// Standard output, if it was asked for. Ends when nothing holds it open any more.
    pub stdout: Option<ByteSource>,
    /// Standard error, if it was asked for and there is no terminal.
    pub stderr: Option<ByteSource>,
    /// Takes the terminal's new sizes; `None` without a terminal. A full queue may drop sizes.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// The exit code of the command, or of the container that was attached to. Polling it is not
    /// needed for the streams to move. The streams may hold output still to be read after it
    /// completes.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl fmt::Debug for StreamSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSession")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// What a command that has ended left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub exit_code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}
