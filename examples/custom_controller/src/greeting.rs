//! The kind `Greeting`, and its definition for the API server.

use std::sync::Arc;

use k8s_openapi::{
    NamespaceResourceScope,
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use orch::core::{
    Client, ClientError, Resources,
    client::{PatchKind, WatchOptions, Write, WriteOptions},
    resource::{ResourceType, Target},
};
use serde::{Deserialize, Serialize};

/// The definition as `kubectl apply -f` takes it.
pub const DEFINITION: &str = include_str!("../manifests/definition.yaml");
/// Who applies what these controllers apply.
pub const MANAGER: &str = "greeting-controller";

/// Somebody who says a message, in as many copies as are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: GreetingSpec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<GreetingStatus>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GreetingSpec {
    /// What is said.
    pub message: String,
    /// By how many. The API server puts 1 where nothing is said, and takes 0 to 10.
    pub replicas: i32,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GreetingStatus {
    /// The generation that the rest of the status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many say it now.
    #[serde(default)]
    pub available_replicas: i32,
    /// `Available`: whether as many as asked for say it.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl k8s_openapi::Resource for Greeting {
    const API_VERSION: &'static str = "greeter.example/v1";
    const GROUP: &'static str = "greeter.example";
    const KIND: &'static str = "Greeting";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "greetings";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Greeting {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Defines the kind, or brings an older definition up to date, and waits until it is served.
///
/// # Errors
/// [`ClientError`]: as the API server says.
pub async fn define(client: Arc<dyn Client>) -> Result<(), ClientError> {
    let definitions: Resources<CustomResourceDefinition> = Resources::all(client.clone());
    let definition: serde_json::Value =
        serde_saphyr::from_str(DEFINITION).expect("it is part of this program");
    let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    apply(&client, Target::object(definitions.resource().clone(), None, &name), definition).await?;
    let options = WatchOptions {
        field_selector: Some(format!("metadata.name={name}")),
        send_initial_events: true,
        bookmarks: true,
        ..WatchOptions::default()
    };
    let changes = definitions.watch(options).await?;
    Resources::first_match(changes, is_served).await?;
    Ok(())
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "Established" && one.status == "True")
}

/// Applies a Deployment, whoever else has set the same fields.
pub(crate) async fn apply_deployment(
    client: &Arc<dyn Client>,
    namespace: &str,
    name: &str,
    deployment: serde_json::Value,
) -> Result<(), ClientError> {
    let target = Target::object(ResourceType::of::<Deployment>(), Some(namespace), name);
    apply(client, target, deployment).await
}

async fn apply(
    client: &Arc<dyn Client>,
    target: Target,
    object: serde_json::Value,
) -> Result<(), ClientError> {
    let options = WriteOptions {
        field_manager: Some(MANAGER.into()),
        force: true,
        ..WriteOptions::default()
    };
    client.write(Write::Patch(target, PatchKind::Apply, object, options)).await?;
    Ok(())
}
