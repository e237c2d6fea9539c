//! The protobuf form of an OpenAPI version 2 document, which older clients ask for.
//!
//! Written from the JSON form, for what these documents contain and no more.
//!
//! Source: `OpenAPIv2.proto` of `github.com/google/gnostic-models` (message and field numbers).

use serde_json::{Map, Value};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A string, if the value is one.
    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    /// A flag, if the value is true.
    fn flag(&mut self, field: u32, value: Option<&Value>) {
        if value == Some(&Value::Bool(true)) {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    /// Strings, if the value is a list of them.
    fn texts(&mut self, field: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    /// The `x-` members of an object, whose values are carried as YAML, of which JSON is a part.
    fn extensions(&mut self, field: u32, object: &Value) {
        for (name, value) in members(object).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            any.bytes(2, value.to_string().as_bytes());
            let mut named = Self::default();
            named.bytes(1, name.as_bytes());
            named.message(2, &any);
            self.message(field, &named);
        }
    }

    /// A pair of a name and a message.
    fn named(&mut self, field: u32, name: &str, value: &Self) {
        let mut named = Self::default();
        named.bytes(1, name.as_bytes());
        named.message(2, value);
        self.message(field, &named);
    }

    /// The message wrapped as the only field of another.
    fn inside(self, field: u32) -> Self {
        let mut outer = Self::default();
        outer.message(field, &self);
        outer
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Encodes a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    if let Some(info) = document.get("info") {
        let mut message = Message::default();
        message.text(1, info.get("title"));
        message.text(2, info.get("version"));
        out.message(2, &message);
    }
    let mut paths = Message::default();
    for (path, item) in document.get("paths").into_iter().flat_map(members) {
        paths.named(2, path, &path_item(item));
    }
    out.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in document.get("definitions").into_iter().flat_map(members) {
        definitions.named(1, name, &schema(definition));
    }
    out.message(9, &definitions);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            out.message(field, &operation(value));
        }
    }
    for value in item.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(9, &parameter(value));
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value.get("tags"));
    out.text(3, value.get("description"));
    out.text(5, value.get("operationId"));
    out.texts(6, value.get("produces"));
    out.texts(7, value.get("consumes"));
    for value in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(8, &parameter(value));
    }
    let mut responses = Message::default();
    for (code, value) in value.get("responses").into_iter().flat_map(members) {
        let mut response = Message::default();
        response.text(1, value.get("description"));
        if let Some(value) = value.get("schema") {
            response.message(2, &schema(value).inside(1));
        }
        responses.named(1, code, &response.inside(1));
    }
    out.message(9, &responses);
    out.texts(10, value.get("schemes"));
    out.extensions(13, value);
    out
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    let place = value.get("in").and_then(Value::as_str).unwrap_or_default();
    let wrapped = if place == "body" {
        out.text(1, value.get("description"));
        out.text(2, value.get("name"));
        out.text(3, value.get("in"));
        out.flag(4, value.get("required"));
        if let Some(value) = value.get("schema") {
            out.message(5, &schema(value));
        }
        out.inside(1)
    } else {
        // The two kinds number their fields alike but for one that query parameters have more.
        let (kind, shift) = if place == "path" { (4, 0) } else { (3, 1) };
        out.flag(1, value.get("required"));
        out.text(2, value.get("in"));
        out.text(3, value.get("description"));
        out.text(4, value.get("name"));
        out.text(5 + shift, value.get("type"));
        out.flag(19 + shift, value.get("uniqueItems"));
        out.inside(kind).inside(2)
    };
    wrapped.inside(1)
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value.get("$ref"));
    out.text(2, value.get("format"));
    out.text(4, value.get("description"));
    out.texts(19, value.get("required"));
    if let Some(value) = value.get("additionalProperties") {
        out.message(21, &schema(value).inside(1));
    }
    if let Some(ty) = value.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.bytes(1, ty.as_bytes());
        out.message(22, &item);
    }
    if let Some(value) = value.get("items") {
        out.message(23, &schema(value).inside(1));
    }
    if let Some(value) = value.get("properties") {
        let mut properties = Message::default();
        for (name, value) in members(value) {
            properties.named(1, name, &schema(value));
        }
        out.message(25, &properties);
    }
    out.extensions(31, value);
    out
}
