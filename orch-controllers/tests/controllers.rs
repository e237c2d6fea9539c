//! The controllers against a cluster in memory, in virtual time.

#[path = "controllers/attaching.rs"]
mod attaching;
#[path = "controllers/autoscaling.rs"]
mod autoscaling;
#[path = "controllers/bad_input.rs"]
mod bad_input;
#[path = "controllers/certificates.rs"]
mod certificates;
#[path = "controllers/cluster_nodes.rs"]
mod cluster_nodes;
#[path = "controllers/costs.rs"]
mod costs;
#[path = "controllers/cron_jobs.rs"]
mod cron_jobs;
#[path = "controllers/deployments.rs"]
mod deployments;
#[path = "controllers/device_taints.rs"]
mod device_taints;
#[path = "controllers/expansion.rs"]
mod expansion;
#[path = "controllers/jobs.rs"]
mod jobs;
#[path = "controllers/lifecycle.rs"]
mod lifecycle;
#[path = "controllers/load_balancers.rs"]
mod load_balancers;
#[path = "controllers/nodes.rs"]
mod nodes;
#[path = "controllers/pod_groups.rs"]
mod pod_groups;
#[path = "controllers/queue.rs"]
mod queue;
#[path = "controllers/quotas.rs"]
mod quotas;
#[path = "controllers/replicas.rs"]
mod replicas;
#[path = "controllers/resource_claims.rs"]
mod resource_claims;
#[path = "controllers/services.rs"]
mod services;
#[path = "controllers/stateful_sets.rs"]
mod stateful_sets;
#[path = "controllers/storage.rs"]
mod storage;
#[path = "controllers/storage_versions.rs"]
mod storage_versions;
#[path = "controllers/tokens.rs"]
mod tokens;
#[path = "controllers/topology.rs"]
mod topology;
#[path = "controllers/volume_lifecycle.rs"]
mod volume_lifecycle;
#[path = "controllers/world.rs"]
mod world;
