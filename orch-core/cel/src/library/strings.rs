//! Functions for strings. Positions and lengths are in code points.
//!
//! Source: cel-go `ext/strings.go`, version 2.

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Text, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;
type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;

pub(super) fn install(functions: &mut Functions) {
    use Type::{Int, String};
    let strings = || Type::list(String);
    let methods: [(&'static str, &'static str, Vec<Type>, Type, Body); 17] = [
        ("charAt", "string_char_at_int", vec![String, Int], String, char_at),
        ("indexOf", "string_index_of_string", vec![String, String], Int, index_of),
        ("indexOf", "string_index_of_string_int", vec![String, String, Int], Int, index_of),
        ("lastIndexOf", "string_last_index_of_string", vec![String, String], Int, last_index_of),
        (
            "lastIndexOf",
            "string_last_index_of_string_int",
            vec![String, String, Int],
            Int,
            last_index_of,
        ),
        ("lowerAscii", "string_lower_ascii", vec![String], String, lower_ascii),
        ("upperAscii", "string_upper_ascii", vec![String], String, upper_ascii),
        ("replace", "string_replace_string_string", vec![String, String, String], String, replace),
        (
            "replace",
            "string_replace_string_string_int",
            vec![String, String, String, Int],
            String,
            replace,
        ),
        ("split", "string_split_string", vec![String, String], strings(), split),
        ("split", "string_split_string_int", vec![String, String, Int], strings(), split),
        ("substring", "string_substring_int", vec![String, Int], String, substring),
        ("substring", "string_substring_int_int", vec![String, Int, Int], String, substring),
        ("trim", "string_trim", vec![String], String, trim),
        ("join", "list_join", vec![strings()], String, join),
        ("join", "list_join_string", vec![strings(), String], String, join),
        ("format", "string_format", vec![String, Type::list(Type::Dyn)], String, format),
    ];
    for (name, id, args, result, body) in methods {
        functions.add(name, Overload::method(id, args, result, body));
    }
    let form = Overload::function("strings_quote", [String], String, quote);
    functions.add("strings.quote", form);
}

fn out_of_range(index: i64) -> Error {
    Error::failed(format!("index out of range: {index}"))
}

/// Where a code point begins; the end of the text is one too.
fn offset_of(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    let mut offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    offsets.nth(index)
}

/// A part of a string: of one that was bound it is no copy.
pub(super) fn part<'a>(text: &Text<'a>, range: std::ops::Range<usize>) -> Value<'a> {
    match text {
        Text::Borrowed(text) => Value::text(&text[range]),
        Text::Owned(text) => Value::string(&text[range]),
    }
}

fn char_at<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return no_such_overload() };
    let at = offset_of(text, *index).ok_or_else(|| out_of_range(*index))?;
    let length = text[at..].chars().next().map_or(0, char::len_utf8);
    Ok(part(text, at..at + length))
}

fn length(text: &str) -> i64 {
    text.chars().count() as i64
}

fn index_of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, sought, offset) = match args {
        [Value::String(text), Value::String(sought)] => (text, sought, 0),
        [Value::String(text), Value::String(sought), Value::Int(offset)] => (text, sought, *offset),
        _ => return no_such_overload(),
    };
    if sought.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    let Some(start) = offset_of(text, offset) else { return Ok(Value::Int(-1)) };
    let found = text[start..].find(&**sought);
    Ok(Value::Int(found.map_or(-1, |at| length(&text[..start + at]))))
}

fn last_index_of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, sought, offset) = match args {
        [Value::String(text), Value::String(sought)] => (text, sought, None),
        [Value::String(text), Value::String(sought), Value::Int(at)] => (text, sought, Some(*at)),
        _ => return no_such_overload(),
    };
    let count = length(text);
    if sought.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(count)));
    }
    if offset.is_none() && text.len() < sought.len() {
        return Ok(Value::Int(-1));
    }
    let offset = offset.unwrap_or(count - 1);
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    if offset >= count {
        return Ok(Value::Int(-1));
    }
    let last = offset_of(text, offset.min(count - length(sought)));
    let Some(last) = last else { return Ok(Value::Int(-1)) };
    let end = (last + sought.len()).min(text.len());
    // What is sought may begin at the offset at the latest, and ends on a whole code point.
    let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    let found = text[..end].rmatch_indices(&**sought).map(|(at, _)| at).find(|at| *at <= last);
    Ok(Value::Int(found.map_or(-1, |at| length(&text[..at]))))
}

fn lower_ascii<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    context.reserve_text(text.len())?;
    Ok(Value::from(text.to_ascii_lowercase()))
}

fn upper_ascii<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    context.reserve_text(text.len())?;
    Ok(Value::from(text.to_ascii_uppercase()))
}

fn replace<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => {
            (text, old, new, *limit)
        }
        _ => return no_such_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = text.matches(&**old).take(limit).count();
    context.reserve_text(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(&**old, new, found)))
}

fn split<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => {
            (text, separator, *limit)
        }
        _ => return no_such_overload(),
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let ranges = split_ranges(text, separator, limit);
    context.reserve_values(ranges.len())?;
    Ok(Value::list(ranges.into_iter().map(|range| part(text, range)).collect()))
}

/// Where the parts are. An empty separator takes the text apart into its code points.
fn split_ranges(text: &str, separator: &str, limit: usize) -> Vec<std::ops::Range<usize>> {
    let cuts: Vec<(usize, usize)> = if separator.is_empty() {
        text.char_indices().skip(1).map(|(at, _)| (at, at)).take(limit - 1).collect()
    } else {
        let found = text.match_indices(separator).take(limit - 1);
        found.map(|(at, found)| (at, at + found.len())).collect()
    };
    if separator.is_empty() && text.is_empty() {
        return Vec::new();
    }
    let starts = std::iter::once(0).chain(cuts.iter().map(|cut| cut.1));
    let ends = cuts.iter().map(|cut| cut.0).chain([text.len()]);
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

fn substring<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return no_such_overload(),
    };
    if let Some(end) = end.filter(|end| start > *end) {
        let message = format!("invalid substring range. start: {start}, end: {end}");
        return Err(Error::failed(message));
    }
    let from = offset_of(text, start).ok_or_else(|| out_of_range(start))?;
    let to = match end {
        Some(end) => offset_of(text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    Ok(part(text, from..to))
}

fn trim<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    let start = text.len() - text.trim_start().len();
    Ok(part(text, start..start + text.trim().len()))
}

fn join<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return no_such_overload(),
    };
    let mut joined = String::new();
    let mut reserved = 0;
    for (at, element) in list.iter().enumerate() {
        let element = element?;
        let Value::String(text) = &element else {
            return Err(Error::failed(format!("join: invalid input: {}", element.shown())));
        };
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
        if joined.len() > reserved {
            context.reserve_text(joined.len() - reserved + separator.len() + text.len())?;
            reserved = joined.len() + separator.len() + text.len();
        }
    }
    Ok(Value::from(joined))
}

fn format<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(format), Value::List(list)] = args else { return no_such_overload() };
    super::formatting::format(context, format, list).map(Value::from)
}

fn quote<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    context.reserve_text(text.len().saturating_mul(2) + 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::from(quoted))
}
