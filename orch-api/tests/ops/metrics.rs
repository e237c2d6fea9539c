//! `/metrics`.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use orch_api::{ApiServer, Bootstrap, metrics::Metrics};
use orch_store::MemoryStore;
use prometheus_client::metrics::counter::Counter;
use tower::ServiceExt as _;

use super::support::{call, get};

/// The samples of a text: name and labels, value.
fn samples(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).collect()
}

async fn server() -> (ApiServer, Metrics) {
    let metrics = Metrics::new();
    let server = ApiServer::builder(Arc::new(MemoryStore::default()))
        .default_admission()
        .metrics(metrics.clone())
        .build();
    server.bootstrap(&Bootstrap::default()).await.unwrap();
    (server, metrics)
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn requests_are_counted_under_upstreams_names() {
    let (server, _) = server().await;
    let json = [("content-type", "application/json")];
    let map = r#"{"metadata":{"name":"a"}}"#;
    assert_eq!(call(&server, &format!("POST {MAPS}"), &json, map).await.0, 201);
    assert_eq!(call(&server, &format!("POST {MAPS}?dryRun=All"), &json, map).await.0, 409);
    assert_eq!(get(&server, MAPS).await.0, 200);
    assert_eq!(get(&server, &format!("{MAPS}/b")).await.0, 404);
    assert_eq!(get(&server, "/api/v1/namespaces/default/whatever").await.0, 404);
    let (code, text) = get(&server, "/metrics").await;
    assert_eq!(code, 200);
    let samples = samples(&text);
    let check = |sample: &str, value: &str| {
        assert_eq!(samples.get(sample), Some(&value), "{sample}\n{text}");
    };
    let rest = "group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\"";
    check(
        &format!(
            "apiserver_request_total{{verb=\"POST\",dry_run=\"\",{rest},scope=\"namespace\",\
             component=\"apiserver\",code=\"201\"}}"
        ),
        "1",
    );
    check(
        &format!(
            "apiserver_request_total{{verb=\"POST\",dry_run=\"All\",{rest},scope=\"namespace\",\
             component=\"apiserver\",code=\"409\"}}"
        ),
        "1",
    );
    check(
        &format!(
            "apiserver_request_total{{verb=\"GET\",dry_run=\"\",{rest},scope=\"resource\",\
             component=\"apiserver\",code=\"404\"}}"
        ),
        "1",
    );
    check(
        &format!(
            "apiserver_request_duration_seconds_count{{verb=\"LIST\",dry_run=\"\",{rest},\
             scope=\"namespace\",component=\"apiserver\"}}"
        ),
        "1",
    );
    check("apiserver_storage_objects{resource=\"configmaps\"}", "1");
    check("apiserver_resource_objects{group=\"apps\",resource=\"deployments\"}", "0");
    check("apiserver_current_inflight_requests{request_kind=\"readOnly\"}", "1");
    check("apiserver_current_inflight_requests{request_kind=\"mutating\"}", "0");
    assert!(!text.contains("whatever"), "anybody could make up names");
    assert!(text.contains("# TYPE apiserver_request_total counter\n"), "{text}");
    for name in [
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"LimitRanger\",\
         operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",\
         rejected=\"false\",type=\"validate\"} ",
        "etcd_request_duration_seconds_count{operation=\"create\",group=\"\",\
         resource=\"configmaps\"} ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
}

#[tokio::test]
async fn watches_run_until_they_are_dropped() {
    let (server, metrics) = server().await;
    let gauge = "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",\
                 resource=\"configmaps\",subresource=\"\",scope=\"namespace\",\
                 component=\"apiserver\"}";
    let request = http::Request::get(format!("{MAPS}?watch=true"));
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let json = [("content-type", "application/json")];
    let map = r#"{"metadata":{"name":"a"}}"#;
    assert_eq!(call(&server, &format!("POST {MAPS}"), &json, map).await.0, 201);
    let mut events = response.into_body().into_data_stream();
    events.next().await.unwrap().unwrap();
    let text = metrics.encode(false);
    assert_eq!(samples(&text)[gauge], "1");
    let told = "apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"configmaps\"}";
    assert_eq!(samples(&text)[told], "1", "{text}");
    drop(events);
    assert_eq!(samples(&metrics.encode(false))[gauge], "0");
}

#[tokio::test]
async fn applications_add_their_own_and_choose_the_format() {
    let (server, metrics) = server().await;
    let own: Counter = Counter::default();
    metrics.register(|registry| registry.register("own", "Mine.", own.clone()));
    own.inc_by(7);
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.1")];
    let (_, headers, text) = call(&server, "GET /metrics", &accept, "").await;
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(text.contains("# TYPE own counter\nown_total 7\n"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    let without = ApiServer::new(Arc::new(MemoryStore::default()));
    assert_eq!(get(&without, "/metrics").await.0, 404);
}
