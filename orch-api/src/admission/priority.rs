//! Priority classes become numbers in pods.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/priority`, `pkg/registry/scheduling/rest`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use orch_core::{ApiError, Client, ClientError, Resources, client::ListOptions};
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::service_account::into_api_error;

const GROUP: &str = "scheduling.k8s.io";
/// Name, value and description of the classes that exist in every cluster.
const SYSTEM_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster needs, but that may run on another node.",
    ),
    ("system-node-critical", 2_000_001_000, "For pods that a node needs, and that must run there."),
];

/// Creates the priority classes of the system where they are missing.
///
/// # Errors
/// [`ClientError`] of the first call that failed.
pub async fn create_system_classes(client: &Arc<dyn Client>) -> Result<(), ClientError> {
    let classes: Resources<PriorityClass> = Resources::all(client.clone());
    for (name, value, description) in SYSTEM_CLASSES {
        if classes.get_opt(name).await?.is_some() {
            continue;
        }
        let class = PriorityClass {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name.into()),
                ..Default::default()
            },
            value: Some(value),
            description: Some(description.into()),
            global_default: Some(false),
            preemption_policy: Some("PreemptLowerPriority".into()),
        };
        match classes.create(&class).await {
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Sets pods' priority and preemption policy from their class, or from the default class.
#[derive(Debug)]
pub struct Priority {
    client: Arc<dyn Client>,
}

struct Chosen {
    class: String,
    value: i32,
    preemption: Option<String>,
}

impl Priority {
    /// Looks classes up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }

    fn classes(&self) -> Resources<PriorityClass> {
        Resources::all(self.client.clone())
    }

    /// Among several defaults the lowest counts.
    async fn default_class(&self) -> Result<Option<Arc<PriorityClass>>, ApiError> {
        let list = self.classes().list_objects(ListOptions::default()).await;
        let mut lowest: Option<Arc<PriorityClass>> = None;
        for object in list.map_err(into_api_error)?.items {
            let class = object.decode::<PriorityClass>().map_err(ApiError::internal)?;
            let lower = lowest.as_ref().is_none_or(|l| class.value < l.value);
            if class.global_default == Some(true) && lower {
                lowest = Some(class);
            }
        }
        Ok(lowest)
    }

    async fn choose(&self, request: &AdmissionRequest, pod: &Value) -> Result<Chosen, ApiError> {
        let named = pod["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty());
        let class = match named {
            Some(name) => {
                let found = self.classes().get_opt(name).await.map_err(into_api_error)?;
                let system = SYSTEM_CLASSES.iter().find(|(system, ..)| *system == name);
                match (found, system) {
                    (Some(class), _) => Some(class),
                    (None, Some((_, value, _))) => {
                        let class = name.to_owned();
                        return Ok(Chosen { class, value: *value, preemption: None });
                    }
                    (None, None) => {
                        let why = format!("no PriorityClass with name {name} was found");
                        return Err(request.refuse(&why));
                    }
                }
            }
            None => self.default_class().await?,
        };
        Ok(class.map_or(Chosen { class: String::new(), value: 0, preemption: None }, |class| {
            Chosen {
                class: class.metadata.name.clone().unwrap_or_default(),
                value: class.value.unwrap_or_default(),
                preemption: class.preemption_policy.clone(),
            }
        }))
    }
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(pod) = request.object.as_ref().filter(|pod| pod["spec"].is_object()) else {
            return Ok(());
        };
        let chosen = self.choose(request, pod).await?;
        let given = pod["spec"]["priority"].as_i64();
        if given.is_some_and(|given| given != i64::from(chosen.value)) {
            return Err(request.refuse(&format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                given.unwrap_or_default(),
                chosen.value
            )));
        }
        let policy = chosen.preemption.unwrap_or_else(|| "PreemptLowerPriority".into());
        let given = pod["spec"]["preemptionPolicy"].as_str();
        if given.is_some_and(|given| given != policy) {
            return Err(request.refuse(&format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
                given.unwrap_or_default()
            )));
        }
        if let Some(spec) = request.object.as_mut().and_then(|pod| pod.get_mut("spec")) {
            if !chosen.class.is_empty() {
                spec["priorityClassName"] = json!(chosen.class);
            }
            spec["priority"] = json!(chosen.value);
            spec["preemptionPolicy"] = json!(policy);
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let class =
            request.object.as_ref().filter(|_| writes && request.is_for(GROUP, "priorityclasses"));
        let Some(class) = class.filter(|class| class["globalDefault"] == true) else {
            return Ok(());
        };
        match self.default_class().await? {
            Some(other) if other.metadata.name.as_deref() != class["metadata"]["name"].as_str() => {
                Err(request.refuse(&format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.metadata.name.as_deref().unwrap_or_default()
                )))
            }
            _ => Ok(()),
        }
    }
}
