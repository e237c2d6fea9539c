//! Schedules in cron's words: when is the next time?
//!
//! Source: `github.com/robfig/cron/v3` (`ParseStandard`), which upstream's CronJobs use.
//! Differs: a schedule without a zone is in UTC, not in the zone of the process; `TZ=` without
//! anything behind the zone is refused, where upstream's parser panics.

mod duration;
mod fields;
mod zone;

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use self::fields::Fields;
pub use self::zone::{UnknownZone, load_zone};

/// The text is no schedule. The messages are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// A parsed schedule.
///
/// Five fields (minute, hour, day of month, month, day of week) with lists, ranges, steps and
/// names; or `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`; or
/// `@every` and a duration as Go writes it. `TZ=` or `CRON_TZ=` and a zone may come before it.
///
/// ```
/// use orch_core::cron::Schedule;
/// let weekdays: Schedule = "TZ=Europe/Berlin 30 9 * * mon-fri".parse()?;
/// let friday = "2026-01-02T12:00:00Z".parse().unwrap();
/// assert_eq!(weekdays.next(friday).unwrap().to_string(), "2026-01-05T08:30:00Z");
/// # Ok::<(), orch_core::cron::CronError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Fields(Fields),
    /// So often, in whole seconds.
    Every(SignedDuration),
}

impl Schedule {
    /// The first time after `after`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Fields(fields) => fields.next(after, &self.zone),
            Rule::Every(delay) => zone::whole_second(after)?.checked_add(*delay).ok(),
        }
    }
}

impl FromStr for Schedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError("empty spec string".to_owned()));
        }
        let (zone, text) = split_zone(text)?;
        let rule = match text.strip_prefix('@') {
            Some(_) => descriptor(text)?,
            None => Rule::Fields(Fields::parse(text).map_err(CronError)?),
        };
        Ok(Self { zone, rule })
    }
}

fn split_zone(text: &str) -> Result<(TimeZone, &str), CronError> {
    let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let Some(zoned) = zoned else { return Ok((TimeZone::UTC, text)) };
    let (name, rest) = zoned.split_once(' ').unwrap_or((zoned, ""));
    let zone = load_zone(name)
        .map_err(|error| CronError(format!("provided bad location {name}: {error}")))?;
    Ok((zone, rest.trim()))
}

fn descriptor(text: &str) -> Result<Rule, CronError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(CronError(format!("unrecognized descriptor: {text}")));
            };
            let delay = duration::parse(every)
                .map_err(|error| CronError(format!("failed to parse duration {text}: {error}")))?;
            let whole = SignedDuration::from_secs(delay.as_secs().max(1));
            return Ok(Rule::Every(whole));
        }
    };
    Fields::parse(fields).map(Rule::Fields).map_err(CronError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, after: &str, expected: &str) {
        let parsed: Schedule = schedule.parse().unwrap_or_else(|e| panic!("{schedule}: {e}"));
        let next = parsed.next(after.parse().unwrap());
        let next = next.map_or_else(|| "never".to_owned(), |next| next.to_string());
        assert_eq!(next, expected, "{schedule} after {after}");
    }

    #[test]
    fn the_next_time_is_upstreams() {
        check("* * * * *", "2026-07-09T14:45:00Z", "2026-07-09T14:46:00Z");
        check("* * * * ?", "2026-07-09T14:45:30.5Z", "2026-07-09T14:46:00Z");
        check("*/15 * * * *", "2026-07-09T14:59:59Z", "2026-07-09T15:00:00Z");
        check("20-35/15 * * * *", "2026-07-09T23:35:51Z", "2026-07-10T00:20:00Z");
        check("5/20 * * * *", "2026-07-09T23:46:00Z", "2026-07-10T00:05:00Z");
        check("0 */2 * * *", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z");
        check("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("0 0 1 jan-Mar *", "2026-04-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("30 9 * * MON", "2026-01-02T00:00:00Z", "2026-01-05T09:30:00Z");
        // Both days restricted: either is enough. One of them a star: both must agree.
        check("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("0 0 */2 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("0 0 * * 5", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z");
        check("59 23 31 2 *", "2026-01-01T00:00:00Z", "never");
        check("@hourly", "2026-07-09T14:00:00Z", "2026-07-09T15:00:00Z");
        check("@midnight", "2026-07-09T14:00:00Z", "2026-07-10T00:00:00Z");
        check("@weekly", "2026-07-09T14:00:00Z", "2026-07-12T00:00:00Z");
        check("@annually", "2026-07-09T14:00:00Z", "2027-01-01T00:00:00Z");
        check("@every 1h30m", "2026-07-09T14:45:00.9Z", "2026-07-09T16:15:00Z");
        check("@every 10ms", "2026-07-09T14:45:00Z", "2026-07-09T14:45:01Z");
    }

    #[test]
    fn zones_jump() {
        let york = |rest: &str| format!("TZ=America/New_York {rest}");
        // 2:30 does not exist on 8 March: the day after.
        check(&york("30 2 * * *"), "2026-03-08T05:00:00Z", "2026-03-09T06:30:00Z");
        check(&york("0 3 * * *"), "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z");
        // 1:30 exists twice on 1 November, and both are taken.
        check(&york("30 1 * * *"), "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z");
        check(&york("30 1 * * *"), "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z");
        check(&york("0 0 * * *"), "2026-11-01T05:00:00Z", "2026-11-02T05:00:00Z");
        // Midnight does not exist where summer begins at midnight.
        let paulo = "CRON_TZ=America/Sao_Paulo 0 0 4 11 ?";
        check(paulo, "2018-10-17T10:00:00Z", "2019-11-04T03:00:00Z");
        check("TZ=America/Sao_Paulo 0 5 4 11 *", "2018-10-17T10:00:00Z", "2018-11-04T07:00:00Z");
        check("TZ=Asia/Kolkata 0 12 * * *", "2026-01-01T00:00:00Z", "2026-01-01T06:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_upstreams_words() {
        for (text, expected) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("0 0 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("9-4 * * * *", "beginning of range (9) beyond end of range (4): 9-4"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            (
                "* * * * 1-x",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("*/-5 * * * *", "negative number (-5) not allowed: -5"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            (
                "@every soon",
                "failed to parse duration @every soon: time: invalid duration \"soon\"",
            ),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            (
                "TZ=Moon/Base 0 0 * * *",
                "provided bad location Moon/Base: unknown time zone Moon/Base",
            ),
            ("TZ=UTC", "expected exactly 5 fields, found 0: []"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
