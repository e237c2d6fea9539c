//! Calls of functions.
//!
//! Source: cel-go `interpreter/interpretable.go` (`evalUnary`, `evalBinary`, `evalVarArgs`);
//! `common/decls/decls.go` for which form the arguments choose.

use super::Call;
use super::machine::{Machine, Outcome, Slot};
use crate::cost::{SELECT, call_cost};
use crate::error::Error;
use crate::value::{List, Value};

/// Functions that say no more than that their arguments do not fit.
const TERSE: [&str; 4] = ["contains", "startsWith", "endsWith", "matches"];

impl<'p, 'a> Machine<'p, 'a, '_> {
    pub(super) fn call(&mut self, call: &'p Call) -> Outcome<'a> {
        if let Some(slot) = call.collects {
            return self.collect(call, slot);
        }
        let (args, failure) = self.arguments(call)?;
        if let Some(error) = failure {
            // With one or two arguments all are evaluated and the call is counted.
            if call.args.len() <= 2 {
                let form = (call.forms.len() == 1).then(|| &*call.forms[0]);
                self.charge(call_cost(&call.name, form, &args, None))?;
            }
            return Err(error);
        }
        let form = match &call.forms[..] {
            [form] => form.takes(&args).then_some(form),
            forms => forms.iter().find(|form| form.takes(&args)),
        };
        // Where several forms were left, upstream counts the call as one of none.
        let counted = (call.forms.len() == 1).then(|| &*call.forms[0]);
        let by_result = &*call.name == "join";
        if !by_result {
            self.charge(call_cost(&call.name, counted, &args, None))?;
        }
        let outcome = match form {
            Some(form) => form.body().call(&mut self.context, &args),
            None => Err(no_overload(&call.name, &args)),
        };
        if by_result {
            let result = outcome.as_ref().ok();
            self.charge(call_cost(&call.name, counted, &args, result))?;
        }
        outcome
    }

    /// The arguments, and the first failure. What failed has a null in its place.
    fn arguments(&mut self, call: &'p Call) -> Result<(Vec<Value<'a>>, Option<Error>), Error> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut failure = None;
        for arg in &call.args {
            match self.node(arg) {
                Ok(value) => args.push(value),
                Err(error) if error.is_fatal() => return Err(error),
                // Comprehensions go on if what they have so far failed.
                Err(_) if &*call.name == "@not_strictly_false" => args.push(Value::Bool(true)),
                Err(error) => {
                    failure = failure.or(Some(error));
                    args.push(Value::Null);
                    if call.args.len() > 2 {
                        break;
                    }
                }
            }
        }
        Ok((args, failure))
    }

    /// `@result + [x]` and `cel.@mapInsert(@result, ...)`: the result is taken out of its
    /// variable and put back, longer.
    fn collect(&mut self, call: &'p Call, slot: usize) -> Outcome<'a> {
        let mut failure = match self.local(slot) {
            Err(error) if error.is_fatal() => return Err(error),
            so_far => so_far.err(),
        };
        self.charge(SELECT)?;
        let mut rest = Vec::with_capacity(call.args.len() - 1);
        for arg in &call.args[1..] {
            match self.node(arg) {
                Ok(value) => rest.push(value),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.charge(1)?;
        if let Some(error) = failure {
            return Err(error);
        }
        let taken = std::mem::replace(&mut self.slots[slot], Slot::Value(Value::Null));
        let Slot::Value(collected) = taken else {
            unreachable!("the value was computed above");
        };
        collected_with(collected, rest)
    }
}

fn collected_with<'a>(collected: Value<'a>, mut rest: Vec<Value<'a>>) -> Outcome<'a> {
    match collected {
        Value::List(mut list) => {
            let Some(Value::List(more)) = rest.pop() else { return Err(Error::no_such_overload()) };
            for value in more.iter() {
                list.push(value?).ok_or(Error::CostLimit)?;
            }
            Ok(Value::List(list))
        }
        Value::Map(mut map) => {
            let entries = match &rest[..] {
                [key, value] => vec![(key.clone(), value.clone())],
                [Value::Map(entries)] => entries.iter().collect::<Result<_, _>>()?,
                _ => return Err(Error::no_such_overload()),
            };
            for (key, value) in entries {
                let shown = key.shown();
                if map.insert(key, value)? {
                    let message = format!("insert failed: key {shown} already exists");
                    return Err(Error::failed(message));
                }
            }
            Ok(Value::Map(map))
        }
        _ => Err(Error::no_such_overload()),
    }
}

fn no_overload(name: &str, args: &[Value<'_>]) -> Error {
    if name.contains(['_', '@']) || TERSE.contains(&name) {
        return Error::no_such_overload();
    }
    if name == "size" {
        return Error::failed("no such overload: size");
    }
    let types: Vec<String> = args.iter().map(|arg| arg.type_of().name().to_owned()).collect();
    Error::failed(format!("no such overload: {name}({})", types.join(", ")))
}

/// A list that nothing was put into yet.
pub(super) fn empty_list<'a>() -> Value<'a> {
    Value::List(List::of(Vec::new()))
}
