//! What a queue tells about itself.

use std::time::Duration;

/// Is told what happens in a queue. Called with no lock held except by [`QueueMetrics::added`];
/// must be quick and must not call the queue.
///
/// The methods carry what upstream's metrics need: `workqueue_depth`, `workqueue_adds_total`,
/// `workqueue_queue_duration_seconds`, `workqueue_work_duration_seconds`, `workqueue_retries_total`.
pub trait QueueMetrics: Send + Sync + 'static {
    /// An item newly waits; `depth` wait now.
    fn added(&self, depth: usize) {
        let _ = depth;
    }

    /// An item was taken after having waited so long; `depth` still wait.
    fn taken(&self, depth: usize, waited: Duration) {
        let _ = (depth, waited);
    }

    /// The work on an item took so long.
    fn finished(&self, worked: Duration) {
        let _ = worked;
    }

    /// An item was added with back-off.
    fn retried(&self) {}
}

/// Measures nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnoreMetrics;

impl QueueMetrics for IgnoreMetrics {}
