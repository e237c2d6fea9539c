//! Optional values.
//!
//! Source: cel-go `cel/library.go` (`OptionalTypes`).

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

fn v() -> Type {
    Type::param("V")
}

fn optional() -> Type {
    Type::optional(v())
}

fn list() -> Type {
    Type::list(v())
}

fn map() -> Type {
    Type::map(Type::param("K"), v())
}

pub(super) fn install(functions: &mut Functions) {
    let mut add = |name: &'static str, form| functions.add(name, form);
    add("optional.of", Overload::function("optional_of", [v()], optional(), of));
    let non_zero = Overload::function("optional_ofNonZeroValue", [v()], optional(), of_non_zero);
    add("optional.ofNonZeroValue", non_zero);
    add("optional.none", Overload::function("optional_none", [], optional(), none));
    add("value", Overload::method("optional_value", [optional()], v(), value));
    add("hasValue", Overload::method("optional_hasValue", [optional()], Type::Bool, has_value));
    let either = [optional(), optional()];
    add("or", Overload::method("optional_or_optional", either, optional(), planned));
    let otherwise = [optional(), v()];
    add("orValue", Overload::method("optional_orValue_value", otherwise, v(), planned));
    let select = [Type::Dyn, Type::String];
    add("_?._", Overload::function("select_optional_field", select, optional(), planned));
    let index = [
        ("_[?_]", "list_optindex_optional_int", list(), Type::Int),
        ("_[?_]", "optional_list_optindex_optional_int", Type::optional(list()), Type::Int),
        ("_[?_]", "map_optindex_optional_value", map(), Type::param("K")),
        ("_[?_]", "optional_map_optindex_optional_value", Type::optional(map()), Type::param("K")),
        ("_[_]", "optional_list_index_int", Type::optional(list()), Type::Int),
        ("_[_]", "optional_map_index_value", Type::optional(map()), Type::param("K")),
    ];
    for (name, id, operand, key) in index {
        add(name, Overload::function(id, [operand, key], optional(), planned));
    }
    add("first", Overload::method("list_first", [list()], optional(), first));
    add("last", Overload::method("list_last", [list()], optional(), last));
    let optionals = || [Type::list(optional())];
    add("optional.unwrap", Overload::function("optional_unwrap", optionals(), list(), unwrap));
    add("unwrapOpt", Overload::method("optional_unwrapOpt", optionals(), list(), unwrap));
}

/// The evaluation takes these as steps of its own, unless their arguments are of the wrong type.
fn planned<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    no_such_overload()
}

fn of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().map_or_else(no_such_overload, |value| Ok(Value::some(value.clone())))
}

fn of_non_zero<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] if value.is_zero() => Ok(Value::Optional(None)),
        [value] => Ok(Value::some(value.clone())),
        _ => no_such_overload(),
    }
}

fn none<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(None))
}

fn value<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Error::failed("optional.none() dereference")),
        _ => no_such_overload(),
    }
}

fn has_value<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => no_such_overload(),
    }
}

fn first<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list)] if list.is_empty() => Ok(Value::Optional(None)),
        [Value::List(list)] => list.get(0).map(Value::some),
        _ => no_such_overload(),
    }
}

fn last<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list)] if list.is_empty() => Ok(Value::Optional(None)),
        [Value::List(list)] => list.get(list.len() - 1).map(Value::some),
        _ => no_such_overload(),
    }
}

fn unwrap<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_such_overload() };
    let mut values = Vec::new();
    for element in list.iter() {
        match element? {
            Value::Optional(value) => values.extend(value.map(|value| (*value).clone())),
            other => {
                return Err(Error::failed(format!("value {} is not optional", other.shown())));
            }
        }
    }
    Ok(Value::list(values))
}
