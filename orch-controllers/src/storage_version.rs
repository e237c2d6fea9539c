//! In which version objects are stored: servers that are gone are forgotten, and what is stored in
//! an old version is written again.
//!
//! Neither runs unless it is asked for, as upstream's gates are off by default and the APIs are
//! served by option only.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/{storageversiongc,storageversionmigrator}`.

mod garbage;
mod migration;

pub use garbage::storage_version_gc;
pub use migration::storage_version_migrator;
