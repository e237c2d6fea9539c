//! Pseudo-terminals.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd, unix::ffi::OsStringExt as _},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::runtime::TerminalSize;

/// A new pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// The side of whoever watches.
    pub(crate) master: PtyMaster,
    /// The device for the program.
    pub(crate) terminal: PathBuf,
}

impl Pty {
    #[expect(deprecated, reason = "the safe constructor of AsyncFd; the descriptor is owned here")]
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let fd = openpt(flags)?;
        grantpt(&fd)?;
        unlockpt(&fd)?;
        let name = ptsname(&fd, Vec::new())?.into_bytes();
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let master = PtyMaster(Arc::new(AsyncFd::new(File::from(fd))?));
        Ok(Self { master, terminal: PathBuf::from(std::ffi::OsString::from_vec(name)) })
    }
}

/// The watching side of a pseudo-terminal. The clones are one.
#[derive(Clone, Debug)]
pub(crate) struct PtyMaster(Arc<AsyncFd<File>>);

impl PtyMaster {
    /// Tells the program how large its terminal is.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(self.0.get_ref().as_fd(), size) {
            tracing::debug!(%error, "the terminal was not resized");
        }
    }
}

impl AsyncRead for PtyMaster {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let buffer = out.initialize_unfilled();
            match guard.try_io(|fd| fd.get_ref().read(buffer)) {
                Ok(Ok(read)) => {
                    out.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // Nobody holds the other side any more.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for PtyMaster {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| fd.get_ref().write(data)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
