//! Parts of points in time and of spans of it.
//!
//! Source: cel-go `common/stdlib/standard.go`. Without a zone it is UTC, as Kubernetes sets it.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Body, Functions, Overload};
use crate::types::Type;
use crate::value::{Value, no_such_overload, zone_of};

/// A part of a date and time of day.
struct Part(Civil);

type Civil = fn(&DateTime) -> i64;

impl Body for Part {
    fn call<'a>(&self, _: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
        let (moment, zone) = match args {
            [Value::Timestamp(moment)] => (moment, TimeZone::UTC),
            [Value::Timestamp(moment), Value::String(zone)] => (moment, zone_of(zone)?),
            _ => return no_such_overload(),
        };
        Ok(Value::Int((self.0)(&moment.civil(&zone))))
    }
}

/// A span of time in whole units of so many nanoseconds.
struct Whole(i64);

impl Body for Whole {
    fn call<'a>(&self, _: &mut Context<'_>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
        match args {
            [Value::Duration(nanoseconds)] => Ok(Value::Int(nanoseconds / self.0)),
            _ => no_such_overload(),
        }
    }
}

pub(super) fn install(functions: &mut Functions) {
    let parts: [(&'static str, &str, Civil); 10] = [
        ("getFullYear", "timestamp_to_year", |at| at.year().into()),
        ("getMonth", "timestamp_to_month", |at| i64::from(at.month()) - 1),
        ("getDayOfYear", "timestamp_to_day_of_year", |at| i64::from(at.day_of_year()) - 1),
        ("getDayOfMonth", "timestamp_to_day_of_month", |at| i64::from(at.day()) - 1),
        ("getDate", "timestamp_to_day_of_month_1_based", |at| at.day().into()),
        ("getDayOfWeek", "timestamp_to_day_of_week", |at| {
            at.weekday().to_sunday_zero_offset().into()
        }),
        ("getHours", "timestamp_to_hours_tz", |at| at.hour().into()),
        ("getMinutes", "timestamp_to_minutes", |at| at.minute().into()),
        ("getSeconds", "timestamp_to_seconds_tz", |at| at.second().into()),
        ("getMilliseconds", "timestamp_to_milliseconds", |at| at.millisecond().into()),
    ];
    for (name, id, part) in parts {
        let plain = Overload::method(id.to_owned(), [Type::Timestamp], Type::Int, Part(part));
        functions.add(name, plain);
        let args = [Type::Timestamp, Type::String];
        functions.add(name, Overload::method(format!("{id}_with_tz"), args, Type::Int, Part(part)));
    }
    let spans = [
        ("getHours", "duration_to_hours", 3_600_000_000_000),
        ("getMinutes", "duration_to_minutes", 60_000_000_000),
        ("getSeconds", "duration_to_seconds", 1_000_000_000),
        ("getMilliseconds", "duration_to_milliseconds", 1_000_000),
    ];
    for (name, id, unit) in spans {
        functions.add(name, Overload::method(id, [Type::Duration], Type::Int, Whole(unit)));
    }
}
