//! From CBOR to values.

use base64::{Engine as _, engine::general_purpose};
use jiff::Timestamp;
use minicbor::{
    Decoder,
    data::{Tag, Type},
};
use serde_json::{Map, Number, Value};

use super::{CborError, DEPTH_MAX};

/// The tags that mean something (RFC 8949, 3.4); the content of others is taken as it is.
mod tags {
    pub(super) const TIME_TEXT: u64 = 0;
    pub(super) const TIME_NUMBER: u64 = 1;
    pub(super) const BIG_POSITIVE: u64 = 2;
    pub(super) const BIG_NEGATIVE: u64 = 3;
    pub(super) const BASE64_URL: u64 = 21;
    pub(super) const BASE64: u64 = 22;
    pub(super) const BASE16: u64 = 23;
}

/// Decodes one value, with or without the tag of self-described CBOR.
///
/// # Errors
/// [`CborError`]; the API server answers it as 400.
pub fn decode(bytes: &[u8]) -> Result<Value, CborError> {
    let mut decoder = Decoder::new(bytes);
    let value = value(&mut decoder, DEPTH_MAX)?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        left => Err(CborError::Trailing(left, decoder.position())),
    }
}

fn value(from: &mut Decoder<'_>, depth: usize) -> Result<Value, CborError> {
    let depth = depth.checked_sub(1).ok_or(CborError::TooDeep(DEPTH_MAX))?;
    Ok(match from.datatype()? {
        Type::Null => {
            from.null()?;
            Value::Null
        }
        Type::Bool => Value::Bool(from.bool()?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            Value::from(i64::try_from(from.u64()?).map_err(|_| CborError::TooLarge)?)
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            let number = i128::from(from.int()?);
            Value::from(i64::try_from(number).map_err(|_| CborError::TooLarge)?)
        }
        Type::F16 => float(f64::from(from.f16()?))?,
        Type::F32 => float(f64::from(from.f32()?))?,
        Type::F64 => float(from.f64()?)?,
        Type::String | Type::StringIndef => Value::String(text(from)?),
        Type::Bytes | Type::BytesIndef => Value::String(utf8(bytes(from)?)?),
        Type::Array | Type::ArrayIndef => array(from, depth)?,
        Type::Map | Type::MapIndef => map(from, depth)?,
        Type::Tag => {
            let tag = from.tag()?;
            tagged(from, tag, depth)?
        }
        other => return Err(CborError::Simple(other.to_string())),
    })
}

fn float(number: f64) -> Result<Value, CborError> {
    Number::from_f64(number).map(Value::Number).ok_or(CborError::NotFinite)
}

fn text(from: &mut Decoder<'_>) -> Result<String, CborError> {
    let mut whole = String::new();
    for part in from.str_iter()? {
        whole.push_str(part?);
    }
    Ok(whole)
}

fn bytes(from: &mut Decoder<'_>) -> Result<Vec<u8>, CborError> {
    let mut whole = Vec::new();
    for part in from.bytes_iter()? {
        whole.extend_from_slice(part?);
    }
    Ok(whole)
}

fn utf8(bytes: Vec<u8>) -> Result<String, CborError> {
    String::from_utf8(bytes).map_err(|_| CborError::NotText)
}

/// Whether a list or map of a stated or an open length goes on.
fn goes_on(from: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, CborError> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None if from.datatype()? == Type::Break => {
            from.set_position(from.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn array(from: &mut Decoder<'_>, depth: usize) -> Result<Value, CborError> {
    // The stated length is not trusted with memory.
    let (mut left, mut list) = (from.array()?, Vec::new());
    while goes_on(from, &mut left)? {
        list.push(value(from, depth)?);
    }
    Ok(Value::Array(list))
}

fn map(from: &mut Decoder<'_>, depth: usize) -> Result<Value, CborError> {
    let (mut left, mut map) = (from.map()?, Map::new());
    while goes_on(from, &mut left)? {
        let key = match from.datatype()? {
            Type::String | Type::StringIndef => text(from)?,
            Type::Bytes | Type::BytesIndef => utf8(bytes(from)?)?,
            other => return Err(CborError::Key(other)),
        };
        if map.contains_key(&key) {
            return Err(CborError::DuplicateKey(key, map.len()));
        }
        let value = value(from, depth)?;
        map.insert(key, value);
    }
    Ok(Value::Object(map))
}

fn tagged(from: &mut Decoder<'_>, tag: Tag, depth: usize) -> Result<Value, CborError> {
    let is_bytes = matches!(from.datatype()?, Type::Bytes | Type::BytesIndef);
    match tag.as_u64() {
        tags::BIG_POSITIVE | tags::BIG_NEGATIVE => Err(CborError::TooLarge),
        tags::BASE64_URL if is_bytes => {
            Ok(general_purpose::URL_SAFE_NO_PAD.encode(bytes(from)?).into())
        }
        tags::BASE64 if is_bytes => Ok(general_purpose::STANDARD.encode(bytes(from)?).into()),
        tags::BASE16 if is_bytes => {
            let hex: String = bytes(from)?.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(hex.into())
        }
        tags::TIME_TEXT => {
            let told = value(from, depth)?;
            let time: Result<Timestamp, _> = told.as_str().unwrap_or_default().parse();
            Ok(time.map_err(|_| CborError::Time)?.to_string().into())
        }
        tags::TIME_NUMBER => {
            let told = value(from, depth)?;
            let time = match (told.as_i64(), told.as_f64()) {
                (Some(seconds), _) => Timestamp::from_second(seconds),
                (None, Some(seconds)) => jiff::SignedDuration::try_from_secs_f64(seconds)
                    .and_then(Timestamp::from_duration),
                _ => return Err(CborError::Time),
            };
            Ok(time.map_err(|_| CborError::Time)?.to_string().into())
        }
        _ => value(from, depth),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cbor::encode;

    #[test]
    fn what_json_can_say_survives() {
        let value = json!({
            "text": "ä", "list": [1, -1, 1.5, 0.1, 65504.0, 1e300, i64::MAX, i64::MIN, true, null],
            "map": {"": {}, "a": []},
        });
        assert_eq!(decode(&encode(&value)).unwrap(), value);
        // Strings are byte strings, and numbers are as short as they can be.
        assert_eq!(encode(&json!(["a", 1.5])), b"\xd9\xd9\xf7\x82\x41a\xf9\x3e\x00");
    }

    #[test]
    fn other_writers_are_understood() {
        let check = |bytes: &[u8], expected: Value| {
            assert_eq!(decode(bytes).unwrap(), expected, "{bytes:x?}");
        };
        check(b"\x61a", json!("a"));
        check(b"\x7f\x61a\x61b\xff", json!("ab"));
        check(b"\x5f\x41a\x41b\xff", json!("ab"));
        check(b"\xbf\x61a\x9f\x01\xff\x41b\xf6\xff", json!({"a": [1], "b": null}));
        check(b"\xd6\x43foo", json!("Zm9v"));
        check(b"\xd5\x43foo", json!("Zm9v"));
        check(b"\xd7\x43foo", json!("666f6f"));
        check(b"\xc0\x742026-01-02T03:04:05Z", json!("2026-01-02T03:04:05Z"));
        check(b"\xc1\x00", json!("1970-01-01T00:00:00Z"));
        check(b"\xd9\x03\xe8\x01", json!(1));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{bytes:x?}: {error}");
        };
        check(b"\xa2\x41a\x01\x61a\x02", "found duplicate map key \"a\" at map element index 1");
        check(b"\xa1\x01\x02", "as a map key");
        check(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "overflows int64");
        check(b"\xc2\x41\x01", "overflows int64");
        check(b"\xf9\x7e\x00", "NaN or infinite");
        check(b"\xf7", "not recognized");
        check(b"\xe5", "not recognized");
        check(b"\x41\xff", "invalid UTF-8");
        check(b"\x01\x01", "1 bytes of extraneous data starting at index 1");
        check(b"\xc0\x61x", "no time");
        check(&[0x81; 100_000], "exceeded max nested level");
        check(&[0xc6; 100_000], "exceeded max nested level");
        check(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "cbor: ");
        for length in 0..8 {
            assert!(decode(&b"\xa1\x42ab\x63abc"[..length]).is_err(), "{length}");
        }
    }
}
