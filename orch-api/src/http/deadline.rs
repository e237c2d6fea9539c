//! How long a request may take.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go`,
//! `pkg/server/filters/timeout.go`, `pkg/server/filters/longrunning.go`.

use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use http::Method;
use orch_core::{ApiError, clock::Clock, status::Reason};

use super::{options::Query, resources::CONNECTIONS, route::Route};

/// The limit of a request; none for those that are meant to last.
///
/// # Errors
/// `BadRequest` if the client asks for what is no duration.
pub(super) fn of(
    route: Option<&Route>,
    method: &Method,
    query: &Query,
    max: Duration,
) -> Result<Option<Duration>, ApiError> {
    if let Some(Route::Resource(found)) = route {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let watches = reads && (found.watch || query.flag("watch"));
        let connects = found.subresource.as_deref().is_some_and(|sub| CONNECTIONS.contains(&sub));
        if watches || connects {
            return Ok(None);
        }
    }
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else {
        return Ok(Some(max));
    };
    let asked = go_duration(text).map_err(|why| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - time: {why}"))
    })?;
    // What is not positive is no wish.
    Ok(Some(asked.filter(|asked| !asked.is_zero() && *asked < max).unwrap_or(max)))
}

/// The answer to a request that took too long.
pub(super) fn exceeded() -> ApiError {
    let why = "Timeout: request did not complete within the allotted timeout";
    ApiError::new(Reason::Timeout, why).with_details(Default::default())
}

/// Waits for the work as long as it may take. Work that takes longer goes on by itself, so that a
/// write ends as it would have ended, whoever waits for it.
pub(super) async fn within<T: Send + 'static>(
    clock: &dyn Clock,
    limit: Option<Duration>,
    work: BoxFuture<'static, T>,
) -> Option<T> {
    let Some(limit) = limit else { return Some(work.await) };
    match select(work, clock.sleep(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), work)) => {
            tokio::spawn(async move { drop(work.await) });
            None
        }
    }
}

const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("\u{3bc}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// A duration as Go writes it; `None` for a negative one. The error is in Go's words.
fn go_duration(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("missing unit in duration {text:?}"));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, factor) =
            known.ok_or_else(|| format!("unknown unit {unit:?} in duration {text:?}"))?;
        seconds += number * factor;
        rest = after;
    }
    // Go counts nanoseconds in 64 bits.
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    if duration.as_nanos() > i64::MAX as u128 {
        return Err(invalid());
    }
    Ok((!negative).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let check = |text: &str, expected: Result<Option<u64>, &str>| {
            let found = go_duration(text).map(|d| d.map(|d| d.as_millis() as u64));
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("1m30s", Ok(Some(90_000)));
        check("1.5h", Ok(Some(5_400_000)));
        check(".5s", Ok(Some(500)));
        check("+250ms", Ok(Some(250)));
        check("0", Ok(Some(0)));
        check("-1s", Ok(None));
        check("5", Err("missing unit in duration \"5\""));
        check("5x", Err("unknown unit \"x\" in duration \"5x\""));
        check("abc", Err("invalid duration \"abc\""));
        check("-", Err("invalid duration \"-\""));
        check("1e9h", Err("unknown unit \"e\" in duration \"1e9h\""));
        check("9999999h", Err("invalid duration \"9999999h\""));
    }
}
