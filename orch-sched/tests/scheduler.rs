//! The scheduler's public behaviour, against a cluster in memory.
#![expect(clippy::needless_pass_by_value, reason = "JSON is passed as it is written down")]

#[path = "scheduler/bad_input.rs"]
mod bad_input;
#[path = "scheduler/build.rs"]
mod build;
#[path = "scheduler/cluster.rs"]
mod cluster;
#[path = "scheduler/configuration.rs"]
mod configuration;
#[path = "scheduler/devices.rs"]
mod devices;
#[path = "scheduler/end_to_end.rs"]
mod end_to_end;
#[path = "scheduler/extended_resources.rs"]
mod extended_resources;
#[path = "scheduler/extenders.rs"]
mod extenders;
#[path = "scheduler/faults.rs"]
mod faults;
#[path = "scheduler/gangs.rs"]
mod gangs;
#[path = "scheduler/insight.rs"]
mod insight;
#[path = "scheduler/plugins.rs"]
mod plugins;
#[path = "scheduler/preemption.rs"]
mod preemption;
#[path = "scheduler/recording.rs"]
mod recording;
#[path = "scheduler/volumes.rs"]
mod volumes;
