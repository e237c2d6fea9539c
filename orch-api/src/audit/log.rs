//! Events in a file, one JSON document a line.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/log`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Event, Sink, SinkError};

/// What can be chosen about a [`LogFile`].
#[derive(Clone, Copy, Debug)]
pub struct LogFileOptions {
    /// How large the file becomes before a new one is begun, in bytes. Default: 100 MiB, as
    /// upstream's. `None`: it grows for ever.
    pub bytes_max: Option<u64>,
    /// How many old files are kept, `FILE.1` the youngest. Default: 10.
    pub old_files_max: usize,
}

impl Default for LogFileOptions {
    fn default() -> Self {
        Self { bytes_max: Some(100 << 20), old_files_max: 10 }
    }
}

/// Appends events to a file. An event is in the file when [`Sink::keep`] returns.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    options: LogFileOptions,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        // Bodies may hold what not everybody may read.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl LogFile {
    /// Opens the file, or makes it, for its owner only.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: impl Into<PathBuf>, options: LogFileOptions) -> io::Result<Self> {
        let path = path.into();
        let open = Mutex::new(Open::at(&path)?);
        Ok(Self { path, options, open })
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        let full = |bytes: u64| self.options.bytes_max.is_some_and(|max| bytes > max);
        if open.bytes > 0 && full(open.bytes + lines.len() as u64) {
            self.rotate()?;
            *open = Open::at(&self.path)?;
        }
        open.file.write_all(lines)?;
        open.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let kept = self.options.old_files_max;
        for number in (1..kept).rev().filter(|number| numbered(*number).exists()) {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
        if kept == 0 { fs::remove_file(&self.path) } else { fs::rename(&self.path, numbered(1)) }
    }
}

#[async_trait]
impl Sink for LogFile {
    async fn keep(&self, events: Vec<Arc<Event>>) -> Result<(), SinkError> {
        let lost = |why: String| SinkError { lost: events.len(), why };
        let mut lines = Vec::new();
        for event in &events {
            serde_json::to_writer(&mut lines, &**event).map_err(|error| lost(error.to_string()))?;
            lines.push(b'\n');
        }
        self.append(&lines).map_err(|error| lost(error.to_string()))
    }
}
