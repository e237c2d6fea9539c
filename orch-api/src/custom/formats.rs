//! The formats of strings that upstream checks; others say nothing.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/strfmt`, and
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/validation/formats.go`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Whether a text is of a format; anything is of a format that nobody knows.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2006-01-02".len(),
        "date-time" | "datetime" => {
            let has_time = text.contains(['T', 't']);
            has_time && text.parse::<jiff::Timestamp>().is_ok()
        }
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => {
            let parts = text.split_once('/');
            parts.is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok())
                && text.parse::<ipnet::IpNet>().is_ok()
        }
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "uri" => text.parse::<http::Uri>().is_ok_and(|uri| !uri.to_string().is_empty()),
        "hostname" => crate::names::dns_subdomain(&text.to_ascii_lowercase()).is_empty(),
        "mac" => is_mac(text),
        _ => true,
    }
}

fn is_uuid(format: &str, text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    match format.strip_prefix("uuid").unwrap_or_default().bytes().next() {
        Some(version) => digits[12] == version,
        None => true,
    }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let pair = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(pair)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn formats_are_told_apart() {
        let check = |format: &str, good: &str, bad: &str| {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        };
        check("date", "2026-02-28", "2026-02-30");
        check("date-time", "2026-02-28T10:00:00Z", "2026-02-28");
        check("byte", "YQ==", "?");
        check("ipv4", "10.0.0.1", "::1");
        check("cidr", "10.0.0.0/8", "10.0.0.0");
        check("uuid4", "6f1f9c3e-1f0e-4a57-9a53-1f0e4a579a53", "6f1f9c3e-1f0e-1a57");
        check("mac", "00:1b:44:11:3a:b7", "00:1b:44");
        assert!(fits("something-else", "x"));
    }
}
