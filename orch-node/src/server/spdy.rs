//! SPDY/3.1, as far as `kubectl` and container runtimes use it: many streams over one connection.
//!
//! Source: SPDY Protocol, draft 3.1; `github.com/moby/spdystream`, which like this module does
//! not do flow control by window: a stream that is not read holds up the connection once its
//! bounded buffer is full.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use orch_core::node::Connection;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::spdy_dictionary::dictionary;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// Chunks that one stream may hold before the connection waits for its reader.
const STREAM_BUFFER: usize = 64;
/// Frames that wait to be written.
const WRITE_BUFFER: usize = 64;
const FRAME_MAX: usize = 1 << 24;
const DATA_CHUNK: usize = 32 * 1024;
const HEADERS_MAX: usize = 64 * 1024;
const STREAMS_MAX: usize = 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpdyError {
    /// The transport failed.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// The peer does not speak the protocol.
    #[error("SPDY protocol error: {0}")]
    Protocol(&'static str),
}

enum Frame {
    Open(u32, Vec<(&'static str, String)>),
    Reply(u32),
    Data(u32, Bytes, bool),
    Reset(u32),
    Ping(u32),
}

/// The streams that data can come in on.
type Inboxes = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// The headers that it was opened with, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What the peer sends; ends when the peer closes its side.
    pub incoming: mpsc::Receiver<Bytes>,
    /// The side towards the peer.
    pub outgoing: Outgoing,
}

/// The writing side of a stream. Dropping it leaves the stream open; end it with
/// [`Outgoing::close`] or [`Outgoing::reset`].
#[derive(Clone, Debug)]
pub struct Outgoing {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(id, headers) => write!(f, "Open({id}, {headers:?})"),
            Self::Reply(id) => write!(f, "Reply({id})"),
            Self::Data(id, data, fin) => write!(f, "Data({id}, {} bytes, {fin})", data.len()),
            Self::Reset(id) => write!(f, "Reset({id})"),
            Self::Ping(id) => write!(f, "Ping({id})"),
        }
    }
}

impl Outgoing {
    /// Sends data; waits while the connection is busy. `false` if the connection is gone.
    pub async fn send(&self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(DATA_CHUNK));
            if self.frames.send(Frame::Data(self.id, chunk, false)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends this side.
    pub async fn close(&self) {
        // A connection that is gone has nothing left to close.
        let _gone = self.frames.send(Frame::Data(self.id, Bytes::new(), true)).await;
    }

    /// Ends the stream at once, both ways.
    pub async fn reset(&self) {
        let _gone = self.frames.send(Frame::Reset(self.id)).await;
    }
}

/// A connection with its streams. Dropping it ends everything.
#[derive(Debug)]
pub struct Session {
    streams: mpsc::Receiver<Stream>,
    inboxes: Inboxes,
    next_id: u32,
    frames: mpsc::Sender<Frame>,
    _reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
}

impl Session {
    /// Takes over a connection after the upgrade.
    pub fn start<C: Connection>(connection: C) -> Self {
        let (read, write) = tokio::io::split(connection);
        let (frames, queue) = mpsc::channel(WRITE_BUFFER);
        let (opened, streams) = mpsc::channel(STREAM_BUFFER);
        let writer = tokio::spawn(write_frames(write, queue));
        let inboxes = Inboxes::default();
        let reader = Reader {
            read,
            inflate: None,
            inboxes: inboxes.clone(),
            opened,
            frames: frames.clone(),
        };
        let reader = tokio::spawn(async move {
            if let Err(error) = reader.run().await {
                tracing::debug!(%error, "SPDY connection ended");
            }
        });
        Self {
            streams,
            inboxes,
            next_id: 1,
            frames,
            _reader: AbortOnDropHandle::new(reader),
            writer: AbortOnDropHandle::new(writer),
        }
    }

    /// Opens a stream as the client; header names are sent as given. `None` if the connection is
    /// gone.
    pub async fn open(&mut self, headers: Vec<(&'static str, String)>) -> Option<Stream> {
        let id = self.next_id;
        self.next_id += 2;
        let (sender, incoming) = mpsc::channel(STREAM_BUFFER);
        self.inboxes.lock().insert(id, sender);
        let named = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let headers_sent = named.collect();
        self.frames.send(Frame::Open(id, headers)).await.ok()?;
        let outgoing = Outgoing { id, frames: self.frames.clone() };
        Some(Stream { headers: headers_sent, incoming, outgoing })
    }

    /// The next stream that the peer opens; `None` once the connection is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Writes out what is queued and ends the connection. Every [`Outgoing`] must be dropped
    /// before, or this waits for it.
    pub async fn finish(self) {
        let Self { streams, frames, _reader, writer, .. } = self;
        drop((streams, frames, _reader));
        // The writer ends with its queue; a panic in it has been reported by the runtime.
        let _ended = writer.await;
    }
}

struct Reader<C> {
    read: ReadHalf<C>,
    inflate: Option<Decompress>,
    inboxes: Inboxes,
    opened: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
}

impl<C: Connection> Reader<C> {
    async fn run(mut self) -> Result<(), SpdyError> {
        let result = self.read_frames().await;
        // Whoever waits for data learns that there will be none.
        self.inboxes.lock().clear();
        result
    }

    async fn read_frames(&mut self) -> Result<(), SpdyError> {
        loop {
            let mut head = [0u8; 8];
            if self.read.read_exact(&mut head).await.is_err() {
                return Ok(());
            }
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if length > FRAME_MAX {
                return Err(SpdyError::Protocol("frame too large"));
            }
            let mut body = vec![0u8; length];
            self.read.read_exact(&mut body).await?;
            let fin = head[4] & FLAG_FIN != 0;
            if first >> 31 == 0 {
                self.data(first, Bytes::from(body), fin).await;
            } else {
                if (first >> 16) as u16 & 0x7fff != VERSION {
                    return Err(SpdyError::Protocol("unsupported version"));
                }
                if !self.control(first as u16, Bytes::from(body), fin).await? {
                    return Ok(());
                }
            }
        }
    }

    async fn data(&mut self, id: u32, body: Bytes, fin: bool) {
        let inbox = self.inboxes.lock().get(&id).cloned();
        let mut ended = fin;
        if let Some(inbox) = inbox
            && !body.is_empty()
        {
            ended |= inbox.send(body).await.is_err();
        }
        if ended {
            self.inboxes.lock().remove(&id);
        }
    }

    /// `false` once the peer has said good-bye.
    async fn control(&mut self, kind: u16, mut body: Bytes, fin: bool) -> Result<bool, SpdyError> {
        match kind {
            SYN_STREAM => self.open(body, fin).await?,
            RST_STREAM if body.len() >= 4 => {
                self.inboxes.lock().remove(&(body.get_u32() & 0x7fff_ffff));
            }
            PING if body.len() >= 4 => {
                let id = body.get_u32();
                // Odd ids are the client's own; ours are never sent.
                if id % 2 == 1 {
                    let _gone = self.frames.send(Frame::Ping(id)).await;
                }
            }
            GOAWAY => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    async fn open(&mut self, mut body: Bytes, fin: bool) -> Result<(), SpdyError> {
        if body.len() < 10 {
            return Err(SpdyError::Protocol("short SYN_STREAM"));
        }
        let id = body.get_u32() & 0x7fff_ffff;
        body.advance(6);
        let headers = self.headers(&body)?;
        if self.inboxes.lock().len() >= STREAMS_MAX {
            let _gone = self.frames.send(Frame::Reset(id)).await;
            return Ok(());
        }
        let (sender, incoming) = mpsc::channel(STREAM_BUFFER);
        if !fin {
            self.inboxes.lock().insert(id, sender);
        }
        let outgoing = Outgoing { id, frames: self.frames.clone() };
        let _gone = self.frames.send(Frame::Reply(id)).await;
        let _nobody_accepts = self.opened.send(Stream { headers, incoming, outgoing }).await;
        Ok(())
    }

    fn headers(&mut self, block: &[u8]) -> Result<BTreeMap<String, String>, SpdyError> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
        let mut plain = inflate_block(inflate, block)?;
        let mut headers = BTreeMap::new();
        for _ in 0..take_u32(&mut plain)? {
            let name = take_string(&mut plain)?;
            let value = take_string(&mut plain)?;
            headers.insert(name.to_ascii_lowercase(), value);
        }
        Ok(headers)
    }
}

fn inflate_block(inflate: &mut Decompress, block: &[u8]) -> Result<Bytes, SpdyError> {
    let broken = SpdyError::Protocol("header block does not inflate");
    let mut out = Vec::with_capacity(4096);
    let start = inflate.total_in();
    loop {
        let used = (inflate.total_in() - start) as usize;
        let before = (used, out.len());
        match inflate.decompress_vec(&block[used..], &mut out, FlushDecompress::Sync) {
            Ok(_) => {}
            Err(error) if error.needs_dictionary().is_some() => {
                inflate.set_dictionary(&dictionary()).map_err(|_| broken_dictionary())?;
                continue;
            }
            Err(_) => return Err(broken),
        }
        let used = (inflate.total_in() - start) as usize;
        if used == block.len() && out.len() < out.capacity() {
            return Ok(Bytes::from(out));
        }
        if out.len() > HEADERS_MAX {
            return Err(SpdyError::Protocol("headers too large"));
        }
        if (used, out.len()) == before && out.len() < out.capacity() {
            return Err(broken);
        }
        out.reserve(4096);
    }
}

fn broken_dictionary() -> SpdyError {
    SpdyError::Protocol("headers are compressed with another dictionary")
}

fn take_u32(from: &mut Bytes) -> Result<u32, SpdyError> {
    if from.len() < 4 {
        return Err(SpdyError::Protocol("short header block"));
    }
    Ok(from.get_u32())
}

fn take_string(from: &mut Bytes) -> Result<String, SpdyError> {
    let length = take_u32(from)? as usize;
    if from.len() < length {
        return Err(SpdyError::Protocol("short header block"));
    }
    String::from_utf8(from.split_to(length).to_vec())
        .map_err(|_| SpdyError::Protocol("a header is not UTF-8"))
}

async fn write_frames<C: Connection>(mut write: WriteHalf<C>, mut queue: mpsc::Receiver<Frame>) {
    let mut deflate = Compress::new(Compression::default(), true);
    if deflate.set_dictionary(&dictionary()).is_err() {
        return;
    }
    let mut out = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        encode(&frame, &mut deflate, &mut out);
        while out.len() < DATA_CHUNK
            && let Ok(frame) = queue.try_recv()
        {
            encode(&frame, &mut deflate, &mut out);
        }
        if write.write_all(&out).await.is_err() || write.flush().await.is_err() {
            return;
        }
        out.clear();
    }
    let _already_closed = write.shutdown().await;
}

fn encode(frame: &Frame, deflate: &mut Compress, out: &mut BytesMut) {
    let mut control = |kind: u16, body: &[u8]| {
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u32(body.len() as u32);
        out.put_slice(body);
    };
    match frame {
        Frame::Reply(id) => {
            let mut body = id.to_be_bytes().to_vec();
            body.extend(header_block(deflate, &[]));
            control(SYN_REPLY, &body);
        }
        Frame::Open(id, headers) => {
            let mut body = id.to_be_bytes().to_vec();
            // No associated stream, highest priority, no credential slot.
            body.extend([0; 6]);
            body.extend(header_block(deflate, headers));
            control(SYN_STREAM, &body);
        }
        Frame::Reset(id) => {
            // Status 5: cancelled.
            control(RST_STREAM, &[id.to_be_bytes(), 5u32.to_be_bytes()].concat());
        }
        Frame::Ping(id) => control(PING, &id.to_be_bytes()),
        Frame::Data(id, data, fin) => {
            out.put_u32(*id);
            out.put_u32(((u32::from(*fin) * u32::from(FLAG_FIN)) << 24) | data.len() as u32);
            out.put_slice(data);
        }
    }
}

fn header_block(deflate: &mut Compress, headers: &[(&'static str, String)]) -> Vec<u8> {
    let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [*name, value.as_str()]) {
        plain.extend((text.len() as u32).to_be_bytes());
        plain.extend(text.as_bytes());
    }
    let (mut block, start) = (Vec::with_capacity(plain.len() + 64), deflate.total_in());
    // Deflating into memory cannot fail; what it may need is more room.
    while (deflate.total_in() - start) < plain.len() as u64 || block.len() == block.capacity() {
        block.reserve(plain.len() + 64);
        let rest = &plain[(deflate.total_in() - start) as usize..];
        if deflate.compress_vec(rest, &mut block, FlushCompress::Sync).is_err() {
            break;
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAM frame, as kubectl's library writes it.
    fn syn(deflate: &mut Compress, id: u32, name: &'static str, value: &str) -> Vec<u8> {
        let block = header_block(deflate, &[(name, value.to_owned())]);
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend((10 + block.len() as u32).to_be_bytes());
        frame.extend(id.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(block);
        frame
    }

    fn data(id: u32, payload: &[u8], fin: bool) -> Vec<u8> {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend(((u32::from(fin) << 24) | payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[tokio::test]
    async fn streams_open_carry_data_and_close() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut session = Session::start(server);
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).unwrap();
        for (id, kind) in [(1, "error"), (3, "stdin")] {
            client.write_all(&syn(&mut deflate, id, "Streamtype", kind)).await.unwrap();
        }
        client.write_all(&data(3, b"hello", true)).await.unwrap();
        let error = session.accept().await.unwrap();
        assert_eq!(error.headers["streamtype"], "error");
        let mut stdin = session.accept().await.unwrap();
        assert_eq!(stdin.headers["streamtype"], "stdin");
        assert_eq!(stdin.incoming.recv().await.unwrap(), "hello");
        assert!(stdin.incoming.recv().await.is_none());

        assert!(error.outgoing.send(Bytes::from_static(b"bye")).await);
        error.outgoing.close().await;
        drop((error, stdin));
        session.finish().await;
        let mut out = Vec::new();
        client.read_to_end(&mut out).await.unwrap();
        let tail = [data(1, b"bye", false), data(1, b"", true)].concat();
        assert!(out.ends_with(&tail), "{out:?}");
    }

    #[tokio::test]
    async fn both_sides_understand_each_other() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut client, mut server) = (Session::start(near), Session::start(far));
        for round in 0..3 {
            let port = "x".repeat(round * 4000);
            let headers = vec![("streamtype", "data".into()), ("port", port.clone())];
            let mut ours = client.open(headers).await.unwrap();
            let mut theirs = server.accept().await.unwrap();
            assert_eq!(theirs.headers["port"], port);
            assert!(ours.outgoing.send(Bytes::from_static(b"ping")).await);
            ours.outgoing.close().await;
            assert_eq!(theirs.incoming.recv().await.unwrap(), "ping");
            assert!(theirs.incoming.recv().await.is_none());
            assert!(theirs.outgoing.send(Bytes::from_static(b"pong")).await);
            theirs.outgoing.close().await;
            assert_eq!(ours.incoming.recv().await.unwrap(), "pong");
            assert!(ours.incoming.recv().await.is_none());
        }
    }

    #[tokio::test]
    async fn garbage_ends_the_connection_and_nothing_else() {
        for junk in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x80, 3, 0, 1, 0, 0, 0, 2, 1, 2], &[0xff; 64]]
        {
            let (mut client, server) = tokio::io::duplex(1024);
            let mut session = Session::start(server);
            client.write_all(junk).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(session.accept().await.is_none());
        }
    }
}
