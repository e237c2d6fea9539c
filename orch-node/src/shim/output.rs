//! A container's output on its way to the log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use orch_core::clock::{Clock as _, SystemClock};

use crate::logs::{LogStream, format_entry};

/// A longer line is written in pieces.
const LINE_MAX: usize = 16 * 1024;

/// Appends entries to a log file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    pending: [Vec<u8>; 2],
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, pending: Default::default() })
    }

    /// Goes on in a new file, after the old one was renamed.
    pub(super) fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => tracing::warn!(%error, "the log could not be reopened"),
        }
    }

    fn pending(&mut self, stream: LogStream) -> &mut Vec<u8> {
        &mut self.pending[usize::from(stream == LogStream::Stderr)]
    }

    /// Takes output in; writes the lines that are complete.
    pub(super) fn take(&mut self, stream: LogStream, data: &[u8]) -> io::Result<()> {
        let now = SystemClock.now();
        let pending = self.pending(stream);
        pending.extend_from_slice(data);
        let mut out = Vec::with_capacity(data.len() + 64);
        let mut rest = pending.as_slice();
        loop {
            let end = rest.iter().take(LINE_MAX).position(|&b| b == b'\n');
            match end {
                Some(end) => {
                    format_entry(&mut out, now, stream, false, &rest[..end]);
                    rest = &rest[end + 1..];
                }
                None if rest.len() >= LINE_MAX => {
                    format_entry(&mut out, now, stream, true, &rest[..LINE_MAX]);
                    rest = &rest[LINE_MAX..];
                }
                None => break,
            }
        }
        let keep = rest.len();
        let gone = pending.len() - keep;
        pending.drain(..gone);
        self.file.write_all(&out)
    }

    /// Writes what is left without a line end.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let now = SystemClock.now();
        let mut out = Vec::new();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let rest = std::mem::take(self.pending(stream));
            if !rest.is_empty() {
                format_entry(&mut out, now, stream, false, &rest);
            }
        }
        self.file.write_all(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::parse;

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/0.log");
        let mut log = Log::open(&path).unwrap();
        log.take(LogStream::Stdout, b"one\ntw").unwrap();
        log.take(LogStream::Stderr, b"err").unwrap();
        log.take(LogStream::Stdout, b"o\n").unwrap();
        log.take(LogStream::Stdout, &[b'x'; LINE_MAX + 1]).unwrap();
        log.finish().unwrap();
        let text = std::fs::read(&path).unwrap();
        let entries: Vec<_> = text.split(|&b| b == b'\n').filter_map(parse).collect();
        let lengths: Vec<_> = entries.iter().map(|e| (e.text.len(), e.partial)).collect();
        assert_eq!(lengths, [(3, false), (3, false), (LINE_MAX, true), (1, false), (3, false)]);
    }
}
