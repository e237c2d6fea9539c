//! Every parser of what clients send, as plain functions over bytes ([`TARGETS`]).
//!
//! A target panics where the server would do something that no input may make it do: panic, answer
//! 500, store what it cannot serve. The tests of this crate drive the targets with seeded mutations
//! of [`seeds`]; `orch-api/fuzz` drives the same functions with libFuzzer, guided by coverage.

mod patches;
mod requests;
mod seeds;
#[cfg(test)]
mod tests;

use orch_core::{
    protobuf,
    selector::{FieldSelector, Selector},
};

pub use seeds::seeds;

use crate::{http::fuzzing as http, registry::fuzzing as registry};

/// A target: its name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 10] = [
    ("bodies", bodies),
    ("queries", http::queries),
    ("selectors", selectors),
    ("patches", patches::patches),
    ("paths", http::paths),
    ("accept_headers", http::accept_headers),
    ("delete_options", http::delete_options),
    ("continue_tokens", registry::continue_tokens),
    ("schemas", requests::schemas),
    ("requests", requests::requests),
];

/// Runs the target of a name.
///
/// # Panics
/// If there is no such target, or if the target finds what must not be.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name:?}"));
    target(data);
}

/// Bodies in JSON, YAML and protobuf: what is read can be written and is read the same again.
fn bodies(data: &[u8]) {
    let Some(value) = http::body(data) else { return };
    let text = value.to_string();
    let mut again = vec![0];
    again.extend_from_slice(text.as_bytes());
    // A number like 1e23 may be written in other digits than it was read from, once.
    let read = http::body(&again).expect("what was read can be read again");
    assert_eq!(read.to_string(), text);
    let Ok(encoded) = protobuf::encode(&value) else { return };
    let decoded = protobuf::decode(&encoded).expect("what was encoded can be decoded");
    protobuf::encode(&decoded).expect("what was decoded can be encoded");
}

/// Label and field selectors: what is read is written in a form that means the same.
fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = text.parse::<Selector>() {
        let written = selector.to_string();
        let again = written.parse::<Selector>().expect("a selector can be read again");
        assert_eq!(again.to_string(), written);
    }
    if let Ok(selector) = text.parse::<FieldSelector>() {
        let written = selector.to_string();
        let again = written.parse::<FieldSelector>().expect("a selector can be read again");
        assert_eq!(again.to_string(), written);
    }
}
