//! Points in time and spans of it.
//!
//! Source: cel-go `common/types/timestamp.go`, `duration.go`, `overflow.go`; Go's `time` for what
//! the texts look like; `k8s.io/kube-openapi/pkg/validation/strfmt` for formats in schemas.

use std::cmp::Ordering;
use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::error::Error;

/// Year 1 and year 9999, in seconds from 1970.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;
/// The beginning of 1970.
const EPOCH: DateTime = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);

const SECOND: i128 = 1_000_000_000;

/// A point in time from year 1 to year 9999, and the offset from UTC that it was written with.
/// Two are equal if they are the same point.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// From 1970 on. jiff's own timestamps end some hours before year 9999 does.
    nanoseconds: i128,
    offset: Offset,
}

impl Moment {
    /// A point in time, in UTC.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it is before year 1 or after year 9999.
    pub fn of(at: Timestamp) -> Result<Self, Error> {
        Self::new(at.as_nanosecond(), Offset::UTC)
    }

    fn new(nanoseconds: i128, offset: Offset) -> Result<Self, Error> {
        // Truncation towards zero would count the second before year 1 as year 1.
        let seconds = nanoseconds.div_euclid(SECOND);
        if !(i128::from(SECONDS_MIN)..=i128::from(SECONDS_MAX)).contains(&seconds) {
            return Err(Error::failed("timestamp overflow"));
        }
        Ok(Self { nanoseconds, offset })
    }

    pub(crate) fn of_seconds(seconds: i64) -> Result<Self, Error> {
        Self::new(i128::from(seconds) * SECOND, Offset::UTC)
    }

    /// The date and time of day at an offset.
    fn of_civil(civil: DateTime, offset: Offset) -> Result<Self, Error> {
        let since = civil.duration_since(EPOCH).as_nanos();
        Self::new(since - i128::from(offset.seconds()) * SECOND, offset)
    }

    /// Midnight of a date such as `2026-11-26`.
    pub(super) fn of_date(text: &str) -> Option<Self> {
        let (date, rest) = Reader { text: text.as_bytes() }.date()?;
        rest.is_empty().then(|| Self::of_civil(date.at(0, 0, 0, 0), Offset::UTC).ok()).flatten()
    }

    /// The point in time; the last hours of year 9999 are cut off.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(self.nanoseconds).unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn seconds(self) -> i64 {
        self.nanoseconds.div_euclid(SECOND) as i64
    }

    /// Go's zero time is the beginning of year 1.
    pub(super) fn is_zero(self) -> bool {
        self.nanoseconds == i128::from(SECONDS_MIN) * SECOND
    }

    /// The date and time of day in a zone.
    pub(crate) fn civil(self, zone: &TimeZone) -> DateTime {
        self.civil_at(zone.to_offset(self.timestamp()))
    }

    fn civil_at(self, offset: Offset) -> DateTime {
        let local = self.nanoseconds + i128::from(offset.seconds()) * SECOND;
        let (seconds, rest) = (local.div_euclid(SECOND), local.rem_euclid(SECOND));
        let since = SignedDuration::new(seconds as i64, rest as i32);
        // An offset can lead out of the last year that there is.
        EPOCH.saturating_add(since)
    }

    pub(crate) fn plus(self, nanoseconds: i64) -> Result<Self, Error> {
        Self::new(self.nanoseconds + i128::from(nanoseconds), self.offset)
    }

    pub(crate) fn minus(self, nanoseconds: i64) -> Result<Self, Error> {
        Self::new(self.nanoseconds - i128::from(nanoseconds), self.offset)
    }

    /// How much later it is than another, in nanoseconds.
    pub(crate) fn since(self, other: Self) -> Result<i64, Error> {
        let nanoseconds = self.nanoseconds - other.nanoseconds;
        i64::try_from(nanoseconds).map_err(|_| Error::failed("timestamp overflow"))
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.nanoseconds == other.nanoseconds
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanoseconds.cmp(&other.nanoseconds)
    }
}

impl fmt::Display for Moment {
    /// As Go writes RFC 3339 with nanoseconds: no zeros at the end of the fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = self.civil_at(self.offset);
        let (date, time) = (civil.date(), civil.time());
        write!(f, "{:04}-{:02}-{:02}T", date.year(), date.month(), date.day())?;
        write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        if time.subsec_nanosecond() != 0 {
            let digits = format!("{:09}", time.subsec_nanosecond());
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        match self.offset.seconds() {
            0 => f.write_str("Z"),
            seconds => {
                let sign = if seconds < 0 { '-' } else { '+' };
                let minutes = seconds.abs() / 60;
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// Reads RFC 3339 as Go does.
pub(crate) fn parse_moment(text: &str) -> Option<Moment> {
    read_moment(text, false)
}

/// Reads RFC 3339; without an offset it is UTC, as schemas allow it.
pub(super) fn lenient_moment(text: &str) -> Option<Moment> {
    read_moment(text, true)
}

fn read_moment(text: &str, without_offset: bool) -> Option<Moment> {
    let (date, rest) = Reader { text: text.as_bytes() }.date()?;
    let (time, rest) = Reader { text: rest.strip_prefix(b"T")? }.time(date)?;
    let offset = match rest {
        b"" if without_offset => Offset::UTC,
        b"Z" => Offset::UTC,
        _ => offset(rest)?,
    };
    Moment::of_civil(time, offset).ok()
}

fn offset(text: &[u8]) -> Option<Offset> {
    let sign = match text.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [a, b, b':', c, d] = text.get(1..)? else { return None };
    let hours = number(&[*a, *b])?;
    let minutes = number(&[*c, *d])?;
    if hours > 24 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn number(digits: &[u8]) -> Option<i32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

struct Reader<'t> {
    text: &'t [u8],
}

impl<'t> Reader<'t> {
    fn date(self) -> Option<(jiff::civil::Date, &'t [u8])> {
        let (date, rest) = self.text.split_at_checked(10)?;
        if date[4] != b'-' || date[7] != b'-' {
            return None;
        }
        let year = i16::try_from(number(&date[..4])?).ok()?;
        let month = i8::try_from(number(&date[5..7])?).ok()?;
        let day = i8::try_from(number(&date[8..])?).ok()?;
        Some((jiff::civil::Date::new(year, month, day).ok()?, rest))
    }

    fn time(self, date: jiff::civil::Date) -> Option<(DateTime, &'t [u8])> {
        let (time, mut rest) = self.text.split_at_checked(8)?;
        if time[2] != b':' || time[5] != b':' {
            return None;
        }
        let field = |digits: &[u8]| i8::try_from(number(digits)?).ok();
        let (hour, minute, second) = (field(&time[..2])?, field(&time[3..5])?, field(&time[6..])?);
        let mut nanoseconds = 0;
        if let Some(fraction) = rest.strip_prefix(b".").or(rest.strip_prefix(b",")) {
            let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let padded = fraction[..digits].iter().chain(std::iter::repeat(&b'0'));
            for digit in padded.take(9) {
                nanoseconds = nanoseconds * 10 + i32::from(digit - b'0');
            }
            rest = &fraction[digits..];
        }
        let time = jiff::civil::Time::new(hour, minute, second, nanoseconds).ok()?;
        Some((date.to_datetime(time), rest))
    }
}

/// The zone of a name such as `Europe/Berlin`, or of an offset such as `-08:00`.
///
/// # Errors
///
/// [`Error::Failed`] if it is neither.
pub(crate) fn zone_of(name: &str) -> Result<TimeZone, Error> {
    let unknown = || Error::failed(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return match name {
            "" | "UTC" => Ok(TimeZone::UTC),
            _ => TimeZone::get(name).map_err(|_| unknown()),
        };
    };
    let parse = |text: &str| {
        text.parse::<i32>()
            .map_err(|_| Error::failed(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    };
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = (parse(hours)?, parse(minutes)?);
    let seconds = hours.checked_mul(3600).zip(minutes.checked_mul(60));
    let seconds = seconds.and_then(|(hours, minutes)| hours.checked_add(sign * minutes));
    let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds).ok());
    offset.map(TimeZone::fixed).ok_or_else(unknown)
}

/// A span of time in seconds, with all its digits.
pub(crate) fn duration_text(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let rest = nanoseconds % 1_000_000_000;
    format!("{}s", seconds as f64 + rest as f64 / 1e9)
}

/// Reads a span of time: as Go does, or in words as schemas allow it (`3 days`).
pub(super) fn lenient_duration(text: &str) -> Option<i64> {
    parse_duration(text).or_else(|| duration_in_words(text))
}

/// Reads a span of time as Go does: `1h30m`, `-1.5s`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, behind) = rest.split_at(number);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let unit: i128 = match &behind[..end] {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        sum = sum.checked_add(scaled(digits, unit)?)?;
        if sum > 1 << 63 {
            return None;
        }
        rest = &behind[end..];
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

fn scaled(digits: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(unit)?;
    // Digits beyond these are less than a nanosecond of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    if !fraction.is_empty() {
        let scale = 10_i128.pow(fraction.len() as u32);
        value = value.checked_add(fraction.parse::<i128>().ok()? * unit / scale)?;
    }
    Some(value)
}

fn duration_in_words(text: &str) -> Option<i64> {
    const UNITS: [(i64, &[&str]); 8] = [
        (1, &["ns", "nano"]),
        (1_000, &["us", "\u{b5}s", "micro"]),
        (1_000_000, &["ms", "milli"]),
        (1_000_000_000, &["s", "sec"]),
        (60_000_000_000, &["m", "min"]),
        (3_600_000_000_000, &["h", "hr", "hour"]),
        (86_400_000_000_000, &["d", "day"]),
        (604_800_000_000_000, &["w", "wk", "week"]),
    ];
    let mut sum = None;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let factor: i64 = rest[..end].parse().ok()?;
        rest = rest[end..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic() && c != '\u{b5}');
        let (unit, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let unit = unit.to_lowercase();
        let found = UNITS.iter().find(|(_, names)| {
            names.contains(&unit.as_str()) || names.last().is_some_and(|n| unit.starts_with(n))
        });
        if let Some((nanoseconds, _)) = found {
            sum = Some(factor.checked_mul(*nanoseconds)?.checked_add(sum.unwrap_or(0))?);
        }
        rest = behind;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_they_were_read() {
        let check = |text: &str, expected: Option<&str>| {
            let read = parse_moment(text).map(|moment| moment.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("2026-11-26T04:30:00Z", Some("2026-11-26T04:30:00Z"));
        check("2026-11-26T04:30:00.120+02:00", Some("2026-11-26T04:30:00.12+02:00"));
        check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z"));
        check("9999-12-31T23:59:59.999999999Z", Some("9999-12-31T23:59:59.999999999Z"));
        check("9999-12-31T23:59:59-01:00", None);
        check("2026-02-30T00:00:00Z", None);
        check("2026-11-26t04:30:00z", None);
        check("2026-11-26", None);
    }

    #[test]
    fn spans_are_read_as_go_reads_them() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_duration(text), expected, "{text}");
        };
        check("1h30m", Some(5_400_000_000_000));
        check("-1.5s", Some(-1_500_000_000));
        check("1us2ns", Some(1_002));
        check("0", Some(0));
        check(".5m", Some(30_000_000_000));
        check("1", None);
        check("1d", None);
        check("", None);
        check("9223372036854775807ns", Some(i64::MAX));
        check("9223372036854775808ns", None);
        check("-9223372036854775808ns", Some(i64::MIN));
        assert_eq!(lenient_duration("3 days 2 hours"), Some(266_400_000_000_000));
        assert_eq!(duration_text(5_400_500_000_000), "5400.5s");
    }
}
