//! Questions for somebody else.

use std::{io, net::SocketAddr, time::Duration};

use hickory_proto::op::Message;
use orch_core::Environment;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
};

use super::DnsOptions;

#[derive(Debug)]
pub(super) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    timeout: Duration,
    permits: Semaphore,
    environment: Environment,
}

impl Forwarder {
    pub(super) fn new(options: &DnsOptions, environment: Environment) -> Self {
        Self {
            upstreams: options.upstreams.clone(),
            timeout: options.upstream_timeout,
            permits: Semaphore::new(options.upstream_questions_max),
            environment,
        }
    }

    /// Whether there is anybody to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// Asks the resolvers in turn; none if nobody answers in time.
    pub(super) async fn ask(&self, question: &[u8]) -> Option<Message> {
        // Over the limit a failure is better than a queue: the client asks again anyway.
        let _permit = self.permits.try_acquire().ok()?;
        let mut question = question.to_vec();
        // An id of our own, so that an answer cannot be guessed from the client's.
        let id = self.environment.random.next_u64().to_le_bytes();
        question.get_mut(..2)?.copy_from_slice(&id[..2]);
        for upstream in &self.upstreams {
            let answer = tokio::time::timeout(self.timeout, exchange(*upstream, &question)).await;
            match answer {
                Ok(Ok(message)) => return Some(message),
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "a resolver failed"),
                Err(_) => tracing::debug!(%upstream, "a resolver did not answer in time"),
            }
        }
        None
    }
}

async fn exchange(upstream: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut packet = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut packet).await?;
        let answer = &packet[..length];
        if answer.get(..2) != question.get(..2) {
            continue;
        }
        let message = decode(answer)?;
        return if message.metadata.truncation {
            over_tcp(upstream, question).await
        } else {
            Ok(message)
        };
    }
}

async fn over_tcp(upstream: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    decode(&answer)
}

fn decode(answer: &[u8]) -> io::Result<Message> {
    Message::from_vec(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
