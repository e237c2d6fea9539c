//! The simulated runtime keeps the contract, and the agent copes with one that does not.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use orch_core::{
    Environment,
    random::{Random as _, SeededRandom},
};
use orch_node::{
    runtime::{
        Inventory, RuntimeError,
        simulated::{Behaviour, SimulatedRuntime, behaves},
    },
    testing::{FaultyRuntime, RuntimeCall, RuntimeFixture, runtime_conformance},
};
use serde_json::json;

use crate::cluster::{Cluster, phase};

#[tokio::test(start_paused = true)]
async fn the_simulated_runtime_keeps_the_contract() {
    let environment = Environment::seeded(Timestamp::UNIX_EPOCH, 1);
    let script = behaves(|container| {
        if container.command == ["exit"] {
            Behaviour::exits(Duration::from_secs(1), 3)
        } else {
            Behaviour::runs()
        }
    });
    runtime_conformance(&RuntimeFixture {
        runtime: Arc::new(SimulatedRuntime::scripted(environment, script)),
        image: "any".into(),
        runs: vec!["run".into()],
        exits_3: vec!["exit".into()],
        log_directory: "/nowhere".into(),
        address: Some("10.0.0.1".parse().unwrap()),
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_call_may_fail_now_and_then() {
    let mut cluster = Cluster::start().await;
    cluster.stop_agent().await;
    let random = SeededRandom::new(7);
    let faulty = FaultyRuntime::new(Arc::new(cluster.runtime.clone()), move |call| {
        let fails = random.below(4) == 0 && call != RuntimeCall::Exec;
        fails.then(|| RuntimeError::Refused(format!("{call:?} fails")))
    });
    cluster.start_agent_on(Arc::new(faulty));
    let spec =
        json!({ "containers": [{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b:1" }] });
    cluster.create("web", json!({}), spec).await;
    cluster.until("web", |s| phase(s) == "Running").await;
    cluster.delete("web", 5).await;
    cluster.until_gone("web").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(cluster.runtime.sandboxes(None).await.unwrap().is_empty());
}
