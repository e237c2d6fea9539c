//! The object model and the contracts of the orch SDK.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | the one way to talk to a cluster, and its implementation for [`kube::Client`] |
//! | [`informer`] | a local copy of a collection that follows the cluster |
//! | [`object`], [`resource`] | objects as bytes with typed views; names of things |
//! | [`schema`] | every built-in definition: fields, merge rules, wire numbers, checks |
//! | [`patch`] | changes to objects, who owns which field |
//! | [`protobuf`], [`cbor`] | the encodings besides JSON |
//! | [`status`] | API errors with upstream's reasons and words |
//! | [`quantity`], [`selector`], [`names`] | amounts, label and field queries, legal names |
//! | [`cron`], [`quota`] | when a schedule is due; what objects use of a namespace's quotas |
//! | [`device_claim`] | which claims for devices a pod uses |
//! | [`extended_resource`] | which classes of devices stand behind extended resources |
//! | [`event`], [`lease`], [`owner`] | events, leader election, owner references |
//! | [`claim`] | the claims that the volumes of a pod lead to |
//! | [`environment`], [`clock`], [`random`] | time and randomness as contracts |
//! | [`recording`] | files of JSON lines, written as things happen |
//! | [`awaited`] | a value that tasks wait for, woken in order |
//! | [`backoff`] | delays that double with every failure |
//! | `metrics` | numbers in Prometheus' formats (a feature) |
//! | [`node`] | how the API server reaches what runs on nodes |
//! | `testing` | a cluster in memory, faults on demand, the conformance suite (a feature) |

pub mod awaited;
pub mod backoff;
pub mod cbor;
pub mod claim;
pub mod client;
pub mod clock;
pub mod cron;
pub mod device_claim;
pub mod environment;
pub mod event;
pub mod extended_resource;
pub mod informer;
pub mod lease;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod names;
pub mod node;
pub mod object;
pub mod owner;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod random;
pub mod recording;
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
