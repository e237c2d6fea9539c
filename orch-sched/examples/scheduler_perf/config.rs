//! The files that define workloads.
//!
//! Source: `test/integration/scheduler_perf/operations.go` and `scheduler_perf.go`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// A list of operations, and parameters to run them with.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestCase {
    pub(crate) name: String,
    pub(crate) default_pod_template_path: Option<String>,
    pub(crate) scheduler_config_path: Option<String>,
    #[serde(default)]
    feature_gates: BTreeMap<String, bool>,
    pub(crate) workload_template: Vec<Op>,
    pub(crate) workloads: Vec<Workload>,
}

impl TestCase {
    /// Whether pods claim devices.
    pub(crate) fn has_devices(&self) -> bool {
        self.feature_gates.get("DynamicResourceAllocation") == Some(&true)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Value>,
    threshold: Option<Threshold>,
}

/// The throughput that is expected, as such or by the name under which it is tracked.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Threshold {
    Plain(f64),
    Named(BTreeMap<String, f64>),
}

impl Workload {
    /// The throughput that is expected.
    pub(crate) fn threshold(&self) -> Option<f64> {
        match self.threshold.as_ref()? {
            Threshold::Plain(value) => Some(*value),
            Threshold::Named(values) => values.values().next().copied(),
        }
    }

    /// A count, given as such or as a parameter.
    pub(crate) fn count(&self, count: Option<u64>, param: Option<&str>) -> Result<u64, Error> {
        Count { count, count_param: param.map(str::to_owned) }.resolve(self, 1)
    }

    /// A parameter as `$name`.
    fn param(&self, dollar: &str) -> Result<&Value, Error> {
        let name = dollar.trim_start_matches('$');
        let found = self.params.get(name);
        found.ok_or_else(|| format!("workload {:?} has no parameter {name:?}", self.name).into())
    }
}

/// A count, given as such or as a parameter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Count {
    count: Option<u64>,
    count_param: Option<String>,
}

impl Count {
    /// The number; `otherwise` if none is given.
    pub(crate) fn resolve(&self, workload: &Workload, otherwise: u64) -> Result<u64, Error> {
        match (&self.count_param, self.count) {
            (Some(name), _) => {
                let value = workload.param(name)?;
                value.as_u64().ok_or_else(|| format!("parameter {name} is no count").into())
            }
            (None, count) => Ok(count.unwrap_or(otherwise)),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatePods {
    #[serde(flatten)]
    pub(crate) count: Count,
    pub(crate) namespace: Option<String>,
    pub(crate) pod_template_path: Option<String>,
    pub(crate) persistent_volume_template_path: Option<String>,
    pub(crate) persistent_volume_claim_template_path: Option<String>,
    #[serde(default)]
    pub(crate) collect_metrics: bool,
    #[serde(default)]
    pub(crate) skip_wait_to_completion: bool,
    #[serde(default)]
    pub(crate) steady_state: bool,
    pub(crate) steady_state_param: Option<String>,
    pub(crate) duration: Option<String>,
    pub(crate) duration_param: Option<String>,
}

impl CreatePods {
    /// Whether pods are deleted as soon as they are scheduled, and others created, for how long.
    pub(crate) fn steady_for(
        &self,
        workload: &Workload,
    ) -> Result<Option<std::time::Duration>, Error> {
        let steady = match &self.steady_state_param {
            Some(name) => workload.param(name)?.as_bool().unwrap_or(false),
            None => self.steady_state,
        };
        if !steady {
            return Ok(None);
        }
        let text = match &self.duration_param {
            Some(name) => workload.param(name)?.as_str().map(str::to_owned),
            None => self.duration.clone(),
        };
        let text = text.ok_or("steadyState needs a duration")?;
        let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
        let seconds = seconds.ok_or_else(|| format!("{text:?} is no duration in seconds"))?;
        Ok(Some(std::time::Duration::from_secs_f64(seconds)))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelNodes {
    pub(crate) label_key: String,
    pub(crate) label_values: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeAllocatable {
    #[serde(default)]
    pub(crate) node_allocatable: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) csi_node_allocatable: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) migrated_plugins: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelSelection {
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) namespaces: Vec<String>,
    #[serde(default)]
    pub(crate) label_selector: BTreeMap<String, String>,
}

/// One step of a workload.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "opcode", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Op {
    CreateNodes {
        #[serde(flatten)]
        count: Count,
        node_template_path: Option<String>,
        node_allocatable_strategy: Option<NodeAllocatable>,
        label_node_prepare_strategy: Option<LabelNodes>,
    },
    CreateNamespaces {
        #[serde(flatten)]
        count: Count,
        prefix: String,
        namespace_template_path: Option<String>,
    },
    CreatePods(CreatePods),
    CreatePodSets {
        #[serde(flatten)]
        count: Count,
        namespace_prefix: String,
        create_pods_op: CreatePods,
    },
    CreateAny {
        #[serde(flatten)]
        count: Count,
        namespace: Option<String>,
        template_path: String,
    },
    UpdateAny {
        #[serde(flatten)]
        count: Count,
        namespace: Option<String>,
        template_path: String,
        update_per_second: Option<f64>,
        #[serde(default)]
        subresources: Vec<String>,
    },
    DeletePods {
        #[serde(flatten)]
        pods: LabelSelection,
        delete_pods_per_second: Option<f64>,
        #[serde(default)]
        skip_wait_to_completion: bool,
    },
    Churn {
        mode: String,
        number: Option<u64>,
        #[serde(default)]
        template_paths: Vec<String>,
        interval_milliseconds: Option<u64>,
        namespace: Option<String>,
    },
    Barrier {
        #[serde(flatten)]
        pods: LabelSelection,
        stage_requirement: Option<String>,
    },
    StartCollectingMetrics {
        name: Option<String>,
        #[serde(flatten)]
        pods: LabelSelection,
    },
    StopCollectingMetrics,
    /// Devices of nodes, which one driver tells of.
    CreateResourceDriver {
        driver_name: String,
        nodes: String,
        max_claims_per_node: Option<u64>,
        max_claims_per_node_param: Option<String>,
    },
    /// Claims that are allocated without a pod.
    AllocResourceClaims {
        namespace: Option<String>,
    },
}

impl Op {
    /// What it is called in the files.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::CreateNodes { .. } => "createNodes",
            Self::CreateNamespaces { .. } => "createNamespaces",
            Self::CreatePods(_) => "createPods",
            Self::CreatePodSets { .. } => "createPodSets",
            Self::CreateAny { .. } => "createAny",
            Self::UpdateAny { .. } => "updateAny",
            Self::DeletePods { .. } => "deletePods",
            Self::Churn { .. } => "churn",
            Self::Barrier { .. } => "barrier",
            Self::StartCollectingMetrics { .. } => "startCollectingMetrics",
            Self::StopCollectingMetrics => "stopCollectingMetrics",
            Self::CreateResourceDriver { .. } => "createResourceDriver",
            Self::AllocResourceClaims { .. } => "allocResourceClaims",
        }
    }
}
