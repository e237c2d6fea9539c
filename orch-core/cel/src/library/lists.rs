//! Functions for lists: Kubernetes' own, and those of the language's extension.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/lists.go`; cel-go `ext/lists.go`, version 3.

use std::cmp::Ordering;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Body, Functions, Overload};
use crate::types::Type;
use crate::value::{List, Value, compare, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

pub(super) fn install(functions: &mut Functions) {
    let comparable = [
        ("int", Type::Int),
        ("uint", Type::Uint),
        ("double", Type::Double),
        ("bool", Type::Bool),
        ("duration", Type::Duration),
        ("timestamp", Type::Timestamp),
        ("string", Type::String),
        ("bytes", Type::Bytes),
    ];
    for (name, of) in comparable {
        let list = || [Type::list(of.clone())];
        let id = format!("list_{name}_is_sorted_bool");
        functions.add("isSorted", Overload::method(id, list(), Type::Bool, is_sorted));
        let id = format!("list_{name}_max_{name}");
        functions.add("max", Overload::method(id, list(), of.clone(), max));
        let id = format!("list_{name}_min_{name}");
        functions.add("min", Overload::method(id, list(), of.clone(), min));
        if let Some(zero) = zero_of(&of) {
            let id = format!("list_{name}_sum_{name}");
            functions.add("sum", Overload::method(id, list(), of.clone(), Sum(zero)));
        }
        extension(functions, &of);
    }
    let (a, t) = (|| Type::param("A"), || Type::param("T"));
    let args = || [Type::list(a()), a()];
    let mut add = |name: &'static str, form| functions.add(name, form);
    add("indexOf", Overload::method("list_a_index_of_int", args(), Type::Int, index_of));
    let form = Overload::method("list_a_last_index_of_int", args(), Type::Int, last_index_of);
    add("lastIndexOf", form);
    let list = || Type::list(t());
    let args = [list(), Type::Int, Type::Int];
    add("slice", Overload::method("list_slice", args, list(), slice));
    let lists = || Type::list(list());
    let form = Overload::method("list_flatten", [lists()], list(), flatten).unguarded();
    add("flatten", form);
    let any = || Type::list(Type::Dyn);
    let args = [any(), Type::Int];
    let form = Overload::method("list_flatten_int", args, any(), flatten).unguarded();
    add("flatten", form);
    let numbers = Type::list(Type::Int);
    add("lists.range", Overload::function("lists_range", [Type::Int], numbers, range));
    add("reverse", Overload::method("list_reverse", [list()], list(), reverse));
    add("distinct", Overload::method("list_distinct", [list()], list(), distinct));
}

fn extension(functions: &mut Functions, of: &Type) {
    let name = of.name();
    let list = || Type::list(of.clone());
    let form = Overload::method(format!("list_{name}_sort"), [list()], list(), sort);
    functions.add("sort", form);
    let any = || Type::list(Type::param("T"));
    let id = format!("list_{name}_sortByAssociatedKeys");
    let form = Overload::method(id, [any(), list()], any(), sort_by);
    functions.add("@sortByAssociatedKeys", form);
}

fn zero_of(of: &Type) -> Option<Value<'static>> {
    Some(match of {
        Type::Int => Value::Int(0),
        Type::Uint => Value::Uint(0),
        Type::Double => Value::Double(0.0),
        Type::Duration => Value::Duration(0),
        _ => return None,
    })
}

fn given<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, Error> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => Err(Error::no_such_overload()),
    }
}

fn is_sorted<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut before: Option<Value<'a>> = None;
    for element in given(args)?.iter() {
        let element = element?;
        if let Some(before) = &before
            && compare(before, &element)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
        before = Some(element);
    }
    Ok(Value::Bool(true))
}

/// The sum of a list, beginning with the zero of its type.
struct Sum(Value<'static>);

impl Body for Sum {
    fn call<'a>(&self, context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
        let mut sum: Value<'a> = self.0.clone();
        for element in given(args)?.iter() {
            sum = super::operators::add(context, &[sum, element?])?;
        }
        Ok(sum)
    }
}

fn best<'a>(args: &[Value<'a>], name: &str, better: Ordering) -> Outcome<'a> {
    let mut best: Option<Value<'a>> = None;
    for element in given(args)?.iter() {
        let element = element?;
        best = match best {
            Some(best) if compare(&element, &best)? != better => Some(best),
            _ => Some(element),
        };
    }
    best.ok_or_else(|| Error::failed(format!("{name} called on empty list")))
}

fn max<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    best(args, "max", Ordering::Greater)
}

fn min<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    best(args, "min", Ordering::Less)
}

fn index_of<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), sought] = args else { return no_such_overload() };
    for (at, element) in list.iter().enumerate() {
        if context.equal(&element?, sought)? {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn last_index_of<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), sought] = args else { return no_such_overload() };
    for at in (0..list.len()).rev() {
        if context.equal(&list.get(at)?, sought)? {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return no_such_overload();
    };
    let refused =
        |what: String| Err(Error::failed(format!("cannot slice({start}, {end}), {what}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return refused("negative indexes not supported".to_owned());
    };
    if from > to {
        return refused("start index must be less than or equal to end index".to_owned());
    }
    if list.len() < to {
        return refused(format!("list is length {}", list.len()));
    }
    context.reserve_values(to - from)?;
    (from..to).map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list)
}

fn flatten<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return no_such_overload(),
    };
    if depth < 0 {
        return Err(Error::failed("level must be non-negative"));
    }
    let mut found = Vec::new();
    flatten_into(context, list, depth, &mut found)?;
    Ok(Value::list(found))
}

fn flatten_into<'a>(
    context: &mut Context<'_>,
    list: &List<'a>,
    depth: i64,
    found: &mut Vec<Value<'a>>,
) -> Result<(), Error> {
    for element in list.iter() {
        context.reserve_values(1)?;
        match element? {
            Value::List(inner) if depth > 0 => flatten_into(context, &inner, depth - 1, found)?,
            other => found.push(other),
        }
    }
    Ok(())
}

fn range<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Int(end)] = args else { return no_such_overload() };
    context.reserve_values(usize::try_from(*end).unwrap_or_default())?;
    Ok(Value::list((0..*end).map(Value::Int).collect()))
}

fn reverse<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let list = given(args)?;
    context.reserve_values(list.len())?;
    (0..list.len()).rev().map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list)
}

fn distinct<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut found: Vec<Value<'a>> = Vec::new();
    let mut comparison = context.comparison();
    for element in given(args)?.iter() {
        let element = element?;
        let mut seen = false;
        for other in &found {
            seen = seen || comparison.equal(&element, other)?;
        }
        if !seen {
            found.push(element);
        }
    }
    Ok(Value::list(found))
}

fn sort<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let list = given(args)?;
    sorted(context, list, list)
}

fn sort_by<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::List(keys)] = args else { return no_such_overload() };
    sorted(context, list, keys)
}

fn sorted<'a>(context: &mut Context<'_>, list: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    if list.len() != keys.len() {
        let (elements, keys) = (list.len(), keys.len());
        return Err(Error::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys \
             list, but got {elements} and {keys} elements respectively"
        )));
    }
    context.reserve_values(list.len())?;
    let keys = keys.iter().collect::<Result<Vec<_>, _>>()?;
    let Some(first) = keys.first() else { return Ok(Value::List(list.clone())) };
    let of = first.type_of();
    if keys.iter().any(|key| key.type_of() != of) {
        return Err(Error::failed("list elements must have the same type"));
    }
    if compare(first, first).is_err() && !matches!(first, Value::Double(_)) {
        return Err(Error::failed("list elements must be comparable"));
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|left, right| total_order(&keys[*left], &keys[*right]));
    order.into_iter().map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list)
}

/// `NaN` comes last; upstream leaves it wherever its sort does.
fn total_order(left: &Value<'_>, right: &Value<'_>) -> Ordering {
    match (left, right) {
        (Value::Double(left), Value::Double(right)) => left.total_cmp(right),
        _ => compare(left, right).unwrap_or(Ordering::Equal),
    }
}
