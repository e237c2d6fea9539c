//! Regular expressions of schemas, which are Go's.
//!
//! Source: Go's `regexp/syntax`; `k8s.io/kube-openapi/pkg/validation/validate`.

use std::{borrow::Cow, collections::HashMap};

use regex::{Regex, RegexBuilder};

/// What one compiled pattern may take, in bytes: Go has the same bound in its own measure, the
/// repetition of at most 1,000.
const BYTES_MAX: usize = 1 << 20;
/// How many different patterns one definition may have.
///
/// Differs: upstream has no such limit; its patterns take memory without one.
pub(super) const PATTERNS_MAX: usize = 512;

/// The patterns of one definition, each compiled once.
#[derive(Debug, Default)]
pub(super) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    /// The compiled pattern.
    ///
    /// # Errors
    /// What is wrong with it: no pattern, or too large a one.
    pub(super) fn compile(&mut self, pattern: &str) -> Result<Regex, regex::Error> {
        if let Some(known) = self.0.get(pattern) {
            return Ok(known.clone());
        }
        if self.0.len() >= PATTERNS_MAX {
            return Err(regex::Error::CompiledTooBig(0));
        }
        let compiled = compile(pattern)?;
        self.0.insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }
}

/// A compiled pattern.
///
/// # Errors
/// What is wrong with it: no pattern, or too large a one.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&in_ascii(pattern)).size_limit(BYTES_MAX).build()
}

/// In Go `\d`, `\s`, `\w` and `\b` know ASCII only.
fn in_ascii(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains('\\') {
        return Cow::Borrowed(pattern);
    }
    let (mut out, mut in_class) = (String::with_capacity(pattern.len() + 16), false);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => escaped(&mut out, chars.next(), in_class),
            '[' if in_class => out.push_str("\\["),
            _ => {
                in_class = char == '[' || in_class && char != ']';
                out.push(char);
            }
        }
    }
    Cow::Owned(out)
}

fn escaped(out: &mut String, after: Option<char>, in_class: bool) {
    let class = match after {
        Some('d') => "[:digit:]",
        Some('D') => "[:^digit:]",
        Some('w') => "[:word:]",
        Some('W') => "[:^word:]",
        Some('s') => "\\t\\n\\f\\r ",
        Some('S') if !in_class => "^\\t\\n\\f\\r ",
        Some('b') if !in_class => return out.push_str("(?-u:\\b)"),
        other => {
            out.push('\\');
            return out.extend(other);
        }
    };
    if in_class {
        out.push_str(class);
    } else {
        out.extend(["[", class, "]"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let check = |pattern: &str, text: &str, matches: bool| {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        };
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "١٢", false);
        check(r"^[\w.-]+$", "a_b.c-d", true);
        check(r"^[\w.-]+$", "é", false);
        check(r"^\S+\s\D$", "é x", true);
        check(r"^[^\s\d]+$", "a1", false);
        check(r"\bx\b", "a x", true);
        check(r"^\[\\d\]$", r"[\d]", true);
        check("^.{0,1000}$", "é", true);
        check(r"^\pL$", "é", true);
        assert!(compile(r"(\pL{100}){100}").is_err());
    }
}
