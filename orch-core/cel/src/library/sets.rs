//! Lists as sets.
//!
//! Source: cel-go `ext/sets.go`.

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{List, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

pub(super) fn install(functions: &mut Functions) {
    let list = || Type::list(Type::param("T"));
    let args = || [list(), list()];
    let form = Overload::function("list_sets_contains_list", args(), Type::Bool, contains);
    functions.add("sets.contains", form);
    let form = Overload::function("list_sets_equivalent_list", args(), Type::Bool, equivalent);
    functions.add("sets.equivalent", form);
    let form = Overload::function("list_sets_intersects_list", args(), Type::Bool, intersects);
    functions.add("sets.intersects", form);
}

fn both<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v List<'a>, &'v List<'a>), Error> {
    match args {
        [Value::List(left), Value::List(right)] => Ok((left, right)),
        _ => Err(Error::no_such_overload()),
    }
}

fn contains<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, elements) = both(args)?;
    context.comparison().contains_all(list, elements).map(Value::Bool)
}

fn equivalent<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (left, right) = both(args)?;
    let mut comparison = context.comparison();
    let equivalent =
        comparison.contains_all(left, right)? && comparison.contains_all(right, left)?;
    Ok(Value::Bool(equivalent))
}

fn intersects<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(left), Value::List(_)] = args else { return no_such_overload() };
    let (_, right) = both(args)?;
    let mut comparison = context.comparison();
    for element in left.iter() {
        if comparison.contains_all(right, &List::of(vec![element?]))? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
