//! What expressions build that change objects: `jsonpatch.escapeKey` for the paths of JSON
//! patches, and the names of the types of objects.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/jsonpatch.go`; `cel/mutation/dynamic/objects.go`
//! (`CheckTypeNamesMatchFieldPathNames`).

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

/// What is wrong with the types that an expression built an object of: below `Object`, each is
/// named by the path of fields that leads to it. Lists and maps on the way have no names.
///
/// ```
/// use orch_cel::{Budget, Environment, Variables, library::mismatched_type_names};
///
/// let environment = Environment::kubernetes().patches().build();
/// let program = environment.compile("Object{spec: Object.status{a: 1}}").unwrap();
/// let value = program.evaluate(&Variables::new(), &mut Budget::default()).unwrap();
/// assert_eq!(
///     mismatched_type_names(&value),
///     ["unexpected type name \"Object.status\", expected \"Object.spec\", which matches field \
///       name path from root Object type"],
/// );
/// ```
pub fn mismatched_type_names(value: &Value<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let root = value.type_of();
    check_names(value, root.name(), &mut wrong);
    wrong
}

fn check_names(value: &Value<'_>, path: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Map(map) => {
            let built = map.built_type().cloned();
            if let Some(name) = built.as_ref().filter(|name| &***name != path) {
                wrong.push(format!(
                    "unexpected type name {name:?}, expected {path:?}, which matches field name \
                     path from root Object type"
                ));
            }
            for (key, value) in map.iter().flatten() {
                match (&built, key.as_str()) {
                    (Some(_), Some(field)) => {
                        check_names(&value, &format!("{path}.{field}"), wrong);
                    }
                    _ => check_names(&value, path, wrong),
                }
            }
        }
        Value::List(list) => {
            list.iter().flatten().for_each(|value| check_names(&value, path, wrong));
        }
        _ => {}
    }
}
