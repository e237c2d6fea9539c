//! Small inputs that would become large, or take long.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use orch_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{ApiServer, Bootstrap};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const JSON: &str = "application/json";

async fn server() -> ApiServer {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    server.bootstrap(&Bootstrap::default()).await.unwrap();
    server
}

async fn send(
    server: &ApiServer,
    head: &str,
    media_type: &str,
    body: impl Into<Bytes>,
) -> (u16, String) {
    let (method, path) = head.split_once(' ').unwrap();
    let request = http::Request::builder().method(method).uri(path);
    let request = request.header("content-type", media_type).body(Full::new(body.into())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned())
}

/// A list of texts, as many as fill a request.
fn many(bytes: usize, one: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for at in 0.. {
        let item = one(at);
        if text.len() + item.len() + 1 > bytes {
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&item);
    }
    text
}

const FULL: usize = 2_900_000;

#[tokio::test]
async fn bodies_that_grow_are_refused() {
    let server = server().await;
    let post = format!("POST {MAPS}");
    let check = async |media_type: &str, body: String, code: u16| {
        let shown = body[..body.len().min(80)].to_owned();
        let (found, answer) = send(&server, &post, media_type, body).await;
        assert_eq!(found, code, "{shown}: {answer}");
    };
    check(JSON, "[".repeat(FULL), 400).await;
    check(JSON, "{\"a\":".repeat(FULL / 5), 400).await;
    check(JSON, format!("{{\"a\":1{}}}", "0".repeat(FULL)), 400).await;
    check(JSON, format!("{{\"a\":[{}]}}", many(FULL, |_| "{\"\":0}".into())), 413).await;
    check(JSON, "x".repeat(4 << 20), 413).await;
    // One long name before many fields that are given twice.
    let twice = many(FULL / 2, |_| "\"b\":1".into());
    let long = "a".repeat(FULL / 3);
    check(JSON, format!("{{\"metadata\":{{\"name\":\"x\"}},\"{long}\":{{{twice}}}}}"), 201).await;
    let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        writeln!(yaml, "a{level}: &a{level} [{}]", vec![alias; 10].join(", ")).unwrap();
    }
    check("application/yaml", yaml, 400).await;
    check("application/yaml", "[".repeat(FULL), 400).await;
    check("application/yaml", "- ".repeat(FULL / 2), 400).await;
}

#[tokio::test]
async fn what_is_nested_too_deeply_to_be_served_is_not_stored() {
    let server = server().await;
    let definition = super::seeds("schemas").remove(0);
    let end = definition.iter().position(|byte| *byte == super::SEPARATOR).unwrap();
    let post = format!("POST {DEFINITIONS}");
    let (code, answer) = send(&server, &post, JSON, definition[..end].to_vec()).await;
    assert_eq!(code, 201, "{answer}");
    let things = "/apis/fuzz.example.com/v1/namespaces/default/things";
    let thing = |value: String| {
        format!(
            "{{\"apiVersion\":\"fuzz.example.com/v1\",\"kind\":\"Thing\",\"metadata\":\
             {{\"name\":\"x\"}},\"spec\":{{\"n\":1,\"any\":{value}}}}}"
        )
    };
    let nested = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
    let post = format!("POST {things}");
    let (code, answer) = send(&server, &post, "application/yaml", thing(nested(300))).await;
    assert_eq!(code, 400, "{answer}");
    let (code, answer) = send(&server, &post, JSON, thing(nested(100))).await;
    assert_eq!(code, 201, "{answer}");
    // A patch that nests what was stored once more.
    let path = format!("/spec/any{}", "/a".repeat(100));
    let inner: Value = serde_json::from_str(&nested(100)).unwrap();
    let patch = json!([{"op": "replace", "path": path, "value": inner}]);
    let one = format!("PATCH {things}/x");
    let (code, answer) =
        send(&server, &one, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(code, 400, "{answer}");
    let (code, answer) = send(&server, &format!("GET {things}/x"), JSON, "").await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn long_lists_are_merged_and_checked_in_reasonable_time() {
    let server = server().await;
    let pod = |env: String| {
        format!(
            "{{\"metadata\":{{\"name\":\"x\"}},\"spec\":{{\"containers\":[{{\"name\":\"c\",\
             \"image\":\"i\",\"env\":[{env}]}}]}}}}"
        )
    };
    let env = |at: usize| format!("{{\"name\":\"V{at}\",\"value\":\"{at}\"}}");
    let (code, answer) =
        send(&server, &format!("POST {PODS}"), JSON, pod(many(FULL / 10, env))).await;
    assert_eq!(code, 201, "{answer}");
    let one = format!("PATCH {PODS}/x?fieldManager=f&force=true");
    let reversed = |at: usize| env(1_000_000 - at);
    for media_type in ["strategic-merge-patch+json", "apply-patch+yaml"] {
        let body = pod(many(FULL / 10, reversed));
        let body = body.replacen('{', "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",", 1);
        let (code, answer) = send(&server, &one, &format!("application/{media_type}"), body).await;
        // What a pod runs cannot be changed: the answer takes the whole way there.
        assert_eq!(code, 422, "{answer}");
    }
    let finalizers = many(FULL / 12, |at| format!("\"x/f{at}\""));
    let body = format!("{{\"metadata\":{{\"name\":\"f\",\"finalizers\":[{finalizers}]}}}}");
    let (code, answer) = send(&server, &format!("POST {MAPS}"), JSON, body.clone()).await;
    assert_eq!(code, 201, "{answer}");
    let one = format!("PATCH {MAPS}/f");
    let body = body.replace("x/f", "x/g");
    let (code, answer) = send(&server, &one, "application/strategic-merge-patch+json", body).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn schemas_that_explode_are_refused() {
    let server = server().await;
    let definition = |group: &str, spec: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("bombs.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": "bombs", "kind": "Bomb"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema":
                    {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
    };
    let create = async |group: &str, spec: Value, object: Value| {
        let post = format!("POST {DEFINITIONS}");
        let body = definition(group, spec).to_string();
        let (code, answer) = send(&server, &post, JSON, body).await;
        if code != 201 {
            return (code, answer);
        }
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Bomb",
            "metadata": {"name": "x"}, "spec": object});
        let post = format!("POST /apis/{group}/v1/namespaces/default/bombs");
        send(&server, &post, JSON, object.to_string()).await
    };
    // Failing schemas in each other, each of which could be asked twice.
    let mut nested = json!({"maximum": 1});
    for _ in 0..40 {
        nested = json!({"allOf": [nested]});
    }
    nested["type"] = json!("integer");
    let (code, answer) = create("nested.io", nested, json!(5)).await;
    assert_eq!(code, 422, "{answer}");
    // A default for each of many items.
    let wide = json!({"type": "array", "items": {"type": "object", "properties":
        {"d": {"type": "string", "default": "d".repeat(100_000)}}}});
    let (code, answer) = create("wide.io", wide, json!(vec![json!({}); 100_000])).await;
    assert_eq!(code, 413, "{answer}");
    // Patterns that are short and large.
    let pattern = json!({"type": "string", "pattern": "(\\pL{100}){100}"});
    let patterns: serde_json::Map<String, Value> =
        (0..500).map(|at| (format!("p{at}"), pattern.clone())).collect();
    let (code, answer) =
        create("patterns.io", json!({"type": "object", "properties": patterns}), json!({})).await;
    assert_eq!(code, 422, "{answer}");
    let wrong = json!({"type": "array", "items": {"type": "string"}});
    let (code, answer) = create("wrong.io", wrong, json!(vec![1; 1_000_000])).await;
    assert_eq!(code, 422, "{answer}");
}
