//! What the server says that it serves.

use std::{fs, path::Path, sync::Arc};

use orch_api::{ApiServer, ApiVersions, ServerOptions};
use orch_store::MemoryStore;
use serde_json::Value;

use super::support::{call, json, server};

/// Lists whose order means nothing, sorted by name; what an address or a build decides, left out.
fn comparable(mut value: Value) -> Value {
    fn visit(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(visit);
                if items.iter().all(|item| item.get("resource").or(item.get("name")).is_some()) {
                    items.sort_by_key(|item| {
                        item.get("resource").or(item.get("name")).map(Value::to_string)
                    });
                }
            }
            Value::Object(fields) => {
                fields.remove("serverAddressByClientCIDRs");
                fields.values_mut().for_each(visit);
            }
            _ => {}
        }
    }
    visit(&mut value);
    value
}

#[tokio::test]
async fn documents_equal_upstreams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/upstream/discovery");
    if !folder.exists() {
        eprintln!("skipped: {} is not here to compare with", folder.display());
        return;
    }
    let options = ServerOptions { api_versions: ApiVersions::All, ..ServerOptions::default() };
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).options(options).build();
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let expected: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        let stem = name.strip_suffix(".json").unwrap();
        let found = if stem == "aggregated_v2" {
            let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let (code, headers, body) =
                call(&server, "GET", "/apis", &[("accept", accept)], "").await;
            assert_eq!((code, &headers["content-type"]), (200, &accept.parse().unwrap()));
            serde_json::from_slice(&body).unwrap()
        } else {
            json(&server, "GET", &format!("/{}", stem.replace("__", "/")), None).await.1
        };
        let (found, expected) = (comparable(found), comparable(expected));
        assert!(found == expected, "{name}:\n{found:#}\nexpected\n{expected:#}");
        compared += 1;
    }
    assert!(compared > 50, "only {compared} documents were compared");
}

/// Where kubectl looks first for a resource that two groups have is decided by this order.
#[tokio::test]
async fn groups_and_versions_come_in_upstreams_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/upstream/discovery");
    if !folder.exists() {
        eprintln!("skipped: {} is not here to compare with", folder.display());
        return;
    }
    let options = ServerOptions { api_versions: ApiVersions::All, ..ServerOptions::default() };
    let server = ApiServer::builder(Arc::new(MemoryStore::default())).options(options).build();
    let expected: Value =
        serde_json::from_slice(&fs::read(folder.join("apis.json")).unwrap()).unwrap();
    let found = json(&server, "GET", "/apis", None).await.1;
    let order = |list: &Value| -> Vec<String> {
        let groups = list["groups"].as_array().unwrap();
        let versions = groups.iter().flat_map(|group| group["versions"].as_array().unwrap());
        versions.map(|one| one["groupVersion"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(order(&found), order(&expected));
    let aggregated = fs::read(folder.join("aggregated_v2.json")).unwrap();
    let expected: Value = serde_json::from_slice(&aggregated).unwrap();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, _, body) = call(&server, "GET", "/apis", &[("accept", accept)], "").await;
    let found: Value = serde_json::from_slice(&body).unwrap();
    let order = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of = |item: &Value| {
            let group = text(&item["metadata"]["name"]);
            let versions = item["versions"].as_array().unwrap();
            versions.iter().map(|v| format!("{group}/{}", text(&v["version"]))).collect::<Vec<_>>()
        };
        items.iter().flat_map(of).collect()
    };
    assert_eq!(order(&found), order(&expected));
}

#[tokio::test]
async fn only_stable_versions_are_served_by_default() {
    let server = server();
    assert_eq!(json(&server, "GET", "/apis/networking.k8s.io/v1beta1", None).await.0, 404);
    assert_eq!(json(&server, "GET", "/apis/networking.k8s.io/v1", None).await.0, 200);
    assert_eq!(json(&server, "GET", "/apis/storagemigration.k8s.io", None).await.0, 404);
}

#[tokio::test]
async fn version_and_health_answer() {
    let server = server();
    let (code, version) = json(&server, "GET", "/version", None).await;
    assert_eq!((code, version["minor"].as_str()), (200, Some("36")));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        let (code, _, body) = call(&server, "GET", path, &[], "").await;
        assert_eq!((code, &body[..]), (200, &b"ok"[..]), "{path}");
    }
    let (_, _, body) = call(&server, "GET", "/readyz?verbose", &[], "").await;
    assert!(body.ends_with(b"readyz check passed\n"));
    let (code, status) = json(&server, "GET", "/nowhere", None).await;
    let message = "the server could not find the requested resource";
    assert_eq!((code, status["message"].as_str()), (404, Some(message)));
}
