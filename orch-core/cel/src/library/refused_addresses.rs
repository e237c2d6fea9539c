//! Why a text is no address, in Go's words.
//!
//! Source: Go's `net/netip` (`ParseAddr`).

/// Why a text that was refused is no address.
pub(super) fn why_no_address(text: &str) -> String {
    let first = text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]);
    let (what, at) = match first {
        Some(b'.') => why_no_ipv4(text),
        Some(b':') => why_no_ipv6(text),
        Some(_) => ("missing IPv6 address", ""),
        None => ("unable to parse IP", ""),
    };
    let at = if at.is_empty() { String::new() } else { format!(" (at {at:?})") };
    format!("ParseAddr({text:?}): {what}{at}")
}

fn why_no_ipv4(text: &str) -> (&'static str, &str) {
    let bytes = text.as_bytes();
    let (mut value, mut digits, mut dots) = (0_u32, 0, 0);
    for (at, c) in bytes.iter().enumerate() {
        match c {
            b'0'..=b'9' => {
                if digits == 1 && value == 0 {
                    return ("IPv4 field has octet with leading zero", "");
                }
                value = value * 10 + u32::from(c - b'0');
                digits += 1;
                if value > 255 {
                    return ("IPv4 field has value >255", "");
                }
            }
            b'.' => {
                if at == 0 || at == bytes.len() - 1 || bytes[at - 1] == b'.' {
                    return ("IPv4 field must have at least one digit", &text[at..]);
                }
                if dots == 3 {
                    return ("IPv4 address too long", "");
                }
                (dots, value, digits) = (dots + 1, 0, 0);
            }
            _ => return ("unexpected character", &text[at..]),
        }
    }
    ("IPv4 address too short", "")
}

fn why_no_ipv6(text: &str) -> (&'static str, &str) {
    let mut rest = match text.split_once('%') {
        Some((_, "")) => return ("zone must be a non-empty string", ""),
        Some((address, _)) => address,
        None => text,
    };
    let mut ellipsis = rest.starts_with("::");
    if ellipsis {
        rest = &rest[2..];
    }
    let mut fields = 0;
    while fields < 8 && !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > 4 {
            return ("each group must have 4 or less digits", rest);
        }
        if digits == 0 {
            return ("each colon-separated field must have at least one digit", rest);
        }
        let behind = &rest[digits..];
        if behind.starts_with('.') {
            return match () {
                () if !ellipsis && fields != 6 => {
                    let what =
                        "embedded IPv4 address must replace the final 2 fields of the address";
                    (what, rest)
                }
                () if fields > 6 => {
                    let what = "too many hex fields to fit an embedded IPv4 at the end of the \
                                address";
                    (what, rest)
                }
                () => why_no_ipv4(rest),
            };
        }
        fields += 1;
        rest = behind;
        let Some(next) = rest.strip_prefix(':') else { break };
        if next.is_empty() {
            return ("colon must be followed by more characters", rest);
        }
        rest = next;
        if let Some(next) = rest.strip_prefix(':') {
            if ellipsis {
                return ("multiple :: in address", rest);
            }
            ellipsis = true;
            rest = next;
        }
    }
    match (rest.is_empty(), fields < 8, ellipsis) {
        (false, true, _) => ("unexpected character, want colon", rest),
        (false, false, _) => ("trailing garbage after address", rest),
        (true, true, false) => ("address string too short", ""),
        _ => ("the :: must expand to at least one field of zeros", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_refused_in_the_words_of_go() {
        let check = |text: &str, expected: &str| {
            let found = why_no_address(text);
            assert_eq!(found, format!("ParseAddr({text:?}): {expected}"));
        };
        check("1.2.3.4.5", "IPv4 address too long");
        check("1.2.3", "IPv4 address too short");
        check("1.2..3", "IPv4 field must have at least one digit (at \".3\")");
        check("1.2.3.256", "IPv4 field has value >255");
        check("01.2.3.4", "IPv4 field has octet with leading zero");
        check("a", "unable to parse IP");
        check(
            "2001:db8:::68",
            "each colon-separated field must have at least one digit (at \":68\")",
        );
        check("1::2::3", "multiple :: in address (at \":3\")");
        check("1:2", "address string too short");
        check("12345::", "each group must have 4 or less digits (at \"12345::\")");
        check("1:2:3:4:5:6:7:8:9", "trailing garbage after address (at \"9\")");
        check("1:g::", "each colon-separated field must have at least one digit (at \"g::\")");
        check("1:", "colon must be followed by more characters (at \":\")");
    }
}
