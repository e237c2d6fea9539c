//! Requests with their answers, as a recording has them.

use std::{collections::BTreeMap, fmt};

use super::line::{Content, Line};

/// A request, as far as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    /// In the order of their names.
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Content,
}

impl Asked {
    pub(super) fn new(method: String, path: String, query: &str, body: Content) -> Self {
        let mut query: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        query.sort();
        Self { method, path, query, body }
    }

    pub(super) fn is_write(&self) -> bool {
        !matches!(&*self.method, "GET" | "HEAD" | "OPTIONS")
    }

    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.method == other.method && self.path == other.path
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (at, (name, value)) in self.query.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// A request with its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) asked: Asked,
    pub(super) at: u64,
    pub(super) answer: Answer,
    /// What came after it, if it came in parts.
    pub(super) parts: Vec<Part>,
    /// Whether it has been asked for in the replay.
    pub(super) used: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The recording ends before it, or whoever asked went away.
    None,
    Broke(u64, String),
    Whole(u64, u16, Option<String>, Content),
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) at: u64,
    /// How many writes had been asked for when it came.
    pub(super) writes: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Content(Content),
    End,
    Broke(String),
}

/// The exchanges while they are read.
#[derive(Default)]
pub(super) struct Book {
    pub(super) exchanges: Vec<Exchange>,
    places: BTreeMap<u64, usize>,
    writes: usize,
}

impl Book {
    pub(super) fn add(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Traffic { .. } => return Err("a recording begins inside of another".to_owned()),
            Line::Asked { at, exchange, method, path, query, body } => {
                let asked = Asked::new(method, path, &query, body);
                self.writes += usize::from(asked.is_write());
                self.places.insert(exchange, self.exchanges.len());
                let (answer, parts) = (Answer::None, Vec::new());
                self.exchanges.push(Exchange { asked, at, answer, parts, used: false });
            }
            Line::Answered { at, exchange, status, content_type, body } => {
                self.of(exchange)?.answer = Answer::Whole(at, status, content_type, body);
            }
            Line::Part { at, exchange, body } => self.part(at, exchange, What::Content(body))?,
            Line::Ended { at, exchange } => self.part(at, exchange, What::End)?,
            Line::Broke { at, exchange, error } => match self.of(exchange)?.answer {
                Answer::None => self.of(exchange)?.answer = Answer::Broke(at, error),
                _ => self.part(at, exchange, What::Broke(error))?,
            },
        }
        Ok(())
    }

    fn part(&mut self, at: u64, exchange: u64, what: What) -> Result<(), String> {
        let writes = self.writes;
        self.of(exchange)?.parts.push(Part { at, writes, what });
        Ok(())
    }

    fn of(&mut self, exchange: u64) -> Result<&mut Exchange, String> {
        let place = self.places.get(&exchange);
        let found = place.and_then(|place| self.exchanges.get_mut(*place));
        found.ok_or_else(|| format!("exchange {exchange} was never asked for"))
    }
}
