//! Semantic versions.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/semverlib.go`, version 1; `github.com/blang/semver`
//! for what is a version.

use std::any::Any;
use std::cmp::Ordering;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Opaque, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

#[derive(Clone, Debug)]
struct Semver {
    numbers: [u64; 3],
    before: Vec<Identifier>,
}

/// A part of what comes before a release; numbers come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

fn semver_type() -> Type {
    Type::object("kubernetes.Semver")
}

impl Opaque for Semver {
    fn type_of(&self) -> Type {
        semver_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| self.compare(other) == Ordering::Equal)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Semver {
    /// Build metadata has no order.
    fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.before.is_empty(), other.before.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.before.cmp(&other.before),
            }
        })
    }
}

pub(super) fn install(functions: &mut Functions) {
    type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;
    functions.add_type("kubernetes.Semver", semver_type());
    let forms: [(&'static str, &'static str, Vec<Type>, Type, Body); 4] = [
        ("semver", "string_to_semver", vec![Type::String], semver_type(), semver),
        ("semver", "string_bool_to_semver", vec![Type::String, Type::Bool], semver_type(), semver),
        ("isSemver", "is_semver_string", vec![Type::String], Type::Bool, is_semver),
        ("isSemver", "is_semver_string_bool", vec![Type::String, Type::Bool], Type::Bool, {
            is_semver
        }),
    ];
    for (name, id, args, result, body) in forms {
        functions.add(name, Overload::function(id, args, result, body));
    }
    let two = || [semver_type(), semver_type()];
    let mut add = |name: &'static str, form| functions.add(name, form);
    add("isGreaterThan", Overload::method("semver_is_greater_than", two(), Type::Bool, greater));
    add("isLessThan", Overload::method("semver_is_less_than", two(), Type::Bool, less));
    add("compareTo", Overload::method("semver_compare_to", two(), Type::Int, compare_to));
    let numbers: [(&'static str, &'static str, Body); 3] = [
        ("major", "semver_major", major),
        ("minor", "semver_minor", minor),
        ("patch", "semver_patch", patch),
    ];
    for (name, id, body) in numbers {
        add(name, Overload::method(id, [semver_type()], Type::Int, body));
    }
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, Error> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(parse(text)),
        [Value::String(text), Value::Bool(true)] => Ok(normalized(text).and_then(|t| parse(&t))),
        _ => Err(Error::no_such_overload()),
    }
}

fn semver<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    read(args)?.map(Value::opaque).map_err(Error::failed)
}

fn is_semver<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(read(args)?.is_ok()))
}

/// `v1` as `1.0.0`: without the letter and zeros in front, with all three numbers.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|part| part.len() > 1) {
        let trimmed = part.trim_start_matches('0');
        let digit = trimmed.starts_with(|c: char| c.is_ascii_digit());
        *part = if digit { trimmed.to_owned() } else { format!("0{trimmed}") };
    }
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize_with(3, || "0".to_owned());
    Ok(parts.join("."))
}

fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let [major, minor, rest] = parts[..] else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = match rest.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (rest, None),
    };
    let (patch, before) = match rest.split_once('-') {
        Some((patch, before)) => (patch, Some(before)),
        None => (rest, None),
    };
    let numbers = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
    let before = before.into_iter().flat_map(|before| before.split('.')).map(identifier);
    let before = before.collect::<Result<Vec<_>, _>>()?;
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !alphanumeric(part) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(Semver { numbers, before })
}

fn alphanumeric(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

fn digits(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_digit())
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    if !digits(text) {
        return Err(format!("Invalid character(s) found in {name} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let mut name = name.to_owned();
        name[..1].make_ascii_uppercase();
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| {
        let what = if text.is_empty() { "invalid syntax" } else { "value out of range" };
        format!("strconv.ParseUint: parsing {text:?}: {what}")
    })
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if digits(text) {
        if text.len() > 1 && text.starts_with('0') {
            let what = "Numeric PreRelease version must not contain leading zeroes";
            return Err(format!("{what} {text:?}"));
        }
        let number = text.parse();
        return number
            .map(Identifier::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if !alphanumeric(text) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Identifier::Text(text.to_owned()))
}

fn ordered(args: &[Value<'_>]) -> Result<Ordering, Error> {
    let [left, right] = args else { return Err(Error::no_such_overload()) };
    match (left.downcast::<Semver>(), right.downcast::<Semver>()) {
        (Some(left), Some(right)) => Ok(left.compare(right)),
        _ => Err(Error::no_such_overload()),
    }
}

fn greater<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(ordered(args)?.is_gt()))
}

fn less<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(ordered(args)?.is_lt()))
}

fn compare_to<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(ordered(args)? as i64))
}

fn of_number<'a>(args: &[Value<'a>], at: usize) -> Outcome<'a> {
    match args.first().and_then(Value::downcast::<Semver>) {
        Some(version) => Ok(Value::Int(version.numbers[at] as i64)),
        None => no_such_overload(),
    }
}

fn major<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_number(args, 0)
}

fn minor<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_number(args, 1)
}

fn patch<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_number(args, 2)
}
