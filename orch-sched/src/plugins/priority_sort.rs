//! Higher priority first, then who has been waiting longer.

use std::cmp::Ordering;

use crate::{
    plugin::{EventsToRegister, Plugin, QueueSort},
    queue::QueuedPod,
};

/// Source: `pkg/scheduler/framework/plugins/queuesort`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &str {
        "PrioritySort"
    }

    fn as_queue_sort(&self) -> Option<&dyn QueueSort> {
        Some(self)
    }

    fn as_events_to_register(&self) -> Option<&dyn EventsToRegister> {
        Some(self)
    }
}

impl QueueSort for PrioritySort {
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        b.info.priority().cmp(&a.info.priority()).then(a.since.cmp(&b.since))
    }
}

impl EventsToRegister for PrioritySort {
    fn events(&self) -> Vec<crate::event::ClusterEvent> {
        Vec::new()
    }
}
