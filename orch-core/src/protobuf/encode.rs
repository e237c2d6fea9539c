//! From JSON to messages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    ProtobufError,
    wire::{put_bytes, put_double, put_number},
};
use crate::schema::{Definition, Field, Shape, Type, definition};

/// Encodes an object's fields as a message. Nulls and unknown fields are left out.
pub(super) fn message(
    definition: &Definition,
    map: &Map<String, Value>,
    depth: usize,
) -> Result<Vec<u8>, ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep(super::DEPTH_MAX))?;
    let mut fields: Vec<(&[u32], &Field, &Value)> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(key, value)| {
            let field = definition.field(key)?;
            (!field.path.is_empty()).then_some((field.path.as_slice(), field, value))
        })
        .collect();
    fields.sort_by_key(|(path, ..)| *path);
    let mut out = Vec::new();
    level(&fields, &mut out, depth)?;
    Ok(out)
}

/// Writes fields in order of their numbers; those of one embedded message follow each other.
fn level(
    mut fields: &[(&[u32], &Field, &Value)],
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    while let Some((path, field, value)) = fields.first() {
        let [number, below @ ..] = path else { return Ok(()) };
        if below.is_empty() {
            write(field, *number, value, out, depth)?;
            fields = &fields[1..];
            continue;
        }
        let count = fields.iter().take_while(|(path, ..)| path.first() == Some(number)).count();
        let (embedded, rest) = fields.split_at(count);
        let embedded: Vec<_> =
            embedded.iter().map(|(path, field, value)| (&path[1..], *field, *value)).collect();
        let mut inner = Vec::new();
        level(&embedded, &mut inner, depth)?;
        put_bytes(out, *number, &inner);
        fields = rest;
    }
    Ok(())
}

fn write(
    field: &Field,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let name = field.name;
    match (&field.ty, value) {
        (Type::Array(item), Value::Array(_)) if field.wrapped => {
            put_bytes(out, number, &wrapped(name, item, value, depth)?);
        }
        (Type::Array(item), Value::Array(list)) => {
            for value in list {
                single(name, item, number, value, out, depth)?;
            }
        }
        (Type::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                match &**item {
                    Type::Array(item) => {
                        put_bytes(&mut entry, 2, &wrapped(name, item, value, depth)?);
                    }
                    item => single(name, item, 2, value, &mut entry, depth)?,
                }
                put_bytes(out, number, &entry);
            }
        }
        (ty, value) => single(name, ty, number, value, out, depth)?,
    }
    Ok(())
}

/// A list as a message of its own, its elements in field 1.
fn wrapped(
    name: &'static str,
    item: &Type,
    value: &Value,
    depth: usize,
) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    for value in value.as_array().ok_or(ProtobufError::WrongType(name))? {
        single(name, item, 1, value, &mut out, depth)?;
    }
    Ok(out)
}

fn single(
    name: &'static str,
    ty: &Type,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let wrong = || ProtobufError::WrongType(name);
    match (ty, value) {
        // Nulls among the elements of a list or map are zero values, as Go decodes them.
        (Type::String | Type::Bytes, Value::Null) => put_bytes(out, number, b""),
        (Type::Boolean | Type::Int32 | Type::Int64, Value::Null) => put_number(out, number, 0),
        (Type::String, value) => {
            put_bytes(out, number, value.as_str().ok_or_else(wrong)?.as_bytes());
        }
        (Type::Bytes, value) => {
            let bytes = STANDARD.decode(value.as_str().ok_or_else(wrong)?);
            put_bytes(out, number, &bytes.map_err(|_| wrong())?);
        }
        (Type::Boolean, value) => {
            put_number(out, number, value.as_bool().ok_or_else(wrong)?.into());
        }
        (Type::Int32 | Type::Int64, value) => {
            put_number(out, number, value.as_i64().ok_or_else(wrong)?.cast_unsigned());
        }
        (Type::Double, value) => put_double(out, number, value.as_f64().ok_or_else(wrong)?),
        (Type::Reference(reference), value) => {
            let inner = special(name, reference.definition(), value, depth)?;
            put_bytes(out, number, &inner);
        }
        (Type::Object | Type::Array(_) | Type::Map(_), _) => return Err(wrong()),
    }
    Ok(())
}

fn special(
    name: &'static str,
    definition: &Definition,
    value: &Value,
    depth: usize,
) -> Result<Vec<u8>, ProtobufError> {
    let wrong = || ProtobufError::WrongType(name);
    let mut out = Vec::new();
    match (definition.shape, value) {
        (Shape::Raw | Shape::Any, value) => {
            put_bytes(&mut out, 1, &serde_json::to_vec(value).map_err(ProtobufError::Json)?);
        }
        (_, Value::Null) => {}
        (Shape::Struct, value) => {
            return message(definition, value.as_object().ok_or_else(wrong)?, depth);
        }
        (Shape::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
        (Shape::Quantity, Value::Number(number)) => {
            put_bytes(&mut out, 1, number.to_string().as_bytes());
        }
        (Shape::Quantity, _) => return Err(wrong()),
        (Shape::IntOrString, value) => {
            let number = value.as_i64();
            put_number(&mut out, 1, number.is_none().into());
            put_number(&mut out, 2, number.unwrap_or(0).cast_unsigned());
            let text = if number.is_some() { "" } else { value.as_str().ok_or_else(wrong)? };
            put_bytes(&mut out, 3, text.as_bytes());
        }
        (Shape::Time | Shape::MicroTime, value) => {
            let time: Timestamp =
                value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
            put_number(&mut out, 1, time.as_second().cast_unsigned());
            let nanos = if definition.shape == Shape::Time { 0 } else { time.subsec_nanosecond() };
            put_number(&mut out, 2, i64::from(nanos).cast_unsigned());
        }
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, value) => {
            schema_or(name, definition.shape, value, &mut out, depth)?;
        }
    }
    Ok(out)
}

fn schema_or(
    name: &'static str,
    shape: Shape,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let wrong = || ProtobufError::WrongType(name);
    let properties = |value: &Value| {
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let definition = definition(name).ok_or_else(wrong)?;
        message(definition, value.as_object().ok_or_else(wrong)?, depth)
    };
    match (shape, value) {
        (Shape::SchemaOrBool, Value::Bool(allows)) => put_number(out, 1, (*allows).into()),
        (Shape::SchemaOrBool, value) => {
            put_number(out, 1, 1);
            put_bytes(out, 2, &properties(value)?);
        }
        (Shape::SchemaOrStrings, Value::Array(list)) => {
            for text in list {
                put_bytes(out, 2, text.as_str().ok_or_else(wrong)?.as_bytes());
            }
        }
        (_, Value::Array(list)) => {
            for schema in list {
                put_bytes(out, 2, &properties(schema)?);
            }
        }
        (_, value) => put_bytes(out, 1, &properties(value)?),
    }
    Ok(())
}
