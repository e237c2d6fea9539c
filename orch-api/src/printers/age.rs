//! Ages and durations as tables show them.
//!
//! Source: `k8s.io/apimachinery/pkg/util/duration`.

use jiff::Timestamp;
use serde_json::Value;

/// The age of an object, as kubectl's AGE column has it; `<unknown>` without a creation time.
pub fn age(object: &Value, now: Timestamp) -> String {
    let created = object["metadata"]["creationTimestamp"].as_str();
    created
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map_or_else(|| "<unknown>".to_owned(), |then| since(then, now))
}

/// The time from one moment to another, in the form of [`human_duration`].
pub fn since(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second() - then.as_second())
}

/// A duration in seconds in the two-unit form of upstream's `duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let (minute, hour, day) = (60, 3600, 86400);
    let pair = |a: i64, a_unit: &str, b: i64, b_unit: &str| {
        if b == 0 { format!("{a}{a_unit}") } else { format!("{a}{a_unit}{b}{b_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * minute => format!("{s}s"),
        s if s < 10 * minute => pair(s / minute, "m", s % minute, "s"),
        s if s < 3 * hour => format!("{}m", s / minute),
        s if s < 8 * hour => pair(s / hour, "h", s / minute % 60, "m"),
        s if s < 2 * day => format!("{}h", s / hour),
        s if s < 8 * day => pair(s / day, "d", s / hour % 24, "h"),
        s if s < 2 * 365 * day => format!("{}d", s / day),
        s if s < 8 * 365 * day => pair(s / day / 365, "y", s / day % 365, "d"),
        s => format!("{}y", s / day / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectls() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (3 * 3600 + 60, "3h1m"),
            (86400, "24h"),
            (3 * 86400, "3d"),
            (400 * 86400, "400d"),
            (3 * 365 * 86400, "3y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
