//! Recordings: files of JSON lines that are written as things happen and read once they have.
//!
//! ```
//! # use orch_core::recording::{LineReader, LineWriter};
//! # #[derive(Clone, Default)]
//! # struct File(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
//! # impl std::io::Write for File {
//! #     fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> { self.0.lock().write(bytes) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # let file = File::default();
//! let writer = LineWriter::to(file.clone()); // a File, or whatever can be written to
//! writer.write(&["a", "line"]);
//! writer.finish()?;
//!
//! # let file = file.0.lock().clone();
//! let mut reader = LineReader::new(&file[..]);
//! assert_eq!(reader.next_line::<Vec<String>>()?, Some(vec!["a".into(), "line".into()]));
//! assert_eq!(reader.next_line::<Vec<String>>()?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    fmt,
    io::{self, BufRead, BufWriter, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

/// No line is longer: what is, is no recording.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Writes lines to a file, or whatever can be written to. Cheap to clone.
///
/// Lines are buffered. Whoever writes does not wait for the disk otherwise, and goes on if it is
/// full: then the recording ends there, and [`finish`](Self::finish) says so.
#[derive(Clone)]
pub struct LineWriter {
    sink: Arc<Mutex<Sink>>,
}

struct Sink {
    out: BufWriter<Box<dyn Write + Send>>,
    failed: Option<io::Error>,
    ended: bool,
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineWriter")
    }
}

impl LineWriter {
    /// A writer of a file that is empty.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let out = BufWriter::new(Box::new(out) as Box<dyn Write + Send>);
        Self { sink: Arc::new(Mutex::new(Sink { out, failed: None, ended: false })) }
    }

    /// Writes a line, unless an earlier one could not be written.
    pub fn write(&self, line: &impl Serialize) {
        let mut sink = self.sink.lock();
        if sink.ended {
            return;
        }
        let written = serde_json::to_writer(&mut sink.out, line).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| sink.out.write_all(b"\n")) {
            tracing::warn!(%error, "the recording ends here");
            sink.failed = Some(error);
            sink.ended = true;
        }
    }

    /// Writes out what is buffered. The recording may go on.
    ///
    /// # Errors
    /// The first error of the file; nothing was recorded after it.
    pub fn finish(&self) -> io::Result<()> {
        let mut sink = self.sink.lock();
        match sink.failed.take() {
            Some(error) => Err(error),
            None if sink.ended => Err(io::Error::other("the recording ended with an error")),
            None => sink.out.flush(),
        }
    }
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The file cannot be read.
    #[error("the recording cannot be read")]
    Io(#[from] io::Error),
    /// The line is damaged, or means something else.
    #[error("line {line} of the recording: {message}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Reads lines. What follows the last whole line, as after a crash, is left out.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    bytes: Vec<u8>,
    line: usize,
}

impl<R: BufRead> LineReader<R> {
    /// A reader from the first line on.
    pub fn new(input: R) -> Self {
        Self { input, bytes: Vec::new(), line: 0 }
    }

    /// The next whole line; `None` if there is none.
    ///
    /// # Errors
    /// [`LineError`] if it cannot be read or is no such line. The one after it may be read then.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        self.bytes.clear();
        let read = (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.bytes)?;
        let line = self.line + 1;
        let damaged = |message: String| LineError::Line { line, message };
        if self.bytes.pop() != Some(b'\n') {
            let whole = (read as u64) < LINE_BYTES_MAX;
            return if whole { Ok(None) } else { Err(damaged("it is too long".to_owned())) };
        }
        self.line = line;
        serde_json::from_slice(&self.bytes).map(Some).map_err(|error| damaged(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.0.min(bytes.len());
            self.0 -= room;
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_cut_off_is_left_out() {
        let mut reader = LineReader::new(&b"1\n2\n3"[..]);
        assert_eq!(reader.next_line::<u8>().unwrap(), Some(1));
        assert_eq!(reader.next_line::<u8>().unwrap(), Some(2));
        assert_eq!(reader.next_line::<u8>().unwrap(), None);
    }

    #[test]
    fn damage_is_told_with_its_line() {
        let mut reader = LineReader::new(&b"1\n\"two\"\n3\n"[..]);
        assert_eq!(reader.next_line::<u8>().unwrap(), Some(1));
        let error = reader.next_line::<u8>().unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the recording: invalid type"), "{error}");
        assert_eq!(reader.next_line::<u8>().unwrap(), Some(3));
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_nothing_else() {
        let writer = LineWriter::to(Full(20_000));
        for _ in 0..100 {
            writer.write(&"a".repeat(1000));
        }
        assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        writer.write(&"more");
        assert!(writer.finish().is_err(), "it does not go on behind a gap");
    }
}
