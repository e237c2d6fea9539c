//! The lines of a body that arrives in pieces, as watches are sent.

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};

/// A line longer than this is taken for a broken stream: etcd takes no object over 1.5 MiB.
const LINE_BYTES_MAX: usize = 64 << 20;

struct Lines<S, E> {
    chunks: S,
    rest: BytesMut,
    ready: VecDeque<Result<Bytes, E>>,
    ended: bool,
}

/// The lines of a body, without their ends; empty ones are left out, and so is a last one that was
/// cut off. An error is the last item: one of the body's, or that a line is longer than 64 MiB.
pub fn lines<S, E>(chunks: S) -> impl Stream<Item = Result<Bytes, E>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<io::Error>,
{
    let lines = Lines { chunks, rest: BytesMut::new(), ready: VecDeque::new(), ended: false };
    stream::unfold(lines, |mut lines| async move {
        loop {
            if let Some(line) = lines.ready.pop_front() {
                return Some((line, lines));
            }
            if lines.ended {
                return None;
            }
            match lines.chunks.next().await {
                None => lines.ended = true,
                Some(Ok(chunk)) => lines.take(&chunk),
                Some(Err(error)) => lines.fail(error),
            }
        }
    })
}

impl<S, E: From<io::Error>> Lines<S, E> {
    fn take(&mut self, chunk: &[u8]) {
        let mut chunk = chunk;
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&chunk[..end]);
            chunk = &chunk[end + 1..];
            let line = self.rest.split().freeze();
            if !line.iter().all(u8::is_ascii_whitespace) {
                self.ready.push_back(Ok(line));
            }
        }
        self.rest.extend_from_slice(chunk);
        if self.rest.len() > LINE_BYTES_MAX {
            self.fail(io::Error::other("a line without an end").into());
        }
    }

    fn fail(&mut self, error: E) {
        self.ready.push_back(Err(error));
        self.ended = true;
    }
}
