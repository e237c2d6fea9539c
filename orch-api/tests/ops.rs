//! What those who run a server need: health, metrics, audit, fairness.

#[path = "ops/health.rs"]
mod health;
#[path = "ops/metrics.rs"]
mod metrics;
#[path = "ops/support.rs"]
mod support;
