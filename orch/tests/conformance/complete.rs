//! Every behaviour has its test.

/// Source of a module, a suite as upstream's conformance list has it, and what the suite's behaviours
/// are called there.
const BEHAVIOURS: &[(&str, &str, &[&str])] = &[
    (
        include_str!("garbage_collector.rs"),
        "[sig-api-machinery] Garbage collector",
        &[
            "should delete RS created by deployment when not orphaning [Conformance]",
            "should delete pods created by rc when not orphaning [Conformance]",
            "should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial] [Conformance]",
            "should not be blocked by dependency circle [Conformance]",
            "should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial] [Conformance]",
            "should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]",
            "should orphan pods created by rc if delete options say so [Serial] [Conformance]",
        ],
    ),
    (
        include_str!("namespace.rs"),
        "[sig-api-machinery] Namespaces [Serial]",
        &[
            "should ensure that all services are removed when a namespace is deleted [Conformance]",
            "should ensure that all pods are removed when a namespace is deleted [Conformance]",
        ],
    ),
    (
        include_str!("resource_quota.rs"),
        "[sig-api-machinery] ResourceQuota",
        &[
            "should apply changes to a resourcequota status [Conformance]",
            "should create a ResourceQuota and capture the life of a configMap. [Conformance]",
            "should create a ResourceQuota and capture the life of a pod. [Conformance]",
            "should create a ResourceQuota and capture the life of a replica set. [Conformance]",
            "should create a ResourceQuota and capture the life of a replication controller. [Conformance]",
            "should create a ResourceQuota and capture the life of a secret. [Conformance]",
            "should create a ResourceQuota and capture the life of a service. [Conformance]",
            "should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]",
            "should verify ResourceQuota with best effort scope. [Conformance]",
            "should verify ResourceQuota with terminating scopes. [Conformance]",
        ],
    ),
    (
        include_str!("cronjob.rs"),
        "[sig-apps] CronJob",
        &[
            "should not schedule jobs when suspended [Slow] [Conformance]",
            "should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]",
            "should replace jobs when ReplaceConcurrent [Conformance]",
            "should schedule multiple jobs concurrently [Conformance]",
        ],
    ),
    (
        include_str!("disruption.rs"),
        "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces",
        &["should list and delete a collection of PodDisruptionBudgets [Conformance]"],
    ),
    (
        include_str!("disruption.rs"),
        "[sig-apps] DisruptionController",
        &[
            "should create a PodDisruptionBudget [Conformance]",
            "should block an eviction until the PDB is updated to allow it [Conformance]",
            "should observe PodDisruptionBudget status updated [Conformance]",
            "should update/patch PodDisruptionBudget status [Conformance]",
        ],
    ),
    (
        include_str!("rc.rs"),
        "[sig-apps] ReplicationController",
        &[
            "should get and update a ReplicationController scale [Conformance]",
            "should release no longer matching pods [Conformance]",
            "should surface a failure condition on a common issue like exceeded quota [Conformance]",
            "should adopt matching pods on creation [Conformance]",
            "should test the lifecycle of a ReplicationController [Conformance]",
        ],
    ),
    (
        include_str!("service_accounts.rs"),
        "[sig-auth] ServiceAccounts",
        &["should guarantee kube-root-ca.crt exist in any namespace [Conformance]"],
    ),
    (
        include_str!("endpoints.rs"),
        "[sig-network] EndpointsController",
        &[
            "should create and delete Endpoints for a Service with a selector that matches no pods [Conformance]",
            "should create Endpoints for Pods matching a Service [Conformance]",
        ],
    ),
    (
        include_str!("endpointslice.rs"),
        "[sig-network] EndpointSlice",
        &[
            "should create and delete EndpointSlices for a Service with a selector that matches no pods [Conformance]",
            "should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]",
        ],
    ),
    (
        include_str!("endpointslicemirroring.rs"),
        "[sig-network] EndpointSliceMirroring",
        &[
            "should mirror a custom Endpoints resource through create update and delete [Conformance]",
        ],
    ),
    (
        include_str!("persistent_volumes.rs"),
        "[sig-storage] PersistentVolumes CSI Conformance",
        &["should run through the lifecycle of a PV and a PVC [Conformance]"],
    ),
    (
        include_str!("volumeattributesclass.rs"),
        "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass]",
        &["should run through the lifecycle of a VolumeAttributesClass [Conformance]"],
    ),
    (
        include_str!("runtimeclass.rs"),
        "[sig-node] RuntimeClass",
        &[
            "should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]",
            "should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance] [Conformance]",
        ],
    ),
    (
        include_str!("predicates.rs"),
        "[sig-scheduling] SchedulerPredicates [Serial]",
        &[
            "validates that NodeSelector is respected if not matching [Conformance]",
            "validates resource limits of pods that are allowed to run [Conformance]",
            "validates that NodeSelector is respected if matching [Conformance]",
            "validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP [Conformance]",
        ],
    ),
    (
        include_str!("namespace.rs"),
        "[sig-api-machinery] OrderedNamespaceDeletion",
        &["namespace deletion should delete pod first [Conformance]"],
    ),
    (
        include_str!("controller_revision.rs"),
        "[sig-apps] ControllerRevision [Serial]",
        &["should manage the lifecycle of a ControllerRevision [Conformance]"],
    ),
    (
        include_str!("daemon_set.rs"),
        "[sig-apps] Daemon set [Serial]",
        &[
            "should list and delete a collection of DaemonSets [Conformance]",
            "should retry creating failed daemon pods [Conformance]",
            "should rollback without unnecessary restarts [Conformance]",
            "should run and stop complex daemon [Conformance]",
            "should run and stop simple daemon [Conformance]",
            "should update pod when spec was updated and update strategy is RollingUpdate [Conformance]",
            "should verify changes to a daemon set status [Conformance]",
        ],
    ),
    (
        include_str!("deployment.rs"),
        "[sig-apps] Deployment",
        &[
            "Deployment should have a working scale subresource [Conformance]",
            "RecreateDeployment should delete old pods and create new ones [Conformance]",
            "RollingUpdateDeployment should delete old pods and create new ones [Conformance]",
            "deployment should delete old replica sets [Conformance]",
            "deployment should support proportional scaling [Conformance]",
            "deployment should support rollover [Conformance]",
            "should validate Deployment Status endpoints [Conformance]",
        ],
    ),
    (
        include_str!("deployment_lifecycle.rs"),
        "[sig-apps] Deployment",
        &["should run the lifecycle of a Deployment [Conformance]"],
    ),
    (
        include_str!("job.rs"),
        "[sig-apps] Job",
        &[
            "should adopt matching orphans and release non-matching pods [Conformance]",
            "should apply changes to a job status [Conformance]",
            "should delete a job [Conformance]",
        ],
    ),
    (
        include_str!("replica_set.rs"),
        "[sig-apps] ReplicaSet",
        &[
            "Replace and Patch tests [Conformance]",
            "Replicaset should have a working scale subresource [Conformance]",
            "should adopt matching pods on creation and release no longer matching pods [Conformance]",
            "should list and delete a collection of ReplicaSets [Conformance]",
            "should validate Replicaset Status endpoints [Conformance]",
        ],
    ),
    (
        include_str!("statefulset.rs"),
        "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic]",
        &[
            "should have a working scale subresource [Conformance]",
            "should list, patch and delete a collection of StatefulSets [Conformance]",
            "should perform canary updates and phased rolling updates of template modifications [Conformance]",
            "should validate Statefulset Status endpoints [Conformance]",
        ],
    ),
    (
        include_str!("pods.rs"),
        "[sig-node] Pods",
        &[
            "should allow activeDeadlineSeconds to be updated [NodeConformance] [Conformance]",
            "should be submitted and removed [NodeConformance] [Conformance]",
            "should be updated [NodeConformance] [Conformance]",
            "should delete a collection of pods [Conformance]",
            "should get a host IP [NodeConformance] [Conformance]",
            "should patch a pod status [Conformance]",
            "should run through the lifecycle of Pods and PodStatus [Conformance]",
        ],
    ),
    (
        include_str!("../machine/behaviours.rs"),
        "[sig-cli] Kubectl client",
        &[
            "Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]",
            "Kubectl label should update the label on a resource [Conformance]",
            "Kubectl patch should add annotations for pods in rc [Conformance]",
            "Kubectl replace should update a single-container pod's image [Conformance]",
        ],
    ),
    (
        include_str!("service_latency.rs"),
        "[sig-network] Service endpoints latency",
        &["should not be very high [Conformance]"],
    ),
    (
        include_str!("pod_generation.rs"),
        "[sig-node] Pods Extended (pod generation) Pod Generation",
        &[
            "custom-set generation on new pods and graceful delete [Conformance]",
            "issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34] [Conformance]",
            "pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34] [Conformance]",
        ],
    ),
    (
        include_str!("taints.rs"),
        "[sig-node] NoExecuteTaintManager Multiple Pods [Serial]",
        &["evicts pods with minTolerationSeconds [Disruptive] [Conformance]"],
    ),
    (
        include_str!("taints.rs"),
        "[sig-node] NoExecuteTaintManager Single Pod [Serial]",
        &["removing taint cancels eviction [Disruptive] [Conformance]"],
    ),
    (
        include_str!("preemption.rs"),
        "[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath",
        &["runs ReplicaSets to verify preemption running path [Conformance]"],
    ),
    (
        include_str!("preemption.rs"),
        "[sig-scheduling] SchedulerPreemption [Serial]",
        &[
            "validates basic preemption works [Conformance]",
            "validates lower priority pod preemption by critical pod [Conformance]",
            "validates pod disruption condition is added to the preempted pod [Conformance]",
        ],
    ),
    (
        include_str!("architecture.rs"),
        "[sig-architecture] Conformance Tests",
        &["should have at least two untainted nodes [Conformance]"],
    ),
];

/// The name of a behaviour's test: what it is called without its tags, in lower case.
fn test_name(title: &str) -> String {
    let to = title.find(" [").unwrap_or(title.len());
    let mut name = String::new();
    for c in title[..to].chars() {
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
    for (source, suite, titles) in BEHAVIOURS {
        for title in *titles {
            let name = test_name(title);
            // Those that drive a program are trials, which machines without it skip by name.
            let test = if suite.contains("Kubectl") {
                format!("trial(\"behaviours::{name}\", &[Kubectl], {name})")
            } else {
                format!("#[tokio::test(start_paused = true)]\nasync fn {name}()")
            };
            assert!(source.contains(&test), "no test for {suite} {title}: {test}");
            count += 1;
        }
    }
    assert_eq!(count, 98);
}
