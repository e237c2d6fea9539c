//! A quota is never exceeded, whoever creates and deletes at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use orch::core::informer::Change;
use serde_json::json;

use crate::world::{create, seeded, template, until};

const LIMIT: usize = 7;

/// Creates and deletes pods in an order of its own.
async fn churn(
    pods: Api<Pod>,
    worker: usize,
    random: Arc<dyn orch::core::random::Random>,
) -> usize {
    let (mut own, mut refused): (Vec<String>, usize) = (Vec::new(), 0);
    for round in 0..40 {
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        if !own.is_empty() && random.below(3) == 0 {
            let at = random.below(own.len() as u64) as usize;
            let name = own.swap_remove(at);
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            pods.delete(&name, &at_once).await.expect("it is deleted");
            continue;
        }
        let mut pod = template("churn");
        pod["metadata"]["name"] = json!(format!("churn-{worker}-{round}"));
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        match pods.create(&PostParams::default(), &pod).await {
            Ok(created) => own.push(created.name_any()),
            Err(kube::Error::Api(status)) => {
                assert!(matches!(status.code, 403 | 409), "{status}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    for name in own {
        pods.delete(&name, &DeleteParams::default()).await.expect("it is deleted");
    }
    refused
}

async fn quota_holds(seed: u64) {
    let cluster = seeded(seed).start().await.expect("it starts");
    let quota =
        json!({"metadata": {"name": "most"}, "spec": {"hard": {"pods": LIMIT.to_string()}}});
    create::<ResourceQuota>(&cluster, quota).await;
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (alive.clone(), most.clone());
    let informer = cluster.informers().of::<Pod>();
    informer.synced().await;
    informer.on_change(move |change| match change {
        Change::Added(_) => {
            let now = count.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
        }
        Change::Deleted(_) => {
            count.fetch_sub(1, Ordering::SeqCst);
        }
        Change::Updated { .. } => {}
    });
    let workers = (0..6).map(|worker| {
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        tokio::spawn(churn(pods, worker, cluster.environment().random.clone()))
    });
    let workers: Vec<_> = workers.collect();
    let mut refused = 0;
    for worker in workers {
        refused += worker.await.expect("it ends");
    }
    let most = most.load(Ordering::SeqCst);
    assert!(most <= LIMIT, "{most} pods at a time, with the seed {seed}");
    assert_eq!(most, LIMIT, "all of it was used, with the seed {seed}");
    assert!(refused > 0, "more was asked for, with the seed {seed}");
    // In the end the quota says what is true.
    until::<ResourceQuota>(&cluster, |quotas| {
        let used = quotas[0].status.as_ref().and_then(|status| status.used.as_ref());
        used.and_then(|used| used.get("pods")).is_some_and(|used| used.0 == "0")
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_never_exceeded() {
    for seed in 0..orch_core::testing::rounds(2) {
        quota_holds(100 + u64::from(seed)).await;
    }
}
