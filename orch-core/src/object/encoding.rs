//! The one order in which objects are written: kind, version and metadata before everything else,
//! and in the metadata the names first.
//!
//! It is upstream's order of these fields, and it lets a reader find them without a parser: a list
//! of a built-in kind leaves kind and version of its items out, which here is a matter of an offset.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];
const FIRST_IN_METADATA: [&str; 2] = ["name", "namespace"];

/// What most objects are shorter than; longer ones make the buffer grow.
const USUAL_BYTES: usize = 4096;

/// The JSON of an object, in a buffer of exactly its length.
pub(super) fn encode(value: &Value) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    match value {
        Value::Object(map) => serde_json::to_writer(&mut out, &Ordered { map, first: &FIRST })?,
        other => serde_json::to_writer(&mut out, other)?,
    }
    // A buffer that has grown by doubling would keep up to twice the object in memory.
    Ok(Bytes::copy_from_slice(&out))
}

/// An object with some of its fields before the others.
struct Ordered<'a> {
    map: &'a Map<String, Value>,
    first: &'a [&'a str],
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(self.map.len()))?;
        for name in self.first {
            match self.map.get(*name) {
                Some(Value::Object(map)) if *name == "metadata" => {
                    out.serialize_entry(name, &Ordered { map, first: &FIRST_IN_METADATA })?;
                }
                Some(value) => out.serialize_entry(name, value)?,
                None => {}
            }
        }
        for (name, value) in self.map {
            if !self.first.contains(&name.as_str()) {
                out.serialize_entry(name, value)?;
            }
        }
        out.end()
    }
}
