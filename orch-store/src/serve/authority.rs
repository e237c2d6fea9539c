//! Lets clients in that call the server by a URL.
//!
//! The maintenance calls of clientv3 3.4 (`etcdctl endpoint status`, `hashkv`, `defrag`) put the
//! endpoint as it was given, `http://127.0.0.1:2379`, into HTTP/2's `:authority`, where a host and
//! a port belong. grpc-go's servers do not look at it; hyper's refuse the request. Such an
//! authority is replaced in the first request of a connection, where it stands in full and from
//! where later requests refer to it, by letters of the same number, so that the tables of both
//! sides stay the same. Nobody here reads it. All other bytes pass through as they are.
//!
//! Source: RFC 9113 (frames), RFC 7541 (header compression).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
/// Padding and priority: clients that use them are not those that this is for.
const PADDED_OR_PRIORITY: u8 = 0x28;

/// A first request whose headers are larger is left alone.
const HEADERS_MAX: usize = 16 << 10;

/// So much is read at once until the first request is seen.
const READ: usize = 4096;

/// The index of `:authority` in the static table.
const AUTHORITY: usize = 1;

/// A connection whose first request may be called by a URL.
pub(super) struct AuthorityRepair<I> {
    io: I,
    /// Bytes that were read and not looked at.
    unseen: BytesMut,
    /// Bytes to be handed on before what is read next.
    seen: BytesMut,
    stage: Stage,
}

enum Stage {
    Preface,
    Frames,
    /// The rest of a frame's payload.
    Skip(usize),
    Done,
}

impl<I> AuthorityRepair<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, unseen: BytesMut::new(), seen: BytesMut::new(), stage: Stage::Preface }
    }

    /// Looks at what was read; what is complete is handed on.
    fn advance(&mut self) {
        loop {
            match self.stage {
                Stage::Preface if self.unseen.len() < PREFACE.len() => {
                    if PREFACE.starts_with(&self.unseen) {
                        return;
                    }
                    self.stage = Stage::Done;
                }
                Stage::Preface if self.unseen.starts_with(PREFACE) => {
                    self.pass(PREFACE.len());
                    self.stage = Stage::Frames;
                }
                Stage::Preface => self.stage = Stage::Done,
                Stage::Skip(rest) => {
                    let now = rest.min(self.unseen.len());
                    self.pass(now);
                    if now < rest {
                        self.stage = Stage::Skip(rest - now);
                        return;
                    }
                    self.stage = Stage::Frames;
                }
                Stage::Frames => {
                    if !self.frame() {
                        return;
                    }
                }
                Stage::Done => {
                    self.pass(self.unseen.len());
                    return;
                }
            }
        }
    }

    fn pass(&mut self, count: usize) {
        let passed = self.unseen.split_to(count);
        self.seen.extend_from_slice(&passed);
    }

    /// Looks at the next frame; `false` if more of it must be read first.
    fn frame(&mut self) -> bool {
        let Some(header) = self.unseen.get(..FRAME_HEADER) else { return false };
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        if kind != HEADERS {
            self.pass(FRAME_HEADER);
            self.stage = Stage::Skip(length);
            return true;
        }
        let plain = flags & END_HEADERS != 0 && flags & PADDED_OR_PRIORITY == 0;
        if plain && length <= HEADERS_MAX {
            let whole = FRAME_HEADER + length;
            if self.unseen.len() < whole {
                return false;
            }
            let frame = self.unseen.split_to(whole);
            match repaired(&frame[FRAME_HEADER..]) {
                Some(block) => {
                    self.seen.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
                    self.seen.extend_from_slice(&frame[3..FRAME_HEADER]);
                    self.seen.extend_from_slice(&block);
                }
                None => self.seen.extend_from_slice(&frame),
            }
        }
        self.stage = Stage::Done;
        true
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for AuthorityRepair<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.seen.is_empty() {
                let count = this.seen.len().min(buffer.remaining());
                buffer.put_slice(&this.seen.split_to(count));
                return Poll::Ready(Ok(()));
            }
            if matches!(this.stage, Stage::Done) && this.unseen.is_empty() {
                return Pin::new(&mut this.io).poll_read(context, buffer);
            }
            let mut space = [0; READ];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // The end: what was held back is incomplete, and for the reader to judge.
                this.stage = Stage::Done;
                if this.unseen.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.unseen.extend_from_slice(read.filled());
            this.advance();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for AuthorityRepair<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A block of compressed headers with another authority, if it has one that is a URL.
fn repaired(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = Bytes::copy_from_slice(block);
    while let Some(first) = rest.first().copied() {
        // How many bits the number has, and whether a value follows it.
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(&mut rest, bits)?;
        if !has_value {
            continue;
        }
        if index == 0 {
            string(&mut rest)?;
        }
        let at = block.len() - rest.len();
        let (value, is_huffman) = string(&mut rest)?;
        if index != AUTHORITY {
            continue;
        }
        let text = if is_huffman { decode(&value)? } else { value.to_vec() };
        if !text.starts_with(b"http://") && !text.starts_with(b"https://") {
            return None;
        }
        let mut out = block[..at].to_vec();
        put_length(&mut out, text.len());
        out.resize(out.len() + text.len(), b'x');
        out.extend_from_slice(&rest);
        return Some(out);
    }
    None
}

/// A number whose first bits share a byte with something else.
fn integer(rest: &mut Bytes, bits: u32) -> Option<usize> {
    let most = (1usize << bits) - 1;
    let mut number = usize::from(rest.first().copied()?) & most;
    rest.advance(1);
    if number < most {
        return Some(number);
    }
    for shift in [0, 7, 14] {
        let byte = rest.first().copied()?;
        rest.advance(1);
        number += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    if length < 0x7f {
        out.push(length as u8);
        return;
    }
    out.push(0x7f);
    length -= 0x7f;
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A text, and whether it is in Huffman's code.
fn string(rest: &mut Bytes) -> Option<(Bytes, bool)> {
    let is_huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    (length <= rest.len()).then(|| (rest.split_to(length), is_huffman))
}

/// The characters of the short codes by the length of their code, which is canonical: codes of one
/// length count up in this order. A URL has no others.
const CODES: [(u32, &[u8]); 8] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
];

/// What a text in Huffman's code says; `None` for one with characters that no URL has.
fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0u32, 0u32);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Some(character) = character(code, length) {
            text.push(character);
            (code, length) = (0, 0);
        }
        if length > 13 {
            return None;
        }
    }
    // What is left is padding, of ones.
    (length < 8 && code + 1 == 1 << length).then_some(text)
}

fn character(code: u32, length: u32) -> Option<u8> {
    let mut first = 0;
    let mut before = 0;
    for (bits, characters) in CODES {
        first <<= bits - before;
        before = bits;
        if bits == length {
            return characters.get(usize::try_from(code.checked_sub(first)?).ok()?).copied();
        }
        first += characters.len() as u32;
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// RFC 7541, C.4.1 and C.6.1.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&example).unwrap(), b"www.example.com");
        let location = [
            0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82,
            0xae, 0x43, 0xd3,
        ];
        assert_eq!(decode(&location).unwrap(), b"https://www.example.com");
        assert_eq!(decode(&[0xff, 0xff]), None);
    }

    /// The method, the path, and an authority as a literal that is added to the table.
    fn block(authority: &[u8]) -> Vec<u8> {
        [&[0x83, 0x44, 0x01, b'/', 0x41][..], authority, &[0x86]].concat()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Whatever the pieces that it comes in.
    async fn through(sent: &[u8]) -> Vec<u8> {
        let mut results = Vec::new();
        for piece in [1, 7, sent.len()] {
            let mut mock = tokio_util::io::StreamReader::new(futures::stream::iter(
                sent.chunks(piece).map(|piece| io::Result::Ok(Bytes::copy_from_slice(piece))),
            ));
            let mut received = Vec::new();
            AuthorityRepair::new(&mut mock).read_to_end(&mut received).await.unwrap();
            results.push(received);
        }
        assert!(results.iter().all(|result| *result == results[0]));
        results.remove(0)
    }

    #[tokio::test]
    async fn a_url_is_replaced_by_as_many_letters() {
        let huffman = [
            0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae,
            0x82, 0xae, 0x43, 0xd3,
        ];
        let settings = frame(4, 0, &[0; 6]);
        let data = frame(0, 1, b"http://");
        let long = format!("http://{}", "h".repeat(200));
        let long = [&[0x7f, 0x50][..], long.as_bytes()].concat();
        let letters = |count: usize, length: &[u8]| [length, &vec![b'x'; count]].concat();
        for (authority, expected) in [
            (&b"\x0ehttp://a.b:123"[..], letters(14, &[14])),
            (&huffman, letters(23, &[23])),
            (&long, letters(207, &[0x7f, 0x50])),
            (b"\x05a:123", b"\x05a:123".to_vec()),
        ] {
            let request = |authority: &[u8]| {
                [PREFACE, &settings, &frame(1, 4, &block(authority)), &data].concat()
            };
            assert_eq!(through(&request(authority)).await, request(&expected));
        }
    }

    #[tokio::test]
    async fn everything_else_passes() {
        let padded = frame(1, 0x0c, &block(b"\x0ehttp://a.b:123"));
        for sent in [
            b"GET http://a.b/ HTTP/1.1\r\n\r\n".to_vec(),
            PREFACE[..10].to_vec(),
            [PREFACE, &frame(1, 4, &[0x41, 0x7f])].concat(),
            [PREFACE, &padded].concat(),
            [PREFACE, &[0, 0, 9, 1, 4, 0]].concat(),
        ] {
            assert_eq!(through(&sent).await, sent);
        }
    }
}
