//! Mutations: of bytes, and of JSON that stays JSON.

use orch_core::random::{Random, SeededRandom};
use serde_json::{Value, json};

/// Pieces that parsers treat specially.
const PIECES: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e-400",
    "0.1",
    "%00",
    "%2F",
    "%",
    "..",
    "&",
    "=",
    "*x",
    "&x ",
    "!!binary ",
    "|\n",
    "- ",
    "k8s\0",
    "\u{1e}",
    "é",
    "\u{202e}",
];

/// Values that are often forgotten.
fn odd() -> [Value; 22] {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("*"),
        json!("../x"),
        json!("a\u{0}b"),
        json!("0x7fffffffffffffff"),
        json!("9999999999999999999Ei"),
        json!("1e-999999999"),
        json!("-262143-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!("2147483648%"),
        json!([]),
        json!({}),
        json!([[[{"": null}]]]),
    ]
}

pub(super) struct Mutator {
    pub(super) random: SeededRandom,
}

impl Mutator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: SeededRandom::new(seed) }
    }

    fn below(&self, bound: usize) -> usize {
        self.random.below(bound.max(1) as u64) as usize
    }

    /// One of the corpus, changed in up to eight places.
    pub(super) fn bytes(&self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(40)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let again = bytes[at..end].repeat(1 + self.below(4));
                    bytes.splice(at..at, again);
                }
                3 => {
                    let other = &corpus[self.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.bytes());
                }
            }
        }
        bytes
    }

    /// Changes one to four places of a value.
    pub(super) fn json(&mut self, value: &mut Value) {
        for _ in 0..=self.below(4) {
            let place = self.place(value);
            self.change(place);
        }
    }

    /// A random place in a value, more likely a deep one.
    fn place<'a>(&self, value: &'a mut Value) -> &'a mut Value {
        let mut place = value;
        loop {
            let count = match &*place {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                _ => 0,
            };
            if count == 0 || self.below(6) == 0 {
                return place;
            }
            let at = self.below(count);
            place = match place {
                Value::Array(items) => &mut items[at],
                Value::Object(fields) => fields.values_mut().nth(at).expect("one of them"),
                _ => unreachable!("scalars hold nothing"),
            };
        }
    }

    fn change(&self, place: &mut Value) {
        let odd = odd()[self.below(22)].clone();
        match (place, self.below(5)) {
            (Value::Object(fields), 0 | 1) if !fields.is_empty() => {
                let key = fields.keys().nth(self.below(fields.len())).cloned().unwrap_or_default();
                let value = fields.remove(&key).unwrap_or_default();
                if self.below(2) == 0 {
                    fields.insert(format!("{key}{}", PIECES[self.below(PIECES.len())]), value);
                }
            }
            (Value::Object(fields), 2) => {
                fields.insert(PIECES[self.below(PIECES.len())].to_owned(), odd);
            }
            (Value::Array(items), 0..=2) => {
                let again = items.first().cloned().unwrap_or(odd);
                items.push(again);
            }
            (Value::String(text), 0 | 1) => {
                text.push_str(PIECES[self.below(PIECES.len())]);
            }
            (place, 3) => *place = json!([place.take()]),
            (place, _) => *place = odd,
        }
    }
}
