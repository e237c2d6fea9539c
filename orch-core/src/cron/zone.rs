//! Time zones, and civil time as Go's `time` package has it.

use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

/// No zone has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub struct UnknownZone(String);

/// The zone of a name of the IANA's database. No name means UTC.
///
/// # Errors
/// [`UnknownZone`], in the words of Go's `time.LoadLocation`.
pub fn load_zone(name: &str) -> Result<TimeZone, UnknownZone> {
    if name.is_empty() || name == "UTC" || name == "Local" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned()))
}

/// The second that a time is in.
pub(super) fn whole_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_nanosecond().div_euclid(1_000_000_000).try_into().ok()?).ok()
}

/// The time at which a zone's clocks show this. Of a time that they show twice it is one of the
/// two, and a time that they skip is shifted: the offset is that of the zone at the civil time
/// read as UTC, unless another one holds then.
///
/// Source: `time.Date`.
pub(super) fn at(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    let as_utc = Offset::UTC.to_timestamp(civil).ok()?;
    let guess = zone.to_offset(as_utc);
    let shifted = shift(as_utc, guess)?;
    let offset = zone.to_offset(shifted);
    if offset == guess { Some(shifted) } else { shift(as_utc, offset) }
}

fn shift(time: Timestamp, offset: Offset) -> Option<Timestamp> {
    time.checked_sub(SignedDuration::from_secs(i64::from(offset.seconds()))).ok()
}
