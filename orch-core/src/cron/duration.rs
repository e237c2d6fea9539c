//! Durations as Go writes them.
//!
//! Source: `time.ParseDuration` of Go's standard library.

use jiff::SignedDuration;

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `1h30m`, `-1.5s`, `300ms`, `0`.
pub(super) fn parse(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = take(rest, |c| c.is_ascii_digit() || c == '.');
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(invalid());
        }
        let (unit, after) = take(after, |c| !c.is_ascii_digit() && c != '.');
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        nanos += amount(whole, fraction, *scale).ok_or_else(invalid)?;
        if nanos > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| invalid())?;
    Ok(SignedDuration::from_nanos(nanos))
}

fn take(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// So many units, in nanoseconds; what is finer is cut off.
fn amount(whole: &str, fraction: &str, scale: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut scale = scale;
    let mut digits: i128 = 0;
    let mut divisor: i128 = 1;
    // More than eighteen digits say nothing about nanoseconds any more.
    for digit in fraction.bytes().take(18) {
        digits = digits * 10 + i128::from(digit - b'0');
        divisor *= 10;
    }
    scale = scale.checked_mul(digits)?;
    nanos = nanos.checked_add(scale / divisor)?;
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("1h30m", 5_400_000_000_000),
            ("-1.5s", -1_500_000_000),
            ("+5m", 300_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("10us3ns", 10_003),
            ("10µs", 10_000),
        ] {
            assert_eq!(parse(text), Ok(SignedDuration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "-", "s", ".s", "1.2.3s", "1x", "3", "9999999999999h", "1s 2s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
