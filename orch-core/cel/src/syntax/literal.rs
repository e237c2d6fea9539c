//! What string and bytes literals say.
//!
//! Source: cel-go `parser/unescape.go`.

/// Resolves a string literal, which the lexer has found to be well formed.
pub(super) fn string(text: &str) -> Result<String, &'static str> {
    let (body, raw) = body(text)?;
    if raw {
        return Ok(body.to_owned());
    }
    let mut found = String::with_capacity(body.len());
    let mut rest = body.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            found.push(next);
            continue;
        }
        let code = match escape(&mut rest)? {
            Escape::Character(c) => c as u32,
            Escape::Byte(code) | Escape::Unicode(code) => code,
        };
        found.push(char::from_u32(code).ok_or("invalid unicode code point")?);
    }
    Ok(found)
}

/// Resolves a bytes literal without its prefix.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    let (body, raw) = body(text)?;
    if raw {
        return Ok(body.as_bytes().to_vec());
    }
    let mut found = Vec::with_capacity(body.len());
    let mut rest = body.chars();
    while let Some(next) = rest.next() {
        let character = if next == '\\' {
            match escape(&mut rest)? {
                Escape::Character(c) => c,
                Escape::Byte(code) => {
                    found.push(code as u8);
                    continue;
                }
                Escape::Unicode(_) => return Err("unable to unescape string"),
            }
        } else {
            next
        };
        found.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(found)
}

/// What is between the quotes, and whether back slashes mean themselves.
fn body(text: &str) -> Result<(&str, bool), &'static str> {
    const BROKEN: &str = "unable to unescape string";
    let raw = text.starts_with(['r', 'R']);
    let text = if raw { &text[1..] } else { text };
    for quotes in ["\"\"\"", "'''", "\"", "'"] {
        let inner = text.strip_prefix(quotes).and_then(|text| text.strip_suffix(quotes));
        if let Some(inner) = inner {
            return Ok((inner, raw));
        }
    }
    Err(BROKEN)
}

enum Escape {
    Character(char),
    /// Two hexadecimal or three octal digits: a code point in strings, a byte in bytes.
    Byte(u32),
    Unicode(u32),
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<Escape, &'static str> {
    const BROKEN: &str = "unable to unescape string";
    let kind = rest.next().ok_or("unable to unescape string, found '\\' as last character")?;
    let mut number = |start: u32, count: usize, radix: u32| {
        let mut value = start;
        for _ in 0..count {
            let digit = rest.next().and_then(|c| c.to_digit(radix)).ok_or(BROKEN)?;
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok::<u32, &'static str>(value)
    };
    Ok(match kind {
        'a' => Escape::Character('\u{7}'),
        'b' => Escape::Character('\u{8}'),
        'f' => Escape::Character('\u{c}'),
        'n' => Escape::Character('\n'),
        'r' => Escape::Character('\r'),
        't' => Escape::Character('\t'),
        'v' => Escape::Character('\u{b}'),
        '\\' | '\'' | '"' | '`' | '?' => Escape::Character(kind),
        'x' | 'X' => Escape::Byte(number(0, 2, 16)?),
        'u' => Escape::Unicode(number(0, 4, 16)?),
        'U' => Escape::Unicode(number(0, 8, 16)?),
        '0'..='3' => Escape::Byte(number(kind as u32 - '0' as u32, 2, 8)?),
        _ => return Err(BROKEN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved() {
        let check = |text: &str, expected: &str| assert_eq!(string(text).unwrap(), expected);
        check(r#""a\n\x41\u00e9\U0001F600\101""#, "a\nA\u{e9}\u{1f600}A");
        check(r"r'\n'", r"\n");
        check(r#"'''a"b'''"#, "a\"b");
        check("''", "");
        assert_eq!(string(r"'\ud800'"), Err("invalid unicode code point"));
    }

    #[test]
    fn bytes_are_bytes() {
        let check = |text: &str, expected: &[u8]| assert_eq!(bytes(text).unwrap(), expected);
        check(r"'\xff\303é'", &[0xff, 0o303, 0xc3, 0xa9]);
        assert_eq!(bytes(r"'\u00e9'"), Err("unable to unescape string"));
    }
}
