//! The scheduler's decisions beside those of a reference that is written for clarity and is slow.

#[path = "decisions/devices.rs"]
mod devices;
#[path = "decisions/differential.rs"]
mod differential;
#[path = "decisions/reference.rs"]
mod reference;
#[path = "decisions/reference_devices.rs"]
mod reference_devices;
#[path = "decisions/reference_pods.rs"]
mod reference_pods;
#[path = "decisions/reference_preemption.rs"]
mod reference_preemption;
#[path = "decisions/reference_volumes.rs"]
mod reference_volumes;
#[path = "decisions/world.rs"]
mod world;
