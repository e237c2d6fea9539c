//! `containerLogs`: a container's output from its log file, with a tail, since a time, followed.
//!
//! Source: `pkg/kubelet/kuberuntime/logs/logs.go`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use inotify::{EventStream, Inotify, WatchMask};
use jiff::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Body, NodeServer, Query, Refusal};
use crate::{
    logs,
    pods::{ContainerRef, find_container},
    runtime::{ContainerId, LogLocation, Runtime, RuntimeEvents},
};

/// Pieces that wait for the client.
const OUTPUT_BUFFER: usize = 16;
const BLOCK: u64 = 64 * 1024;
/// Longer entries are cut; the CRI format splits lines at 16 KiB.
const LINE_MAX: u64 = 1 << 20;
/// How often a container's state is looked at while its log is followed, beside the runtime's
/// events: a runtime may not tell.
const STATE_CHECK: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
struct Options {
    follow: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

impl Options {
    fn parse(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let negative = |name: &str| Refusal::bad_request(format!("{name} must not be negative"));
        let unsigned = |name: &str| -> Result<Option<u64>, Refusal> {
            query.number(name)?.map(|n| u64::try_from(n).map_err(|_| negative(name))).transpose()
        };
        let since = match (query.one("sinceTime"), unsigned("sinceSeconds")?) {
            (Some(text), _) => {
                let time = text.parse::<Timestamp>();
                Some(time.map_err(|_| Refusal::bad_request("sinceTime is not an RFC 3339 time"))?)
            }
            (None, Some(seconds)) => now.saturating_sub(Duration::from_secs(seconds)).ok(),
            (None, None) => None,
        };
        Ok(Self {
            follow: query.flag("follow"),
            timestamps: query.flag("timestamps"),
            tail: unsigned("tailLines")?,
            since,
            limit_bytes: unsigned("limitBytes")?,
        })
    }
}

/// Answers `/containerLogs/NAMESPACE/POD/CONTAINER`.
pub(super) async fn respond(
    server: &NodeServer,
    wanted: ContainerRef<'_>,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query, server.environment.clock.now())?;
    let container = find_container(&*server.runtime, wanted, query.flag("previous")).await?;
    let location = server.runtime.log_location(&container).await?;
    let (sender, pieces) = mpsc::channel(OUTPUT_BUFFER);
    let mut output =
        Output { sender, timestamps: options.timestamps, left: options.limit_bytes, line: vec![] };
    let runtime = server.runtime.clone();
    tokio::spawn(async move {
        let copied = match location {
            LogLocation::File(path) => {
                let source = Source { path, container: container.id, runtime };
                source.copy(&options, &mut output).await
            }
            LogLocation::Text(text) => copy_text(&text, &options, &mut output).await,
        };
        match copied {
            Err(Stop::Gone) | Ok(()) => {}
            Err(Stop::Io(error)) => {
                // The client has gone if this does not arrive.
                let _gone = output.sender.send(Err(error)).await;
            }
        }
    });
    let frames = ReceiverStream::new(pieces).map(|piece| piece.map(Frame::data));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// Why copying ended early.
enum Stop {
    /// The client went away, or has had as much as it asked for.
    Gone,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Output {
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    timestamps: bool,
    left: Option<u64>,
    line: Vec<u8>,
}

impl Output {
    /// Sends one entry of the log.
    async fn entry(&mut self, line: &[u8], since: Option<Timestamp>) -> Result<(), Stop> {
        let Some(entry) = logs::parse(line) else { return Ok(()) };
        if since.is_some_and(|since| entry.time < since) {
            return Ok(());
        }
        self.line.clear();
        if self.timestamps {
            self.line.extend_from_slice(entry.time_text.as_bytes());
            self.line.push(b' ');
        }
        self.line.extend_from_slice(entry.text);
        if !entry.partial {
            self.line.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let keep = (*left).min(self.line.len() as u64);
            self.line.truncate(keep as usize);
            *left -= keep;
        }
        if !self.line.is_empty() {
            let piece = Bytes::copy_from_slice(&self.line);
            self.sender.send(Ok(piece)).await.map_err(|_| Stop::Gone)?;
        }
        if self.left == Some(0) { Err(Stop::Gone) } else { Ok(()) }
    }
}

async fn copy_text(text: &Arc<str>, options: &Options, output: &mut Output) -> Result<(), Stop> {
    let lines: Vec<&str> = text.lines().collect();
    let tail = options.tail.map_or(lines.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
    for line in &lines[lines.len().saturating_sub(tail)..] {
        output.entry(line.as_bytes(), options.since).await?;
    }
    Ok(())
}

struct Source {
    path: PathBuf,
    container: ContainerId,
    runtime: Arc<dyn Runtime>,
}

impl Source {
    async fn copy(&self, options: &Options, output: &mut Output) -> Result<(), Stop> {
        // Watched before it is read, so that nothing written in between is missed.
        let mut changes =
            if options.follow { Some(Changes::of(&self.path, &*self.runtime)?) } else { None };
        let mut reader = match File::open(&self.path).await {
            Ok(mut file) => {
                seek_tail(&mut file, options.tail).await?;
                Lines::new(file)
            }
            // Nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && options.follow => {
                self.wait_for_file(&mut changes).await?
            }
            Err(error) => return Err(error.into()),
        };
        loop {
            // Asked before reading on: what is written before the end is then read after it.
            let running = options.follow && self.is_running().await;
            while let Some(line) = reader.next().await? {
                output.entry(&line, options.since).await?;
            }
            if let Some(newer) = self.rotated(&reader).await? {
                reader = newer;
                continue;
            }
            match &mut changes {
                Some(changes) if running => {
                    tokio::select! {
                        changed = changes.next() => changed?,
                        () = output.sender.closed() => return Err(Stop::Gone),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    async fn wait_for_file(&self, changes: &mut Option<Changes>) -> Result<Lines, Stop> {
        loop {
            match File::open(&self.path).await {
                Ok(file) => return Ok(Lines::new(file)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Err(error) => match changes {
                    Some(changes) if self.is_running().await => changes.next().await?,
                    _ => return Err(error.into()),
                },
            }
        }
    }

    async fn is_running(&self) -> bool {
        let containers = self.runtime.containers(None).await.unwrap_or_default();
        containers.iter().any(|c| c.id == self.container && c.is_running())
    }

    /// The file that took the place of the one being read.
    async fn rotated(&self, reader: &Lines) -> io::Result<Option<Lines>> {
        use std::os::unix::fs::MetadataExt;
        let Ok(there) = tokio::fs::metadata(&self.path).await else { return Ok(None) };
        let here = reader.0.get_ref().metadata().await?;
        if (there.dev(), there.ino()) == (here.dev(), here.ino()) {
            return Ok(None);
        }
        Ok(File::open(&self.path).await.ok().map(Lines::new))
    }
}

/// Complete lines of a file that may still grow.
struct Lines(BufReader<File>, Vec<u8>);

impl Lines {
    fn new(file: File) -> Self {
        Self(BufReader::with_capacity(BLOCK as usize, file), Vec::new())
    }

    /// The next complete line, without its end; `None` at the end of what is there so far.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let room = LINE_MAX.saturating_sub(self.1.len() as u64).max(1);
            let read = (&mut self.0).take(room).read_until(b'\n', &mut self.1).await?;
            if self.1.last() == Some(&b'\n') {
                self.1.pop();
                return Ok(Some(std::mem::take(&mut self.1)));
            }
            if read == 0 {
                return Ok(None);
            }
            if self.1.len() as u64 >= LINE_MAX {
                // No entry is this long: the file is damaged here. Go on behind it.
                self.1.clear();
            }
        }
    }
}

/// Moves to the start of the last `tail` lines.
async fn seek_tail(file: &mut File, tail: Option<u64>) -> io::Result<()> {
    let Some(tail) = tail else { return Ok(()) };
    let end = file.metadata().await?.len();
    let (mut at, mut seen) = (end, 0);
    let mut block = vec![0; BLOCK as usize];
    while at > 0 && tail > 0 {
        let length = at.min(BLOCK);
        at -= length;
        file.seek(SeekFrom::Start(at)).await?;
        let block = &mut block[..length as usize];
        file.read_exact(block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            // The line end at the very end of the file ends the last line.
            let position = at + index as u64;
            if *byte == b'\n' && position + 1 != end {
                seen += 1;
                if seen == tail {
                    file.seek(SeekFrom::Start(position + 1)).await?;
                    return Ok(());
                }
            }
        }
    }
    file.seek(SeekFrom::Start(if tail == 0 { end } else { 0 })).await?;
    Ok(())
}

/// Tells that a log file or its container may have changed.
struct Changes {
    files: EventStream<[u8; 4096]>,
    events: RuntimeEvents,
}

impl Changes {
    fn of(path: &Path, runtime: &dyn Runtime) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVE | WatchMask::DELETE;
        inotify.watches().add(path.parent().unwrap_or(path), mask)?;
        Ok(Self { files: inotify.into_event_stream([0; 4096])?, events: runtime.events() })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            changed = self.files.next() => {
                // Which file it was does not matter: the reader looks.
                changed.transpose()?;
            }
            event = self.events.next() => {
                if event.is_none() {
                    self.events = futures::stream::pending().boxed();
                }
            }
            () = tokio::time::sleep(STATE_CHECK) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tail_of(content: &str, tail: Option<u64>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        tokio::fs::write(&path, content).await.unwrap();
        let mut file = File::open(&path).await.unwrap();
        seek_tail(&mut file, tail).await.unwrap();
        let mut lines = Lines::new(file);
        let mut out = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            out.push(String::from_utf8(line).unwrap());
        }
        out
    }

    #[tokio::test]
    async fn the_tail_counts_complete_lines() {
        assert_eq!(tail_of("a\nb\nc\n", None).await, ["a", "b", "c"]);
        assert_eq!(tail_of("a\nb\nc\n", Some(2)).await, ["b", "c"]);
        assert_eq!(tail_of("a\nb\nc\n", Some(9)).await, ["a", "b", "c"]);
        assert!(tail_of("a\nb\nc\n", Some(0)).await.is_empty());
        assert!(tail_of("", Some(3)).await.is_empty());
        let long = "x".repeat(BLOCK as usize);
        assert_eq!(tail_of(&format!("{long}\n{long}\ny\n"), Some(2)).await, [long, "y".into()]);
    }

    #[tokio::test]
    async fn entries_are_cut_at_the_limit_and_before_the_time() {
        let (sender, mut pieces) = mpsc::channel(8);
        let mut output = Output { sender, timestamps: false, left: Some(5), line: Vec::new() };
        let since = "2020-01-01T00:00:00Z".parse().ok();
        for line in [
            "2019-01-01T00:00:00Z stdout F old",
            "not an entry",
            "2021-01-01T00:00:00Z stdout P ab",
        ] {
            assert!(output.entry(line.as_bytes(), since).await.is_ok());
        }
        let last = output.entry(b"2021-01-01T00:00:00Z stderr F cdefgh", since).await;
        assert!(matches!(last, Err(Stop::Gone)));
        drop(output);
        let mut text = Vec::new();
        while let Some(piece) = pieces.recv().await {
            text.extend(piece.unwrap());
        }
        assert_eq!(text, b"abcde");
    }
}
