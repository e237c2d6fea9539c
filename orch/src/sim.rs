//! Clusters in virtual time.

pub mod view;

pub use view::{ObjectChange, Step, View};
