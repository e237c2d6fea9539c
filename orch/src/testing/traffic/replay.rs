//! A cluster that consists of what was written down.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, BufRead},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream};
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use orch_core::{
    awaited::Awaited,
    recording::{LineError, LineReader},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::{
    exchange::{Answer, Asked, Book, Exchange, Part, What},
    line::{Content, Line, VERSION},
    record::is_in_parts,
    secrets,
};
use crate::testing::difference::{differences_of, in_one_line};

/// How many requests a message names.
const NAMED: usize = 5;

/// Why a recording cannot be replayed, or how a replay went otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be read.
    #[error("the recording cannot be read")]
    Io(#[from] io::Error),
    /// It has no header, or one of something else.
    #[error("this is no recording of traffic of version {VERSION}")]
    Version,
    /// A line before the last one is damaged.
    #[error("line {line} of the recording: {message}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Other things were asked than had been recorded.
    #[error("{}", otherwise(.unknown, .unasked))]
    Otherwise {
        /// What was asked and had not been recorded, each with what had been instead.
        unknown: Vec<String>,
        /// The writes that had been recorded and were not asked for.
        unasked: Vec<String>,
    },
}

fn otherwise(unknown: &[String], unasked: &[String]) -> String {
    let mut text = String::new();
    for one in unknown {
        text += one;
        text += "\n";
    }
    for one in unasked {
        text += &format!("{one} was recorded, and was not asked for\n");
    }
    text.trim_end().to_owned()
}

impl From<LineError> for ReplayError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Io(error) => Self::Io(error),
            LineError::Line { line, message } => Self::Line { line, message },
            other => Self::Line { line: 0, message: other.to_string() },
        }
    }
}

type Alike = dyn Fn(&mut Value) + Send + Sync;

/// Answers requests out of a recording: see [the module](super). A tower service, and a
/// `kube::Client` ([`client`](Self::client)). Cheap to clone; the clones answer out of the same.
///
/// A recording is held in memory, whole. A request that it does not know, or does not know any
/// more, is answered with 501 and a message that says what was recorded instead;
/// [`check`](Self::check) tells of all of them.
///
/// Use it on a paused clock: on another one it takes as long as what was recorded.
#[derive(Clone)]
pub struct Replay {
    shared: Arc<Shared>,
    alike: Arc<Alike>,
}

struct Shared {
    exchanges: Mutex<Vec<Exchange>>,
    unknown: Mutex<Vec<String>>,
    /// How many of the recorded writes, in their order, have all been asked for.
    writes: Awaited<usize>,
    /// Whether what is in Secrets was written down.
    secret_data: bool,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({} exchanges)", self.shared.exchanges.lock().len())
    }
}

impl Replay {
    /// Reads a recording. What follows the last whole line, as after a crash, is left out.
    ///
    /// # Errors
    /// [`ReplayError`] if this is no recording, or is damaged.
    pub fn of(recording: impl BufRead) -> Result<Self, ReplayError> {
        let mut lines = LineReader::new(recording);
        let secret_data = match lines.next_line() {
            Ok(Some(Line::Traffic { version: VERSION, secret_data })) => secret_data,
            Err(LineError::Io(error)) => return Err(error.into()),
            _ => return Err(ReplayError::Version),
        };
        let (mut book, mut number) = (Book::default(), 1);
        while let Some(line) = lines.next_line()? {
            number += 1;
            let made = book.add(line);
            made.map_err(|message| ReplayError::Line { line: number, message })?;
        }
        let shared = Shared {
            exchanges: Mutex::new(book.exchanges),
            unknown: Mutex::default(),
            writes: Awaited::new(0),
            secret_data,
        };
        Ok(Self { shared: Arc::new(shared), alike: Arc::new(|_| {}) })
    }

    /// Changes both bodies before they are compared: takes out of them what is another in every
    /// run, as times of the machine's clock are.
    #[must_use]
    pub fn comparing(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.alike = Arc::new(change);
        self
    }

    /// A client of what was recorded.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Every request that was recorded and has not been asked for yet, in their order.
    pub fn unasked(&self) -> Vec<String> {
        let exchanges = self.shared.exchanges.lock();
        exchanges.iter().filter(|one| !one.used).map(|one| one.asked.to_string()).collect()
    }

    /// Whether everything that was asked had been recorded, and every recorded write was asked for.
    ///
    /// # Errors
    /// [`ReplayError::Otherwise`] says what was not so.
    pub fn check(&self) -> Result<(), ReplayError> {
        let exchanges = self.shared.exchanges.lock();
        let unasked = exchanges.iter().filter(|one| !one.used && one.asked.is_write());
        let unasked: Vec<String> = unasked.map(|one| one.asked.to_string()).collect();
        let unknown = self.shared.unknown.lock().clone();
        match unknown.is_empty() && unasked.is_empty() {
            true => Ok(()),
            false => Err(ReplayError::Otherwise { unknown, unasked }),
        }
    }

    /// The exchange that answers a request, which is thereby asked for; or what there is instead.
    fn find(&self, asked: &Asked) -> Result<(u64, Answer, Vec<Part>), String> {
        let mut exchanges = self.shared.exchanges.lock();
        let is_it = |one: &Exchange| {
            let (recorded, given) = (&one.asked, asked);
            !one.used
                && recorded.is_same_place(given)
                && recorded.query == given.query
                && self.is_alike(&recorded.body, &given.body)
        };
        let Some(found) = exchanges.iter_mut().find(|one| is_it(one)) else {
            return Err(self.instead(&exchanges, asked));
        };
        found.used = true;
        let found = (found.at, found.answer.clone(), found.parts.clone());
        let mut writes = exchanges.iter().filter(|one| one.asked.is_write());
        let done = writes.position(|one| !one.used);
        let all = || exchanges.iter().filter(|one| one.asked.is_write()).count();
        let done = done.unwrap_or_else(all);
        drop(exchanges);
        self.shared.writes.set(done);
        Ok(found)
    }

    fn changed(&self, content: &Content) -> Content {
        match content.clone() {
            Content::Json(mut value) => {
                (self.alike)(&mut value);
                Content::Json(value)
            }
            other => other,
        }
    }

    fn is_alike(&self, one: &Content, other: &Content) -> bool {
        one == other || self.changed(one) == self.changed(other)
    }

    /// What the recording has instead of a request.
    fn instead(&self, exchanges: &[Exchange], asked: &Asked) -> String {
        let here: Vec<&Exchange> =
            exchanges.iter().filter(|one| one.asked.is_same_place(asked)).collect();
        let open: Vec<&&Exchange> = here.iter().filter(|one| !one.used).collect();
        let alike = open.iter().find(|one| one.asked.query == asked.query);
        let why = if let Some(other) = alike {
            let (old, new) = (self.changed(&other.asked.body), self.changed(&asked.body));
            format!("recorded with another body: {}", told(&old, &new))
        } else if let Some(other) = open.first() {
            format!("recorded with another query: {}", other.asked)
        } else if !here.is_empty() {
            let times = here.len();
            format!("recorded {times} times, and all of them have been asked for")
        } else {
            let next = exchanges.iter().filter(|one| !one.used).take(NAMED);
            let next: Vec<String> = next.map(|one| one.asked.to_string()).collect();
            match next.is_empty() {
                true => "not recorded, and nothing is left in the recording".to_owned(),
                false => format!("not recorded; next in the recording: {}", next.join(", ")),
            }
        };
        format!("{asked} was {why}")
    }

    fn refuse(&self, message: &str) -> Response<ReplayBody> {
        self.shared.unknown.lock().push(message.to_owned());
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "NotRecorded", "code": 501,
        });
        let mut response = Response::new(whole(status.to_string().into()));
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<ReplayBody>, BoxError> {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let (path, bytes) = (parts.uri.path().to_owned(), body.collect_bytes().await?);
        let query = parts.uri.query().unwrap_or_default();
        let method = parts.method.to_string();
        // What was hidden in the recording is hidden here, too, so that it compares.
        let content = secrets::hide(&path, Content::of(&bytes), !self.shared.secret_data);
        let asked = Asked::new(method, path, query, content);
        let (at, answer, later) = match self.find(&asked) {
            Ok(found) => found,
            Err(instead) => return Ok(self.refuse(&instead)),
        };
        let (when, status, kind, content) = match answer {
            Answer::Whole(when, status, kind, content) => (when, status, kind, content),
            Answer::Broke(when, error) => {
                tokio::time::sleep_until(begun + after(at, when)).await;
                return Err(error.into());
            }
            Answer::None => {
                return Ok(self.refuse(&format!("{asked} was recorded, but not its answer")));
            }
        };
        let bytes = match content.bytes() {
            Ok(bytes) => bytes,
            Err(why) => return Ok(self.refuse(&format!("the answer to {asked} is missing: {why}"))),
        };
        tokio::time::sleep_until(begun + after(at, when)).await;
        let body = match is_in_parts(query) && bytes.is_empty() {
            true => self.in_parts(begun, at, later),
            false => whole(bytes),
        };
        let mut response = Response::builder().status(status);
        if let Some(kind) = kind {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        Ok(response.body(body)?)
    }

    /// The parts of an answer, each in its time.
    fn in_parts(&self, begun: Instant, at: u64, parts: Vec<Part>) -> ReplayBody {
        let state = (self.shared.clone(), VecDeque::from(parts));
        let next = move |(shared, mut parts): (Arc<Shared>, VecDeque<Part>)| async move {
            // What was still going on when the recording ended goes on for ever.
            let Some(Part { at: when, writes, what }) = parts.pop_front() else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(begun + after(at, when)).await;
            shared.writes.wait_for(|done| done >= writes).await;
            let frame = match what {
                What::Content(content) => line_of(&content).map(Frame::data),
                What::Broke(error) => Err(error.into()),
                What::End => return None,
            };
            Some((frame, (shared, parts)))
        };
        StreamBody::new(stream::unfold(state, next)).boxed_unsync()
    }
}

type ReplayBody = UnsyncBoxBody<Bytes, BoxError>;

fn whole(bytes: Bytes) -> ReplayBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// How long after a request something came.
fn after(asked: u64, at: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(asked))
}

/// A part as it was sent: documents end with their lines.
fn line_of(content: &Content) -> Result<Bytes, BoxError> {
    let bytes = content.bytes()?;
    Ok(match content {
        Content::Json(_) => [&bytes[..], b"\n"].concat().into(),
        _ => bytes,
    })
}

/// In what two bodies differ.
fn told(recorded: &Content, asked: &Content) -> String {
    match (recorded, asked) {
        (Content::Json(recorded), Content::Json(asked)) => {
            in_one_line(&differences_of(recorded, asked))
        }
        (recorded, asked) => format!("{recorded:?} → {asked:?}"),
    }
}

impl Service<Request<Body>> for Replay {
    type Response = Response<ReplayBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().answer(request).boxed()
    }
}
