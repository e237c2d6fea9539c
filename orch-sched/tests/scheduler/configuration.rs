//! KubeSchedulerConfiguration files: the examples of upstream's documentation, and mistakes.

use std::{sync::Arc, time::Duration};

use orch_core::{informer::Informers, testing::MemoryClient};
use orch_sched::{
    ExtensionPoint, Planner, Profile, Scheduler,
    configuration::SchedulerConfiguration,
    plugins::{ScoringStrategy, SpreadDefaults},
};

use crate::cluster::environment;

fn file(rest: &str) -> String {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    format!("{head}{rest}")
}

#[track_caller]
fn read(rest: &str) -> SchedulerConfiguration {
    file(rest).parse().unwrap_or_else(|error| panic!("{error}"))
}

fn informers() -> Informers {
    let environment = environment(1);
    Informers::new(Arc::new(MemoryClient::new(environment.clone())), environment)
}

/// The plugins of an extension point with their weights.
fn at(profile: &Profile, point: ExtensionPoint) -> Vec<(String, i64)> {
    let planner = Planner::new(&informers(), profile).unwrap();
    planner.plugins(point).into_iter().map(|(name, weight)| (name.to_string(), weight)).collect()
}

fn names(profile: &Profile, point: ExtensionPoint) -> Vec<String> {
    at(profile, point).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn an_empty_file_has_upstreams_defaults() {
    let read = read("");
    assert_eq!(read.profiles, [Profile::default()]);
    assert_eq!((read.parallelism, read.extenders.len()), (16, 0));
    assert_eq!(read.pod_initial_backoff, Duration::from_secs(1));
    assert_eq!(read.pod_max_backoff, Duration::from_secs(10));
    let election = &read.leader_election;
    assert!(election.leader_elect);
    assert_eq!(election.lease_duration, Duration::from_secs(15));
    assert_eq!(election.renew_deadline, Duration::from_secs(10));
    assert_eq!(election.retry_period, Duration::from_secs(2));
    let lease = (&*election.resource_namespace, &*election.resource_name);
    assert_eq!(lease, ("kube-system", "kube-scheduler"));
    assert!(Scheduler::builder(&informers()).configuration(&read).build().is_ok());
}

#[tokio::test]
async fn several_profiles_one_of_which_does_not_score() {
    let read = read(
        "
profiles:
  - schedulerName: default-scheduler
  - schedulerName: no-scoring-scheduler
    plugins:
      preScore:
        disabled:
        - name: '*'
      score:
        disabled:
        - name: '*'
",
    );
    let [first, second] = &*read.profiles else { panic!("{:?}", read.profiles) };
    assert_eq!(*first, Profile::default());
    assert_eq!(second.scheduler_name, "no-scoring-scheduler");
    assert!(names(second, ExtensionPoint::Score).is_empty());
    assert!(names(second, ExtensionPoint::PreScore).is_empty());
    let filters = names(second, ExtensionPoint::Filter);
    assert_eq!(filters, names(first, ExtensionPoint::Filter));
    assert!(filters.len() > 8);
}

#[tokio::test]
async fn sets_of_one_point_go_before_what_runs_everywhere() {
    let read = read(
        "
profiles:
  - plugins:
      score:
        disabled:
        - name: PodTopologySpread
        enabled:
        - name: ImageLocality
          weight: 50
        - name: NodeAffinity
      filter:
        disabled:
        - name: '*'
        enabled:
        - name: NodePorts
        - name: NodeName
",
    );
    let profile = &read.profiles[0];
    let scores = at(profile, ExtensionPoint::Score);
    let expected = [
        ("ImageLocality", 50),
        ("NodeAffinity", 1),
        ("TaintToleration", 3),
        ("NodeResourcesFit", 1),
        ("InterPodAffinity", 2),
        ("DynamicResources", 1),
        ("NodeResourcesBalancedAllocation", 1),
    ];
    assert_eq!(scores, expected.map(|(name, weight)| (name.to_owned(), weight)));
    assert_eq!(names(profile, ExtensionPoint::Filter), ["NodePorts", "NodeName"]);
}

#[tokio::test]
async fn multi_point_replaces_defaults_in_their_place() {
    let all = read(
        "
profiles:
  - plugins:
      multiPoint:
        enabled:
        - name: NodeAffinity
          weight: 7
        disabled:
        - name: ImageLocality
",
    );
    let profile = &all.profiles[0];
    let scores = at(profile, ExtensionPoint::Score);
    assert!(scores.contains(&("NodeAffinity".into(), 7)) && scores.len() == 7, "{scores:?}");
    assert_eq!(
        names(profile, ExtensionPoint::Filter),
        names(&Profile::default(), ExtensionPoint::Filter)
    );
    let few = read(
        "
profiles:
  - plugins:
      multiPoint:
        enabled:
        - name: DefaultBinder
        - name: PrioritySort
        - name: NodeResourcesFit
        disabled:
        - name: '*'
",
    );
    let profile = &few.profiles[0];
    assert_eq!(names(profile, ExtensionPoint::Filter), ["NodeResourcesFit"]);
    assert_eq!(names(profile, ExtensionPoint::Bind), ["DefaultBinder"]);
}

const ARGUMENTS: &str = "
percentageOfNodesToScore: 50
profiles:
  - schedulerName: a
    percentageOfNodesToScore: 0
    pluginConfig:
    - name: NodeResourcesFit
      args:
        apiVersion: kubescheduler.config.k8s.io/v1
        kind: NodeResourcesFitArgs
        ignoredResourceGroups: ['example.com']
        scoringStrategy:
          resources:
          - name: intel.com/foo
            weight: 3
          - name: intel.com/bar
            weight: 3
          requestedToCapacityRatio:
            shape:
            - utilization: 0
              score: 0
            - utilization: 100
              score: 10
          type: RequestedToCapacityRatio
    - name: PodTopologySpread
      args:
        defaultConstraints:
          - maxSkew: 1
            topologyKey: topology.kubernetes.io/zone
            whenUnsatisfiable: ScheduleAnyway
        defaultingType: List
    - name: NodeAffinity
      args:
        addedAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions:
              - key: scheduler-profile
                operator: In
                values:
                - foo
    - name: InterPodAffinity
      args: {hardPodAffinityWeight: 5}
    - name: DefaultPreemption
      args: {minCandidateNodesPercentage: 20, minCandidateNodesAbsolute: 7}
    - name: VolumeBinding
      args: {bindTimeoutSeconds: 30}
    - name: NodeResourcesBalancedAllocation
      args: {resources: [{name: cpu}, {name: memory, weight: 1}, {name: example.com/gpu}]}
    - name: Mine
      args: {anything: [1, 2]}
  - schedulerName: b
";

#[tokio::test]
async fn arguments_of_plugins() {
    let all = read(ARGUMENTS);
    let [a, b] = &*all.profiles else { panic!("{:?}", all.profiles) };
    assert_eq!((a.percentage_of_nodes_to_score, b.percentage_of_nodes_to_score), (None, Some(50)));
    let arguments = &a.arguments;
    assert!(matches!(&arguments.node_resources_fit.strategy,
        ScoringStrategy::RequestedToCapacityRatio(resources, shape)
            if resources.len() == 2 && resources[0].weight == 3 && shape[1].score == 10));
    assert_eq!(arguments.node_resources_fit.ignored_groups, ["example.com"]);
    assert!(matches!(&arguments.spread_defaults, SpreadDefaults::List(list) if list.len() == 1));
    assert!(arguments.added_affinity.is_some());
    assert_eq!(arguments.inter_pod_affinity.hard_weight, 5);
    assert_eq!(arguments.default_preemption.percentage_min, 20);
    assert_eq!(arguments.default_preemption.absolute_min, 7);
    assert_eq!(arguments.volume_binding.bind_timeout, Duration::from_secs(30));
    assert_eq!(arguments.balanced_resources.len(), 3);
    assert_eq!(a.custom_arguments["Mine"]["anything"][1], 2);
}

#[tokio::test]
async fn the_rest_of_a_file() {
    let all = read(
        "
parallelism: 4
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
delayCacheUntilActive: true
clientConnection: {kubeconfig: /etc/kubernetes/scheduler.conf, qps: 10, burst: 20}
leaderElection: {leaderElect: false, leaseDuration: 1m30s, resourceName: mine}
extenders:
- urlPrefix: http://localhost:8888/
  filterVerb: filter
  prioritizeVerb: prioritize
  weight: 5
  enableHTTPS: false
  httpTimeout: 500ms
  nodeCacheCapable: true
  ignorable: true
  managedResources:
  - name: example.com/foo
    ignoredByScheduler: true
",
    );
    assert_eq!(all.leader_election.lease_duration, Duration::from_secs(90));
    assert_eq!(all.client_connection.kubeconfig, "/etc/kubernetes/scheduler.conf");
    assert_eq!(all.pod_max_backoff, Duration::from_secs(20));
    let [extender] = &*all.extenders else { panic!("{:?}", all.extenders) };
    assert_eq!(extender.http_timeout, Duration::from_millis(500));
    assert!(extender.managed_resources[0].ignored_by_scheduler);
    assert!(Scheduler::builder(&informers()).configuration(&all).build().is_ok());
}

#[track_caller]
fn check(text: &str, message: &str) {
    let error = text.parse::<SchedulerConfiguration>().expect_err(message);
    assert_eq!(error.to_string(), message);
}

#[test]
fn mistakes_have_upstreams_words() {
    check(
        "apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration\n",
        "no kind \"KubeSchedulerConfiguration\" is registered for version \
         \"kubescheduler.config.k8s.io/v1beta3\"",
    );
    let check = |rest: &str, message: &str| check(&file(rest), message);
    check(
        "profils: []\nprofiles: [{schedulerNam: x}]\n",
        "strict decoding error: unknown field \"profiles[0].schedulerNam\", unknown field \
         \"profils\"",
    );
    check(
        "parallelism: x\n",
        "strict decoding error: json: cannot unmarshal string into \
         \"parallelism\"",
    );
    check(
        "parallelism: 0\n",
        "parallelism: Invalid value: 0: should be an integer value greater than zero",
    );
    check(
        "podInitialBackoffSeconds: 0\npodMaxBackoffSeconds: -1\n",
        "[podInitialBackoffSeconds: Invalid value: 0: must be greater than 0, \
         podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to \
         PodInitialBackoffSeconds]",
    );
    check(
        "percentageOfNodesToScore: 101\n",
        "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
    );
    check(
        "profiles: [{schedulerName: a, percentageOfNodesToScore: -1}, {schedulerName: a}]\n",
        "[profiles[0].percentageOfNodesToScore: Invalid value: -1: not in valid range [0-100], \
         profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"]",
    );
    check("profiles: [{schedulerName: a}, {}]\n", "profiles[1].schedulerName: Required value");
    check(
        "leaderElection: {leaseDuration: 5s, resourceLock: endpoints}\n",
        "[leaderElection.leaseDuration: Invalid value: \"10s\": LeaseDuration must be greater than \
         RenewDeadline, leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock \
         value must be \"leases\"]",
    );
    check(
        "extenders: [{prioritizeVerb: p, bindVerb: b}, {bindVerb: b}]\n",
        "[extenders[0].weight: Invalid value: 0: must have a positive weight applied to it, \
         extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can \
         implement bind]",
    );
    check(
        "profiles: [{schedulerName: a}, {schedulerName: b, plugins: {queueSort: {enabled: \
         [{name: Other}]}}}]\n",
        "profiles[1].plugins.queueSort: Invalid value: [\"Other\"]: has to match for all profiles",
    );
}

#[track_caller]
fn check_arguments(plugin: &str, arguments: &str, message: &str) {
    let text = format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {arguments}}}]}}]\n");
    check(&file(&text), &message.replace('@', "profiles[0].pluginConfig[0].args."));
}

#[test]
fn mistakes_in_arguments_have_upstreams_words() {
    check_arguments(
        "NodeResourcesFit",
        "{scoringStrateg: {}}",
        "decoding .profiles[0].pluginConfig[0]: decoding args for plugin NodeResourcesFit: strict \
         decoding error: unknown field \"scoringStrateg\"",
    );
    check_arguments(
        "NodeResourcesFit",
        "{kind: NodeAffinityArgs}",
        "decoding .profiles[0].pluginConfig[0]: args for plugin NodeResourcesFit were not of type \
         kubescheduler.config.k8s.io/v1, Kind=NodeResourcesFitArgs, got \
         kubescheduler.config.k8s.io/v1, Kind=NodeAffinityArgs",
    );
    check_arguments(
        "NodeResourcesFit",
        "{scoringStrategy: {type: Best, resources: [{name: cpu, weight: 101}]}}",
        "[@scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in \
         valid range (0, 100], @scoringStrategy.type: Unsupported value: \"Best\": supported \
         values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"]",
    );
    check_arguments(
        "NodeResourcesFit",
        "{scoringStrategy: {type: RequestedToCapacityRatio}}",
        "@scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type \
         is RequestedToCapacityRatio",
    );
    check_arguments(
        "NodeResourcesFit",
        "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: \
         [{utilization: 50, score: 11}, {utilization: 50, score: 1}]}}}",
        "[@scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 50: \
         values must be sorted in increasing order, \
         @scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in \
         valid range [0, 10]]",
    );
    check_arguments(
        "DefaultPreemption",
        "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}",
        "[@minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as \
         minCandidateNodesAbsolute, @minCandidateNodesAbsolute: Invalid value: 0: cannot be zero \
         at the same time as minCandidateNodesPercentage]",
    );
    check_arguments(
        "InterPodAffinity",
        "{hardPodAffinityWeight: 101}",
        "@hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    );
    check_arguments(
        "NodeResourcesBalancedAllocation",
        "{resources: [{name: cpu, weight: 2}, {name: cpu}]}",
        "[@resources[0].weight: Invalid value: 2: must be 1, @resources[1].name: Duplicate value: \
         \"cpu\"]",
    );
    check_arguments(
        "PodTopologySpread",
        "{defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: Never}]}",
        "[@defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty, \
         @defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf), \
         @defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported \
         values: \"DoNotSchedule\", \"ScheduleAnyway\"]",
    );
    check_arguments(
        "DynamicResources",
        "{filterTimeout: -1s, bindingTimeout: 10ms}",
        "[@filterTimeout: Invalid value: \"-1s\": must be zero or positive, @bindingTimeout: \
         Invalid value: \"10ms\": must be at least 1 second]",
    );
    check_arguments(
        "VolumeBinding",
        "{bindTimeoutSeconds: -1, shape: [{utilization: 0, score: 0}]}",
        "[@bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a \
         negative value, @shape: Invalid value: [{\"score\":0,\"utilization\":0}]: unexpected \
         field `shape`, remove it or turn on the feature gate StorageCapacityScoring]",
    );
}

#[tokio::test]
async fn what_no_plugin_can_do_fails_when_the_scheduler_is_built() {
    let check = |rest: &str, message: &str| {
        let built = Scheduler::builder(&informers()).configuration(&read(rest)).build();
        assert_eq!(built.expect_err(message).to_string(), message);
    };
    check(
        "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]\n",
        "profile \"default-scheduler\": plugin \"NodeName\" does not extend Score plugin",
    );
    check(
        "profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]\n",
        "profile \"default-scheduler\" names the plugin \"Nope\", which does not exist",
    );
    check(
        "profiles: [{plugins: {multiPoint: {enabled: [{name: NodeName, weight: -1}]}}}]\n",
        "profile \"default-scheduler\" gives the plugin \"NodeName\" a weight of -1, not 1 to \
         1000000",
    );
    check(
        "profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]\n",
        "profile \"default-scheduler\" has no plugin for Bind",
    );
}
