//! From messages to JSON.

use std::cell::Cell;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    MAGIC, ProtobufError,
    wire::{self, Wire},
};
use crate::schema::{Definition, Field, Shape, Type, definition};

/// How deep messages may still go, and how many more there may be.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    pub(super) depth: usize,
    pub(super) messages: &'a Cell<usize>,
}

impl Limits<'_> {
    /// The limits of a message inside this one.
    fn deeper(self) -> Result<Self, ProtobufError> {
        let depth = self.depth.checked_sub(1).ok_or(ProtobufError::TooDeep(super::DEPTH_MAX))?;
        let left = self.messages.get().checked_sub(1);
        self.messages.set(left.ok_or(ProtobufError::TooMany(super::MESSAGES_MAX))?);
        Ok(Self { depth, ..self })
    }
}

/// Decodes a message into an object's fields.
pub(super) fn message(
    definition: &Definition,
    into: &mut Map<String, Value>,
    bytes: &[u8],
    limits: Limits<'_>,
) -> Result<(), ProtobufError> {
    level(definition, &mut Vec::new(), into, bytes, limits)
}

/// Decodes a message, or one that is embedded in it under this path of field numbers: in JSON the
/// fields of both are on one level.
fn level(
    definition: &Definition,
    path: &mut Vec<u32>,
    into: &mut Map<String, Value>,
    bytes: &[u8],
    limits: Limits<'_>,
) -> Result<(), ProtobufError> {
    let limits = limits.deeper()?;
    for field in wire::fields(bytes) {
        let (number, value) = field?;
        path.push(number);
        let known = definition.fields().iter().find(|field| field.path.starts_with(path));
        match known {
            Some(field) if field.path.len() == path.len() => {
                assign(field, into, value, limits)?;
            }
            Some(_) => level(definition, path, into, value.bytes()?, limits)?,
            None => {}
        }
        path.pop();
    }
    Ok(())
}

fn assign(
    field: &Field,
    into: &mut Map<String, Value>,
    value: Wire<'_>,
    limits: Limits<'_>,
) -> Result<(), ProtobufError> {
    match &field.ty {
        Type::Array(item) if field.wrapped => {
            into.insert(field.name.into(), wrapped(item, value, limits)?);
        }
        Type::Array(item) => {
            let list = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                elements(item, value, list, limits)?;
            }
        }
        Type::Map(item) => {
            let (key, value) = entry(item, field.wrapped, value, limits)?;
            let map = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
        ty => {
            let value = single(ty, value, limits)?;
            if field.pointer || field.required || !is_zero(&value) {
                into.insert(field.name.into(), value);
            }
        }
    }
    Ok(())
}

/// What Go leaves out of JSON unless it is behind a pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn elements(
    item: &Type,
    value: Wire<'_>,
    list: &mut Vec<Value>,
    limits: Limits<'_>,
) -> Result<(), ProtobufError> {
    let numeric = matches!(item, Type::Int32 | Type::Int64 | Type::Boolean);
    if let (true, Wire::Bytes(bytes)) = (numeric, value) {
        for number in wire::packed(bytes)? {
            list.push(single(item, Wire::Varint(number), limits)?);
        }
    } else {
        list.push(single(item, value, limits)?);
    }
    Ok(())
}

/// A list that is a message of its own, its elements in field 1.
fn wrapped(item: &Type, value: Wire<'_>, limits: Limits<'_>) -> Result<Value, ProtobufError> {
    let mut list = Vec::new();
    for field in wire::fields(value.bytes()?) {
        if let (1, value) = field? {
            elements(item, value, &mut list, limits)?;
        }
    }
    Ok(Value::Array(list))
}

/// An entry of a map: a message with the key in field 1 and the value in field 2.
fn entry(
    item: &Type,
    is_wrapped: bool,
    value: Wire<'_>,
    limits: Limits<'_>,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    for field in wire::fields(value.bytes()?) {
        match field? {
            (1, value) => key = value.text()?.to_owned(),
            (2, value) => {
                found = Some(match item {
                    Type::Array(item) if is_wrapped => wrapped(item, value, limits)?,
                    item => single(item, value, limits)?,
                });
            }
            _ => {}
        }
    }
    match found {
        Some(value) => Ok((key, value)),
        // An entry without a value holds its type's zero.
        None => {
            let empty = match item {
                Type::Int32 | Type::Int64 | Type::Boolean => Wire::Varint(0),
                Type::Double => Wire::Fixed64(0),
                _ => Wire::Bytes(&[]),
            };
            Ok((key, single(item, empty, limits)?))
        }
    }
}

fn single(ty: &Type, value: Wire<'_>, limits: Limits<'_>) -> Result<Value, ProtobufError> {
    Ok(match ty {
        Type::String => Value::String(value.text()?.to_owned()),
        Type::Bytes => Value::String(STANDARD.encode(value.bytes()?)),
        Type::Boolean => Value::Bool(value.varint()? != 0),
        // Negative numbers come as 64 bits of two's complement; 32-bit ones wrap as Go's do.
        Type::Int32 => Value::from(value.varint()?.cast_signed() as i32),
        Type::Int64 => Value::from(value.varint()?.cast_signed()),
        Type::Double => match value {
            Wire::Fixed64(bits) => Value::from(f64::from_bits(bits)),
            Wire::Fixed32(bits) => Value::from(f64::from(f32::from_bits(bits))),
            _ => return Err(ProtobufError::Malformed("wrong wire type")),
        },
        Type::Reference(reference) => special(reference.definition(), value.bytes()?, limits)?,
        Type::Object | Type::Array(_) | Type::Map(_) => {
            return Err(ProtobufError::Malformed("a list in a list"));
        }
    })
}

fn special(
    definition: &Definition,
    bytes: &[u8],
    limits: Limits<'_>,
) -> Result<Value, ProtobufError> {
    match definition.shape {
        Shape::Struct => {
            let mut object = Map::new();
            message(definition, &mut object, bytes, limits)?;
            Ok(Value::Object(object))
        }
        Shape::Raw | Shape::Any => raw(bytes, limits),
        Shape::Quantity => {
            let text = find(bytes, 1)?.map_or(Ok(""), Wire::text)?;
            Ok(Value::String(if text.is_empty() { "0" } else { text }.to_owned()))
        }
        Shape::IntOrString => match find(bytes, 1)?.map_or(Ok(0), Wire::varint)? {
            0 => single(&Type::Int32, find(bytes, 2)?.unwrap_or(Wire::Varint(0)), limits),
            _ => single(&Type::String, find(bytes, 3)?.unwrap_or(Wire::Bytes(&[])), limits),
        },
        Shape::Time | Shape::MicroTime => time(definition.shape, bytes),
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
            schema_or(definition.shape, bytes, limits)
        }
    }
}

/// The last field of that number, as protobuf has it.
fn find(bytes: &[u8], wanted: u32) -> Result<Option<Wire<'_>>, ProtobufError> {
    let mut found = None;
    for field in wire::fields(bytes) {
        let (number, value) = field?;
        if number == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

/// JSON, or an enveloped object, as bytes in field 1.
fn raw(bytes: &[u8], limits: Limits<'_>) -> Result<Value, ProtobufError> {
    let bytes = find(bytes, 1)?.map_or(Ok(&[][..]), Wire::bytes)?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(MAGIC) {
        return super::decode_envelope(bytes, limits.deeper()?);
    }
    serde_json::from_slice(bytes).map_err(ProtobufError::Json)
}

/// Seconds in field 1 and nanoseconds in field 2; an empty message is no time.
fn time(shape: Shape, bytes: &[u8]) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = find(bytes, 1)?.map_or(Ok(0), Wire::varint)?.cast_signed();
    let nanos = find(bytes, 2)?.map_or(Ok(0), Wire::varint)?.cast_signed();
    let nanos = if shape == Shape::Time { 0 } else { i32::try_from(nanos).unwrap_or(0) };
    let time = Timestamp::new(seconds, nanos / 1000 * 1000)
        .map_err(|_| ProtobufError::Malformed("a time is out of range"))?;
    Ok(Value::String(match shape {
        Shape::Time => format!("{time:.0}"),
        _ => format!("{time:.6}"),
    }))
}

fn schema_or(shape: Shape, bytes: &[u8], limits: Limits<'_>) -> Result<Value, ProtobufError> {
    let properties = |bytes: &[u8]| {
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let definition = definition(name).ok_or(ProtobufError::Malformed("no JSON schema"))?;
        special(definition, bytes, limits)
    };
    let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
    for field in wire::fields(bytes) {
        match (shape, field?) {
            (Shape::SchemaOrBool, (1, value)) => allows = value.varint()? != 0,
            (Shape::SchemaOrBool, (2, value)) | (_, (1, value)) => {
                schema = Some(properties(value.bytes()?)?);
            }
            (Shape::SchemaOrStrings, (2, value)) => list.push(value.text()?.into()),
            (_, (2, value)) => list.push(properties(value.bytes()?)?),
            _ => {}
        }
    }
    Ok(match (schema, shape) {
        (Some(schema), _) => schema,
        (None, Shape::SchemaOrBool) => Value::Bool(allows),
        (None, _) => Value::Array(list),
    })
}
