//! Clusters in virtual time, from a seed, while things fail, checked after every step.
//!
//! One seed is one history: who writes what when, and what goes wrong, is drawn from it. After
//! every revision that the store commits, each [`Invariant`] looks at what changed and at the
//! whole cluster as it is then. So what goes wrong is found where it begins, and the seed replays
//! it.
//!
//! - [`view`]: the cluster at a revision, and the step that led there.
//! - [`invariant`]: the contract of what must always hold, and who checks it.
//! - [`standard`]: what holds in every cluster that runs the standard controllers.
//! - [`faults`]: what goes wrong, as data that a seed draws.
//! - [`world`]: a cluster whose components are processes of their own, each behind a [`link`] of
//!   its own, that can crash and come back.
//!
//! ```
//! use orch::sim::{FaultPlan, Simulation, World, standard};
//!
//! let report = Simulation::new(7)
//!     .nodes(2)
//!     .faults(FaultPlan::drawn)
//!     .invariants(standard::all)
//!     .run(|world: World| async move {
//!         let pod = serde_json::json!({
//!             "apiVersion": "v1", "kind": "Pod",
//!             "metadata": {"name": "one", "namespace": "default"},
//!             "spec": {"containers": [{"name": "main", "image": "web:1"}]},
//!         });
//!         world.create(pod).await;
//!     });
//! report.assert_holds();
//! ```

pub mod faults;
pub mod invariant;
mod journal;
pub mod link;
mod process;
pub mod standard;
pub mod view;
pub mod world;

pub use faults::{Component, Disturbance, FaultPlan, Trouble};
pub use invariant::{Invariant, Observer, Violation};
pub use view::{ObjectChange, Step, View};
pub use world::{Report, Simulation, World};
