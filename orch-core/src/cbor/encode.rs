//! From values to CBOR.

use minicbor::Encoder;
use serde_json::{Number, Value};

use super::SELF_DESCRIBED;

type Out = Encoder<Vec<u8>>;
/// Writing to memory cannot fail.
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Encodes a value, in the tag of self-described CBOR.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Encoder::new(SELF_DESCRIBED.to_vec());
    match put(&mut out, value) {
        Ok(()) => out.into_writer(),
        Err(error) => unreachable!("memory takes everything: {error}"),
    }
}

fn put(out: &mut Out, value: &Value) -> Written {
    match value {
        Value::Null => out.null()?.ok(),
        Value::Bool(value) => out.bool(*value)?.ok(),
        Value::Number(number) => put_number(out, number),
        Value::String(text) => out.bytes(text.as_bytes())?.ok(),
        Value::Array(list) => {
            out.array(length(list.len()))?;
            list.iter().try_for_each(|item| put(out, item))
        }
        Value::Object(map) => {
            out.map(length(map.len()))?;
            map.iter().try_for_each(|(key, value)| {
                out.bytes(key.as_bytes())?;
                put(out, value)
            })
        }
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Integers stay integers; others take the fewest bytes that lose nothing.
fn put_number(out: &mut Out, number: &Number) -> Written {
    if let Some(number) = number.as_i64() {
        return out.i64(number)?.ok();
    }
    if let Some(number) = number.as_u64() {
        return out.u64(number)?.ok();
    }
    let number = number.as_f64().unwrap_or_default();
    let single = number as f32;
    if f64::from(single) != number {
        return out.f64(number)?.ok();
    }
    let half = minicbor::to_vec(Half(single)).unwrap_or_default();
    let back = minicbor::Decoder::new(&half).f16();
    if back.is_ok_and(|back| back == single) {
        return out.f16(single)?.ok();
    }
    out.f32(single)?.ok()
}

struct Half(f32);

impl<C> minicbor::Encode<C> for Half {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.f16(self.0)?.ok()
    }
}

/// One event of a watch, whose object is encoded already. `event` is `ADDED`, for example.
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new(SELF_DESCRIBED.to_vec());
    let put_all = |out: &mut Out| -> Written {
        out.map(2)?.bytes(b"type")?.bytes(event.as_bytes())?.bytes(b"object")?.ok()
    };
    match put_all(&mut out) {
        Ok(()) => {
            let mut bytes = out.into_writer();
            bytes.extend_from_slice(object);
            bytes
        }
        Err(error) => unreachable!("memory takes everything: {error}"),
    }
}
