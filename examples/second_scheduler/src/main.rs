//! A second scheduler beside the one that a cluster has, on any Kubernetes cluster.
//!
//! `second_scheduler CONFIG.yaml` reads a `KubeSchedulerConfiguration`, takes part in the election of
//! a leader, schedules the pods that name one of its profiles in `spec.schedulerName`, and serves
//! `/metrics` and `/healthz` on 127.0.0.1:10259. The cluster is the one of the configuration's
//! kubeconfig, of `KUBECONFIG`, or the one that the program runs in.
//!
//! Without arguments it shows itself on a cluster of its own, in process, and ends.

use std::{error::Error, sync::Arc};

use kube::config::{KubeConfigOptions, Kubeconfig};
use orch::{
    core::{
        Environment,
        informer::Informers,
        lease::{Election, Timing},
    },
    sched::{Insight, Scheduler, configuration::SchedulerConfiguration},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod demo;
mod serve;

type Failure = Box<dyn Error + Send + Sync>;

const ADDRESS: &str = "127.0.0.1:10259";

/// Schedules as long as this instance leads and nobody cancels. `started` gets a handle on the
/// scheduler each time it begins to work.
async fn schedule(
    client: kube::Client,
    configuration: &SchedulerConfiguration,
    cancel: &CancellationToken,
    started: impl Fn(Insight),
) -> Result<(), Failure> {
    let client: Arc<dyn orch::core::Client> = Arc::new(client);
    let environment = Environment::system();
    let election = &configuration.leader_election;
    let identity = format!("second-scheduler-{}", std::process::id());
    let candidate = Election::new(
        client.clone(),
        environment.clone(),
        &election.resource_namespace,
        &election.resource_name,
        &identity,
    );
    let candidate = candidate.timing(Timing {
        lease_duration: election.lease_duration,
        renew_deadline: election.renew_deadline,
        retry_period: election.retry_period,
    });
    let leadership = match election.leader_elect {
        false => None,
        true => tokio::select! {
            leadership = candidate.acquire() => Some(leadership),
            () = cancel.cancelled() => return Ok(()),
        },
    };
    let informers = Informers::new(client, environment);
    let scheduler = Scheduler::builder(&informers).configuration(configuration).build()?;
    started(scheduler.insight());
    let working = cancel.child_token();
    let lost = async {
        match &leadership {
            Some(leadership) => leadership.lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = scheduler.run(working.clone()) => {}
        // Somebody else works now: stop at once, as upstream does.
        () = lost => return Err("leaderelection lost".into()),
    }
    informers.stop();
    if let Some(leadership) = leadership {
        leadership.release().await?;
    }
    Ok(())
}

/// The cluster that the configuration names, or that is at hand.
async fn connect(configuration: &SchedulerConfiguration) -> Result<kube::Client, Failure> {
    let path = &configuration.client_connection.kubeconfig;
    if path.is_empty() {
        return Ok(kube::Client::try_default().await?);
    }
    let kubeconfig = Kubeconfig::read_from(path)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(kube::Client::try_from(config)?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Some(path) = std::env::args().nth(1) else { return demo::run().await };
    let configuration: SchedulerConfiguration = std::fs::read_to_string(path)?.parse()?;
    let client = connect(&configuration).await?;
    let cancel = CancellationToken::new();
    let insights = serve::Insights::default();
    tokio::spawn(serve::run(TcpListener::bind(ADDRESS).await?, insights.clone()));
    let stop = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    schedule(client, &configuration, &cancel, |insight| insights.set(insight)).await
}
