//! Sizes, searches in strings, and what comprehensions are made of.
//!
//! Source: cel-go `common/stdlib/standard.go`, `ext/comprehensions.go`.

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

pub(super) fn install(functions: &mut Functions) {
    let list = Type::list(Type::param("A"));
    let map = Type::map(Type::param("A"), Type::param("B"));
    let sized = [("bytes", Type::Bytes), ("list", list), ("map", map), ("string", Type::String)];
    for (suffix, of) in sized {
        let id = format!("size_{suffix}");
        functions.add("size", Overload::function(id, [of.clone()], Type::Int, size));
        functions.add("size", Overload::method(format!("{suffix}_size"), [of], Type::Int, size));
    }
    let two = || [Type::String, Type::String];
    let mut method = |name: &'static str, form| functions.add(name, form);
    method("contains", Overload::method("contains_string", two(), Type::Bool, contains));
    method("endsWith", Overload::method("ends_with_string", two(), Type::Bool, ends_with));
    method("startsWith", Overload::method("starts_with_string", two(), Type::Bool, starts_with));
    method("matches", Overload::function("matches", two(), Type::Bool, matches));
    method("matches", Overload::method("matches_string", two(), Type::Bool, matches));
    comprehensions(functions);
}

fn size<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let size = args.first().and_then(Value::size);
    size.map_or_else(no_such_overload, |size| Ok(Value::Int(size as i64)))
}

fn searched<'a>(args: &[Value<'a>], search: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(search(text, part))),
        _ => no_such_overload(),
    }
}

fn contains<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    searched(args, |text, part| text.contains(part))
}

fn ends_with<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    searched(args, |text, part| text.ends_with(part))
}

fn starts_with<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    searched(args, |text, part| text.starts_with(part))
}

fn matches<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(context.pattern(pattern)?.is_match(text)))
        }
        _ => no_such_overload(),
    }
}

fn comprehensions(functions: &mut Functions) {
    let (key, value) = (|| Type::param("K"), || Type::param("V"));
    let map = || Type::map(key(), value());
    let one =
        Overload::function("@mapInsert_map_key_value", [map(), key(), value()], map(), insert);
    functions.add("cel.@mapInsert", one);
    let all = Overload::function("@mapInsert_map_map", [map(), map()], map(), insert);
    functions.add("cel.@mapInsert", all);
}

/// The macros call it for what they collect only, and the evaluation takes that as a step of its
/// own.
fn insert<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    no_such_overload()
}
