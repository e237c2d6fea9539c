//! `jsonpatch.escapeKey`, for the paths of JSON patches.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/jsonpatch.go`.

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Value, no_such_overload};

pub(super) fn install(functions: &mut Functions) {
    let form = Overload::function(
        "string_jsonpatch_escapeKey_string",
        [Type::String],
        Type::String,
        escape_key,
    );
    functions.add("jsonpatch.escapeKey", form);
}

fn escape_key<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::String(key)] = args else { return no_such_overload() };
    Ok(Value::from(key.replace('~', "~0").replace('/', "~1")))
}
