//! Without arguments: shows both controllers on a cluster in this process, and ends.
//!
//! With `cluster`: defines the kind `Greeting` in the cluster of `KUBECONFIG` and runs both
//! controllers for it until Ctrl-C. If several of them run, one of them works at a time.

use std::{error::Error, sync::Arc};

use custom_controller::{greeting, manager, operator};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api,
    api::PostParams,
    runtime::wait::{Condition, await_condition},
};
use orch::core::{Client, Environment, informer::Informers, lease::Election};
use serde_json::json;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        None => show().await,
        Some("cluster") => run(kube::Client::try_default().await?).await,
        Some(other) => Err(format!("{other} is not known: try `cluster`, or nothing").into()),
    }
}

/// Works for a cluster that is reached over HTTP, as the elected one.
async fn run(client: kube::Client) -> Result<(), Failure> {
    let core: Arc<dyn Client> = Arc::new(client.clone());
    greeting::define(core.clone()).await?;
    let environment = Environment::system();
    let informers = Informers::new(core.clone(), environment.clone());
    let stop = CancellationToken::new();
    let identity = format!("custom-controller-{}", std::process::id());
    let election = Election::new(core, environment, "default", "custom-controller", &identity);
    let running = tokio::spawn(manager(&informers, client).run_elected(election, stop.clone()));
    println!("The kind Greeting is defined, and its controller runs. Ctrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    running.await?;
    informers.stop();
    Ok(())
}

async fn show() -> Result<(), Failure> {
    let cluster = orch::Cluster::builder().simulated_nodes(1).start().await?;
    let client = cluster.client();
    greeting::define(cluster.core_client()).await?;
    let stop = CancellationToken::new();
    let controllers = manager(cluster.informers(), client.clone());
    let running = tokio::spawn(controllers.run(stop.clone()));

    let greetings: Api<greeting::Greeting> = Api::default_namespaced(client.clone());
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let wish = json!({"metadata": {"name": "hello"}, "spec": {"message": "hi", "replicas": 2}});
    greetings.create(&PostParams::default(), &serde_json::from_value(wish)?).await?;
    println!("A Greeting asks for two greeters.");
    await_condition(deployments.clone(), "hello", has_available(2)).await?;
    println!("Its controller made a Deployment of two, and they run.");

    let config_maps: Api<ConfigMap> = Api::default_namespaced(client);
    let wish = json!({
        "metadata": {"name": "config", "labels": {operator::LABEL: "true"}},
        "data": {"replicas": "4"},
    });
    config_maps.create(&PostParams::default(), &serde_json::from_value(wish)?).await?;
    println!("A ConfigMap asks the operator beside it for four.");
    await_condition(deployments, "config", has_available(4)).await?;
    println!("Four run.");

    stop.cancel();
    running.await?;
    cluster.shutdown().await;
    Ok(())
}

fn has_available(replicas: i32) -> impl Condition<Deployment> {
    move |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.available_replicas == Some(replicas))
    }
}
