//! How the agent attaches to a container: frames over the shim's socket.
//!
//! A frame is a byte that says what it is, the length of its data in four bytes, and the data.

use std::io;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, mpsc},
};

use crate::runtime::TerminalSize;

/// A longer frame is refused.
const FRAME_MAX: u32 = 1024 * 1024;

/// What goes to and fro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// For the container's standard input.
    Stdin(Bytes),
    /// No more input.
    StdinEnd,
    /// From its standard output.
    Stdout(Bytes),
    /// From its standard error.
    Stderr(Bytes),
    /// The terminal's new size.
    Resize(TerminalSize),
    /// It has ended with this code.
    Exit(i32),
}

pub(crate) async fn write_frame(
    out: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
) -> io::Result<()> {
    let (kind, data) = match frame {
        Frame::Stdin(data) => (0, data.clone()),
        Frame::StdinEnd => (1, Bytes::new()),
        Frame::Stdout(data) => (2, data.clone()),
        Frame::Stderr(data) => (3, data.clone()),
        Frame::Resize(size) => {
            let bytes = [size.width.to_be_bytes(), size.height.to_be_bytes()].concat();
            (4, bytes.into())
        }
        Frame::Exit(code) => (5, code.to_be_bytes().to_vec().into()),
    };
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    out.write_u8(kind).await?;
    out.write_u32(length).await?;
    out.write_all(&data).await
}

/// The next frame, `None` at the end. Not cancellation-safe.
pub(crate) async fn read_frame(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let kind = match input.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = input.read_u32().await?;
    if length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut data = vec![0; length as usize];
    input.read_exact(&mut data).await?;
    let frame = match (kind, data.as_slice()) {
        (0, _) => Frame::Stdin(data.into()),
        (1, _) => Frame::StdinEnd,
        (2, _) => Frame::Stdout(data.into()),
        (3, _) => Frame::Stderr(data.into()),
        (4, &[a, b, c, d]) => Frame::Resize(TerminalSize {
            width: u16::from_be_bytes([a, b]),
            height: u16::from_be_bytes([c, d]),
        }),
        (5, &[a, b, c, d]) => Frame::Exit(i32::from_be_bytes([a, b, c, d])),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown frame")),
    };
    Ok(Some(frame))
}

/// Serves one attachment until either side ends it. What a slow client misses is left out.
pub(super) async fn serve(
    stream: UnixStream,
    mut output: broadcast::Receiver<Frame>,
    input: mpsc::Sender<Frame>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let inward = async {
        while let Ok(Some(frame)) = read_frame(&mut reader).await {
            if input.send(frame).await.is_err() {
                break;
            }
        }
        // A client that only watches has nothing more to say, but goes on watching.
        std::future::pending::<()>().await;
    };
    let outward = async {
        loop {
            let frame = match output.recv().await {
                Ok(frame) => frame,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let is_last = matches!(frame, Frame::Exit(_));
            if write_frame(&mut writer, &frame).await.is_err() || is_last {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_the_socket() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"in")),
            Frame::StdinEnd,
            Frame::Stdout(Bytes::from_static(b"")),
            Frame::Resize(TerminalSize { width: 80, height: 24 }),
            Frame::Exit(-1),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            write_frame(&mut wire, frame).await.unwrap();
        }
        let mut wire = wire.as_slice();
        for frame in frames {
            assert_eq!(read_frame(&mut wire).await.unwrap(), Some(frame));
        }
        assert_eq!(read_frame(&mut wire).await.unwrap(), None);
        assert!(read_frame(&mut &[9u8, 0, 0, 0, 0][..]).await.is_err());
        assert!(read_frame(&mut &[0u8, 255, 0, 0, 0][..]).await.is_err());
    }
}
