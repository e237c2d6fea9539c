//! Upstream's conformance tests that need an API server and nothing else, in our own words.
//!
//! Kubernetes says what conforms by a list of end-to-end tests. Of those, 116 need no controller
//! and no node; each of them has a function here, named after its title, in a module named after
//! upstream's file. [`conformance::behaviours`] is the list, and the first test compares it with
//! what runs. The eight that are about admission policies stand with the policies.
//!
//! Every test has a server of its own in this process, with upstream's access control and
//! admission, and asks it through `kube::Client`; those about `kubectl` run that, over TLS. One
//! that lacks the program is shown as ignored, by name. Nothing waits for time to pass: where
//! upstream makes sure that no event comes, the next event of that watcher must be the one that
//! is known to come later.

mod conformance {
    pub(crate) mod behaviours;
    pub(crate) mod harness;

    mod cases;
    mod objects;
    mod operations;
    mod shell;
    mod world;

    pub(crate) use cases::all;

    mod aggregated_discovery;
    mod apiserver;
    mod certificates;
    mod chunking;
    mod configmap;
    mod configmap_volume;
    mod core_events;
    mod crd_publish_openapi;
    mod crd_selectable_fields;
    mod crd_watch;
    mod cronjob;
    mod csi_inline;
    mod csi_node;
    mod csistoragecapacity;
    mod custom_resource_definition;
    mod definitions;
    mod discovery;
    mod dra;
    mod endpoints;
    mod endpointslice;
    mod events;
    mod field_validation;
    mod flowcontrol;
    mod ingress;
    mod ingressclass;
    mod kubectl;
    mod lease;
    mod limit_range;
    mod namespace;
    mod node_lifecycle;
    mod persistent_volumes;
    mod pods;
    mod podtemplates;
    mod preemption;
    mod resource_quota;
    mod runtimeclass;
    mod secrets;
    mod secrets_volume;
    mod server_version;
    mod service;
    mod service_accounts;
    mod service_cidrs;
    mod storageclass;
    mod subjectreviews;
    mod sysctl;
    mod table_conversion;
    mod volume_attachment;
    mod watch;
}

fn main() {
    conformance::harness::run(conformance::all());
}
