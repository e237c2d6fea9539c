//! The rules for names that Kubernetes takes from DNS, and those of labels, ports and keys.
//!
//! Every function gives what is wrong, in upstream's words; nothing if nothing is.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation`.

pub use orch_core::names::{
    dns_label_errors as dns_label, dns_subdomain_errors as dns_subdomain,
    label_value_errors as label_value, qualified_name_errors as qualified_name,
};

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if edge(a) && edge(z))
        && bytes.iter().all(|b| edge(b) || *b == b'-')
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// What is wrong with a name as an RFC 1035 label, which starts with a letter.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

/// What is wrong with a name as a subdomain that may begin with the label `*`.
pub fn wildcard_dns_subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)) {
        errors.push(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    errors
}

/// What is wrong with a name that becomes part of a path: `.`, `..`, `/` and `%` are not allowed.
///
/// Source: `k8s.io/apimachinery/pkg/api/validation/path`, `ValidatePathSegmentName`.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|illegal| name.contains(**illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// What is wrong with the name of a container's port.
pub fn port_name(name: &str) -> Vec<String> {
    const PORT_NAME_MAX: usize = 15;
    let mut errors = Vec::new();
    let mut check = |wrong: bool, why: &str| {
        if wrong {
            errors.push(why.to_owned());
        }
    };
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    check(name.len() > PORT_NAME_MAX, &too_long(PORT_NAME_MAX));
    check(
        !name.bytes().all(legal) || name.is_empty(),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    check(!name.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    check(name.contains("--"), "must not contain consecutive hyphens");
    check(name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen");
    errors
}

/// What is wrong with a key of a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        errors.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    if key == "." {
        errors.push("must not be '.'".to_owned());
    } else if key == ".." {
        errors.push("must not be '..'".to_owned());
    } else if key.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// What is wrong with the name of an environment variable.
pub fn env_name(name: &str) -> Vec<String> {
    if name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// Whether this can be the name of a kernel parameter.
///
/// Source: `pkg/apis/core/validation`, `IsValidSysctlName`.
pub fn sysctl(name: &str) -> bool {
    const BYTES_MAX: usize = 253;
    let ends = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inside = |b: u8| ends(b) || matches!(b, b'-' | b'_');
    name.len() <= BYTES_MAX
        && name.split(['.', '/']).all(|segment| {
            let bytes = segment.as_bytes();
            bytes.iter().all(|b| inside(*b))
                && bytes.first().is_some_and(|b| ends(*b))
                && bytes.last().is_some_and(|b| ends(*b))
        })
}

/// What is wrong with an IP address, either family.
pub fn ip_address(text: &str) -> Vec<String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// What is wrong with a CIDR, either family.
pub fn cidr(text: &str) -> Vec<String> {
    if text.parse::<ipnet::IpNet>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_upstream_checks_them() {
        let check = |rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]| {
            for name in good {
                assert_eq!(rule(name), Vec::<String>::new(), "{name}");
            }
            for name in bad {
                assert_ne!(rule(name), Vec::<String>::new(), "{name}");
            }
        };
        check(dns_subdomain, &["a", "a.b-c", "1.2"], &["", "A", "-a", "a.", "a_b"]);
        check(dns_label, &["a", "1a"], &["a.b", "", "a-"]);
        check(dns1035_label, &["a", "a1"], &["1a", "", "a.b"]);
        check(qualified_name, &["a", "A.b_c", "x.io/A"], &["", "/a", "a/", "a/b/c", "X/a", "a b"]);
        check(label_value, &["", "a", "A_1"], &["-", "a/b", "a b"]);
        check(port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "HTTP", "abcdefghijklmnop"]);
        check(config_key, &["a.b", ".a"], &["..", "", "a/b", "..a"]);
        check(env_name, &["A", "a.b", "my var"], &["A=B", "\u{e9}"]);
        check(path_segment, &["a:b", "A"], &[".", "..", "a/b", "a%"]);
        check(wildcard_dns_subdomain, &["*.a.b"], &["*", "a.b", "*.A"]);
        check(ip_address, &["1.2.3.4", "::1"], &["1.2.3", ""]);
        check(cidr, &["1.2.3.0/24", "fd00::/8"], &["1.2.3.4", "1.2.3.0/33"]);
    }
}
