//! Swaps the container runtime: images are async functions of this program, and a Job runs one of
//! them. Ends by itself.

mod functions;

use std::{collections::BTreeMap, error::Error, sync::Arc};

use functions::{Exit, Function, FunctionRuntime};
use futures::{FutureExt, TryStreamExt, pin_mut};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use orch::{cluster::NodeSetup, core::Environment};
use serde_json::json;

fn sum(env: &[(String, String)]) -> Exit {
    let upto = env.iter().find(|(name, _)| name == "UPTO").and_then(|(_, v)| v.parse().ok());
    match upto {
        Some(upto) => {
            let sum: u64 = (1..=upto).sum();
            Exit { code: 0, output: format!("the numbers up to {upto} add up to {sum}") }
        }
        None => Exit { code: 2, output: "UPTO is not set".into() },
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let environment = Environment::system();
    let sum: Function = Arc::new(|env| async move { sum(&env) }.boxed());
    let functions = BTreeMap::from([("functions.example/sum:v1".to_owned(), sum)]);
    let runtime = FunctionRuntime::new(environment.clone(), functions);
    let cluster = orch::Cluster::builder()
        .environment(environment)
        .node(NodeSetup::new("functions", runtime))
        .start()
        .await?;
    let client = cluster.client();

    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "sum"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{
            "name": "sum",
            "image": "functions.example/sum:v1",
            "env": [{"name": "UPTO", "value": "1000"}],
        }]}}},
    }))?;
    jobs.create(&PostParams::default(), &job).await?;
    println!("A Job runs an async function of this program as its container.");

    let changes = watcher(jobs, watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(changes);
    while let Some(job) = changes.try_next().await? {
        if job.status.is_some_and(|status| status.succeeded == Some(1)) {
            break;
        }
    }
    let pods: Api<Pod> = Api::default_namespaced(client);
    for pod in pods.list(&ListParams::default().labels("job-name=sum")).await? {
        print!(
            "{} says: {}",
            pod.name_any(),
            pods.logs(&pod.name_any(), &LogParams::default()).await?
        );
    }
    cluster.shutdown().await;
    Ok(())
}
