//! Names of fields as identifiers of the language.
//!
//! Source: `k8s.io/apiserver/pkg/cel/escaping.go`.

use std::borrow::Cow;

use crate::syntax::RESERVED;

/// Whether a word has a meaning in the language, so that it names nothing.
fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

/// Whether an expression can use the name as it is for a variable.
///
/// Source: `pkg/apis/admissionregistration/validation/validation.go`, `isCELIdentifier`.
///
/// ```
/// assert!(orch_cel::is_identifier("replicas_2"));
/// assert!(!orch_cel::is_identifier("2nd") && !orch_cel::is_identifier("while"));
/// ```
pub fn is_identifier(name: &str) -> bool {
    let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    plain && !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && !is_reserved(name)
}

/// The identifier by which an expression reads a field, or `None` if no expression can.
///
/// ```
/// assert_eq!(orch_cel::escape("x-y").as_deref(), Some("x__dash__y"));
/// assert_eq!(orch_cel::escape("namespace").as_deref(), Some("__namespace__"));
/// assert_eq!(orch_cel::escape("a b"), None);
/// ```
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    if !name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-/".contains(&c)) {
        return None;
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return Some(Cow::Borrowed(name));
    }
    let escaped = name.replace("__", "\0");
    let escaped = escaped.replace('.', "__dot__").replace('-', "__dash__");
    Some(Cow::Owned(escaped.replace('/', "__slash__").replace('\0', "__underscores__")))
}

/// The field that an identifier reads, or `None` if it is not escaped as it should be.
pub(crate) fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(Cow::Borrowed(name));
    }
    let mut found = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        // The sequence begins with the last two underscores before something else.
        let behind = &rest[start + 2..];
        let content = behind.trim_start_matches('_');
        let start = rest.len() - content.len() - 2;
        let end = content.find('_').unwrap_or(content.len());
        if end == 0 || !content[end..].starts_with("__") {
            // No sequence here: the underscores mean themselves.
            let keep = start + 2 + end;
            found.push_str(&rest[..keep]);
            rest = &rest[keep..];
            continue;
        }
        found.push_str(&rest[..start]);
        match &content[..end] {
            "underscores" => found.push_str("__"),
            "dot" => found.push('.'),
            "dash" => found.push('-'),
            "slash" => found.push('/'),
            // A keyword is escaped as a whole only.
            word if is_reserved(word) && name.len() == end + 4 => found.push_str(word),
            _ => return None,
        }
        rest = &content[end + 2..];
    }
    found.push_str(rest);
    Some(Cow::Owned(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(escape(name).as_deref(), expected, "{name}");
            if let Some(escaped) = expected {
                assert_eq!(unescape(escaped).as_deref(), Some(name), "{escaped}");
            }
        };
        check("a", Some("a"));
        check("a_b", Some("a_b"));
        check("a__b", Some("a__underscores__b"));
        check("a___b", Some("a__underscores___b"));
        check("a.b-c/d", Some("a__dot__b__dash__c__slash__d"));
        check("namespace", Some("__namespace__"));
        check("1a", None);
        check("", None);
        check("ä", None);
        assert_eq!(unescape("__unknown__"), None);
        assert_eq!(unescape("a__in__b"), None);
    }
}
