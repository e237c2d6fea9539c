//! What goes wrong on demand, as an operator that uses a `kube::Client` meets it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchParams},
    core::WatchEvent,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action},
        reflector::{self, Store},
        utils::Backoff,
        watcher,
    },
};
use orch::testing::{self, Calls, Fault, FaultRates, Faults, TestCluster};
use tokio::time::Instant;

use crate::world::config_map;

async fn api_only(seed: u64) -> TestCluster {
    testing::cluster().seed(seed).api_only().await
}

fn maps(faults: &Faults) -> Api<ConfigMap> {
    Api::default_namespaced(faults.client())
}

fn map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

/// The code that the API answered with; `None` if it did not answer.
fn code(error: kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::Service(_) => None,
        other => panic!("neither an answer nor a broken connection: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_fail_as_they_do_in_the_field() {
    let cluster = api_only(1).await;
    let faults = cluster.faults();
    let (theirs, ours) = (maps(&faults), Api::<ConfigMap>::default_namespaced(cluster.client()));
    let all = [
        (Fault::Conflict, Some(409), false),
        (Fault::TooManyRequests, Some(429), false),
        (Fault::InternalError, Some(500), false),
        (Fault::Unavailable, Some(503), false),
        (Fault::TimeoutBefore, Some(504), false),
        (Fault::TimeoutAfter, Some(504), true),
        (Fault::TransportBefore, None, false),
        (Fault::TransportAfter, None, true),
    ];
    for (number, (fault, expected, carried_out)) in all.into_iter().enumerate() {
        let name = format!("map-{number}");
        faults.next(Calls::creates().of::<ConfigMap>().named(&name)).fails_with(fault);
        let created = theirs.create(&PostParams::default(), &map("another")).await;
        created.expect("another object is not meant");
        let error = theirs.create(&PostParams::default(), &map(&name)).await.unwrap_err();
        assert_eq!(code(error), expected, "{fault:?}");
        let there = ours.get_opt(&name).await.unwrap().is_some();
        assert_eq!(there, carried_out, "{fault:?}");
        let again = theirs.create(&PostParams::default(), &map(&name)).await;
        assert_eq!(again.is_ok(), !carried_out, "{fault:?} befalls one call only: {again:?}");
        ours.delete("another", &DeleteParams::default()).await.unwrap();
    }
    assert_eq!(faults.injected(), all.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn overload_says_when_to_come_back() {
    let cluster = api_only(2).await;
    let faults = cluster.faults();
    faults.every(Calls::lists()).times(2).fails_with(Fault::TooManyRequests);
    let request = || http::Request::get("/api/v1/configmaps").body(kube::client::Body::empty());
    for expected in [429, 429, 200] {
        let answer = faults.client().send(request().unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
        let after = answer.headers().get(http::header::RETRY_AFTER);
        assert_eq!(after.map(|after| after.as_bytes()), (expected == 429).then_some(&b"1"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_write_is_overtaken() {
    let cluster = api_only(3).await;
    let ours = config_map(&cluster, "settings", "first").await;
    let faults = cluster.faults();
    let theirs = maps(&faults);
    let held = faults.hold(Calls::updates().of::<ConfigMap>().named("settings"));
    let write = tokio::spawn(async move {
        let read = theirs.get("settings").await.unwrap();
        theirs.replace("settings", &PostParams::default(), &read).await
    });
    held.reached().await;
    let mut faster = ours.get("settings").await.unwrap();
    faster.data = Some(BTreeMap::from([("key".to_owned(), "second".to_owned())]));
    ours.replace("settings", &PostParams::default(), &faster).await.unwrap();
    held.release();
    let error = write.await.unwrap().unwrap_err();
    assert_eq!(code(error), Some(409));
    assert_eq!(faults.injected(), 0, "the server itself says so");
}

#[tokio::test(start_paused = true)]
async fn watches_are_dropped_and_expire() {
    let cluster = api_only(4).await;
    config_map(&cluster, "one", "").await;
    let faults = cluster.faults();
    let theirs = maps(&faults);
    let watch = || async {
        let events = theirs.watch(&WatchParams::default(), "0").await.unwrap();
        let mut events = events.boxed();
        let first = events.try_next().await.unwrap().unwrap();
        assert!(matches!(first, WatchEvent::Added(_)), "{first:?}");
        events
    };
    let mut events = watch().await;
    faults.drop_watches(Calls::all().of::<Secret>());
    faults.drop_watches(Calls::all().of::<ConfigMap>());
    events.try_next().await.expect_err("the connection breaks");
    assert_eq!(faults.injected(), 1, "nobody watches secrets");

    let mut events = watch().await;
    faults.expire_watches(Calls::watches());
    let last = events.try_next().await.unwrap().unwrap();
    assert!(matches!(&last, WatchEvent::Error(status) if status.code == 410), "{last:?}");
    assert!(events.next().await.is_none(), "that was the end");

    let mut events = watch().await;
    faults.cut();
    events.try_next().await.expect_err("the connection breaks");
    let start = Instant::now();
    assert_eq!(code(theirs.get("one").await.unwrap_err()), None);
    assert!(start.elapsed() > Duration::ZERO, "it hung for a while");
    faults.mend();
    theirs.get("one").await.unwrap();
    drop(watch().await);
}

/// What a reflector believes.
fn reflected<K>(api: Api<K>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    store
}

fn names<K>(store: &Store<K>) -> Vec<String>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    let mut names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn a_cache_stays_behind_while_watches_stand_still() {
    let cluster = api_only(5).await;
    let faults = cluster.faults();
    let store = reflected(maps(&faults));
    store.wait_until_ready().await.unwrap();
    config_map(&cluster, "one", "").await;
    cluster.advance(Duration::from_secs(1)).await;
    assert_eq!(names(&store), ["one"]);

    faults.freeze_watches(Calls::all().of::<ConfigMap>());
    config_map(&cluster, "two", "").await;
    cluster.advance(Duration::from_secs(200)).await;
    assert_eq!(names(&store), ["one"], "it does not know better");
    assert_eq!(maps(&faults).list(&ListParams::default()).await.unwrap().items.len(), 2);
    faults.resume_watches();
    cluster.advance(Duration::from_secs(1)).await;
    assert_eq!(names(&store), ["one", "two"]);

    faults.stall_watches(Calls::all(), Duration::from_secs(100));
    config_map(&cluster, "three", "").await;
    cluster.advance(Duration::from_secs(99)).await;
    assert_eq!(names(&store), ["one", "two"]);
    cluster.advance(Duration::from_secs(2)).await;
    assert_eq!(names(&store), ["one", "three", "two"]);
}

#[tokio::test(start_paused = true)]
async fn resources_are_told_of_in_another_order() {
    let cluster = api_only(6).await;
    let faults = cluster.faults();
    let maps = reflected(maps(&faults));
    let secrets = reflected::<Secret>(Api::default_namespaced(faults.client()));
    maps.wait_until_ready().await.unwrap();
    secrets.wait_until_ready().await.unwrap();
    faults.delay_watches(Calls::all().of::<ConfigMap>(), Duration::from_secs(20));
    config_map(&cluster, "first", "").await;
    let second = Secret { metadata: map("second").metadata, ..Secret::default() };
    let api: Api<Secret> = Api::default_namespaced(cluster.client());
    api.create(&PostParams::default(), &second).await.unwrap();
    cluster.advance(Duration::from_secs(10)).await;
    assert_eq!((names(&maps), names(&secrets)), (vec![], vec!["second".to_owned()]));
    cluster.advance(Duration::from_secs(11)).await;
    assert_eq!(names(&maps), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn a_cache_begins_with_what_was() {
    let cluster = api_only(8).await;
    config_map(&cluster, "kept", "").await;
    let before = cluster.revision();
    config_map(&cluster, "new", "").await.delete("kept", &Default::default()).await.unwrap();
    let faults = cluster.faults();
    let any = ListParams::default().match_any();
    let list = async |params: &ListParams| {
        let list = maps(&faults).list(params).await.unwrap();
        list.items.iter().map(|map| map.name_any()).collect::<Vec<_>>()
    };
    assert_eq!(list(&any).await, ["new"]);
    faults.stale_lists(Calls::lists().of::<ConfigMap>(), cluster.revision() - before);
    assert_eq!(list(&any).await, ["kept"]);
    assert_eq!(list(&ListParams::default()).await, ["new"], "who wants the newest state has it");

    // Whoever begins with an old list is told by the watch what has happened since.
    let (store, writer) = reflector::store();
    let stream = watcher(maps(&faults), watcher::Config::default().any_semantic()).reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    store.wait_until_ready().await.unwrap();
    cluster.advance(Duration::from_secs(1)).await;
    assert_eq!(names::<ConfigMap>(&store), ["new"]);
    faults.stale_lists(Calls::lists().of::<ConfigMap>(), 0);
    assert_eq!(list(&any).await, ["new"]);
}

/// Writes into each map how often it was there: by a read, and an update that may conflict.
async fn reconcile(map: Arc<ConfigMap>, api: Arc<Api<ConfigMap>>) -> Result<Action, kube::Error> {
    if map.data.as_ref().is_some_and(|data| data.contains_key("seen")) {
        return Ok(Action::await_change());
    }
    let mut map = ConfigMap::clone(&map);
    map.data.get_or_insert_default().insert("seen".to_owned(), "yes".to_owned());
    api.replace(&map.name_any(), &PostParams::default(), &map).await?;
    Ok(Action::await_change())
}

/// Waits as long every time: kube's own back-off draws from a generator without a seed.
struct Steadily;

impl Iterator for Steadily {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }
}

impl Backoff for Steadily {
    fn reset(&mut self) {}
}

/// Runs an operator while everything fails. Gives what it took: the newest revision and the faults.
async fn operate(seed: u64) -> (u64, u64) {
    let cluster = api_only(seed).await;
    let faults = cluster.faults();
    faults.by_chance(FaultRates {
        conflict_permille: 300,
        server_error_permille: 200,
        transport_permille: 200,
        timeout_permille: 100,
        watch_drop_permille: 100,
        expired_permille: 100,
    });
    faults.slow(Duration::from_millis(50));
    let api = maps(&faults);
    let operator = Controller::new(api.clone(), watcher::Config::default());
    // What is reconciled at the same time is polled in the order of a hash map.
    let one_by_one = controller::Config::default().concurrency(1);
    let operator = operator.trigger_backoff(Steadily).with_config(one_by_one).run(
        reconcile,
        |_, _, _| Action::requeue(Duration::from_secs(5)),
        Arc::new(api),
    );
    let operator = tokio::spawn(operator.for_each(|_| async {}));
    let mut ours = None;
    for number in 0..20 {
        let api = config_map(&cluster, &format!("map-{number}"), "").await;
        cluster.advance(Duration::from_secs(10)).await;
        ours = Some(api);
    }
    let seen = |maps: &[ConfigMap]| {
        let seen = |map: &ConfigMap| map.data.as_ref().is_some_and(|d| d.contains_key("seen"));
        maps.len() == 20 && maps.iter().all(seen)
    };
    cluster.expect_all(&ours.unwrap()).to("be seen", seen).await;
    operator.abort();
    (cluster.revision(), faults.injected())
}

#[tokio::test(start_paused = true)]
async fn an_operator_gets_there_while_everything_fails() {
    let (revision, injected) = operate(7).await;
    assert!(injected > 20, "only {injected} faults");
    assert_eq!(operate(7).await, (revision, injected), "one seed is one history");
}
