//! The five fields.

use jiff::{SignedDuration, Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

use super::zone;

/// Set in a field that says `*`: it does not restrict.
const STAR: u64 = 1 << 63;
/// After so many years without a match there is none.
const YEARS_MAX: i16 = 5;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may say.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const BOUNDS: [Bounds; 5] = [
    Bounds { low: 0, high: 59, names: &[] },
    Bounds { low: 0, high: 23, names: &[] },
    Bounds { low: 1, high: 31, names: &[] },
    Bounds { low: 1, high: 12, names: &MONTHS },
    Bounds { low: 0, high: 6, names: &DAYS },
];

/// The values that match, a bit for each.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

fn has(field: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| field & (1 << value) != 0)
}

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let found = fields.len();
            let fields = fields.join(" ");
            return Err(format!("expected exactly 5 fields, found {found}: [{fields}]"));
        };
        let [minutes, hours, days, months, weekdays] = &BOUNDS;
        Ok(Self {
            minute: field(minute, minutes)?,
            hour: field(hour, hours)?,
            day: field(day, days)?,
            month: field(month, months)?,
            weekday: field(weekday, weekdays)?,
        })
    }

    fn is_day(&self, civil: DateTime) -> bool {
        let day = has(self.day, civil.day());
        let weekday = has(self.weekday, civil.weekday().to_sunday_zero_offset());
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }

    /// The first match after a time, by steps of months, days, hours and minutes that begin again
    /// from the largest whenever one overflows.
    ///
    /// Source: `SpecSchedule.Next`.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut search = Search { zone, time: zone::whole_second(after)?, reset: false };
        search.step(SignedDuration::from_secs(1))?;
        let last_year = search.civil().year() + YEARS_MAX;
        while search.civil().year() <= last_year {
            if self.advance(&mut search)? {
                return Some(search.time);
            }
        }
        None
    }

    /// Moves on to a match. Gives `false` where a larger unit has to be looked at again.
    fn advance(&self, search: &mut Search<'_>) -> Option<bool> {
        while !has(self.month, search.civil().month()) {
            search.reset(|civil| {
                civil.date().first_of_month().to_datetime(jiff::civil::time(0, 0, 0, 0))
            })?;
            search.to(search.civil().checked_add(1.month()).ok()?)?;
            if search.civil().month() == 1 {
                return Some(false);
            }
        }
        while !self.is_day(search.civil()) {
            search.reset(|civil| civil.date().to_datetime(jiff::civil::time(0, 0, 0, 0)))?;
            search.next_day()?;
            if search.civil().day() == 1 {
                return Some(false);
            }
        }
        while !has(self.hour, search.civil().hour()) {
            search.reset(|civil| civil.date().at(civil.hour(), 0, 0, 0))?;
            search.step(SignedDuration::from_hours(1))?;
            if search.civil().hour() == 0 {
                return Some(false);
            }
        }
        // The seconds of a schedule are always zero.
        while !has(self.minute, search.civil().minute()) || search.civil().second() != 0 {
            let past = i64::from(search.civil().second());
            search.reset = true;
            search.step(SignedDuration::from_secs(60 - past))?;
            if search.civil().minute() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// A time on its way to a match.
struct Search<'a> {
    zone: &'a TimeZone,
    time: Timestamp,
    /// Whether a unit was advanced, so that all smaller ones begin at their first value.
    reset: bool,
}

impl Search<'_> {
    fn civil(&self) -> DateTime {
        self.zone.to_datetime(self.time)
    }

    fn step(&mut self, by: SignedDuration) -> Option<()> {
        self.time = self.time.checked_add(by).ok()?;
        Some(())
    }

    fn to(&mut self, civil: DateTime) -> Option<()> {
        self.time = zone::at(self.zone, civil)?;
        Some(())
    }

    fn reset(&mut self, to_first: impl Fn(DateTime) -> DateTime) -> Option<()> {
        if !self.reset {
            self.reset = true;
            self.to(to_first(self.civil()))?;
        }
        Some(())
    }

    /// The same time of the next day, corrected where clocks were changed at midnight.
    fn next_day(&mut self) -> Option<()> {
        self.to(self.civil().checked_add(1.day()).ok()?)?;
        let hour = i64::from(self.civil().hour());
        match hour {
            0 => Some(()),
            13.. => self.step(SignedDuration::from_hours(24 - hour)),
            _ => self.step(SignedDuration::from_hours(-hour)),
        }
    }
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let ranges = text.split(',').filter(|range| !range.is_empty());
    ranges.map(|range| bits(range, bounds)).try_fold(0, |all, bits| Ok(all | bits?))
}

/// The values of `*`, `N`, `N-M`, each perhaps with `/STEP`.
fn bits(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut star = 0;
    let (start, mut end) = if matches!(ends[0], "*" | "?") {
        star = STAR;
        (bounds.low, bounds.high)
    } else {
        let start = named(ends[0], bounds)?;
        match ends[..] {
            [_] => (start, start),
            [_, end] => (start, named(end, bounds)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            // A start with a step is a range up to the end.
            if ends.len() == 1 {
                end = bounds.high;
            }
            if step > 1 {
                star = 0;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let (low, high) = (bounds.low, bounds.high);
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).step_by(step as usize);
    Ok(values.fold(star, |bits, value| bits | 1 << value))
}

fn named(text: &str, bounds: &Bounds) -> Result<u32, String> {
    match bounds.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        Some(at) => Ok(bounds.low + u32::try_from(at).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let fail = |why: &str| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}")
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(fail("invalid syntax"));
    }
    let value: i64 = text.parse().map_err(|_| fail("value out of range"))?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    // What is too large for any field is refused by its bounds.
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}
