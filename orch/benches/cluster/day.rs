//! A day of a cluster in virtual time: one in which nothing happens, which is what it costs to be
//! idle, and one in which CronJobs run.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::{CronJob, Job},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use orch::testing::{self, TestCluster, conditions};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    median, resident_mib, size,
    world::{deployment, parsed},
};

const ROUNDS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

async fn create_cron_jobs(cluster: &TestCluster, count: usize) {
    let api: Api<CronJob> = Api::default_namespaced(cluster.client());
    for n in 0..count {
        let job = json!({
            "metadata": {"name": format!("task-{n}")},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {
                "metadata": {"annotations": {"simulation.orch.io/run-for": "10s"}},
                "spec": {"restartPolicy": "Never",
                    "containers": [{"name": "task", "image": "registry.example/task:v1"}]}}}}},
        });
        api.create(&PostParams::default(), &parsed(job)).await.expect("a CronJob");
    }
}

/// Real seconds of so many virtual hours, and writes in them.
#[expect(clippy::disallowed_methods, reason = "tokio's own clock is the virtual one here")]
async fn day(nodes: usize, deployments: usize, cron_jobs: usize, hours: usize) -> (f64, f64) {
    let cluster = testing::cluster().nodes(nodes).forget_history().await;
    let api: Api<Deployment> = Api::default_namespaced(cluster.client());
    for n in 0..deployments {
        let web = parsed(deployment(&format!("web-{n}"), 10));
        api.create(&PostParams::default(), &web).await.expect("a Deployment");
    }
    for n in 0..deployments {
        let name = format!("web-{n}");
        cluster.expect(&api, name).to("be available", conditions::is_available).await;
    }
    cluster.settle().await;
    create_cron_jobs(&cluster, cron_jobs).await;
    let (before, begun) = (cluster.revision(), Instant::now());
    let start = std::time::Instant::now();
    let time = HOUR * u32::try_from(hours).expect("a small number");
    cluster.advance(time).await;
    assert!(begun.elapsed() >= time, "the clock is paused");
    let figures = (start.elapsed().as_secs_f64(), (cluster.revision() - before) as f64);
    if cron_jobs > 0 {
        let jobs: Api<Job> = Api::default_namespaced(cluster.client());
        let jobs = jobs.list(&ListParams::default()).await.expect("a list").items;
        let done = jobs.iter().filter(|job| conditions::is_complete(Some(*job))).count();
        assert!(done >= cron_jobs, "jobs are run");
    }
    figures
}

pub(crate) fn run() {
    let hours = size("day", 24);
    for (nodes, deployments, cron_jobs) in [(1, 1, 0), (10, 10, 0), (100, 100, 0), (100, 100, 100)]
    {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
            rounds.push(runtime.block_on(day(nodes, deployments, cron_jobs, hours)));
        }
        let of = |field: fn(&(f64, f64)) -> f64| median(rounds.iter().map(field).collect());
        println!(
            "{hours} virtual hours of {nodes} nodes, {} pods and {cron_jobs} CronJobs every five \
             minutes: {:.2} s, {:.0} writes (resident {:.0} MiB)",
            deployments * 10,
            of(|round| round.0),
            of(|round| round.1),
            resident_mib("self")
        );
    }
}
