//! What tells the items of a list apart.

use std::collections::HashSet;

use orch_core::status::FieldError;
use serde_json::Value;

use super::list;

/// What must differ between the items of a list.
#[derive(Debug, Default)]
pub(in crate::custom) enum Keys {
    #[default]
    Nothing,
    Whole,
    Fields(Vec<(String, Option<Value>)>),
}

impl Keys {
    pub(in crate::custom) fn of(schema: &Value) -> Self {
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Self::Whole,
            Some("map") => {
                let default = |name: &str| schema["items"]["properties"][name].get("default");
                let keys = list(schema, "x-kubernetes-list-map-keys").filter_map(Value::as_str);
                Self::Fields(keys.map(|key| (key.to_owned(), default(key).cloned())).collect())
            }
            _ => Self::Nothing,
        }
    }

    fn key<'a>(&'a self, item: &'a Value) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Whole => Some(item.clone()),
            Self::Fields(names) => {
                let field = |(name, default): &(String, Option<Value>)| {
                    let value = item.get(name).or(default.as_ref())?;
                    Some((name.clone(), value.clone()))
                };
                Some(Value::Object(names.iter().filter_map(field).collect()))
            }
        }
    }

    /// The item of the old list that has this one's key; lists without keys have no such.
    pub(in crate::custom) fn same_item<'a>(
        &self,
        item: &Value,
        old: Option<&'a Value>,
    ) -> Option<&'a Value> {
        let Self::Fields(_) = self else { return None };
        let key = self.key(item)?;
        let old = old?.as_array()?;
        old.iter().find(|old| self.key(old).as_ref() == Some(&key))
    }

    /// What comes twice.
    pub(super) fn check(&self, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
        let mut seen = HashSet::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(key) = self.key(item)
                && !seen.insert(key.to_string())
            {
                errors.push(FieldError::duplicate(format!("{path}[{at}]"), key));
            }
        }
    }
}
