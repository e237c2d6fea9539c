//! Every behaviour has its test.

/// Source of a module, and the titles of its behaviours as upstream's conformance list has them.
const BEHAVIOURS: &[(&str, &[&str])] = &[
    (
        include_str!("garbage_collector.rs"),
        &[
            "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]",
            "[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]",
            "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial] [Conformance]",
            "[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]",
            "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial] [Conformance]",
            "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]",
            "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial] [Conformance]",
        ],
    ),
    (
        include_str!("namespace.rs"),
        &[
            "[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]",
        ],
    ),
    (
        include_str!("resource_quota.rs"),
        &[
            "[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]",
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]",
            "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]",
            "[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]",
        ],
    ),
    (
        include_str!("cronjob.rs"),
        &[
            "[sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]",
            "[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]",
            "[sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]",
            "[sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]",
        ],
    ),
    (
        include_str!("disruption.rs"),
        &[
            "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]",
            "[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]",
        ],
    ),
    (
        include_str!("rc.rs"),
        &[
            "[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]",
            "[sig-apps] ReplicationController should release no longer matching pods [Conformance]",
            "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]",
        ],
    ),
    (
        include_str!("service_accounts.rs"),
        &[
            "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]",
        ],
    ),
    (
        include_str!("endpoints.rs"),
        &[
            "[sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods [Conformance]",
        ],
    ),
    (
        include_str!("endpointslice.rs"),
        &[
            "[sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods [Conformance]",
        ],
    ),
    (
        include_str!("endpointslicemirroring.rs"),
        &[
            "[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete [Conformance]",
        ],
    ),
    (
        include_str!("persistent_volumes.rs"),
        &[
            "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]",
        ],
    ),
    (
        include_str!("volumeattributesclass.rs"),
        &[
            "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]",
        ],
    ),
];

/// The name of a behaviour's test: what it says after its subject, in lower case.
fn test_name(title: &str) -> String {
    let from = title.find("should ").expect("a behaviour says what should be");
    let to = title[from..].find(" [").map_or(title.len(), |at| from + at);
    let mut name = String::new();
    for c in title[from..to].chars() {
        match c {
            '\'' => {}
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if !name.ends_with('_') => name.push('_'),
            _ => {}
        }
    }
    name.trim_end_matches('_').to_owned()
}

#[test]
fn every_behaviour_has_its_test() {
    let mut count = 0;
    for (source, titles) in BEHAVIOURS {
        for title in *titles {
            let name = test_name(title);
            let test = format!("#[tokio::test(start_paused = true)]\nasync fn {name}()");
            assert!(source.contains(&test), "no test for {title}: {test}");
            count += 1;
        }
    }
    assert_eq!(count, 33);
}
