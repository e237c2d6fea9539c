//! The JSON paths that definitions may use: fields, indexes and simple filters.
//!
//! Source: `k8s.io/client-go/util/jsonpath`, as far as printer columns and selectable fields use
//! it.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    /// Items whose value at a path is this (or is not).
    Where(JsonPath, bool, Value),
}

impl JsonPath {
    /// Parses a path such as `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('$');
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = bracket_end(after).ok_or("unterminated array")?;
                steps.push(bracketed(&after[..end])?);
                rest = &after[end + 1..];
                continue;
            }
            let after = rest.strip_prefix('.').ok_or("a field must begin with a dot")?;
            let (name, end) = field_name(after);
            if name.is_empty() && !(after.is_empty() || after.starts_with('[')) {
                return Err("recursive descent is not supported".into());
            }
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Every),
                _ => steps.push(Step::Field(name)),
            }
            rest = &after[end..];
        }
        if steps.is_empty() { Err("is empty".into()) } else { Ok(Self(steps)) }
    }

    /// The first value that the path leads to.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found.into_iter().next()
    }

    /// The path as a JSON pointer, if it is made of fields only.
    pub(super) fn pointer(&self) -> Option<String> {
        self.0.iter().try_fold(String::new(), |pointer, step| match step {
            Step::Field(name) => {
                Some(format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")))
            }
            _ => None,
        })
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(list)) => {
                let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let at = if *at < 0 { length + at } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::Every, Value::Array(list)) => list.iter().collect(),
            (Self::Every, Value::Object(fields)) => fields.values().collect(),
            (Self::Where(path, wanted, other), Value::Array(list)) => {
                let fits = |item: &&Value| (path.first(item) == Some(other)) == *wanted;
                list.iter().filter(fits).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Where the bracket that has just been opened is closed.
fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A field's name, in which a backslash escapes a dot, and where it ends.
fn field_name(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, at),
            '\\' => name.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => name.push(letter),
        }
    }
    (name, text.len())
}

fn bracketed(inside: &str) -> Result<Step, String> {
    let inside = inside.trim();
    if inside == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = quoted(inside) {
        return Ok(Step::Field(field_name(&name.replace("\\.", "\u{0}")).0.replace('\u{0}', ".")));
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (path, equal, value) = ["==", "!="]
            .iter()
            .find_map(|sign| filter.split_once(sign).map(|(a, b)| (a, *sign == "==", b)))
            .ok_or("filters compare with == or !=")?;
        let path = path.trim().strip_prefix('@').ok_or("a filter must begin with @")?;
        return Ok(Step::Where(JsonPath::parse(path)?, equal, literal(value.trim())?));
    }
    inside.parse().map(Step::Index).map_err(|_| format!("invalid array index {inside}"))
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

fn literal(text: &str) -> Result<Value, String> {
    match quoted(text) {
        Some(text) => Ok(Value::from(text)),
        None => serde_json::from_str(text).map_err(|_| format!("unrecognized literal {text}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "spec": {"a": [{"n": 1}, {"n": 2}], "dotted.key": "d"},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"},
            ]},
        });
        let check = |path: &str, expected: Value| {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(found.first(&object).cloned().unwrap_or_default(), expected, "{path}");
        };
        check(".spec.a[1].n", json!(2));
        check(".spec.a[-1].n", json!(2));
        check(".spec.a[*].n", json!(1));
        check(".spec['dotted\\.key']", json!("d"));
        check(".spec.dotted\\.key", json!("d"));
        check(".status.conditions[?(@.type==\"Synced\")].status", json!("False"));
        check(".status.conditions[?(@.type=='Lost')].status", Value::Null);
        check(".spec.nothing.at.all", Value::Null);
        for wrong in ["", "spec", ".spec[", ".spec[x]", ".a..b", ".a[?(@.b)]"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(JsonPath::parse(".spec.a/b").unwrap().pointer().unwrap(), "/spec/a~1b");
    }
}
