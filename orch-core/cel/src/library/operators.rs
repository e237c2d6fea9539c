//! The operators.
//!
//! Source: cel-go `common/stdlib/standard.go`, and `common/types/*.go` for what they do.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Value, compare, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

pub(super) fn install(functions: &mut Functions) {
    logic(functions);
    arithmetic(functions);
    comparisons(functions);
    containers(functions);
}

fn a() -> Type {
    Type::param("A")
}

fn b() -> Type {
    Type::param("B")
}

fn logic(functions: &mut Functions) {
    let both = || [Type::Bool, Type::Bool];
    let mut add = |name, form| functions.add(name, form);
    add("_?_:_", Overload::function("conditional", [Type::Bool, a(), a()], a(), planned));
    add("_&&_", Overload::function("logical_and", both(), Type::Bool, planned));
    add("_||_", Overload::function("logical_or", both(), Type::Bool, planned));
    add("!_", Overload::function("logical_not", [Type::Bool], Type::Bool, not));
    add(
        "@not_strictly_false",
        Overload::function("not_strictly_false", [Type::Bool], Type::Bool, not_strictly_false),
    );
    add("_==_", Overload::function("equals", [a(), a()], Type::Bool, equals));
    add("_!=_", Overload::function("not_equals", [a(), a()], Type::Bool, not_equals));
}

/// The evaluation takes these as steps of its own.
fn planned<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    no_such_overload()
}

fn not<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => no_such_overload(),
    }
}

fn not_strictly_false<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(!matches!(args, [Value::Bool(false)])))
}

fn equals<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [left, right] = args else { return no_such_overload() };
    context.equal(left, right).map(Value::Bool)
}

fn not_equals<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [left, right] = args else { return no_such_overload() };
    Ok(Value::Bool(!context.equal(left, right)?))
}

fn arithmetic(functions: &mut Functions) {
    use Type::{Bytes, Double, Duration, Int, String, Timestamp, Uint};
    let list = || Type::list(a());
    let adding = [
        ("add_bytes", Bytes, Bytes, Bytes),
        ("add_double", Double, Double, Double),
        ("add_duration_duration", Duration, Duration, Duration),
        ("add_duration_timestamp", Duration, Timestamp, Timestamp),
        ("add_timestamp_duration", Timestamp, Duration, Timestamp),
        ("add_int64", Int, Int, Int),
        ("add_list", list(), list(), list()),
        ("add_string", String, String, String),
        ("add_uint64", Uint, Uint, Uint),
    ];
    for (id, left, right, result) in adding {
        functions.add("_+_", Overload::function(id, [left, right], result, add));
    }
    let subtracting = [
        ("subtract_double", Double, Double, Double),
        ("subtract_duration_duration", Duration, Duration, Duration),
        ("subtract_int64", Int, Int, Int),
        ("subtract_timestamp_duration", Timestamp, Duration, Timestamp),
        ("subtract_timestamp_timestamp", Timestamp, Timestamp, Duration),
        ("subtract_uint64", Uint, Uint, Uint),
    ];
    for (id, left, right, result) in subtracting {
        functions.add("_-_", Overload::function(id, [left, right], result, subtract));
    }
    for (suffix, of) in [("double", Double), ("int64", Int), ("uint64", Uint)] {
        let args = || [of.clone(), of.clone()];
        let divided = Overload::function(format!("divide_{suffix}"), args(), of.clone(), divide);
        functions.add("_/_", divided);
        let times = Overload::function(format!("multiply_{suffix}"), args(), of.clone(), multiply);
        functions.add("_*_", times);
        if of != Double {
            let rest = Overload::function(format!("modulo_{suffix}"), args(), of.clone(), modulo);
            functions.add("_%_", rest);
        }
        if of != Uint {
            let negated =
                Overload::function(format!("negate_{suffix}"), [of.clone()], of.clone(), negate);
            functions.add("-_", negated);
        }
    }
}

fn integer<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Int).ok_or_else(|| Error::failed("integer overflow"))
}

fn unsigned<'a>(value: Option<u64>) -> Outcome<'a> {
    value.map(Value::Uint).ok_or_else(|| Error::failed("unsigned integer overflow"))
}

fn span<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Duration).ok_or_else(|| Error::failed("duration overflow"))
}

pub(super) fn add<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [left, right] = args else { return no_such_overload() };
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => integer(left.checked_add(*right)),
        (Value::Uint(left), Value::Uint(right)) => unsigned(left.checked_add(*right)),
        (Value::Double(left), Value::Double(right)) => Ok(Value::Double(left + right)),
        (Value::String(left), Value::String(right)) => {
            context.reserve_text(left.len() + right.len())?;
            Ok(Value::string([&**left, &**right].concat()))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            context.reserve_text(left.len() + right.len())?;
            Ok(Value::Bytes(Arc::from([&**left, &**right].concat())))
        }
        (Value::List(left), Value::List(right)) => {
            context.comparison().added(left, right).map(Value::List)
        }
        (Value::Duration(left), Value::Duration(right)) => span(left.checked_add(*right)),
        (Value::Duration(span), Value::Timestamp(at))
        | (Value::Timestamp(at), Value::Duration(span)) => at.plus(*span).map(Value::Timestamp),
        _ => no_such_overload(),
    }
}

fn subtract<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [left, right] = args else { return no_such_overload() };
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => integer(left.checked_sub(*right)),
        (Value::Uint(left), Value::Uint(right)) => unsigned(left.checked_sub(*right)),
        (Value::Double(left), Value::Double(right)) => Ok(Value::Double(left - right)),
        (Value::Duration(left), Value::Duration(right)) => span(left.checked_sub(*right)),
        (Value::Timestamp(at), Value::Duration(span)) => at.minus(*span).map(Value::Timestamp),
        (Value::Timestamp(left), Value::Timestamp(right)) => {
            left.since(*right).map(Value::Duration)
        }
        _ => no_such_overload(),
    }
}

fn multiply<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(left), Value::Int(right)] => integer(left.checked_mul(*right)),
        [Value::Uint(left), Value::Uint(right)] => unsigned(left.checked_mul(*right)),
        [Value::Double(left), Value::Double(right)] => Ok(Value::Double(left * right)),
        _ => no_such_overload(),
    }
}

fn divide<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(Error::failed("division by zero"))
        }
        [Value::Int(left), Value::Int(right)] => integer(left.checked_div(*right)),
        [Value::Uint(left), Value::Uint(right)] => Ok(Value::Uint(left / right)),
        [Value::Double(left), Value::Double(right)] => Ok(Value::Double(left / right)),
        _ => no_such_overload(),
    }
}

fn modulo<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(Error::failed("modulus by zero"))
        }
        [Value::Int(left), Value::Int(right)] => integer(left.checked_rem(*right)),
        [Value::Uint(left), Value::Uint(right)] => Ok(Value::Uint(left % right)),
        _ => no_such_overload(),
    }
}

fn negate<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => integer(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        [Value::Duration(value)] => span(value.checked_neg()),
        _ => no_such_overload(),
    }
}

fn comparisons(functions: &mut Functions) {
    type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;
    let operators: [(&'static str, &str, Body); 4] = [
        ("_<_", "less", less),
        ("_<=_", "less_equals", less_equals),
        ("_>_", "greater", greater),
        ("_>=_", "greater_equals", greater_equals),
    ];
    let numbers = [("int64", Type::Int), ("uint64", Type::Uint), ("double", Type::Double)];
    let others = [
        ("bool", Type::Bool),
        ("string", Type::String),
        ("bytes", Type::Bytes),
        ("timestamp", Type::Timestamp),
        ("duration", Type::Duration),
    ];
    for (name, prefix, body) in operators {
        for (suffix, of) in others.iter().chain(&numbers) {
            let args = [of.clone(), of.clone()];
            let form = Overload::function(format!("{prefix}_{suffix}"), args, Type::Bool, body);
            functions.add(name, form);
        }
        for (left, left_type) in &numbers {
            for (right, right_type) in numbers.iter().filter(|(right, _)| right != left) {
                let args = [left_type.clone(), right_type.clone()];
                let id = format!("{prefix}_{left}_{right}");
                functions.add(name, Overload::function(id, args, Type::Bool, body));
            }
        }
    }
}

fn ordered<'a>(args: &[Value<'a>], fits: fn(Ordering) -> bool) -> Outcome<'a> {
    let [left, right] = args else { return no_such_overload() };
    compare(left, right).map(|order| Value::Bool(fits(order)))
}

fn less<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}

fn containers(functions: &mut Functions) {
    let list = || Type::list(a());
    let map = || Type::map(a(), b());
    let mut add = |name, id, args: [Type; 2], result, body| {
        let body: for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a> = body;
        functions.add(name, Overload::function(id, args, result, body));
    };
    add("_[_]", "index_list", [list(), Type::Int], a(), planned);
    add("_[_]", "index_map", [map(), a()], b(), planned);
    add("@in", "in_list", [a(), list()], Type::Bool, contains);
    add("@in", "in_map", [a(), map()], Type::Bool, contains);
}

fn contains<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [needle, Value::List(list)] => {
            for element in list.iter() {
                if context.equal(&element?, needle)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        [key, Value::Map(map)] => map.has(key).map(Value::Bool),
        _ => no_such_overload(),
    }
}
