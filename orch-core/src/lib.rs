//! The object model and the contracts of the orch SDK.

pub mod client;
pub mod clock;
pub mod environment;
pub mod informer;
pub mod names;
pub mod node;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod random;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::{Client, ClientError, Resources};
pub use environment::Environment;
pub use object::Object;
pub use resource::{Key, ResourceType, Scope, Target};
pub use status::ApiError;
