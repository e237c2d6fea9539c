//! The scheduler on a cluster of its own.

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::PostParams,
    runtime::{conditions, wait::await_condition},
};
use orch::sched::configuration::SchedulerConfiguration;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{Failure, schedule, serve};

/// Fuller nodes are better, so that others can be switched off.
const CONFIGURATION: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  resourceName: second-scheduler
profiles:
- schedulerName: second-scheduler
  plugins:
    multiPoint:
      disabled:
      - name: NodeResourcesBalancedAllocation
    score:
      enabled:
      - name: NodeResourcesFit
        weight: 10
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy:
        type: MostAllocated
";

/// Brings up a cluster, has the second scheduler place pods, and looks at what it says.
pub(crate) async fn run() -> Result<(), Failure> {
    let cluster = orch::Cluster::builder().simulated_nodes(3).start().await?;
    let client = cluster.client();
    let configuration: SchedulerConfiguration = CONFIGURATION.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (cancel, insights) = (CancellationToken::new(), serve::Insights::default());
    tokio::spawn(serve::run(listener, insights.clone()));
    let scheduler = tokio::spawn({
        let (client, cancel, insights) = (client.clone(), cancel.clone(), insights.clone());
        async move { schedule(client, &configuration, &cancel, |insight| insights.set(insight)).await }
    });

    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut nodes = Vec::new();
    for n in 0..3 {
        let name = format!("packed-{n}");
        let requests = json!({"cpu": "500m", "memory": "512Mi"});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "schedulerName": "second-scheduler",
                "containers": [{"name": "main", "image": "registry.example/main:v1",
                                "resources": {"requests": requests}}],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        let running = await_condition(pods.clone(), &name, conditions::is_pod_running());
        let pod = running.await?.ok_or("the pod is gone")?;
        nodes.push(pod.spec.and_then(|spec| spec.node_name).unwrap_or_default());
    }
    println!("The pods are on {}.", nodes.join(", "));
    if nodes.iter().any(|node| *node != nodes[0]) {
        return Err("they are not on one node".into());
    }
    let leases: Api<Lease> = Api::namespaced(client, "kube-system");
    let lease = leases.get("second-scheduler").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    println!("{holder} leads.");

    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let scheduled = answer.lines().find(|line| {
        line.starts_with("scheduler_schedule_attempts_total") && line.contains("\"scheduled\"")
    });
    println!("{}", scheduled.ok_or("nothing was counted")?);

    cancel.cancel();
    scheduler.await??;
    cluster.shutdown().await;
    Ok(())
}
