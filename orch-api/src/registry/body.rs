//! From bytes to values: JSON with its duplicate fields noticed.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many duplicate fields are told of, as upstream has it, and how long their paths may be.
///
/// Source: `sigs.k8s.io/json/internal/golang/encoding/json/kubernetes_patch.go`.
const DUPLICATES_MAX: usize = 100;
const PATH_BYTES_MAX: usize = 1024;
/// How much memory the values of one body may take. Small objects take about a hundred times what
/// they take as text.
///
/// Differs: upstream limits the text only.
const MEMORY_BYTES_MAX: usize = 128 << 20;
/// What a value takes, and what an object with fields takes besides.
const VALUE_BYTES: usize = size_of::<Value>();
const FIELDS_BYTES: usize = 12 * (VALUE_BYTES + size_of::<String>());

/// Why a body is no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is no JSON, or nested more than 128 levels deep.
    #[error(transparent)]
    Json(serde_json::Error),
    /// Its values would take too much memory.
    #[error("Request entity too large: its values take more than {MEMORY_BYTES_MAX} bytes")]
    TooLarge,
}

/// Decodes JSON. Of a field that is given twice the last one counts, as upstream has it; the paths
/// of the first such fields are appended to `duplicates`.
///
/// # Errors
/// [`BodyError`].
pub(crate) fn decode_json(bytes: &[u8], duplicates: &mut Vec<String>) -> Result<Value, BodyError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let (mut path, mut left) = (String::new(), Some(MEMORY_BYTES_MAX));
    let seed = Noting { path: &mut path, duplicates, left: &mut left };
    let read = seed.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match left {
        Some(_) => read.map_err(BodyError::Json),
        None => Err(BodyError::TooLarge),
    }
}

struct Noting<'a> {
    path: &'a mut String,
    duplicates: &'a mut Vec<String>,
    /// How much memory may still be taken; `None` once it was too much.
    left: &'a mut Option<usize>,
}

impl Noting<'_> {
    fn take<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        *self.left = self.left.and_then(|left| left.checked_sub(bytes));
        self.left.map(drop).ok_or_else(|| E::custom("too large"))
    }
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let length = self.path.len();
        loop {
            self.take(VALUE_BYTES)?;
            self.path.push_str(&format!("[{}]", items.len()));
            let seed = Noting {
                path: &mut *self.path,
                duplicates: &mut *self.duplicates,
                left: &mut *self.left,
            };
            let next = seq.next_element_seed(seed)?;
            self.path.truncate(length);
            match next {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let length = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            self.take(if fields.is_empty() { FIELDS_BYTES } else { 2 * VALUE_BYTES })?;
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let seed = Noting {
                path: &mut *self.path,
                duplicates: &mut *self.duplicates,
                left: &mut *self.left,
            };
            let value = map.next_value_seed(seed)?;
            if fields.insert(key, value).is_some() && self.duplicates.len() < DUPLICATES_MAX {
                let shown = self.path.floor_char_boundary(PATH_BYTES_MAX);
                self.duplicates.push(self.path[..shown].to_owned());
            }
            self.path.truncate(length);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_duplicate_fields_counts_and_is_told() {
        let mut duplicates = Vec::new();
        let text = br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#;
        let value = decode_json(text, &mut duplicates).unwrap();
        assert_eq!(value, serde_json::json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(duplicates, ["b[0].c", "a"]);
        assert!(decode_json(b"{} x", &mut duplicates).is_err());
        assert!(decode_json("[".repeat(100_000).as_bytes(), &mut duplicates).is_err());
    }
}
