//! What a user does with greetings, and what they see.

use custom_controller::{controller::MESSAGE_VARIABLE, greeting::Greeting};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

/// Condition, reason and message of a greeting that its controller has seen.
fn available(greeting: Option<&Greeting>) -> Option<(String, String, String)> {
    let (greeting, status) = greeting.and_then(|it| Some((it, it.status.as_ref()?)))?;
    let condition = status.conditions.iter().find(|one| one.type_ == "Available")?;
    let texts = (condition.status.clone(), condition.reason.clone(), condition.message.clone());
    (status.observed_generation == greeting.metadata.generation).then_some(texts)
}

async fn until_says(client: &Client, name: &str, expected: (&str, &str, &str)) {
    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let says = move |greeting: Option<&Greeting>| {
        available(greeting).is_some_and(|(status, reason, message)| {
            (status.as_str(), reason.as_str(), message.as_str()) == expected
        })
    };
    await_condition(greetings, name, says).await.expect("the watch works");
}

fn message(deployment: &Deployment) -> Value {
    let spec = serde_json::to_value(&deployment.spec).expect("JSON");
    let variable = &spec["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], MESSAGE_VARIABLE);
    variable["value"].clone()
}

/// Creates a greeting and waits until all of it is there.
pub(crate) async fn create(client: Client, name: &str, replicas: i32) {
    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let wish = json!({
        "metadata": {"name": name}, "spec": {"message": "hi", "replicas": replicas},
    });
    let wish = serde_json::from_value(wish).expect("a greeting");
    greetings.create(&PostParams::default(), &wish).await.expect("it is created");
    let all = format!("{replicas} of {replicas} are available");
    until_says(&client, name, ("True", "AllAvailable", &all)).await;
}

/// From the first greeting to what is left of it.
pub(crate) async fn run(client: Client) {
    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    create(client.clone(), "hello", 2).await;
    let made = deployments.get("hello").await.expect("it is there");
    assert_eq!((made.spec.as_ref().unwrap().replicas, message(&made)), (Some(2), json!("hi")));
    assert_eq!(made.owner_references()[0].kind, "Greeting");

    let change = Patch::Merge(json!({"spec": {"message": "good day", "replicas": 3}}));
    greetings.patch("hello", &PatchParams::default(), &change).await.expect("it is changed");
    until_says(&client, "hello", ("True", "AllAvailable", "3 of 3 are available")).await;
    assert_eq!(message(&deployments.get("hello").await.expect("it is there")), "good day");

    // What others do to the Deployment is undone.
    let other = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch("hello", &PatchParams::default(), &other).await.expect("it is changed");
    let has_three = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|it| it.spec.as_ref().and_then(|spec| spec.replicas) == Some(3))
    };
    await_condition(deployments.clone(), "hello", has_three).await.expect("the watch works");

    let refused = Patch::Merge(json!({"spec": {"replicas": 11}}));
    let refused = greetings.patch("hello", &PatchParams::default(), &refused).await;
    let refused = refused.expect_err("the definition takes ten").to_string();
    assert!(
        refused.contains("spec.replicas in body should be less than or equal to 10"),
        "{refused}"
    );

    // The garbage collector removes the Deployment with its owner.
    let uid = made.uid().expect("a uid");
    greetings.delete("hello", &DeleteParams::default()).await.expect("it is deleted");
    let gone = await_condition(deployments, "hello", conditions::is_deleted(&uid)).await;
    gone.expect("the watch works");
}

/// A Deployment of somebody else has the name.
pub(crate) async fn run_with_a_name_that_is_taken(client: Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let theirs = json!({
        "metadata": {"name": "taken"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "theirs"}}, "template": {
            "metadata": {"labels": {"app": "theirs"}},
            "spec": {"containers": [{"name": "main", "image": "theirs:1"}]}}},
    });
    let theirs = serde_json::from_value(theirs).expect("a Deployment");
    let theirs = deployments.create(&PostParams::default(), &theirs).await.expect("it is created");
    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let wish = json!({"metadata": {"name": "taken"}, "spec": {"message": "hi", "replicas": 2}});
    let wish = serde_json::from_value(wish).expect("a greeting");
    greetings.create(&PostParams::default(), &wish).await.expect("it is created");
    let why = "a Deployment of this name belongs to somebody else";
    until_says(&client, "taken", ("False", "NameTaken", why)).await;
    let after = deployments.get("taken").await.expect("it is there");
    assert_eq!(after.spec, theirs.spec);

    // Once they give it up, it is free.
    deployments.delete("taken", &DeleteParams::default()).await.expect("it is deleted");
    until_says(&client, "taken", ("True", "AllAvailable", "2 of 2 are available")).await;
}
