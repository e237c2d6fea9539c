//! A connection to a pod's port whose end may be a failure that the runtime told of.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::oneshot,
};

/// Reads like the pipe that it wraps, but ends with an error if one has been told.
#[derive(Debug)]
pub(super) struct Forwarded {
    pipe: DuplexStream,
    failure: oneshot::Receiver<String>,
}

impl Forwarded {
    /// `failure` is looked at when `pipe` is at its end, so it has to be told before that.
    pub(super) fn new(pipe: DuplexStream, failure: oneshot::Receiver<String>) -> Self {
        Self { pipe, failure }
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, buffer);
        let at_end = matches!(read, Poll::Ready(Ok(())))
            && buffer.filled().len() == before
            && buffer.remaining() > 0;
        if at_end && let Ok(failure) = self.failure.try_recv() {
            return Poll::Ready(Err(io::Error::other(failure)));
        }
        read
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_failure_comes_after_the_data() {
        let (near, mut far) = tokio::io::duplex(64);
        let (failure, told) = oneshot::channel();
        let mut connection = Forwarded::new(near, told);
        far.write_all(b"some").await.unwrap();
        failure.send("connection refused".into()).unwrap();
        drop(far);
        let mut data = Vec::new();
        let error = connection.read_to_end(&mut data).await.unwrap_err();
        assert_eq!(
            (data.as_slice(), error.to_string().as_str()),
            (&b"some"[..], "connection refused")
        );
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0, "it is told once");
    }
}
