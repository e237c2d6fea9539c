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
//! - [`simulation`]: the description of a run, components of yours among the others.
//! - [`world`]: a cluster whose components are processes of their own, each behind a [`link`] of
//!   its own, that can crash and come back.
//! - [`explore`](mod@explore): many seeds on all cores; what fails is made small, and the code that
//!   replays it is told.
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

pub mod explore;
pub mod faults;
pub mod invariant;
mod journal;
pub mod link;
pub(crate) mod machine;
pub(crate) mod process;
mod shrink;
pub mod simulation;
pub mod standard;
pub mod view;
pub mod world;

pub use explore::{Exploration, Explored, Failure, explore};
pub use faults::{Component, Disturbance, FaultPlan, Scene, Skew, StoreFaults, Trouble};
pub use invariant::{Invariant, Observer, Violation};
pub use orch_core::testing::FaultRates;
pub use simulation::Simulation;
pub use view::{ObjectChange, Step, View};
pub use world::{Report, World};
