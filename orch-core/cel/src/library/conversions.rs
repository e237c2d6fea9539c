//! Conversions between types, and the names of types.
//!
//! Source: cel-go `common/stdlib/standard.go`, and the `ConvertToType` of each type.

use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{
    Moment, Value, duration_text, go_double, no_such_overload, parse_duration, parse_moment,
};

type Outcome<'a> = Result<Value<'a>, Error>;
/// The ids of forms, and what they take.
type Forms<'f> = &'f [(&'static str, Type)];
type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;

pub(super) fn install(functions: &mut Functions) {
    use Type::{Bool, Bytes, Double, Duration, Int, String, Timestamp, Uint};
    let targets: [(&'static str, Type, Body, Forms<'_>); 8] = [
        ("bool", Bool, to_bool, &[("bool_to_bool", Bool), ("string_to_bool", String)]),
        ("bytes", Bytes, to_bytes, &[("bytes_to_bytes", Bytes), ("string_to_bytes", String)]),
        (
            "double",
            Double,
            to_double,
            &[
                ("double_to_double", Double),
                ("int64_to_double", Int),
                ("string_to_double", String),
                ("uint64_to_double", Uint),
            ],
        ),
        (
            "duration",
            Duration,
            to_duration,
            &[
                ("duration_to_duration", Duration),
                ("int64_to_duration", Int),
                ("string_to_duration", String),
            ],
        ),
        (
            "int",
            Int,
            to_int,
            &[
                ("int64_to_int64", Int),
                ("double_to_int64", Double),
                ("duration_to_int64", Duration),
                ("string_to_int64", String),
                ("timestamp_to_int64", Timestamp),
                ("uint64_to_int64", Uint),
            ],
        ),
        (
            "string",
            String,
            to_string,
            &[
                ("string_to_string", String),
                ("bool_to_string", Bool),
                ("bytes_to_string", Bytes),
                ("double_to_string", Double),
                ("duration_to_string", Duration),
                ("int64_to_string", Int),
                ("timestamp_to_string", Timestamp),
                ("uint64_to_string", Uint),
            ],
        ),
        (
            "timestamp",
            Timestamp,
            to_timestamp,
            &[
                ("timestamp_to_timestamp", Timestamp),
                ("int64_to_timestamp", Int),
                ("string_to_timestamp", String),
            ],
        ),
        (
            "uint",
            Uint,
            to_uint,
            &[
                ("uint64_to_uint64", Uint),
                ("double_to_uint64", Double),
                ("int64_to_uint64", Int),
                ("string_to_uint64", String),
            ],
        ),
    ];
    for (name, result, body, forms) in targets {
        for (id, from) in forms {
            let form = Overload::function(*id, [from.clone()], result.clone(), body);
            functions.add(name, form);
        }
    }
    let any = || Type::param("A");
    functions.add("dyn", Overload::function("to_dyn", [any()], Type::Dyn, identity));
    functions.add("type", Overload::function("type", [any()], Type::type_of(any()), type_of));
    names(functions);
}

fn names(functions: &mut Functions) {
    use Type::{Bool, Bytes, Double, Duration, Int, Null, String, Timestamp, Uint};
    let all = [
        Bool,
        Bytes,
        Double,
        Duration,
        Int,
        Type::list(Type::param("A")),
        Type::map(Type::param("A"), Type::param("B")),
        Null,
        String,
        Timestamp,
        Type::Type(None),
        Uint,
        Type::optional(Type::param("V")),
    ];
    for of in all {
        functions.add_type(of.name().to_owned(), of);
    }
}

fn refused<'a>(from: &Value<'_>, to: &str) -> Outcome<'a> {
    let from = from.type_of();
    Err(Error::failed(format!("type conversion error from '{}' to '{to}'", from.name())))
}

fn identity<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().cloned().map_or_else(no_such_overload, Ok)
}

fn type_of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().map_or_else(no_such_overload, |value| Ok(Value::Type(value.type_of())))
}

fn to_bool<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [from @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => refused(from, "bool"),
        },
        _ => no_such_overload(),
    }
}

fn to_bytes<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
        _ => no_such_overload(),
    }
}

fn to_double<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [from @ Value::String(text)] => match text.parse::<f64>() {
            // What is too large is refused, unless it was written as infinite.
            Ok(value) if value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => {
                refused(from, "double")
            }
            Ok(value) => Ok(Value::Double(value)),
            Err(_) => refused(from, "double"),
        },
        _ => no_such_overload(),
    }
}

fn to_duration<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(value)] => Ok(Value::Duration(*value)),
        [from @ Value::String(text)] => match parse_duration(text) {
            Some(value) => Ok(Value::Duration(value)),
            None => refused(from, "google.protobuf.Duration"),
        },
        [from @ Value::Int(_)] => refused(from, "google.protobuf.Duration"),
        _ => no_such_overload(),
    }
}

fn to_int<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::failed("integer overflow");
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| overflow()),
        // The bounds themselves are refused: as doubles they are not exact.
        [Value::Double(value)] if value.abs() < 9_223_372_036_854_775_808.0 => {
            Ok(Value::Int(*value as i64))
        }
        [Value::Double(_)] => Err(overflow()),
        [Value::Duration(nanoseconds)] => Ok(Value::Int(*nanoseconds)),
        [Value::Timestamp(moment)] => Ok(Value::Int(moment.seconds())),
        [from @ Value::String(text)] => match text.parse() {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => refused(from, "int"),
        },
        _ => no_such_overload(),
    }
}

fn to_uint<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::failed("unsigned integer overflow");
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => u64::try_from(*value).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(value)] if (0.0..18_446_744_073_709_551_616.0).contains(value) => {
            Ok(Value::Uint(*value as u64))
        }
        [Value::Double(_)] => Err(overflow()),
        [from @ Value::String(text)] => match text.parse() {
            Ok(value) if !text.starts_with('+') => Ok(Value::Uint(value)),
            _ => refused(from, "uint"),
        },
        _ => no_such_overload(),
    }
}

fn to_string<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::String(text)] => Value::String(text.clone()),
        [Value::Bool(value)] => Value::from(value.to_string()),
        [Value::Int(value)] => Value::from(value.to_string()),
        [Value::Uint(value)] => Value::from(value.to_string()),
        [Value::Double(value)] => Value::from(go_double(*value)),
        [Value::Duration(nanoseconds)] => Value::from(duration_text(*nanoseconds)),
        [Value::Timestamp(moment)] => Value::from(moment.to_string()),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Value::string(text),
            Err(_) => {
                return Err(Error::failed("invalid UTF-8 in bytes, cannot convert to string"));
            }
        },
        [Value::Opaque(value)] => match value.to_text() {
            Some(text) => Value::from(text),
            None => return no_such_overload(),
        },
        _ => return no_such_overload(),
    })
}

fn to_timestamp<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Timestamp(moment)] => Ok(Value::Timestamp(*moment)),
        [Value::Int(seconds)] => Moment::of_seconds(*seconds).map(Value::Timestamp),
        [from @ Value::String(text)] => match parse_moment(text) {
            Some(moment) => Ok(Value::Timestamp(moment)),
            None => refused(from, "google.protobuf.Timestamp"),
        },
        _ => no_such_overload(),
    }
}
