//! Priority and fairness.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use orch_api::{
    ApiServer, Bootstrap,
    admission::{Admission, AdmissionRequest},
    auth::{StaticTokens, UserInfo},
    flow::{FlowControl, FlowOptions},
};
use orch_core::{
    ApiError, Client, Environment, Resources,
    client::{DeleteOptions, ListOptions, PatchKind},
    informer::{Informers, Watchable},
};
use orch_store::MemoryStore;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::support::call;

/// Lets writes pass as often as it is told to.
#[derive(Debug)]
struct Gate(Semaphore);

#[async_trait]
impl Admission for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        if request.is_for("", "configmaps") {
            self.0.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

struct Fixture {
    server: ApiServer,
    client: Arc<dyn Client>,
    gate: Arc<Gate>,
    _informers: Informers,
}

async fn fixture(options: FlowOptions) -> Fixture {
    let store = Arc::new(MemoryStore::default());
    let client = ApiServer::new(store.clone()).client(UserInfo::master("test"));
    let informers = Informers::new(client.clone(), Environment::system());
    let flow = FlowControl::new(&informers, options);
    let tokens = StaticTokens::new()
        .with("root", UserInfo::master("root"))
        .with("ann", UserInfo::authenticated("ann", &["dev"]))
        .with("bob", UserInfo::authenticated("bob", &["dev"]));
    let gate = Arc::new(Gate(Semaphore::new(0)));
    let server = ApiServer::builder(store)
        .authenticator(Arc::new(tokens))
        .admission(gate.clone())
        .flow_control(flow.clone())
        .build();
    server.bootstrap(&Bootstrap::default()).await.unwrap();
    flow.synced().await;
    let fixture = Fixture { server, client, gate, _informers: informers };
    fixture
        .until(|schema: &FlowSchema| schema.metadata.name.as_deref() == Some("global-default"))
        .await;
    fixture
}

impl Fixture {
    /// Waits until an object of the kind is as it should be.
    async fn until<K: Watchable>(&self, done: impl Fn(&K) -> bool) -> Arc<K> {
        loop {
            if let Some(found) = self.all::<K>().await.into_iter().find(|one| done(one)) {
                return found;
            }
            moment().await;
        }
    }

    async fn all<K: Watchable>(&self) -> Vec<Arc<K>> {
        let resources: Resources<K> = Resources::all(self.client.clone());
        resources.list(ListOptions::default()).await.unwrap()
    }

    async fn ask(&self, token: &str, request: &str, body: &str) -> (u16, http::HeaderMap, String) {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        call(&self.server, request, &headers, body).await
    }
}

fn named<'a, K>(all: &'a [Arc<K>], name: &str, of: impl Fn(&K) -> Option<&str>) -> &'a Arc<K> {
    all.iter().find(|one| of(one) == Some(name)).unwrap()
}

/// Lets others work; where time is virtual, it passes.
async fn moment() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn what_every_cluster_has_is_made_and_kept() {
    let fixture = fixture(FlowOptions::default()).await;
    let schemas: Resources<FlowSchema> = Resources::all(fixture.client.clone());
    let priorities: Resources<PriorityLevelConfiguration> = Resources::all(fixture.client.clone());
    let dangling = |schema: &FlowSchema| {
        let conditions = schema.status.as_ref()?.conditions.as_ref()?;
        let one = conditions.iter().find(|one| one.type_.as_deref() == Some("Dangling"))?;
        one.status.clone()
    };
    let is = |name: &'static str| {
        move |schema: &FlowSchema| schema.metadata.name.as_deref() == Some(name)
    };
    let found = fixture
        .until(|schema| is("catch-all")(schema) && dangling(schema).as_deref() == Some("False"))
        .await;
    let condition = &found.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!(
        condition.message.as_deref(),
        Some(
            "This FlowSchema references the PriorityLevelConfiguration object named \"catch-all\" \
             and it exists"
        )
    );
    assert_eq!(fixture.all::<FlowSchema>().await.len(), 11);
    assert_eq!(fixture.all::<PriorityLevelConfiguration>().await.len(), 8);

    let uid = found.metadata.uid.clone();
    schemas.delete("catch-all", DeleteOptions::default()).await.unwrap();
    fixture.until(|schema| is("catch-all")(schema) && schema.metadata.uid != uid).await;
    let wrong = json!({"spec": {"matchingPrecedence": 7}});
    schemas.patch("exempt", PatchKind::Merge, wrong).await.unwrap();
    fixture
        .until(|schema: &FlowSchema| {
            let precedence = schema.spec.as_ref().unwrap().matching_precedence;
            is("exempt")(schema) && precedence == Some(1)
        })
        .await;
    // Who takes a suggested object over keeps it.
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"limited": {"nominalConcurrencyShares": 77}}});
    priorities.patch("system", PatchKind::Merge, own).await.unwrap();
    let nowhere: FlowSchema = serde_json::from_value(json!({"metadata": {"name": "nowhere"},
        "spec": {"priorityLevelConfiguration": {"name": "missing"}}}))
    .unwrap();
    schemas.create(&nowhere).await.unwrap();
    fixture
        .until(|schema| is("nowhere")(schema) && dangling(schema).as_deref() == Some("True"))
        .await;
    let system = priorities.get("system").await.unwrap();
    let limited = system.spec.as_ref().unwrap().limited.as_ref().unwrap();
    assert_eq!(limited.nominal_concurrency_shares, Some(77));
}

#[tokio::test]
async fn answers_tell_where_a_request_was_sorted_to() {
    let fixture = fixture(FlowOptions::default()).await;
    let check = async |token: &str, path: &str, schema: &str, level: &str| {
        let schemas = fixture.all::<FlowSchema>().await;
        let schema = named(&schemas, schema, |one| one.metadata.name.as_deref());
        let levels = fixture.all::<PriorityLevelConfiguration>().await;
        let level = named(&levels, level, |one| one.metadata.name.as_deref());
        let wanted = [&schema.metadata.uid, &level.metadata.uid].map(|uid| uid.clone().unwrap());
        loop {
            let (_, headers, _) = fixture.ask(token, &format!("GET {path}"), "").await;
            let text = |name: &str| headers[name].to_str().unwrap().to_owned();
            let found =
                [text("x-kubernetes-pf-flowschema-uid"), text("x-kubernetes-pf-prioritylevel-uid")];
            if found == wanted {
                return;
            }
            // Until the configuration that was just made is taken in, the last resort serves.
            moment().await;
        }
    };
    check("root", MAPS, "exempt", "exempt").await;
    check("ann", MAPS, "global-default", "global-default").await;
    check("ann", "/livez", "probes", "exempt").await;
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_seat_waits_or_is_told_to_come_again() {
    let fixture = Arc::new(fixture(FlowOptions { seats: 3, ..FlowOptions::default() }).await);
    let make = |path: &'static str, body: Value| {
        let fixture = fixture.clone();
        async move {
            let path = format!("POST /apis/flowcontrol.apiserver.k8s.io/v1/{path}");
            let (code, _, answer) = fixture.ask("root", &path, &body.to_string()).await;
            assert_eq!(code, 201, "{answer}");
            serde_json::from_str::<Value>(&answer).unwrap()["metadata"]["uid"].clone()
        }
    };
    // So many shares that nearly every seat is this level's.
    let level = |response: Value| {
        json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
            "limitResponse": response}}})
    };
    let uid = make("prioritylevelconfigurations", level(json!({"type": "Reject"}))).await;
    make(
        "flowschemas",
        json!({"metadata": {"name": "narrow"}, "spec": {"matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "narrow"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "namespaces": ["*"]}]}]}}),
    )
    .await;
    let level_of = async || {
        let (_, headers, _) = fixture.ask("ann", &format!("GET {MAPS}"), "").await;
        headers["x-kubernetes-pf-prioritylevel-uid"].to_str().unwrap().to_owned()
    };
    while level_of().await != uid.as_str().unwrap() {
        moment().await;
    }
    let post = |name: &'static str, token: &'static str| {
        let fixture = fixture.clone();
        tokio::spawn(async move {
            let body = json!({"metadata": {"name": name}}).to_string();
            fixture.ask(token, &format!("POST {MAPS}"), &body).await
        })
    };
    // The one seat of the level is taken by a request that admission holds.
    let first = post("a", "ann");
    moment().await;
    let (code, headers, body) = fixture.ask("ann", &format!("GET {MAPS}"), "").await;
    assert_eq!((code, headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(body, "Too many requests, please try again later.\n");
    assert_eq!(fixture.ask("bob", &format!("GET {MAPS}"), "").await.0, 200);
    fixture.gate.0.add_permits(1);
    assert_eq!(first.await.unwrap().0, 201);
    assert_eq!(fixture.ask("ann", &format!("GET {MAPS}"), "").await.0, 200);

    let queue = json!({"spec": {"limited": {"limitResponse": {"type": "Queue",
        "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 10}}}}});
    let priorities: Resources<PriorityLevelConfiguration> = Resources::all(fixture.client.clone());
    priorities.patch("narrow", PatchKind::Merge, queue).await.unwrap();
    let first = post("b", "ann");
    moment().await;
    // Once the change is taken in, nobody is refused at once: who waits is refused in the end.
    let waited = loop {
        let began = tokio::time::Instant::now();
        let (code, ..) = fixture.ask("ann", &format!("GET {MAPS}"), "").await;
        if began.elapsed().as_secs() > 0 {
            assert_eq!(code, 429);
            break began.elapsed().as_secs();
        }
        moment().await;
    };
    assert_eq!(waited, 15);
    let second = post("c", "ann");
    moment().await;
    fixture.gate.0.add_permits(2);
    assert_eq!((first.await.unwrap().0, second.await.unwrap().0), (201, 201));
}
