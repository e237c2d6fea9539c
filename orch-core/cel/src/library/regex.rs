//! `find` and `findAll`.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/regex.go`.

use super::strings::part;
use regex::Regex;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

pub(super) fn install(functions: &mut Functions) {
    let two = || [Type::String, Type::String];
    let strings = || Type::list(Type::String);
    let form = Overload::method("string_find_string", two(), Type::String, find);
    functions.add("find", form);
    let form = Overload::method("string_find_all_string", two(), strings(), find_all);
    functions.add("findAll", form);
    let three = [Type::String, Type::String, Type::Int];
    let form = Overload::method("string_find_all_string_int", three, strings(), find_all);
    functions.add("findAll", form);
}

/// A pattern, compiled; what is none is told in the words of these functions.
fn compiled<'c>(context: &'c mut Context<'_>, pattern: &str) -> Result<&'c Regex, Error> {
    context.pattern(pattern).map_err(|error| match error {
        Error::Failed(what) => Error::failed(format!("Illegal regex: {what}")),
        other => other,
    })
}

fn find<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            let found = compiled(context, pattern)?.find(text);
            Ok(found.map_or(Value::text(""), |found| part(text, found.range())))
        }
        _ => no_such_overload(),
    }
}

fn find_all<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return no_such_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = compiled(context, pattern)?.find_iter(text).take(limit);
    let found: Vec<Value<'a>> = found.map(|found| part(text, found.range())).collect();
    context.reserve_values(found.len())?;
    Ok(Value::list(found))
}
