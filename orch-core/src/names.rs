//! Which names and label values are legal, with upstream's complaints.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation`.

const QUALIFIED_HELP: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
     regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn ends_are_alphanumeric(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(b))
        if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
}

fn is_name_part(text: &str) -> bool {
    ends_are_alphanumeric(text)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with `text` as a qualified name (a label key, an extended resource, a finalizer).
/// Empty if nothing is.
pub fn qualified_name_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                let prefixed = dns_subdomain_errors(prefix);
                errors.extend(prefixed.into_iter().map(|e| format!("prefix part {e}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_HELP} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name_part(name) {
        errors.push(format!("name part {QUALIFIED_HELP}"));
    }
    errors
}

/// What is wrong with `text` as a label's value. Empty if nothing is.
pub fn label_value_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_name_part(text) {
        errors.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  \
             or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

fn is_dns_label(text: &str) -> bool {
    ends_are_alphanumeric(text)
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What is wrong with `text` as an RFC 1123 subdomain (most objects' names). Empty if nothing is.
pub fn dns_subdomain_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push("must be no more than 253 bytes".to_owned());
    }
    if !text.split('.').all(is_dns_label) {
        errors.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    errors
}

/// What is wrong with `text` as an RFC 1123 label (namespaces, containers, services). Empty if
/// nothing is.
pub fn dns_label_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !is_dns_label(text) {
        errors.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_judges_them() {
        let long = "a".repeat(64);
        for (text, legal) in [
            ("app", true),
            ("App_1.x", true),
            ("example.com/App", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a/b/c", false),
            ("Ex.com/a", false),
            ("-a", false),
            ("é", false),
            (long.as_str(), false),
        ] {
            assert_eq!(qualified_name_errors(text).is_empty(), legal, "{text:?}");
        }
        for (text, legal) in [("", true), ("a.b", true), ("a b", false), ("a-", false)] {
            assert_eq!(label_value_errors(text).is_empty(), legal, "{text:?}");
        }
        for (text, legal) in [("a.b-c", true), ("a..b", false), ("A", false), ("-", false)] {
            assert_eq!(dns_subdomain_errors(text).is_empty(), legal, "{text:?}");
        }
        assert!(!dns_label_errors("a.b").is_empty());
    }
}
