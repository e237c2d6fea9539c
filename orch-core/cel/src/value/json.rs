//! JSON as values, and values as JSON.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go` for JSON with a schema; cel-go
//! `common/types/*.go` (`ConvertToNative` to `structpb.Value`) for the way back.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::time::{lenient_duration, lenient_moment};
use super::{Map, Moment, Value, go_double};
use crate::declared::{Declared, Format, Shape};
use crate::error::Error;

/// What is written has so many values at most.
const VALUES_MAX: usize = 1 << 20;

impl<'a> From<&'a Json> for Value<'a> {
    /// A view of JSON of which nothing is known: numbers with a fraction are doubles, the others
    /// integers.
    fn from(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text),
            Json::Array(items) => {
                Self::List(super::List::of_json(items, None, super::ListKind::Atomic))
            }
            Json::Object(fields) => Self::Map(Map::of_json(fields, None)),
        }
    }
}

/// A view of JSON, as it is declared or as it is.
pub(crate) fn read<'a>(json: &'a Json, declared: Option<&'a Declared>) -> Result<Value<'a>, Error> {
    match declared {
        Some(declared) => Value::declared(json, declared),
        None => Ok(json.into()),
    }
}

impl<'a> Value<'a> {
    /// A view of JSON whose type is declared. What lies deeper is read, and found to be something
    /// else than declared, only when an expression asks for it.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the value is not what was declared.
    pub fn declared(json: &'a Json, declared: &'a Declared) -> Result<Self, Error> {
        let wrong = |expected: &str| {
            Error::failed(format!("invalid data, expected {expected}, got {}", kind_of(json)))
        };
        if json.is_null() && !matches!(declared.shape(), Shape::Dyn) {
            if declared.is_nullable() {
                return Ok(Self::Null);
            }
            let message = "invalid data, got null for schema with nullable=false";
            return Err(Error::failed(message));
        }
        Ok(match (declared.shape(), json) {
            (Shape::Dyn, _) => json.into(),
            (Shape::IntOrString, Json::String(_)) => json.into(),
            (Shape::IntOrString, Json::Number(number)) if number.is_i64() => json.into(),
            (Shape::IntOrString, _) => {
                let message = "invalid data, expected XIntOrString value to be either a string or \
                               integer";
                return Err(Error::failed(message));
            }
            (Shape::Object(object), Json::Object(fields)) => {
                Self::Map(Map::of_object(fields, object))
            }
            (Shape::Map(values), Json::Object(fields)) => {
                Self::Map(Map::of_json(fields, Some(values)))
            }
            (Shape::Object(_) | Shape::Map(_), _) => {
                let message =
                    "invalid data, expected a map for the provided schema with type=object";
                return Err(Error::failed(message));
            }
            (Shape::List(items, kind), Json::Array(list)) => {
                Self::List(super::List::of_json(list, Some(items), kind.as_kind()))
            }
            (Shape::List(..), _) => {
                let message =
                    "invalid data, expected an array for the provided schema with type=array";
                return Err(Error::failed(message));
            }
            (Shape::Bool, Json::Bool(value)) => Self::Bool(*value),
            (Shape::Bool, _) => return Err(wrong("bool")),
            (Shape::Int, Json::Number(number)) => {
                Self::Int(number.as_i64().ok_or_else(|| wrong("int"))?)
            }
            (Shape::Int, _) => return Err(wrong("int")),
            (Shape::Double, Json::Number(number)) => {
                Self::Double(number.as_f64().ok_or_else(|| wrong("float"))?)
            }
            (Shape::Double, _) => return Err(wrong("float")),
            (Shape::String, Json::String(text)) => Self::text(text),
            (Shape::Formatted(format), Json::String(text)) => formatted(text, *format)?,
            (Shape::String | Shape::Formatted(_), _) => return Err(wrong("string")),
        })
    }

    /// The value as JSON: an expression's result for a patch or an answer.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] for what JSON does not have: types, maps whose keys are no strings,
    /// numbers that are not finite, opaque values without text. [`Error::CostLimit`] if it is too
    /// large.
    pub fn to_json(&self) -> Result<Json, Error> {
        Writer { values: 0 }.write(self)
    }
}

fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

fn formatted<'a>(text: &'a str, format: Format) -> Result<Value<'a>, Error> {
    Ok(match format {
        Format::Byte => {
            let bytes = STANDARD.decode(text).map_err(|error| {
                Error::failed(format!("Invalid byte formatted string {text}: {error}"))
            })?;
            Value::Bytes(Arc::from(bytes))
        }
        Format::Duration => Value::Duration(lenient_duration(text).ok_or_else(|| {
            Error::failed(format!("Invalid duration {text}: unable to parse {text} as duration"))
        })?),
        Format::Date => {
            let date = Moment::of_date(text).ok_or_else(|| {
                Error::failed(format!("Invalid date formatted string {text}: cannot parse"))
            })?;
            Value::Timestamp(date)
        }
        Format::DateTime => Value::Timestamp(lenient_moment(text).ok_or_else(|| {
            Error::failed(format!("Invalid date-time formatted string {text}: cannot parse"))
        })?),
    })
}

/// The standard base64 form of bytes.
pub(crate) fn base64_text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

struct Writer {
    values: usize,
}

impl Writer {
    fn write(&mut self, value: &Value<'_>) -> Result<Json, Error> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Error::CostLimit);
        }
        Ok(match value {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => Json::Number(Number::from_f64(*value).ok_or_else(|| {
                Error::failed(format!("{} cannot be written as JSON", go_double(*value)))
            })?),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(base64_text(bytes)),
            Value::Timestamp(moment) => Json::String(moment.to_string()),
            Value::Duration(nanoseconds) => Json::String(super::duration_text(*nanoseconds)),
            Value::List(list) => {
                Json::Array(list.iter().map(|item| self.write(&item?)).collect::<Result<_, _>>()?)
            }
            Value::Map(map) => self.write_map(map)?,
            Value::Optional(Some(value)) => self.write(value)?,
            Value::Type(_) => return Err(Error::failed("a type cannot be written as JSON")),
            Value::Opaque(value) => Json::String(value.to_text().ok_or_else(|| {
                let name = value.type_of();
                Error::failed(format!("a {name} cannot be written as JSON"))
            })?),
        })
    }

    fn write_map(&mut self, map: &Map<'_>) -> Result<Json, Error> {
        // What came from JSON goes back as it came, with the fields that were not declared.
        if let Some((fields, _)) = map.declared() {
            return Ok(Json::Object(fields.clone()));
        }
        let mut fields = JsonMap::new();
        for entry in map.iter() {
            let (key, value) = entry?;
            let Value::String(name) = &key else {
                let kind = key.type_of();
                return Err(Error::failed(format!("a key of type {kind} cannot be written")));
            };
            fields.insert(name.to_string(), self.write(&value)?);
        }
        Ok(Json::Object(fields))
    }
}
