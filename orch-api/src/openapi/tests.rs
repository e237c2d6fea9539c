use super::*;

fn endpoint(group: &str, plural: &str, kind: &str, verbs: &[&str]) -> Endpoint {
    Endpoint {
        group: group.into(),
        version: "v1".into(),
        plural: plural.into(),
        subresource: None,
        namespaced: true,
        kind: (group.into(), "v1".into(), kind.into()),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        schema: None,
    }
}

fn open_api() -> OpenApi {
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let pods = endpoint("", "pods", "Pod", &all);
    let log =
        Endpoint { subresource: Some("log".into()), verbs: vec!["get".into()], ..pods.clone() };
    OpenApi::new([pods, log, endpoint("apps", "deployments", "Deployment", &all)])
}

fn body(api: &OpenApi, path: &str) -> Value {
    serde_json::from_slice(&api.respond(path, "application/json").unwrap().body).unwrap()
}

#[test]
fn the_index_leads_to_the_documents() {
    let api = open_api();
    let index = body(&api, "/openapi/v3");
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    let document = body(&api, url.split('?').next().unwrap());
    assert_eq!(document["openapi"], "3.0.0");
    assert!(api.respond("/openapi/v3/apis/nothing/v1", "").is_none());
    assert!(api.respond("/openapi/v4", "").is_none());
}

/// What kubectl looks for before it lets the server validate fields.
#[test]
fn patches_say_that_they_validate_fields() {
    let document = body(&open_api(), "/openapi/v3/apis/apps/v1");
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    let patch = &document["paths"][path]["patch"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
}

#[test]
fn schemas_are_complete_and_described() {
    let document = body(&open_api(), "/openapi/v3/api/v1");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &spec["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().unwrap().contains("List of containers"));
    let kinds = &schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"];
    assert_eq!(*kinds, json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let mut stack = vec![&document];
    while let Some(value) = stack.pop() {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            let name = target.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.contains_key(name), "{target}");
        }
        match value {
            Value::Object(map) => stack.extend(map.values()),
            Value::Array(list) => stack.extend(list),
            _ => {}
        }
    }
}

#[test]
fn version_two_comes_in_both_encodings() {
    let api = open_api();
    let document = body(&api, "/openapi/v2");
    let log = "/api/v1/namespaces/{namespace}/pods/{name}/log";
    assert!(document["paths"][log]["get"].is_object());
    assert!(document["definitions"]["io.k8s.api.core.v1.PodList"].is_object());
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf,application/json";
    let protobuf = api.respond("/openapi/v2", accept).unwrap();
    assert_eq!(protobuf.content_type, V2_PROTOBUF);
    // swagger = "2.0", then the message `info`.
    assert!(protobuf.body.starts_with(b"\x0a\x032.0\x12"), "{:?}", &protobuf.body[..8]);
    assert_ne!(protobuf.etag, api.respond("/openapi/v2", "*/*").unwrap().etag);
}
