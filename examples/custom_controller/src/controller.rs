//! Keeps a Deployment for every [`Greeting`], and says in its status how that goes.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use orch::{
    controllers::{
        Action, Controller, Reconciler,
        ownership::{controller_reference, is_controlled_by},
        reconciler::Reconciled,
    },
    core::{
        Client, Environment, Key, Resources,
        client::PatchKind,
        clock::to_seconds,
        informer::{Informer, Informers},
    },
};
use serde_json::{Value, json};

use crate::greeting::{Greeting, GreetingStatus, apply_deployment};

/// The environment variable that the containers have the message in.
pub const MESSAGE_VARIABLE: &str = "GREETING";
const IMAGE: &str = "registry.example/greeter:v1";

/// The controller of greetings. The kind must be defined before it works, see
/// [`define`](crate::greeting::define).
pub fn greetings(informers: &Informers) -> Controller {
    let reconciler = Greeter {
        client: informers.client().clone(),
        environment: informers.environment().clone(),
        greetings: informers.of(),
        deployments: informers.of(),
    };
    Controller::builder("greetings", informers)
        .watches_own::<Greeting>()
        // Not `owns`: a Deployment of somebody else that has the name concerns its Greeting, too.
        .watches::<Deployment>(|change| vec![Key::of(&change.object().metadata)])
        .build(reconciler)
}

struct Greeter {
    client: Arc<dyn Client>,
    environment: Environment,
    greetings: Informer<Greeting>,
    deployments: Informer<Deployment>,
}

#[async_trait]
impl Reconciler for Greeter {
    /// Changes of the Deployment lead here again, so that nothing has to be waited for.
    async fn reconcile(&self, key: Key) -> Reconciled {
        let Some(greeting) = self.greetings.get(&key) else { return Ok(Action::Done) };
        if greeting.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let deployment = self.deployments.get(&key);
        match deployment.as_deref() {
            // What somebody else made is theirs: taking it over could replace what they run.
            Some(other) if !is_controlled_by(&other.metadata, uid(&greeting)) => {}
            Some(ours) if is_as_wanted(ours, &greeting) => {}
            _ => {
                let wanted = wanted(&greeting);
                apply_deployment(&self.client, &key.namespace, &key.name, wanted).await?;
            }
        }
        self.write_status(&key, &greeting, deployment.as_deref()).await?;
        Ok(Action::Done)
    }
}

impl Greeter {
    /// Writes the status if it says something new.
    async fn write_status(
        &self,
        key: &Key,
        greeting: &Greeting,
        deployment: Option<&Deployment>,
    ) -> Reconciled {
        let now = Time(to_seconds(self.environment.clock.now()));
        let status = status(greeting, deployment, now);
        if greeting.status.as_ref() != Some(&status) {
            let greetings: Resources<Greeting> =
                Resources::namespaced(self.client.clone(), &key.namespace);
            let patch = json!({"status": status});
            greetings.patch_status(&key.name, PatchKind::Merge, patch).await?;
        }
        Ok(Action::Done)
    }
}

fn uid(greeting: &Greeting) -> &str {
    greeting.metadata.uid.as_deref().unwrap_or_default()
}

/// What is applied: only what this controller cares for, so that everything else may be set by
/// others.
fn wanted(greeting: &Greeting) -> Value {
    let name = &greeting.metadata.name;
    let labels = json!({"greeter.example/greeting": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "ownerReferences": [controller_reference(greeting)],
        },
        "spec": {
            "replicas": greeting.spec.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": "greeter",
                    "image": IMAGE,
                    "env": [{"name": MESSAGE_VARIABLE, "value": greeting.spec.message}],
                }]},
            },
        },
    })
}

fn is_as_wanted(deployment: &Deployment, greeting: &Greeting) -> bool {
    let spec = deployment.spec.as_ref();
    let containers = spec.and_then(|spec| spec.template.spec.as_ref()).map(|pod| &pod.containers);
    let mut variables = containers.into_iter().flatten().flat_map(|one| one.env.iter().flatten());
    let says = |value: Option<&str>| value == Some(&greeting.spec.message);
    spec.and_then(|spec| spec.replicas) == Some(greeting.spec.replicas)
        && variables.any(|one| one.name == MESSAGE_VARIABLE && says(one.value.as_deref()))
}

fn status(greeting: &Greeting, deployment: Option<&Deployment>, now: Time) -> GreetingStatus {
    let ours = deployment.filter(|one| is_controlled_by(&one.metadata, uid(greeting)));
    // A Deployment that its own controller has not seen yet speaks of what was before.
    let seen = ours.filter(|one| {
        let observed = one.status.as_ref().and_then(|status| status.observed_generation);
        is_as_wanted(one, greeting) && observed >= one.metadata.generation
    });
    let available = ours.and_then(|one| one.status.as_ref()?.available_replicas).unwrap_or(0);
    let updated = seen.and_then(|one| one.status.as_ref()?.updated_replicas).unwrap_or(0);
    let replicas = greeting.spec.replicas;
    let (value, reason, message) = if deployment.is_some() && ours.is_none() {
        ("False", "NameTaken", "a Deployment of this name belongs to somebody else".to_owned())
    } else if seen.is_some() && available >= replicas && updated == replicas {
        ("True", "AllAvailable", format!("{replicas} of {replicas} are available"))
    } else {
        ("False", "Progressing", format!("{available} of {replicas} are available"))
    };
    let mut condition = Condition {
        type_: "Available".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: greeting.metadata.generation,
        last_transition_time: now,
    };
    let before = greeting.status.iter().flat_map(|status| &status.conditions);
    if let Some(before) = before.into_iter().find(|one| one.type_ == condition.type_)
        && before.status == condition.status
    {
        condition.last_transition_time = before.last_transition_time.clone();
    }
    GreetingStatus {
        observed_generation: greeting.metadata.generation,
        available_replicas: available,
        conditions: vec![condition],
    }
}
