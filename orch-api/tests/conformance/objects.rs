//! The objects of one resource as a client without types has them, over `kube::Client`.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Client,
    api::DynamicObject,
    core::{Status, WatchEvent},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// What a call gives: a document, or the server's refusal.
pub(super) type Answer = Result<Value, Box<Status>>;

/// How long a machine that is busy with something else may take for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bodies of patches by their media types.
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// A request with headers and a body; JSON both ways unless a header says otherwise.
pub(super) async fn call(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(body.unwrap_or_default().into_bytes()).unwrap();
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(status),
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

/// A value for a query.
pub(super) fn quoted(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The objects of a resource, in a namespace or in all.
#[derive(Clone)]
pub(super) struct Objects {
    client: Client,
    api_version: String,
    kind: String,
    pub(super) path: String,
}

impl Objects {
    /// Finds the resource of a kind in discovery.
    pub(super) async fn find(
        client: &Client,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Self {
        let root =
            if api_version == "v1" { "/api/v1".into() } else { format!("/apis/{api_version}") };
        let list = call(client, "GET", &root, &[], None).await.unwrap();
        let found = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["kind"] == kind && !one["name"].as_str().unwrap().contains('/'));
        let found = found.unwrap_or_else(|| panic!("{api_version} has no {kind}"));
        let plural = found["name"].as_str().unwrap();
        let place = namespace.filter(|_| found["namespaced"] == true);
        let place = place.map(|name| format!("namespaces/{name}/")).unwrap_or_default();
        Self {
            client: client.clone(),
            api_version: api_version.into(),
            kind: kind.into(),
            path: format!("{root}/{place}{plural}"),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{}", self.path, name.replace('/', "%2F"))
    }

    fn whole(&self, mut object: Value) -> String {
        object["apiVersion"] = json!(self.api_version);
        object["kind"] = json!(self.kind);
        object.to_string()
    }

    pub(super) async fn try_create(&self, object: Value) -> Answer {
        call(&self.client, "POST", &self.path, &[], Some(self.whole(object))).await
    }

    /// Creates an object. It must have a uid and a resource version then, and be of its kind.
    pub(super) async fn create(&self, object: Value) -> Value {
        let made = done("create", self.try_create(object).await);
        assert!(made["metadata"]["uid"].is_string(), "{made}");
        assert!(version(&made) > 0, "{made}");
        assert_eq!(
            (&made["kind"], &made["apiVersion"]),
            (&json!(self.kind), &json!(self.api_version))
        );
        made
    }

    pub(super) async fn try_get(&self, name: &str) -> Answer {
        call(&self.client, "GET", &self.at(name), &[], None).await
    }

    pub(super) async fn get(&self, name: &str) -> Value {
        done("get", self.try_get(name).await)
    }

    /// The object must not be there.
    pub(super) async fn gone(&self, name: &str) {
        let status = self.try_get(name).await.unwrap_err();
        assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"), "{name}: {status:?}");
    }

    /// A list with a query such as `labelSelector=a%3Db&limit=5`.
    pub(super) async fn try_list(&self, query: &str) -> Answer {
        call(&self.client, "GET", &format!("{}?{query}", self.path), &[], None).await
    }

    /// The list of what has a label, whole.
    pub(super) async fn list_all(&self, selector: &str) -> Value {
        done("list", self.try_list(&format!("labelSelector={}", quoted(selector))).await)
    }

    pub(super) async fn list(&self, selector: &str) -> Vec<Value> {
        items(&self.list_all(selector).await)
    }

    pub(super) async fn list_by_field(&self, selector: &str) -> Vec<Value> {
        let query = format!("fieldSelector={}", quoted(selector));
        items(&done("list", self.try_list(&query).await))
    }

    pub(super) async fn try_replace(&self, subresource: &str, object: Value) -> Answer {
        let name = text(&object, "/metadata/name").to_owned();
        let path = format!("{}{subresource}", self.at(&name));
        call(&self.client, "PUT", &path, &[], Some(self.whole(object))).await
    }

    pub(super) async fn replace(&self, object: Value) -> Value {
        done("update", self.try_replace("", object).await)
    }

    pub(super) async fn replace_status(&self, object: Value) -> Value {
        done("update of status", self.try_replace("/status", object).await)
    }

    /// A patch of an object or, with a name such as `a/status`, of a subresource.
    pub(super) async fn try_patch(&self, name: &str, kind: &str, patch: Value) -> Answer {
        let path = format!("{}/{name}", self.path);
        let path = if kind == APPLY { format!("{path}?fieldManager=e2e") } else { path };
        let body = if kind == APPLY { self.whole(patch) } else { patch.to_string() };
        call(&self.client, "PATCH", &path, &[("content-type", kind)], Some(body)).await
    }

    pub(super) async fn patch(&self, name: &str, kind: &str, patch: Value) -> Value {
        done("patch", self.try_patch(name, kind, patch).await)
    }

    /// Sets a label by a patch; the version must be younger then.
    pub(super) async fn label(&self, kind: &str, before: &Value, key: &str, value: &str) -> Value {
        let patch = json!({"metadata": {"labels": {key: value}}});
        let after = self.patch(text(before, "/metadata/name"), kind, patch).await;
        assert_eq!(after["metadata"]["labels"][key], value);
        assert!(version(&after) > version(before), "{after}");
        after
    }

    pub(super) async fn try_delete(&self, name: &str, options: Value) -> Answer {
        let options = options.is_object().then(|| options.to_string());
        call(&self.client, "DELETE", &self.at(name), &[], options).await
    }

    pub(super) async fn delete(&self, name: &str) -> Value {
        done("delete", self.try_delete(name, Value::Null).await)
    }

    /// Deletes what a query selects, `labelSelector=...` for example.
    pub(super) async fn delete_by(&self, query: &str) {
        let path = format!("{}?{query}", self.path);
        done("delete", call(&self.client, "DELETE", &path, &[], None).await);
    }

    /// Deletes what has a label.
    pub(super) async fn delete_all(&self, selector: &str) {
        self.delete_by(&format!("labelSelector={}", quoted(selector))).await;
    }

    /// Watches with a query such as `labelSelector=a%3Db&resourceVersion=5`.
    pub(super) async fn watch_by(&self, query: &str) -> Watch {
        let uri = format!("{}?watch=1&timeoutSeconds=600&{query}", self.path);
        let request = http::Request::get(&uri).body(Vec::new()).unwrap();
        let events = self.client.request_events::<DynamicObject>(request).await.unwrap();
        Watch(events.boxed())
    }

    /// Watches what has a label, from a version on.
    pub(super) async fn watch(&self, selector: &str, from: &str) -> Watch {
        let query = format!("labelSelector={}&resourceVersion={from}", quoted(selector));
        self.watch_by(&query).await
    }
}

/// A watch; it ends when it is dropped.
pub(super) struct Watch(BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>);

impl Watch {
    /// The next event that is no bookmark: its type and the object.
    pub(super) async fn next(&mut self) -> (&'static str, Value) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.0.next()).await;
            let event = event.expect("an event").expect("the watch goes on").unwrap();
            let (kind, object) = match event {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("the watch broke: {status:?}"),
            };
            return (kind, serde_json::to_value(object).unwrap());
        }
    }

    /// The next event must be this one.
    pub(super) async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let (found, object) = self.next().await;
        assert_eq!((found, text(&object, "/metadata/name")), (kind, name), "{object}");
        object
    }

    /// The next event must be about exactly this version of an object.
    pub(super) async fn expect_object(&mut self, kind: &str, object: &Value) {
        let found = self.expect(kind, text(object, "/metadata/name")).await;
        assert_eq!(found["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    }

    /// Events until one satisfies; it is given.
    pub(super) async fn until(&mut self, what: impl Fn(&str, &Value) -> bool) -> Value {
        loop {
            let (kind, object) = self.next().await;
            if what(kind, &object) {
                return object;
            }
        }
    }
}

/// The answer of a call that must succeed.
#[track_caller]
pub(super) fn done(what: &str, answer: Answer) -> Value {
    answer.unwrap_or_else(|status| panic!("{what}: {status:?}"))
}

/// The code and reason of a refusal.
#[track_caller]
pub(super) fn refused(answer: Answer) -> (u16, String) {
    match answer {
        Ok(value) => panic!("it was not refused: {value}"),
        Err(status) => (status.code, status.reason),
    }
}

/// A text inside an object; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An object's name.
pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// An object's resource version, as the number that it is.
pub(super) fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap()
}

/// The items of a list.
pub(super) fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().unwrap_or_else(|| panic!("no list: {list}")).clone()
}

/// The names of the items of a list, in its order.
pub(super) fn names(list: &[Value]) -> Vec<&str> {
    list.iter().map(name).collect()
}

/// Sets an annotation of an object.
pub(super) fn annotate(object: &mut Value, key: &str, value: &str) {
    let meta = &mut object["metadata"];
    if !meta["annotations"].is_object() {
        meta["annotations"] = json!({});
    }
    meta["annotations"][key] = json!(value);
}
