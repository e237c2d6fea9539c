//! Numbers as text, for those who scrape them: the one place that writes Prometheus' formats.
//!
//! Who counts something registers it in a [`Registry`], its own or somebody else's; who serves
//! numbers writes a registry out.

use std::fmt::Write as _;

pub use prometheus_client::registry::Registry;

/// The media type of [`open_metrics`], for those who ask for it.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of [`plain`]: the older format, which everybody reads.
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All numbers of a registry in the text format of OpenMetrics.
///
/// ```
/// use orch_core::metrics::{Registry, open_metrics};
/// assert_eq!(open_metrics(&Registry::default()), "# EOF\n");
/// ```
pub fn open_metrics(registry: &Registry) -> String {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        // A string takes whatever is written to it: a collector has failed, and ends the text.
        tracing::warn!("a collector could not be encoded");
    }
    text
}

/// The same in the older format, in which a counter is called by its whole name.
pub fn plain(registry: &Registry) -> String {
    older(&open_metrics(registry))
}

fn older(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = said.split_once(' ') else { continue };
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                let _ = writeln!(out, "# HELP {name}{suffix} {text}");
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_get_their_whole_name() {
        let text = "# HELP a A.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\n\
                    # UNIT b seconds\nb 2\n# EOF\n";
        let plain = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# HELP b B.\n\
                     # TYPE b gauge\nb 2\n";
        assert_eq!(super::older(text), plain);
    }
}
