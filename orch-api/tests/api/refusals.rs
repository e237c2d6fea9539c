//! Bad requests: upstream's code, reason and message, and nothing is stored.

use std::{fmt::Write as _, sync::Arc};

use orch_api::ApiServer;
use orch_store::MemoryStore;
use serde_json::{Value, json};

use super::support::{call, json, with_namespace};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";

/// What is sent, and how it is refused: code, reason, message.
type Case<'a> = (&'a str, &'a str, &'a str, (u16, &'a str, &'a str));

/// Sends every case (method and path, content type, body); tells all that differ at once.
async fn check(server: &ApiServer, cases: &[Case<'_>]) {
    let mut wrong = String::new();
    for (request, content_type, body, expected) in cases {
        let (method, path) = request.split_once(' ').unwrap();
        let headers = [("content-type", *content_type)];
        let (code, _, answer) = call(server, method, path, &headers, (*body).to_owned()).await;
        let status: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let found = (code, text("reason"), text("message"));
        if (found.0, &*found.1, &*found.2) != *expected {
            let _ = writeln!(wrong, "{request} {body:.60}\n  {found:?}\n  {expected:?}");
        }
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&json!("Status"), &json!(code)),
            "{request}"
        );
    }
    assert!(wrong.is_empty(), "{wrong}");
}

async fn nothing_is_stored(server: &ApiServer) {
    for path in [MAPS, PODS] {
        let (_, list) = json(server, "GET", path, None).await;
        assert_eq!(list["items"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let server = with_namespace().await;
    let post: &str = &format!("POST {MAPS}");
    let formats =
        "the body of the request was in an unknown format - accepted media types include: ";
    let formats: &str =
        &format!("{formats}{JSON}, application/yaml, application/vnd.kubernetes.protobuf");
    let patches = "the body of the request was in an unknown format - accepted media types include: \
        application/json-patch+json, application/merge-patch+json, \
        application/strategic-merge-patch+json, application/apply-patch+yaml";
    let must = "the object provided is unrecognized (must be of type ConfigMap): ";
    let parse = format!("{must}couldn't get version/kind; json parse error: ");
    let bad = "BadRequest";
    let deep = format!(
        "{{\"metadata\":{{\"name\":\"a\",\"x\":{}1{}}}}}",
        "[".repeat(200),
        "]".repeat(200)
    );
    let deep_yaml = format!("a: {}", "[".repeat(20_000));
    let large = format!("{{\"data\":{{\"x\":\"{}\"}}}}", "y".repeat(3 << 20));
    check(
        &server,
        &[
            (post, JSON, "{", (400, bad, &format!("{parse}EOF while parsing an object at line 1 column 1 ({{)"))),
            (post, JSON, "nonsense", (400, bad, &format!("{parse}expected ident at line 1 column 2 (6e6f6e73656e7365)"))),
            (post, JSON, "", (400, bad, &format!("{parse}unexpected end of JSON input (<empty>)"))),
            (post, JSON, "[]", (400, bad, "the body is not a ConfigMap: expected an object")),
            (post, JSON, "{\"kind\": 7}", (400, bad, "couldn't get version/kind; json parse error: kind must be a string")),
            (post, JSON, &deep, (400, bad, &format!("{parse}recursion limit exceeded at line 1 column 154 ({{\"metadata\":{{\"name\":\"a\",\"x\":[[ ...)"))),
            (post, "application/yaml", "a: [", (400, bad, "the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: unclosed bracket '[' at line 1, column 4 (613a205b)")),
            (post, "application/yaml", &deep_yaml, (400, bad, "the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: recursion limit exceeded at line 1, column 259 (613a205b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b ...)")),
            (post, "application/vnd.kubernetes.protobuf", "k8s\0garbage", (400, bad, "the object provided is unrecognized (must be of type ConfigMap): illegal protobuf message: illegal wire type (6b38730067617262616765)")),
            (post, JSON, &large, (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")),
            (post, "text/html", "{}", (415, "UnsupportedMediaType", formats)),
            (&format!("PATCH {MAPS}/a"), JSON, "{}", (415, "UnsupportedMediaType", patches)),
        ],
    )
    .await;
    nothing_is_stored(&server).await;
}

#[tokio::test]
async fn objects_that_are_not_what_they_should_be() {
    let server = with_namespace().await;
    let post: &str = &format!("POST {MAPS}");
    let pod: &str = &format!("POST {PODS}");
    let bad = "BadRequest";
    check(
        &server,
        &[
            (post, JSON, "{\"kind\":\"Secret\"}", (400, bad, "Secret in version \"v1\" cannot be handled as a ConfigMap: converting v1.Secret to ConfigMap: unknown conversion")),
            (post, JSON, "{\"kind\":\"Novel\"}", (400, bad, "Novel in version \"v1\" cannot be handled as a ConfigMap: no kind \"Novel\" is registered for version \"v1\"")),
            (post, JSON, "{\"apiVersion\":\"apps/v1\"}", (400, bad, "the API version in the data (apps/v1) does not match the expected API version (v1)")),
            (post, JSON, "{\"metadata\":{\"name\":\"a\"},\"data\":7}", (400, bad, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string")),
            (post, JSON, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"}}", (400, bad, "the namespace of the provided object does not match the namespace sent on the request")),
            (post, JSON, "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}", (400, bad, "resourceVersion should not be set on objects to be created")),
            (post, JSON, "{\"metadata\":{}}", (422, "Invalid", "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required")),
            (post, JSON, "{\"metadata\":{\"name\":\"A\"}}", (422, "Invalid", "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')")),
            (pod, JSON, "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":\"x\"}}", (400, bad, "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container")),
            (pod, JSON, "{\"metadata\":{\"name\":\"a\"},\"spec\":{}}", (422, "Invalid", "Pod \"a\" is invalid: spec.containers: Required value")),
            (&format!("{post}?fieldValidation=Strict"), JSON, "{\"metadata\":{\"name\":\"a\"},\"novel\":1,\"novel\":2}", (400, bad, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"novel\"")),
            (&format!("{post}?fieldValidation=Strict"), JSON, "{\"metadata\":{\"name\":\"a\",\"name\":\"a\"},\"novel\":1}", (400, bad, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"novel\", duplicate field \"metadata.name\"")),
            (&format!("{post}?fieldValidation=Strict"), "application/yaml", "metadata: {name: a}\ndata: {}\ndata: {}\n", (400, bad, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: line 3: key \"data\" already set in map")),
            (&format!("{pod}/a/binding"), JSON, "{\"metadata\":{\"namespace\":\"b\"}}", (400, bad, "the namespace of the provided object does not match the namespace sent on the request")),
            (&format!("{pod}/a/eviction"), JSON, "{\"metadata\":{\"name\":\"b\"}}", (400, bad, "name in URL does not match name in Eviction object")),
            (&format!("PUT {MAPS}/a"), JSON, "{\"metadata\":{\"name\":\"b\"}}", (400, bad, "the name of the object (b) does not match the name on the URL (a)")),
            (&format!("PATCH {MAPS}/a"), "application/merge-patch+json", "{}", (404, "NotFound", "configmaps \"a\" not found")),
            (&format!("PATCH {MAPS}/a"), "application/merge-patch+json", "{", (400, bad, "error decoding patch: EOF while parsing an object at line 1 column 1")),
            (&format!("PATCH {MAPS}/a?fieldManager=x"), "application/apply-patch+yaml", "metadata: {name: b}", (400, bad, "apiVersion and kind must be set in an apply patch")),
            (&format!("PATCH {MAPS}/a"), "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap}", (422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")),
        ],
    )
    .await;
    nothing_is_stored(&server).await;
}

#[tokio::test]
async fn parameters_that_make_no_sense() {
    let server = with_namespace().await;
    let bad = "BadRequest";
    let get = |query: &str| format!("GET {MAPS}?{query}");
    let post = |query: &str| format!("POST {MAPS}?{query}");
    let delete = format!("DELETE {MAPS}/a");
    let map = "{\"metadata\":{\"name\":\"a\"}}";
    check(
        &server,
        &[
            (&get("limit=x"), "", "", (400, bad, "strconv.ParseInt: parsing \"x\": invalid syntax (parameter limit)")),
            (&get("watch=1&timeoutSeconds=x"), "", "", (400, bad, "strconv.ParseInt: parsing \"x\": invalid syntax (parameter timeoutSeconds)")),
            (&get("labelSelector=a%20b"), "", "", (400, bad, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            (&get("labelSelector=a%3D%3D%3Db"), "", "", (400, bad, "unable to parse requirement: found '=', expected: identifier")),
            (&get("fieldSelector=data.x%3D1"), "", "", (400, bad, "field label not supported: data.x")),
            (&get("fieldSelector=nonsense"), "", "", (400, bad, "invalid selector: 'nonsense'; can't understand 'nonsense'")),
            (&get("resourceVersion=x"), "", "", (422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax")),
            (&get("resourceVersion=999999&resourceVersionMatch=Exact"), "", "", (504, "Timeout", "Timeout: Too large resource version: 999999, current: 2")),
            (&get("resourceVersionMatch=Exact"), "", "", (422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")),
            (&get("resourceVersion=1&resourceVersionMatch=x"), "", "", (422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"")),
            (&get("continue=x"), "", "", (400, bad, "continue key is not valid: Invalid input length: 1")),
            (&get("continue=e30&resourceVersion=5"), "", "", (400, bad, "specifying resource version is not allowed when using continue")),
            (&get("watch=1&sendInitialEvents=1"), "", "", (422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless allowWatchBookmarks is set to true")),
            (&post("dryRun=x"), JSON, map, (422, "Invalid", "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"x\": supported values: \"All\"")),
            (&post("fieldValidation=x"), JSON, map, (422, "Invalid", "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"")),
            (&post(&format!("fieldManager={}", "x".repeat(129))), JSON, map, (422, "Invalid", "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes")),
            (&delete, JSON, "{\"propagationPolicy\":\"x\"}", (422, "Invalid", "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"x\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"")),
            (&delete, JSON, "{\"propagationPolicy\":\"Orphan\",\"orphanDependents\":true}", (422, "Invalid", "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set")),
            (&delete, JSON, "{\"gracePeriodSeconds\":\"x\"}", (400, bad, "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64")),
            (&delete, JSON, "{\"kind\":\"Pod\"}", (400, bad, "decoded object cannot be converted to DeleteOptions: Pod")),
            (&delete, JSON, "{}", (404, "NotFound", "configmaps \"a\" not found")),
        ],
    )
    .await;
    nothing_is_stored(&server).await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let server = with_namespace().await;
    let nowhere = (404, "NotFound", "the server could not find the requested resource");
    let no_method = (
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    );
    check(
        &server,
        &[
            ("GET /api/v1/novels", "", "", nowhere),
            ("GET /api/v2/pods", "", "", nowhere),
            ("GET /apis/extensions/v1beta1/deployments", "", "", nowhere),
            ("GET /apis/apps/v1/pods", "", "", nowhere),
            ("GET /nowhere", "", "", nowhere),
            ("GET /api/v1/pods/a", "", "", nowhere),
            ("GET /api/v1/namespaces/default/nodes", "", "", nowhere),
            (&format!("GET {PODS}/a/novel"), "", "", nowhere),
            (&format!("GET {PODS}/a/log/b/c"), "", "", nowhere),
            (&format!("GET {PODS}/a"), "", "", (404, "NotFound", "pods \"a\" not found")),
            (&format!("PUT {PODS}"), JSON, "{}", no_method),
            (&format!("PATCH {PODS}"), "application/merge-patch+json", "{}", no_method),
            (&format!("POST {PODS}/a"), JSON, "{}", no_method),
            (&format!("TRACE {PODS}"), "", "", no_method),
            ("DELETE /api/v1/namespaces", "", "", no_method),
            (&format!("GET {PODS}/a/binding"), "", "", no_method),
            (&format!("DELETE {PODS}/a/status"), "", "", no_method),
            (
                "GET /api/v1/componentstatuses/none",
                "",
                "",
                (404, "NotFound", "componentstatuses \"none\" not found"),
            ),
        ],
    )
    .await;
    nothing_is_stored(&server).await;
}

#[tokio::test]
async fn namespaces_that_do_not_exist() {
    let store = Arc::new(MemoryStore::default());
    let server = ApiServer::builder(store).default_admission().build();
    let (path, body) =
        ("POST /api/v1/namespaces/none/configmaps", "{\"metadata\":{\"name\":\"a\"}}");
    let refusal = (404, "NotFound", "namespaces \"none\" not found");
    check(&server, &[(path, JSON, body, refusal)]).await;
}

#[tokio::test]
async fn forms_that_cannot_be_given() {
    let server = with_namespace().await;
    let get = async |path: &str, accept: &str| {
        let (code, _, body) = call(&server, "GET", path, &[("accept", accept)], "").await;
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    };
    let known = "only the following media types are accepted: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf";
    assert_eq!(get(MAPS, "text/html").await, (406, known.to_owned()));
    assert_eq!(get(MAPS, "application/json;as=Novel;v=v1;g=meta.k8s.io").await.0, 406);
    assert_eq!(get(MAPS, "text/html, */*").await.0, 200);
}

#[tokio::test]
async fn a_negative_grace_period_keeps_the_other_options() {
    let server = with_namespace().await;
    let map = json!({"metadata": {"name": "a"}});
    assert_eq!(json(&server, "POST", MAPS, Some(map)).await.0, 201);
    let options = json!({"gracePeriodSeconds": -1, "preconditions": {"uid": "another"}});
    let (code, answer) = json(&server, "DELETE", &format!("{MAPS}/a"), Some(options)).await;
    assert_eq!((code, &answer["reason"]), (409, &json!("Conflict")));
    let options = json!({"gracePeriodSeconds": -1, "dryRun": ["All"]});
    assert_eq!(json(&server, "DELETE", &format!("{MAPS}/a"), Some(options)).await.0, 200);
    assert_eq!(json(&server, "GET", &format!("{MAPS}/a"), None).await.0, 200);
}
