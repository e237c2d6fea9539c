//! The paths of rules: which field a rule that does not hold is about.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`,
//! `ValidFieldPath`.

use serde_json::Value;

/// A path such as `.spec['a.b']` as messages show it, if it leads to a field of the schema.
pub(super) fn normalized(path: &str, schema: &Value) -> Option<String> {
    let (mut rest, mut at, mut shown) = (path, schema, String::new());
    while !rest.is_empty() {
        let name;
        (name, rest) = step(rest)?;
        let properties = at["properties"].as_object().filter(|fields| !fields.is_empty());
        if let Some(properties) = properties {
            at = properties.get(&name)?;
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(&name);
        } else {
            at = Some(&at["additionalProperties"]).filter(|values| values.is_object())?;
            shown.push_str(&format!("[{name}]"));
        }
    }
    (!shown.is_empty()).then_some(shown)
}

/// The first field or key of a path, and what follows.
fn step(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    }
    let mut characters = path.strip_prefix("['")?.char_indices();
    let quoted = path.strip_prefix("['")?;
    let mut name = String::new();
    loop {
        match characters.next()? {
            (at, '\'') => return Some((name, quoted[at + 1..].strip_prefix(']')?)),
            (_, '\\') => name.push(unescaped(characters.next()?.1)?),
            (_, character) => name.push(character),
        }
    }
}

fn unescaped(directive: char) -> Option<char> {
    Some(match directive {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\'' | '\\' => directive,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_fields_of_the_schema() {
        let schema = json!({"properties": {
            "spec": {"properties": {"a.b": {}, "n": {}}},
            "map": {"additionalProperties": {"properties": {"x": {}}}},
        }});
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(normalized(path, &schema).as_deref(), expected, "{path}");
        };
        check(".spec.n", Some("spec.n"));
        check(".spec['a.b']", Some("spec.a.b"));
        check(".map['k'].x", Some("map[k].x"));
        check(".map.k", Some("map[k]"));
        check(".other", None);
        check("spec", None);
        check(".spec[n]", None);
        check(".spec['n'", None);
        check(".", None);
        check(".spec.n.x", None);
    }
}
