//! Queries over the few fields that a resource lets itself be selected by.

use std::{borrow::Cow, fmt, str::FromStr};

use super::SelectorError;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, for example `spec.nodeName`.
    pub field: String,
    /// Whether the field must have the value (`=`) or must not (`!=`).
    pub equals: bool,
    /// The value.
    pub value: String,
}

/// A query over fields: conditions that must all hold.
///
/// Source: `k8s.io/apimachinery/pkg/fields/selector.go`.
///
/// ```
/// use orch_core::selector::FieldSelector;
/// let selector: FieldSelector = "spec.nodeName=n1,status.phase!=Failed".parse()?;
/// assert!(selector.matches(|field| (field == "spec.nodeName").then_some("n1".into())));
/// # Ok::<(), orch_core::selector::SelectorError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The conditions, as written.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether every condition holds for the fields that `value` gives. A field that is absent
    /// (`None`) counts as empty, as upstream's does.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.0.iter().all(|one| {
            let found = value(&one.field).unwrap_or_default();
            (found == one.value) == one.equals
        })
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, operator, value) = split_term(term).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                equals: operator != "!=",
                value: unescape(value)?,
            });
        }
        requirements.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(Self(requirements))
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    for (at, _) in term.char_indices() {
        for operator in ["!=", "==", "="] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                other => {
                    let tail = other.map_or(String::new(), String::from);
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{tail}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', ',', '=']) {
        value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=").into()
    } else {
        value.into()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if one.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", one.field, escape(&one.value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_parse_print_and_match() {
        for (text, printed, a, matches) in [
            ("", "", "x", true),
            ("a=x", "a=x", "x", true),
            ("a==x", "a=x", "y", false),
            ("a!=x", "a!=x", "y", true),
            (",a=x,", "a=x", "x", true),
            (r"a=x\,y", r"a=x\,y", "x,y", true),
            (r"a=\\\=", r"a=\\\=", r"\=", true),
            ("a=", "a=", "", true),
        ] {
            let selector: FieldSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), printed, "{text:?}");
            let found = selector.matches(|field| (field == "a").then(|| a.into()));
            assert_eq!(found, matches, "{text:?}");
        }
        for text in ["a", "a=b=c", r"a=\x", r"a=x\"] {
            assert!(text.parse::<FieldSelector>().is_err(), "{text:?}");
        }
        assert_eq!(
            "a".parse::<FieldSelector>().unwrap_err().to_string(),
            "invalid selector: 'a'; can't understand 'a'"
        );
    }
}
