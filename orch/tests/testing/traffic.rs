//! What was recorded between a client and a cluster, and a cluster that consists of it.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, pin_mut};
use http::{Request, header};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use orch::testing::{
    self, TestCluster,
    traffic::{Recorder, Replay, ReplayError},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    notes::operator::{Keeper, Note, run},
    notes::{note, notes},
};

/// A file in memory.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }
}

/// A cluster, and a client whose traffic goes into a file.
async fn recorded() -> (TestCluster, Recorder, Client, File) {
    let cluster = testing::cluster().await;
    let file = File::default();
    let recorder = Recorder::to(file.clone());
    let client = recorder.client(&cluster.client());
    (cluster, recorder, client, file)
}

fn map(name: &str, value: &str) -> ConfigMap {
    let map = json!({"metadata": {"name": name}, "data": {"key": value}});
    serde_json::from_value(map).expect("a map")
}

async fn create(client: &Client, name: &str, value: &str) -> Result<ConfigMap, kube::Error> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &map(name, value)).await
}

fn replay(file: &File) -> Replay {
    Replay::of(&file.bytes()[..]).expect("a recording")
}

/// `kube::runtime` writes the machine's time into events and their names.
fn without_its_time(body: &mut Value) {
    if body["kind"] == "Event" || body.get("reportingController").is_some() {
        body["eventTime"] = Value::Null;
        body["metadata"]["name"] = Value::Null;
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_does_to_a_recording_what_it_did_to_the_cluster() {
    let (cluster, notes, _) = notes().await;
    let file = File::default();
    let recorder = Recorder::to(file.clone());
    let keeper = Keeper::new(recorder.client(&cluster.client()));
    let running = tokio::spawn(run(keeper.clone()));
    notes.create(&PostParams::default(), &note("shopping", true)).await.expect("it is created");
    let is_kept = |note: Option<&Note>| note.is_some_and(|note| note.status.is_some());
    cluster.expect(&notes, "shopping").to("be kept", is_kept).await;
    cluster.advance(Duration::from_secs(1000)).await;
    notes.delete("shopping", &DeleteParams::default()).await.expect("it is deleted");
    cluster.expect(&notes, "shopping").to_be_gone().await;
    cluster.advance(Duration::from_secs(60)).await;
    running.abort();
    recorder.finish().expect("it is written");
    let looks = *keeper.looks.lock();
    drop(cluster);

    for _ in 0..2 {
        let replay = replay(&file).comparing(without_its_time);
        let again = Keeper::new(replay.client());
        let running = tokio::spawn(run(again.clone()));
        tokio::time::sleep(Duration::from_secs(1100)).await;
        running.abort();
        replay.check().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(replay.unasked(), Vec::<String>::new());
        assert_eq!(*again.looks.lock(), looks);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_recorded_is_refused_with_what_was() {
    let (_cluster, recorder, client, file) = recorded().await;
    create(&client, "a", "1").await.expect("it is created");
    recorder.finish().expect("it is written");

    let replay = replay(&file);
    let client = replay.client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let told = |error: kube::Error| match error {
        kube::Error::Api(status) => {
            assert_eq!((status.code, &*status.reason), (501, "NotRecorded"));
            status.message
        }
        other => panic!("{other}"),
    };
    let path = "/api/v1/namespaces/default/configmaps";
    let expected = [
        format!("GET {path}/b was not recorded; next in the recording: POST {path}"),
        format!("POST {path} was recorded with another body: data.key: \"1\" → \"2\""),
        format!("POST {path}?dryRun=All was recorded with another query: POST {path}"),
        format!("POST {path} was recorded 1 times, and all of them have been asked for"),
    ];
    assert_eq!(told(maps.get("b").await.unwrap_err()), expected[0]);
    assert_eq!(told(create(&client, "a", "2").await.unwrap_err()), expected[1]);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert_eq!(told(maps.create(&dry, &map("a", "1")).await.unwrap_err()), expected[2]);
    let unasked = replay.check().unwrap_err().to_string();
    assert!(unasked.ends_with(&format!("POST {path} was recorded, and was not asked for")));
    let made = create(&client, "a", "1").await.expect("that was recorded");
    assert!(made.metadata.uid.is_some());
    assert_eq!(told(create(&client, "a", "1").await.unwrap_err()), expected[3]);
    let Err(ReplayError::Otherwise { unknown, unasked }) = replay.check() else { panic!() };
    assert_eq!((unknown, unasked), (expected.to_vec(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn secrets_are_not_written_down() {
    let (cluster, recorder, client, file) = recorded().await;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let secret = json!({"metadata": {"name": "door"}, "stringData": {"code": "hunter2"}});
    let secret: Secret = serde_json::from_value(secret).expect("a Secret");
    secrets.create(&PostParams::default(), &secret).await.expect("it is created");
    let more = json!({"data": {"more": "aHVudGVyMg=="}});
    let patch = PatchParams::default();
    secrets.patch("door", &patch, &Patch::Merge(more)).await.expect("it is patched");
    assert_eq!(secrets.list(&ListParams::default()).await.expect("a list").items.len(), 1);
    let events = secrets.watch(&WatchParams::default(), "0").await.expect("a watch");
    pin_mut!(events);
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let exists = cluster.expect(&accounts, "default").to("exist", |account| account.is_some());
    exists.await;
    let asked = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec!["door".into()]),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = accounts.create_token_request("default", &PostParams::default(), &asked).await;
    let token = made.expect("a token").status.expect("a status").token.expect("a token");
    let request = Request::get("/version").header(header::AUTHORIZATION, "Bearer hunter2");
    client.send(request.body(Vec::new().into()).expect("a request")).await.expect("an answer");
    recorder.finish().expect("it is written");

    let written = file.text();
    for secret in ["hunter2", "aHVudGVyMg", &token, "uthorization"] {
        assert!(!written.contains(secret), "{secret} is in {written}");
    }
    assert!(written.contains("door") && written.contains("\"code\"") && token.len() > 100);

    // A write of another secret is alike: nobody knows what was in it.
    let replay = replay(&file);
    let secrets: Api<Secret> = Api::default_namespaced(replay.client());
    let other = json!({"metadata": {"name": "door"}, "stringData": {"code": "swordfish"}});
    let other: Secret = serde_json::from_value(other).expect("a Secret");
    let made = secrets.create(&PostParams::default(), &other).await.expect("that was recorded");
    assert_eq!(made.data.expect("data")["code"].0, b"redacted");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_written_down_for_those_who_say_so() {
    let cluster = testing::cluster().await;
    let file = File::default();
    let recorder = Recorder::with_secrets_to(file.clone());
    let secrets: Api<Secret> = Api::default_namespaced(recorder.client(&cluster.client()));
    let secret = |code: &str| -> Secret {
        let secret = json!({"metadata": {"name": "door"}, "stringData": {"code": code}});
        serde_json::from_value(secret).expect("a Secret")
    };
    secrets.create(&PostParams::default(), &secret("hunter2")).await.expect("it is created");
    recorder.finish().expect("it is written");
    assert!(file.text().contains("hunter2"));
    let secrets: Api<Secret> = Api::default_namespaced(replay(&file).client());
    assert!(secrets.create(&PostParams::default(), &secret("swordfish")).await.is_err());
    let made = secrets.create(&PostParams::default(), &secret("hunter2")).await;
    assert_eq!(made.expect("that was recorded").data.expect("data")["code"].0, b"hunter2");
}

#[tokio::test(start_paused = true)]
async fn a_recording_may_be_cut_off_and_nothing_else() {
    let (_cluster, recorder, client, file) = recorded().await;
    for name in ["a", "b"] {
        create(&client, name, "1").await.expect("it is created");
    }
    recorder.finish().expect("it is written");
    let whole = file.bytes();
    let header = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    for end in 0..=whole.len() {
        let read = Replay::of(&whole[..end]);
        match end < header {
            true => assert!(matches!(read, Err(ReplayError::Version)), "{end}"),
            false => assert!(read.is_ok(), "{end}: {read:?}"),
        }
    }
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
    let cut = Replay::of(&whole[..=last]).expect("a recording");
    create(&cut.client(), "a", "1").await.expect("that was recorded");
    let error = create(&cut.client(), "b", "1").await.unwrap_err().to_string();
    assert!(error.contains("was recorded, but not its answer"), "{error}");

    let foreign = r#"{"recording":{"version":1,"profiles":{}}}"#;
    let newer = r#"{"traffic":{"version":2,"secretData":false}}"#;
    for other in [foreign, newer, "", "not JSON"] {
        assert!(matches!(Replay::of(format!("{other}\n").as_bytes()), Err(ReplayError::Version)));
    }
    let text = file.text();
    let damaged = text.replacen("\"asked\"", "\"askod\"", 1);
    let error = Replay::of(damaged.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("line 2 of the recording: unknown variant `askod`"), "{error}");
    let twice = text.clone() + &text;
    let error = Replay::of(twice.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "line 6 of the recording: a recording begins inside of another");
    let stranger = text.replacen("\"exchange\":1,\"s", "\"exchange\":7,\"s", 1);
    let error = Replay::of(stranger.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "line 5 of the recording: exchange 7 was never asked for");
}

/// When each event of a watch comes, in seconds after its beginning.
async fn times(maps: &Api<ConfigMap>, count: usize, version: &str) -> Vec<(u64, String)> {
    let begun = Instant::now();
    let events = maps.watch(&WatchParams::default(), version).await.expect("a watch");
    let told = events.map_ok(|event| match event {
        WatchEvent::Added(map) => (begun.elapsed().as_secs(), map.metadata.name.unwrap()),
        other => panic!("{other:?}"),
    });
    told.take(count).try_collect().await.expect("events")
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_watch_come_in_their_time_and_never_before_what_led_to_them() {
    let (cluster, recorder, client, file) = recorded().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let version = cluster.revision().to_string();
    let others = cluster.client();
    let write = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        create(&others, "theirs", "1").await.expect("it is created");
        tokio::time::sleep(Duration::from_secs(5)).await;
        create(&client, "mine", "1").await.expect("it is created");
    };
    let then = futures::join!(times(&maps, 2, &version), write).0;
    assert_eq!(then, [(5, "theirs".to_owned()), (10, "mine".to_owned())]);
    recorder.finish().expect("it is written");
    drop(cluster);

    for (mine_after, expected) in [(10, 10), (60, 60), (1, 10)] {
        let replay = replay(&file);
        let maps: Api<ConfigMap> = Api::default_namespaced(replay.client());
        let client = replay.client();
        let write = async {
            tokio::time::sleep(Duration::from_secs(mine_after)).await;
            create(&client, "mine", "1").await.expect("that was recorded");
        };
        let now = futures::join!(times(&maps, 2, &version), write).0;
        assert_eq!(now, [(5, "theirs".to_owned()), (expected, "mine".to_owned())]);
        replay.check().expect("nothing else was asked");
    }
    // Who never writes waits for what followed from it for ever.
    let replay = replay(&file);
    let maps: Api<ConfigMap> = Api::default_namespaced(replay.client());
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, times(&maps, 2, &version)).await.is_err());
    let error = replay.check().unwrap_err().to_string();
    assert_eq!(
        error,
        "POST /api/v1/namespaces/default/configmaps was recorded, and was not asked for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_ends_in_the_replay_and_one_that_is_dropped_goes_on() {
    let (cluster, recorder, client, file) = recorded().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let version = cluster.revision().to_string();
    let short = WatchParams::default().timeout(20);
    let ended = maps.watch(&short, &version).await.expect("a watch");
    let begun = Instant::now();
    assert_eq!(ended.count().await, 0);
    assert_eq!(begun.elapsed().as_secs(), 20);
    create(&cluster.client(), "a", "1").await.expect("it is created");
    assert_eq!(times(&maps, 1, &version).await, [(0, "a".to_owned())]);
    let gone = maps.get("none").await.unwrap_err().to_string();
    recorder.finish().expect("it is written");

    let maps: Api<ConfigMap> = Api::default_namespaced(replay(&file).client());
    let begun = Instant::now();
    assert_eq!(maps.watch(&short, &version).await.expect("a watch").count().await, 0);
    assert_eq!(begun.elapsed().as_secs(), 20);
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, times(&maps, 2, &version)).await.is_err(), "it goes on");
    assert_eq!(maps.get("none").await.unwrap_err().to_string(), gone);
}
