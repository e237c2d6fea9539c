//! `$(VAR)` in commands, arguments and environment values.
//!
//! Source: `third_party/forked/golang/expansion`.

use std::collections::HashMap;

/// Replaces references to known variables; unknown ones stay as they are, and `$$` is a dollar.
pub(crate) fn expand(input: &str, variables: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_upstream_does() {
        let variables = [("A", "1"), ("B", "$(A)"), ("E", "")];
        let variables = variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        for (input, expected) in [
            ("x", "x"),
            ("$(A)", "1"),
            ("a$(A)b$(A)", "a1b1"),
            ("$(B)", "$(A)"),
            ("$(E)-", "-"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$A$", "$A$"),
        ] {
            assert_eq!(expand(input, &variables), expected, "{input}");
        }
    }
}
