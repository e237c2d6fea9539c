//! Probes and lifecycle handlers.

use orch_core::status::FieldError;

use crate::kinds::{
    field::{Errors, Field},
    metadata,
};

/// Checks the probes and lifecycle handlers of a container.
pub(super) fn validate(container: &Field<'_>, grace_s: i64, errors: &mut Errors) {
    if let Some(lifecycle) = container.opt("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.opt(name) {
                self::handler(&handler, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
                sleep(&handler, grace_s, errors);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.opt(name) else { continue };
        self::probe(&probe, errors);
        if name != "readinessProbe" && probe.int("successThreshold").is_some_and(|n| n != 1) {
            errors.push(probe.invalid("successThreshold", "must be 1"));
        }
        if name == "readinessProbe" && probe.has("terminationGracePeriodSeconds") {
            let why = "must not be set for readinessProbes";
            errors.push(probe.invalid("terminationGracePeriodSeconds", why));
        }
    }
}

fn probe(probe: &Field<'_>, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    let numbers = [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ];
    metadata::non_negative_all(probe, &numbers, errors);
    if probe.int("terminationGracePeriodSeconds").is_some_and(|n| n <= 0) {
        errors.push(probe.invalid("terminationGracePeriodSeconds", "must be greater than 0"));
    }
}

fn sleep(handler: &Field<'_>, grace_s: i64, errors: &mut Errors) {
    if let Some(sleep) = handler.opt("sleep")
        && !(0..=grace_s).contains(&sleep.int("seconds").unwrap_or_default())
    {
        let why =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_s})");
        errors.push(sleep.invalid("seconds", why));
    }
}

/// Checks that exactly one handler of these kinds is given, and that one.
fn handler(parent: &Field<'_>, kinds: &[&str], errors: &mut Errors) {
    let mut given = kinds.iter().filter(|kind| parent.has(kind));
    let Some(first) = given.next() else {
        errors.push(FieldError::required(&parent.path, "must specify a handler type"));
        return;
    };
    for more in given {
        errors.push(parent.forbidden(more, "may not specify more than 1 handler type"));
    }
    let action = parent.get(first);
    match *first {
        "exec" if action.len("command") == 0 => errors.push(action.required("command", "")),
        "httpGet" => {
            action.not_empty("path", errors);
            metadata::port_number_or_name(&action, "port", errors);
            action.one_of("scheme", &["HTTP", "HTTPS"], false, errors);
            for header in action.items("httpHeaders") {
                if !is_header_name(header.str("name")) {
                    let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    errors.push(header.invalid("name", why));
                }
            }
        }
        "tcpSocket" => metadata::port_number_or_name(&action, "port", errors),
        "grpc" => metadata::port_number(&action, "port", errors),
        _ => {}
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
