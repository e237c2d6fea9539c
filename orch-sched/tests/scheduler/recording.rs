//! What was recorded comes out again.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use orch_core::{
    client::{DeleteOptions, ListOptions},
    resource::ResourceType,
    testing::{FaultRates, rounds},
};
use orch_sched::{Recorder, Replay, ReplayError, ReplayedPlacement};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{Cluster, cpu, faulty};

/// A file in memory.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pod(n: usize) -> Value {
    let mut pod = cpu(if n.is_multiple_of(4) { "1500m" } else { "500m" });
    pod["metadata"]["labels"] = json!({"app": format!("a{}", n % 3)});
    pod["spec"]["priority"] = ((n % 5) * 10).into();
    if n % 3 == 1 {
        pod["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "a1"}},
        }]);
    }
    if n % 7 == 2 {
        let claim = json!({"claimName": format!("c{n}")});
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": claim}]);
    }
    pod
}

fn volumes(cluster: &Cluster, n: usize) {
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    let storage = json!({"storage": "1Gi"});
    let volume = json!({
        "metadata": {"name": format!("v{n}")},
        "spec": {"capacity": storage, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                 "claimRef": {"namespace": "default", "name": format!("c{n}")},
                 "hostPath": {"path": "/v"},
                 "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                     {"key": "zone", "operator": "In", "values": [format!("z{}", n % 2)]}]}]}}},
    });
    let claim = json!({
        "metadata": {"name": format!("c{n}"), "namespace": "default",
                     "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": storage},
                 "storageClassName": "", "volumeName": format!("v{n}")},
        "status": {"phase": "Bound"},
    });
    cluster.memory.seed(&ResourceType::of::<PersistentVolume>(), volume).unwrap();
    cluster.memory.seed(&ResourceType::of::<PersistentVolumeClaim>(), claim).unwrap();
}

/// A history with volumes, spreading, preemption, deletions and faults.
async fn recorded(seed: u64) -> Vec<u8> {
    let rates = FaultRates {
        conflict_permille: 50,
        server_error_permille: 100,
        transport_permille: 100,
        watch_drop_permille: 50,
        expired_permille: 20,
        ..FaultRates::default()
    };
    let wrap = faulty(seed, rates);
    let file = File::default();
    let recorder = Recorder::to(file.clone());
    let mut cluster = Cluster::start(seed, wrap, |builder| builder.record(recorder.clone()));
    for n in 0..4 {
        let labels = json!({"metadata": {"labels": {"zone": format!("z{}", n % 2)}}});
        cluster.node(&format!("n{n}"), labels);
    }
    for n in 0..36 {
        if n % 7 == 2 {
            volumes(&cluster, n);
        }
        cluster.pod(&format!("p{n}"), pod(n)).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
        for pod in cluster.pods.list(ListOptions::default()).await.unwrap() {
            let name = pod.metadata.name.clone().unwrap();
            if pod.metadata.deletion_timestamp.is_some()
                || (n % 9 == 8 && name == format!("p{}", n / 2))
            {
                drop(cluster.pods.delete(&name, now.clone()).await);
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.stop().await;
    recorder.finish().unwrap();
    file.0.lock().clone()
}

/// The places that the recording says were taken.
fn taken(recording: &[u8]) -> Vec<(String, String)> {
    let lines = recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cycles = lines.iter().filter_map(|line| line.get("cycle")).map(|cycle| &cycle["pod"]);
    let names: BTreeMap<String, String> =
        cycles.map(|pod| (text(&pod["metadata"]["uid"]), text(&pod["metadata"]["name"]))).collect();
    let took = lines.iter().filter_map(|line| line.get("took"));
    took.map(|took| (names[&text(&took["uid"])].clone(), text(&took["node"]))).collect()
}

fn names(placements: &[ReplayedPlacement]) -> Vec<(String, String)> {
    placements.iter().map(|one| (one.pod.name.clone(), one.node.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_same_placements_come_out() {
    for seed in 0..u64::from(rounds(4)) {
        let recording = recorded(seed).await;
        let replayed = Replay::default().run(&recording[..]).await.unwrap();
        assert_eq!(replayed.differences, [], "seed {seed}");
        let taken = taken(&recording);
        assert!(taken.len() > 20, "seed {seed}: {}", taken.len());
        assert_eq!(names(&replayed.placements), taken, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_breaks_off_is_good_up_to_there() {
    let recording = recorded(1).await;
    let taken = taken(&recording);
    for cut in (0..12).map(|n| recording.len() / 2 + n * 37) {
        let replayed = Replay::default().run(&recording[..cut]).await.unwrap();
        assert_eq!(replayed.differences, []);
        let placements = names(&replayed.placements);
        assert_eq!(placements, taken[..placements.len()], "cut at {cut}");
        assert!(!placements.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_recording_is_refused() {
    let check = async |recording: &[u8], message: &str| {
        let error = Replay::default().run(recording).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    check(b"", "this is no recording of version 1").await;
    check(
        b"{\"recording\":{\"version\":2,\"profiles\":{}}}\n",
        "this is no recording of version 1",
    )
    .await;
    check(b"{\"nodeGone\":\"n\"}\n", "this is no recording of version 1").await;
    let recording = recorded(1).await;
    let end = recording.iter().position(|byte| *byte == b'\n').unwrap();
    let mut damaged = recording[..=end].to_vec();
    damaged.extend(b"{\"nodeGone\":\n{\"nodeGone\":\"n\"}\n");
    let error = Replay::default().run(&damaged[..]).await.unwrap_err();
    assert!(matches!(error, ReplayError::Line { line: 2, .. }), "{error}");
    let other = Replay::default().profile(orch_sched::Profile::named("other"));
    let error = other.run(&recording[..]).await.unwrap_err();
    assert!(matches!(error, ReplayError::Profiles { .. }), "{error}");
}
