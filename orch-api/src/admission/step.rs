//! How long admission takes.

use orch_core::ApiError;
use tokio::time::Instant;

use super::Operation;
use crate::metrics::Metrics;

/// A part of admission that is measured, if anything is.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a>(Option<Begun<'a>>);

#[derive(Clone, Copy)]
struct Begun<'a> {
    metrics: &'a Metrics,
    step: &'static str,
    operation: Operation,
    at: Instant,
}

impl<'a> Step<'a> {
    pub(crate) fn begin(
        metrics: Option<&'a Metrics>,
        step: &'static str,
        operation: Operation,
    ) -> Self {
        Self(metrics.map(|metrics| Begun { metrics, step, operation, at: Instant::now() }))
    }

    /// Notes how the part ended; `plugin` is the one that it was.
    pub(crate) fn end(
        self,
        plugin: Option<&str>,
        result: Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        if let Some(begun) = self.0 {
            let operation = match begun.operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
                Operation::Connect => "CONNECT",
            };
            let took = begun.at.elapsed();
            begun.metrics.admitted(plugin, begun.step, operation, result.is_err(), took);
        }
        result
    }
}
