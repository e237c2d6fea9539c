//! The wire format itself: tags, varints, lengths.

use super::ProtobufError;

/// The value of one field as the wire has it.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Malformed("wrong wire type")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, ProtobufError> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map_err(|_| ProtobufError::Malformed("a string is not UTF-8"))
    }

    pub(super) fn varint(self) -> Result<u64, ProtobufError> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(ProtobufError::Malformed("wrong wire type")),
        }
    }
}

/// The fields of a message in the order of the bytes.
pub(super) fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), ProtobufError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), ProtobufError> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
    let number = number.ok_or(ProtobufError::Malformed("illegal field number"))?;
    let value = match tag & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Fixed64(u64::from_le_bytes(array(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Fixed32(u32::from_le_bytes(array(rest)?)),
        _ => return Err(ProtobufError::Malformed("illegal wire type")),
    };
    Ok((number, value))
}

/// The numbers of a packed list.
pub(super) fn packed(mut bytes: &[u8]) -> Result<Vec<u64>, ProtobufError> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)?);
    }
    Ok(numbers)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ProtobufError> {
    let (taken, left) =
        rest.split_at_checked(length).ok_or(ProtobufError::Malformed("unexpected end"))?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProtobufError> {
    let taken = take(rest, N)?;
    taken.try_into().map_err(|_| ProtobufError::Malformed("unexpected end"))
}

fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Malformed("a number is too long"))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

pub(super) fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}
