//! Subresources that are more than a window on an object: binding and eviction of pods.

mod binding;
mod eviction;

pub use binding::Binding;
pub use eviction::Eviction;
