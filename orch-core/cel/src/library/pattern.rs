//! Regular expressions as Go's RE2 reads them.
//!
//! The `regex` crate matches in linear time too, but its classes are of Unicode where Go's are of
//! ASCII, and classes there have operators that Go's do not have. Patterns are rewritten to mean
//! what Go means.
//!
//! Source: Go's `regexp/syntax`.

use regex::{Regex, RegexBuilder};

use crate::error::Error;

/// A compiled pattern takes so much memory at most.
const BYTES_MAX: usize = 1 << 20;
/// Go refuses to repeat more often.
const REPEAT_MAX: u32 = 1000;

/// Compiles a pattern.
///
/// # Errors
///
/// [`Error::Failed`] if it is none.
pub(crate) fn compile(pattern: &str) -> Result<Regex, Error> {
    let rewritten = Rewriter::new(pattern).rewrite().map_err(|what| refused(pattern, what))?;
    RegexBuilder::new(&rewritten).size_limit(BYTES_MAX).dfa_size_limit(BYTES_MAX).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => refused(pattern, "expression too large"),
            _ => refused(pattern, "invalid or unsupported syntax"),
        },
    )
}

fn refused(pattern: &str, what: &str) -> Error {
    Error::failed(format!("error parsing regexp: {what}: `{pattern}`"))
}

struct Rewriter<'p> {
    rest: std::iter::Peekable<std::str::Chars<'p>>,
    text: String,
}

impl<'p> Rewriter<'p> {
    fn new(pattern: &'p str) -> Self {
        Self { rest: pattern.chars().peekable(), text: String::with_capacity(pattern.len() + 8) }
    }

    fn rewrite(mut self) -> Result<String, &'static str> {
        // Whether what was read last repeats something, so that it cannot be repeated again.
        let mut repeated = false;
        let mut depth = 0_usize;
        while let Some(next) = self.rest.next() {
            let repeats = match next {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '*' | '+' | '?' => self.repeat(next, repeated)?,
                '{' => self.count(repeated)?,
                '(' => {
                    // Flags for the rest of the group open none.
                    depth += usize::from(!self.group()?);
                    false
                }
                ')' => {
                    depth = depth.checked_sub(1).ok_or("unexpected )")?;
                    self.text.push(')');
                    false
                }
                // Go has no comments and no spaces to be ignored, which these stay without flags.
                other => {
                    self.text.push(other);
                    false
                }
            };
            repeated = repeats;
        }
        if depth > 0 {
            return Err("missing closing )");
        }
        Ok(self.text)
    }

    fn literal(&mut self, c: char) {
        self.text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    fn repeat(&mut self, operator: char, repeated: bool) -> Result<bool, &'static str> {
        if repeated {
            return Err("invalid nested repetition operator");
        }
        self.text.push(operator);
        self.lazy();
        Ok(true)
    }

    fn lazy(&mut self) {
        if self.rest.next_if_eq(&'?').is_some() {
            self.text.push('?');
        }
    }

    /// `{n}`, `{n,}` or `{n,m}`; another brace stands for itself.
    fn count(&mut self, repeated: bool) -> Result<bool, &'static str> {
        let ahead: String = self.rest.clone().take_while(|c| *c != '}').take(16).collect();
        let closed = self.rest.clone().nth(ahead.chars().count()) == Some('}');
        let (least, most) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
        let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse());
        let (Some(Ok(least)), Some(most)) = (number(least), number(most)) else {
            self.text.push_str("\\{");
            return Ok(false);
        };
        if !closed {
            self.text.push_str("\\{");
            return Ok(false);
        }
        let most: u32 = most.unwrap_or(least);
        if repeated {
            return Err("invalid nested repetition operator");
        }
        if least > REPEAT_MAX || most > REPEAT_MAX || most < least {
            return Err("invalid repeat count");
        }
        self.text.push('{');
        self.text.push_str(&ahead);
        self.text.push('}');
        for _ in 0..=ahead.chars().count() {
            self.rest.next();
        }
        self.lazy();
        Ok(true)
    }

    /// The beginning of a group; whether it was only flags, and is closed again.
    fn group(&mut self) -> Result<bool, &'static str> {
        self.text.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(false);
        }
        self.text.push('?');
        match self.rest.peek() {
            Some('P' | '<' | ':') => {}
            _ => {
                // Flags. Go has not all that the crate has.
                while let Some(flag) = self.rest.next_if(|c| !matches!(c, ':' | ')')) {
                    if !matches!(flag, 'i' | 'm' | 's' | 'U' | '-') {
                        return Err("invalid or unsupported Perl syntax");
                    }
                    self.text.push(flag);
                }
                if self.rest.next_if_eq(&')').is_some() {
                    self.text.push(')');
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What follows a back slash, within a class or not.
    fn escape(&mut self, in_class: bool) -> Result<bool, &'static str> {
        let Some(kind) = self.rest.next() else {
            return Err("trailing backslash at end of expression");
        };
        let class = match kind {
            'd' | 'D' => "0-9",
            'w' | 'W' => "0-9A-Za-z_",
            's' | 'S' => "\\t\\n\\x0C\\r ",
            _ => "",
        };
        match kind {
            'd' | 'w' | 's' if in_class => self.text.push_str(class),
            'd' | 'w' | 's' => self.text.push_str(&format!("[{class}]")),
            'D' | 'W' | 'S' => self.text.push_str(&format!("[^{class}]")),
            'b' | 'B' if in_class => return Err("invalid escape sequence"),
            'b' => self.text.push_str("(?-u:\\b)"),
            // The crate cannot tell positions within a code point, where it matches as well.
            'B' => self.text.push_str("(?:(?-u:\\b{start-half})(?-u:\\b{end-half})|\\B)"),
            'Q' if !in_class => self.quoted(),
            'A' | 'z' if !in_class => {
                self.text.push('\\');
                self.text.push(kind);
            }
            'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'p' | 'P' => {
                self.text.push('\\');
                self.text.push(kind);
                if matches!(kind, 'x' | 'p' | 'P') && self.rest.next_if_eq(&'{').is_some() {
                    self.text.push('{');
                    for next in self.rest.by_ref() {
                        self.text.push(next);
                        if next == '}' {
                            break;
                        }
                    }
                }
            }
            '0'..='7' => self.octal(kind)?,
            other if other.is_ascii_alphanumeric() => return Err("invalid escape sequence"),
            other => self.literal(other),
        }
        Ok(false)
    }

    /// Octal numbers; one digit from 1 on alone would refer back, which Go does not have.
    fn octal(&mut self, first: char) -> Result<(), &'static str> {
        let mut value = first as u32 - '0' as u32;
        let mut digits = 1;
        while digits < 3 {
            let Some(digit) = self.rest.next_if(|c| matches!(c, '0'..='7')) else { break };
            value = value * 8 + (digit as u32 - '0' as u32);
            digits += 1;
        }
        if first != '0' && digits == 1 {
            return Err("invalid escape sequence");
        }
        match char::from_u32(value) {
            Some(c) => self.literal(c),
            None => return Err("invalid escape sequence"),
        }
        Ok(())
    }

    fn quoted(&mut self) {
        while let Some(next) = self.rest.next() {
            if next == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(next);
        }
    }

    /// A class. What would be an operator to the crate stands for itself.
    fn class(&mut self) -> Result<bool, &'static str> {
        self.text.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.text.push('^');
        }
        let mut first = true;
        loop {
            let Some(next) = self.rest.next() else { return Err("missing closing ]") };
            match next {
                ']' if !first => break,
                '[' if self.rest.peek() == Some(&':') && self.named_class() => {}
                '\\' => {
                    self.escape(true)?;
                }
                '-' if self.rest.peek() == Some(&']') || first => self.text.push_str("\\-"),
                '[' | ']' | '&' | '~' | '^' => {
                    self.text.push('\\');
                    self.text.push(next);
                }
                other => self.text.push(other),
            }
            first = false;
        }
        self.text.push(']');
        Ok(false)
    }

    /// `[:alpha:]` as it stands.
    fn named_class(&mut self) -> bool {
        let ahead: String = self.rest.clone().take(12).collect();
        let Some(end) = ahead.find(":]") else { return false };
        let name = &ahead[1..end];
        if !name.chars().all(|c| c.is_ascii_lowercase() || c == '^') {
            return false;
        }
        self.text.push('[');
        self.text.push_str(&ahead[..end + 2]);
        for _ in 0..ahead[..end + 2].chars().count() {
            self.rest.next();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_go() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(compile(pattern).unwrap().is_match(text), expected, "{pattern} {text}");
        };
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "\u{661}", false);
        check(r"^[\w-]+$", "a-b_1", true);
        check(r"^\w$", "\u{e9}", false);
        check(r"^\W$", "\u{e9}", true);
        check(r"^[^\d]$", "x", true);
        check(r"^[a&&b]+$", "a&b", true);
        check(r"^[[a]+$", "[a", true);
        check(r"^[[:alpha:]]+$", "ab", true);
        check(r"^a{,2}$", "a{,2}", true);
        check(r"^a{1,2}?$", "aa", true);
        check(r"^\Qa.b\E$", "a.b", true);
        check(r"^\Qa.b\E$", "axb", false);
        check(r"(?i)^AB$", "ab", true);
        check(r"^\x{41}\101$", "AA", true);
        check(r"\bfoo\b", "a foo b", true);
        check(r"^[]a]$", "]", true);
        check(r"^.$", "\u{1f600}", true);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in ["a**", "(?x)a", "a{1001}", r"\1", "[a", "(", r"\h", "(?=a)", "a{2,1}"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
