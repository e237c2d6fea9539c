//! What the file sets for the built-in plugins.
//!
//! Source: `k8s.io/kube-scheduler/config/v1/types_pluginargs.go`,
//! `pkg/scheduler/apis/config/validation/validation_pluginargs.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use orch_core::{names::qualified_name_errors, status::FieldError};
use serde_json::Value;

use super::reader::{Complaints, Reader};
use crate::plugins::{
    Arguments, CandidateNodes, FitArguments, InterPodAffinityArguments, ScoringStrategy,
    ShapePoint, SpreadDefaults, WeightedResource, cpu_and_memory,
};

/// The plugins that take arguments.
pub(super) const WITH_ARGUMENTS: &[&str] = &[
    "DefaultPreemption",
    "DynamicResources",
    "InterPodAffinity",
    "NodeAffinity",
    "NodeResourcesBalancedAllocation",
    "NodeResourcesFit",
    "PodTopologySpread",
    "VolumeBinding",
];

/// Reads one plugin's arguments at a path.
pub(super) fn read(
    plugin: &str,
    (path, value): (&str, Option<&Value>),
    arguments: &mut Arguments,
    errors: &mut Vec<FieldError>,
) -> Complaints {
    let mut complaints = Complaints::default();
    // Complaints about the arguments name fields within them; errors name the whole path.
    let mut reader = Reader::new("", value, &mut complaints);
    let _kinds_are_checked_before: [Option<&Value>; 2] =
        ["apiVersion", "kind"].map(|name| reader.value(name));
    let found = &mut Found { reader, path, complaints: &mut complaints, errors };
    match plugin {
        "DefaultPreemption" => arguments.default_preemption = found.candidates(),
        "InterPodAffinity" => arguments.inter_pod_affinity = found.inter_pod_affinity(),
        "NodeAffinity" => arguments.added_affinity = found.added_affinity(),
        "NodeResourcesBalancedAllocation" => arguments.balanced_resources = found.balanced(),
        "NodeResourcesFit" => arguments.node_resources_fit = found.fit(),
        "PodTopologySpread" => arguments.spread_defaults = found.spread(),
        "VolumeBinding" => found.volume_binding(arguments),
        _ => found.dynamic_resources(arguments),
    }
    let reader = std::mem::replace(&mut found.reader, Reader::new("", None, found.complaints));
    reader.finish(&mut complaints);
    complaints
}

struct Found<'a, 'b> {
    reader: Reader<'a>,
    path: &'b str,
    complaints: &'b mut Complaints,
    errors: &'b mut Vec<FieldError>,
}

impl Found<'_, '_> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    fn number<T: serde::de::DeserializeOwned>(&mut self, name: &'static str, default: T) -> T {
        self.reader.get(name, self.complaints).unwrap_or(default)
    }

    fn invalid(&mut self, field: &str, value: impl Into<Value>, words: &str) {
        let field = self.at(field);
        self.errors.push(FieldError::invalid(field, value, words));
    }

    fn candidates(&mut self) -> CandidateNodes {
        let (percent, absolute) = ("minCandidateNodesPercentage", "minCandidateNodesAbsolute");
        let CandidateNodes { percentage_min, absolute_min } = CandidateNodes::default();
        let percentage_min = self.number(percent, percentage_min);
        let absolute_min = self.number(absolute, absolute_min);
        if !(0..=100).contains(&percentage_min) {
            self.invalid(percent, percentage_min, "not in valid range [0, 100]");
        }
        if absolute_min < 0 {
            self.invalid(absolute, absolute_min, "not in valid range [0, inf)");
        }
        if percentage_min == 0 && absolute_min == 0 {
            let both = "cannot be zero at the same time as";
            self.invalid(percent, 0, &format!("{both} minCandidateNodesAbsolute"));
            self.invalid(absolute, 0, &format!("{both} minCandidateNodesPercentage"));
        }
        CandidateNodes { percentage_min, absolute_min }
    }

    /// A duration of a field; `None` if it is not set.
    fn duration(&mut self, name: &'static str) -> Option<kube::core::Duration> {
        let text: String = self.reader.get(name, self.complaints)?;
        match text.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.complaints.0.push(format!("{name}: {error}"));
                None
            }
        }
    }

    fn dynamic_resources(&mut self, arguments: &mut Arguments) {
        let own = &mut arguments.dynamic_resources;
        if let Some(timeout) = self.duration("filterTimeout") {
            if timeout.is_negative() {
                self.invalid("filterTimeout", timeout.to_string(), "must be zero or positive");
            }
            own.filter_timeout =
                Some(timeout.into()).filter(|timeout: &Duration| !timeout.is_zero());
        }
        if let Some(timeout) = self.duration("bindingTimeout") {
            let of: Duration = timeout.into();
            if timeout.is_negative() || of < Duration::from_secs(1) {
                self.invalid("bindingTimeout", timeout.to_string(), "must be at least 1 second");
            }
            own.binding_timeout = of;
        }
    }

    fn inter_pod_affinity(&mut self) -> InterPodAffinityArguments {
        let hard_weight = self.number("hardPodAffinityWeight", 1);
        if !(0..=100).contains(&hard_weight) {
            self.invalid("hardPodAffinityWeight", hard_weight, "not in valid range [0, 100]");
        }
        let ignore_preferred_of_existing = self.number("ignorePreferredTermsOfExistingPods", false);
        InterPodAffinityArguments { hard_weight, ignore_preferred_of_existing }
    }

    fn added_affinity(&mut self) -> Option<NodeAffinity> {
        let added: Option<NodeAffinity> = self.reader.get("addedAffinity", self.complaints);
        let required = added
            .as_ref()
            .and_then(|added| added.required_during_scheduling_ignored_during_execution.as_ref());
        if required.is_some_and(|required| required.node_selector_terms.is_empty()) {
            let field = "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution";
            let field = self.at(&format!("{field}.nodeSelectorTerms"));
            let words = "must have at least one node selector term";
            self.errors.push(FieldError::required(field, words));
        }
        added
    }

    fn resources(&mut self, of: Vec<Reader<'_>>) -> Vec<WeightedResource> {
        let mut resources = Vec::new();
        for mut one in of {
            let name = one.get("name", self.complaints).unwrap_or_default();
            let weight = one.get("weight", self.complaints).filter(|weight| *weight != 0);
            resources.push(WeightedResource { name, weight: weight.unwrap_or(1) });
            one.finish(self.complaints);
        }
        if resources.is_empty() { cpu_and_memory() } else { resources }
    }

    fn balanced(&mut self) -> Vec<WeightedResource> {
        let listed = self.reader.objects("resources", self.complaints);
        let resources = self.resources(listed);
        for (at, resource) in resources.iter().enumerate() {
            if resources[..at].iter().any(|before| before.name == resource.name) {
                let field = self.at(&format!("resources[{at}].name"));
                self.errors.push(FieldError::duplicate(field, resource.name.as_str()));
            }
            if resource.weight != 1 {
                self.invalid(&format!("resources[{at}].weight"), resource.weight, "must be 1");
            }
        }
        resources
    }

    fn fit(&mut self) -> FitArguments {
        let mut names =
            |name| self.reader.get::<Vec<String>>(name, self.complaints).unwrap_or_default();
        let ignored_resources = names("ignoredResources");
        let ignored_groups = names("ignoredResourceGroups");
        for (at, name) in ignored_resources.iter().enumerate() {
            for words in qualified_name_errors(name) {
                self.invalid(&format!("ignoredResources[{at}]"), name.as_str(), &words);
            }
        }
        for (at, group) in ignored_groups.iter().enumerate() {
            let field = format!("ignoredResourceGroups[{at}]");
            if group.contains('/') {
                self.invalid(&field, group.as_str(), "resource group name can't contain '/'");
            }
            for words in qualified_name_errors(group) {
                self.invalid(&field, group.as_str(), &words);
            }
        }
        FitArguments { ignored_resources, ignored_groups, strategy: self.strategy() }
    }

    fn strategy(&mut self) -> ScoringStrategy {
        if !self.reader.has("scoringStrategy") {
            return ScoringStrategy::default();
        }
        let mut reader = self.reader.object("scoringStrategy", self.complaints);
        let kind: String = reader.get("type", self.complaints).unwrap_or_default();
        let listed = reader.objects("resources", self.complaints);
        let resources = self.resources(listed);
        for (at, WeightedResource { name, weight }) in resources.iter().enumerate() {
            if !(1..=100).contains(weight) {
                let words = format!("resource weight of {name} not in valid range (0, 100]");
                self.invalid(&format!("scoringStrategy.resources[{at}].weight"), *weight, &words);
            }
        }
        let has_ratio = reader.has("requestedToCapacityRatio");
        let mut ratio = reader.object("requestedToCapacityRatio", self.complaints);
        let points = ratio.objects("shape", self.complaints);
        let shape = self.points(points);
        ratio.finish(self.complaints);
        reader.finish(self.complaints);
        let field = self.at("scoringStrategy.requestedToCapacityRatio");
        if kind == "RequestedToCapacityRatio" {
            if has_ratio {
                self.check_shape(&shape);
            } else {
                let words = "must be specified when type is RequestedToCapacityRatio";
                self.errors.push(FieldError::required(field, words));
            }
        } else if has_ratio {
            let words = "must be nil when type is not RequestedToCapacityRatio";
            self.errors.push(FieldError::forbidden(field, words));
        }
        match kind.as_str() {
            "RequestedToCapacityRatio" => {
                ScoringStrategy::RequestedToCapacityRatio(resources, shape)
            }
            "MostAllocated" => ScoringStrategy::MostAllocated(resources),
            "LeastAllocated" => ScoringStrategy::LeastAllocated(resources),
            other => {
                let known = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
                let field = self.at("scoringStrategy.type");
                self.errors.push(FieldError::not_supported(field, other, &known));
                ScoringStrategy::default()
            }
        }
    }

    fn points(&mut self, points: Vec<Reader<'_>>) -> Vec<ShapePoint> {
        let mut shape = Vec::new();
        for mut point in points {
            let utilization = point.get("utilization", self.complaints).unwrap_or_default();
            let score = point.get("score", self.complaints).unwrap_or_default();
            shape.push(ShapePoint { utilization, score });
            point.finish(self.complaints);
        }
        shape
    }

    fn check_shape(&mut self, shape: &[ShapePoint]) {
        let path = "scoringStrategy.requestedToCapacityRatio.shape";
        if shape.is_empty() {
            let field = self.at(path);
            self.errors.push(FieldError::required(field, "at least one point must be specified"));
        }
        let falls = shape.windows(2).position(|two| two[0].utilization >= two[1].utilization);
        if let Some(at) = falls.map(|at| at + 1) {
            let words = "values must be sorted in increasing order";
            self.invalid(&format!("{path}[{at}].utilization"), shape[at].utilization, words);
        }
        for (at, ShapePoint { utilization, score }) in shape.iter().enumerate() {
            if !(0..=100).contains(utilization) {
                let field = format!("{path}[{at}].utilization");
                self.invalid(&field, *utilization, "not in valid range [0, 100]");
            }
            if !(0..=10).contains(score) {
                let field = format!("{path}[{at}].score");
                self.invalid(&field, *score, "not in valid range [0, 10]");
            }
        }
    }

    fn spread(&mut self) -> SpreadDefaults {
        let kind: String = self.number("defaultingType", "System".to_owned());
        let constraints: Vec<TopologySpreadConstraint> =
            self.number("defaultConstraints", Vec::new());
        match kind.as_str() {
            "System" if !constraints.is_empty() => {
                self.invalid("defaultingType", "System", "when .defaultConstraints are not empty");
            }
            "System" | "List" => {}
            other => {
                let field = self.at("defaultingType");
                let error = FieldError::not_supported(field, other, &["System", "List"]);
                self.errors.push(error);
            }
        }
        for at in 0..constraints.len() {
            self.check_constraint(&constraints, at);
        }
        if kind == "List" { SpreadDefaults::List(constraints) } else { SpreadDefaults::System }
    }

    fn check_constraint(&mut self, constraints: &[TopologySpreadConstraint], at: usize) {
        let constraint = &constraints[at];
        let field = |name: &str| format!("defaultConstraints[{at}].{name}");
        let (key, when) = (&constraint.topology_key, &constraint.when_unsatisfiable);
        if constraint.max_skew <= 0 {
            let words = "not in valid range (0, inf)";
            self.invalid(&field("maxSkew"), constraint.max_skew, words);
        }
        let key_field = field("topologyKey");
        if key.is_empty() {
            let error = FieldError::required(self.at(&key_field), "can not be empty");
            self.errors.push(error);
        } else {
            for words in qualified_name_errors(key) {
                self.invalid(&key_field, key.as_str(), &words);
            }
        }
        let when_field = self.at(&field("whenUnsatisfiable"));
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        if when.is_empty() {
            self.errors.push(FieldError::required(when_field, "can not be empty"));
        } else if !known.contains(&when.as_str()) {
            self.errors.push(FieldError::not_supported(when_field, when.as_str(), &known));
        }
        if constraint.label_selector.is_some() {
            let words = "constraint must not define a selector, as they deduced for each pod";
            let field = self.at(&field("labelSelector"));
            self.errors.push(FieldError::forbidden(field, words));
        }
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == *key && other.when_unsatisfiable == *when
        };
        if constraints[..at].iter().any(same) {
            let field = self.at(&format!("defaultConstraints[{at}]"));
            self.errors.push(FieldError::duplicate(field, format!("{{{key}, {when}}}")));
        }
    }

    fn volume_binding(&mut self, arguments: &mut Arguments) {
        let seconds: i64 = self.number("bindTimeoutSeconds", 600);
        if seconds < 0 {
            let words = "invalid BindTimeoutSeconds, should not be a negative value";
            self.invalid("bindTimeoutSeconds", seconds, words);
        }
        if let Some(shape) = self.reader.value("shape") {
            let words = "unexpected field `shape`, remove it or turn on the feature gate \
                         StorageCapacityScoring";
            self.invalid("shape", shape.clone(), words);
        }
        let seconds = u64::try_from(seconds).unwrap_or_default();
        arguments.volume_binding.bind_timeout = Duration::from_secs(seconds);
    }
}
