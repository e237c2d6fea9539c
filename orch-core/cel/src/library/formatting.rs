//! `format`: values put into a text.
//!
//! Source: cel-go `ext/formatting.go`, in the language of the United States as upstream sets it.

use crate::error::Error;
use crate::evaluate::Context;
use crate::types::Type;
use crate::value::{List, Map, Value, go_double};

/// The digits after the point where nothing is said.
const PRECISION: usize = 6;
/// More digits are refused. Differs: upstream has no limit but its memory.
const PRECISION_MAX: usize = 1000;
/// Values within values that are written out, at most.
const VALUES_MAX: usize = 1 << 20;

/// One clause, such as `%.3f`.
struct Clause {
    kind: char,
    precision: Option<usize>,
}

/// A text between clauses, or a clause.
enum Piece<'f> {
    Text(&'f str),
    Clause(Clause),
}

/// Takes a format apart.
fn pieces(format: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        found.push(Piece::Text(&rest[..at]));
        let behind = &rest[at + 1..];
        if let Some(after) = behind.strip_prefix('%') {
            found.push(Piece::Text("%"));
            rest = after;
            continue;
        }
        if behind.is_empty() {
            return Err("unexpected end of string".to_owned());
        }
        let (clause, length) = clause(behind)?;
        found.push(Piece::Clause(clause));
        rest = &behind[length..];
    }
    found.push(Piece::Text(rest));
    Ok(found)
}

fn clause(text: &str) -> Result<(Clause, usize), String> {
    let wrong = |what: &str| Err(format!("could not parse formatting clause: {what}"));
    let mut at = 0;
    let mut precision = None;
    if let Some(digits) = text.strip_prefix('.') {
        let Some(end) = digits.find(|c: char| !c.is_ascii_digit()) else {
            let what = "could not find end of precision specifier";
            return wrong(&format!("error while parsing precision: {what}"));
        };
        match digits[..end].parse() {
            Ok(number) if number <= PRECISION_MAX => precision = Some(number),
            _ => {
                let digits = &digits[..end];
                return wrong(&format!(
                    "error while parsing precision: error while converting precision to integer: \
                     strconv.Atoi: parsing {digits:?}: invalid syntax"
                ));
            }
        }
        at = end + 1;
    }
    match text[at..].chars().next() {
        Some(kind @ ('s' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o')) => {
            Ok((Clause { kind, precision }, at + 1))
        }
        Some(other) => wrong(&format!("unrecognized formatting clause \"{other}\"")),
        None => wrong("unexpected end of string"),
    }
}

/// What a clause cannot write.
fn refused(kind: char, given: &str) -> String {
    let what = match kind {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, \
             types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    };
    format!("error during formatting: {what}, was given {given}")
}

/// Checks a format against the types of its arguments. A failure is at an argument, or at the
/// call as a whole.
pub(crate) fn check(format: &str, types: &[&Type]) -> Result<(), (Option<usize>, String)> {
    let pieces = pieces(format).map_err(|message| (None, message))?;
    let mut next = 0;
    for piece in &pieces {
        let Piece::Clause(clause) = piece else { continue };
        let Some(of) = types.get(next) else {
            return Err((None, format!("index {next} out of range")));
        };
        if !accepts(clause.kind, of) {
            return Err((Some(next), refused(clause.kind, of.name())));
        }
        next += 1;
    }
    if types.len() > next {
        let given = types.len();
        return Err((
            None,
            format!("too many arguments supplied to string.format (expected {next}, got {given})"),
        ));
    }
    Ok(())
}

fn accepts(kind: char, of: &Type) -> bool {
    match (kind, of) {
        (_, Type::Dyn | Type::Param(_)) => true,
        ('s', of) => !matches!(of, Type::Object(_) | Type::Opaque(..)),
        ('d' | 'o', of) => matches!(of, Type::Int | Type::Uint),
        ('f' | 'e', of) => matches!(of, Type::Double | Type::String),
        ('b', of) => matches!(of, Type::Int | Type::Uint | Type::Bool),
        (_, of) => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
    }
}

/// Puts the elements of a list into a format.
pub(super) fn format(
    context: &mut Context<'_>,
    format: &str,
    list: &List<'_>,
) -> Result<String, Error> {
    let mut written = String::new();
    let mut next = 0;
    let mut writer = Writer { values: 0 };
    for piece in pieces(format).map_err(Error::failed)? {
        match piece {
            Piece::Text(text) => written.push_str(text),
            Piece::Clause(clause) => {
                if next >= list.len() {
                    return Err(Error::failed(format!("index {next} out of range")));
                }
                let value = list.get(next)?;
                let text = writer.clause(&clause, &value)?;
                context.reserve_text(text.len())?;
                written.push_str(&text);
                next += 1;
            }
        }
    }
    context.reserve_text(format.len())?;
    Ok(written)
}

struct Writer {
    values: usize,
}

impl Writer {
    fn clause(&mut self, clause: &Clause, value: &Value<'_>) -> Result<String, Error> {
        let precision = clause.precision.unwrap_or(PRECISION);
        let written = match (clause.kind, value) {
            ('s', value) => self.text(value)?,
            ('d', Value::Int(value)) => Some(value.to_string()),
            ('d', Value::Uint(value)) => Some(value.to_string()),
            ('f', value) => number(value).map(|number| fixed(number, precision)),
            ('e', value) => number(value).map(|number| scientific(number, precision)),
            ('b', Value::Bool(value)) => Some(u8::from(*value).to_string()),
            ('b', value) => signed(value, |n| format!("{n:b}")),
            ('o', value) => signed(value, |n| format!("{n:o}")),
            ('x', value) => hex(value),
            ('X', value) => hex(value).map(|text| text.to_ascii_uppercase()),
            _ => None,
        };
        written.ok_or_else(|| {
            let of = value.type_of();
            Error::failed(refused(clause.kind, of.name()))
        })
    }

    fn text(&mut self, value: &Value<'_>) -> Result<Option<String>, Error> {
        Ok(Some(match value {
            Value::String(text) => text.to_string(),
            Value::Null => "null".to_owned(),
            Value::List(list) => self.list(list)?,
            Value::Map(map) => self.map(map)?,
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Type(of) => of.name().to_owned(),
            Value::Opaque(_) | Value::Optional(_) => return Ok(None),
            Value::Double(value) => go_double(*value),
            scalar => scalar.shown(),
        }))
    }

    /// A value within a list or map, as it could stand in an expression.
    fn nested(&mut self, value: &Value<'_>) -> Result<String, Error> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Error::CostLimit);
        }
        Ok(match value {
            Value::String(text) => format!("{:?}", &**text),
            Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
            Value::Double(value) if value.is_finite() => format!("{value:.PRECISION$}"),
            Value::Double(value) => format!("{:?}", go_double(*value)),
            Value::Timestamp(moment) => format!("timestamp(\"{moment}\")"),
            Value::Duration(_) => format!("duration({:?})", value.shown()),
            other => match self.text(other)? {
                Some(text) => text,
                None => {
                    let of = other.type_of();
                    let message = format!("no formatting function for {}", of.name());
                    return Err(Error::failed(format!("error during formatting: {message}")));
                }
            },
        })
    }

    fn list(&mut self, list: &List<'_>) -> Result<String, Error> {
        let parts = list.iter().map(|item| self.nested(&item?)).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("[{}]", parts.join(", ")))
    }

    fn map(&mut self, map: &Map<'_>) -> Result<String, Error> {
        let mut parts = Vec::new();
        for entry in map.iter() {
            let (key, value) = entry?;
            parts.push((self.nested(&key)?, self.nested(&value)?));
        }
        parts.sort();
        let parts: Vec<String> =
            parts.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
        Ok(format!("{{{}}}", parts.join(", ")))
    }
}

/// A number, or what stands for one that has no digits.
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn without_digits(number: f64) -> Option<String> {
    if number.is_nan() {
        return Some("NaN".to_owned());
    }
    let sign = if number < 0.0 { "-" } else { "" };
    number.is_infinite().then(|| format!("{sign}\u{221e}"))
}

/// With commas between thousands.
fn fixed(number: f64, precision: usize) -> String {
    if let Some(text) = without_digits(number) {
        return text;
    }
    let text = format!("{:.precision$}", number.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

/// `1.052033×10⁰³`.
fn scientific(number: f64, precision: usize) -> String {
    if let Some(text) = without_digits(number) {
        return text;
    }
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("\u{207b}", exponent),
        None => ("", exponent),
    };
    let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
    format!("{digits}\u{d7}10{sign}{raised}")
}

fn superscript(digit: char) -> char {
    match digit {
        '1' => '\u{b9}',
        '2' => '\u{b2}',
        '3' => '\u{b3}',
        other => char::from_u32(0x2070 + other as u32 - '0' as u32).unwrap_or(other),
    }
}

fn signed(value: &Value<'_>, digits: impl Fn(u64) -> String) -> Option<String> {
    match value {
        Value::Int(value) => {
            let sign = if *value < 0 { "-" } else { "" };
            Some(format!("{sign}{}", digits(value.unsigned_abs())))
        }
        Value::Uint(value) => Some(digits(*value)),
        _ => None,
    }
}

fn hex(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match value {
        Value::String(text) => Some(bytes(text.as_bytes())),
        Value::Bytes(given) => Some(bytes(given)),
        other => signed(other, |n| format!("{n:x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_upstream_writes_them() {
        assert_eq!(fixed(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(fixed(-0.5, 3), "-0.500");
        assert_eq!(fixed(1.2345, 3), "1.234");
        assert_eq!(fixed(f64::NEG_INFINITY, 3), "-\u{221e}");
        assert_eq!(scientific(1052.032911275, 6), "1.052033\u{d7}10\u{2070}\u{b3}");
        assert_eq!(scientific(0.025, 1), "2.5\u{d7}10\u{207b}\u{2070}\u{b2}");
    }
}
