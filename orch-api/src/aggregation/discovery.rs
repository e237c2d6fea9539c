//! Discovery of what is served here and of what others serve, as one.
//!
//! Source: `k8s.io/kube-aggregator/pkg/apiserver/handler_apis.go`, `handler_discovery.go`,
//! `k8s.io/kube-aggregator/pkg/controllers/openapiv3/aggregator`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use orch_core::ApiError;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Remote, availability::aggregator, proxy::identify, register::group_priority};
use crate::server::Inner;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// How long what a server said is believed.
const FRESH_FOR: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a server said it serves.
#[derive(Debug)]
pub(super) struct Discovered {
    at: Instant,
    version: Value,
}

/// Puts the groups of others among those that are served here, by their priorities.
fn merged(
    own: Vec<Value>,
    name: impl Fn(&Value) -> String,
    others: Vec<(i64, Value)>,
) -> Vec<Value> {
    let own = own.into_iter().map(|group| (group_priority(&name(&group)), group));
    let mut all: Vec<(i64, Value)> = own.collect();
    for (priority, other) in others {
        let same = all.iter_mut().find(|(_, group)| name(group) == name(&other));
        match same {
            // A group that is partly served here has all its versions.
            Some((_, group)) => {
                let versions = other["versions"].as_array().cloned().unwrap_or_default();
                if let Some(list) = group["versions"].as_array_mut() {
                    list.retain(|one| !versions.iter().any(|new| new["version"] == one["version"]));
                    list.extend(versions);
                }
            }
            None => all.push((priority, other)),
        }
    }
    all.sort_by_key(|(priority, _)| -priority);
    all.into_iter().map(|(_, group)| group).collect()
}

/// The remotes by group, in their order.
fn by_group(remotes: &[Arc<Remote>]) -> Vec<(&str, i64, Vec<&Arc<Remote>>)> {
    let mut groups: Vec<(&str, i64, Vec<&Arc<Remote>>)> = Vec::new();
    for remote in remotes {
        match groups.iter_mut().find(|(name, ..)| *name == remote.group) {
            Some((_, _, versions)) => versions.push(remote),
            None => groups.push((&remote.group, remote.group_priority, vec![remote])),
        }
    }
    for (_, _, versions) in &mut groups {
        versions.sort_by_key(|one| -one.version_priority);
    }
    groups
}

fn group_body(name: &str, versions: &[&Arc<Remote>]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|one| {
            let group_version = format!("{}/{}", one.group, one.version);
            json!({"groupVersion": group_version, "version": one.version})
        })
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

impl Inner {
    /// Adds the groups of others to `/apis`.
    pub(crate) async fn add_remote_groups(&self, document: &mut Value) -> Result<(), ApiError> {
        let remotes = self.remotes().await?;
        if remotes.is_empty() {
            return Ok(());
        }
        let others = by_group(&remotes);
        let others =
            others.iter().map(|(name, rank, all)| (*rank, group_body(name, all))).collect();
        let own = document["groups"].as_array().cloned().unwrap_or_default();
        let name = |group: &Value| group["name"].as_str().unwrap_or_default().to_owned();
        document["groups"] = merged(own, name, others).into();
        Ok(())
    }

    /// `/apis/GROUP` of a group that others serve, wholly or in part.
    pub(crate) async fn add_remote_group(
        &self,
        name: &str,
        own: Option<Value>,
    ) -> Result<Option<Value>, ApiError> {
        if !name.contains('.') {
            return Ok(own);
        }
        let remotes = self.remotes().await?;
        let groups = by_group(&remotes);
        let Some((_, _, versions)) = groups.iter().find(|(group, ..)| *group == name) else {
            return Ok(own);
        };
        let mut body = group_body(name, versions);
        body["kind"] = "APIGroup".into();
        body["apiVersion"] = "v1".into();
        let Some(mut own) = own else { return Ok(Some(body)) };
        let added = body["versions"].as_array().cloned().unwrap_or_default();
        if let Some(list) = own["versions"].as_array_mut() {
            list.retain(|one| !added.iter().any(|new| new["version"] == one["version"]));
            list.extend(added);
        }
        Ok(Some(own))
    }

    /// Adds the groups of others to aggregated discovery.
    pub(crate) async fn add_remote_discovery(&self, document: &mut Value) -> Result<(), ApiError> {
        let remotes = self.remotes().await?;
        if remotes.is_empty() {
            return Ok(());
        }
        let mut others = Vec::new();
        for (name, priority, versions) in by_group(&remotes) {
            let mut said = Vec::new();
            for remote in versions {
                said.push(self.discovered(remote).await);
            }
            others.push((priority, json!({"metadata": {"name": name}, "versions": said})));
        }
        let own = document["items"].as_array().cloned().unwrap_or_default();
        let name =
            |group: &Value| group["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        document["items"] = merged(own, name, others).into();
        Ok(())
    }

    /// Adds the documents of others to the index of OpenAPI version 3.
    pub(crate) async fn add_remote_documents(&self, index: &mut Value) -> Result<(), ApiError> {
        for remote in self.remotes().await?.iter().filter(|remote| remote.available) {
            let Ok(theirs) = self.ask(remote, "/openapi/v3", "application/json").await else {
                continue;
            };
            let key = remote.path().trim_start_matches('/').to_owned();
            if let Some(entry) = theirs["paths"].get(&key) {
                index["paths"][key] = entry.clone();
            }
        }
        Ok(())
    }

    /// What a server says it has in a version, asked at most once in a while.
    async fn discovered(&self, remote: &Remote) -> Value {
        if let Some(known) = self.aggregated.discovered.lock().get(&remote.name)
            && known.at.elapsed() < FRESH_FOR
        {
            return known.version.clone();
        }
        let said = if remote.available { self.discover(remote).await } else { None };
        let Some(mut version) = said else {
            let stale = self.aggregated.discovered.lock();
            let known = stale.get(&remote.name).map(|known| known.version.clone());
            let mut version = known.unwrap_or_else(|| json!({"version": remote.version}));
            version["freshness"] = "Stale".into();
            return version;
        };
        version["freshness"] = "Current".into();
        let known = Discovered { at: Instant::now(), version: version.clone() };
        self.aggregated.discovered.lock().insert(remote.name.clone(), known);
        version
    }

    async fn discover(&self, remote: &Remote) -> Option<Value> {
        if let Ok(all) = self.ask(remote, "/apis", AGGREGATED).await
            && all["kind"] == "APIGroupDiscoveryList"
        {
            let groups = all["items"].as_array()?.iter();
            let mut own = groups.filter(|group| group["metadata"]["name"] == *remote.group);
            let mut versions = own.next()?["versions"].as_array()?.iter();
            return versions.find(|one| one["version"] == *remote.version).cloned();
        }
        let list = self.ask(remote, &remote.path(), "application/json").await.ok()?;
        let resources = list["resources"].as_array()?;
        Some(json!({"version": remote.version, "resources": aggregated(resources)}))
    }

    /// A document of a server behind this one.
    fn ask<'a>(
        &'a self,
        remote: &'a Remote,
        path: &'a str,
        accept: &'a str,
    ) -> BoxFuture<'a, Result<Value, String>> {
        async move {
            let url = format!("https://{}{path}", remote.endpoint.authority());
            let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
            let request = Request::get(url).header(header::ACCEPT, accept).body(body);
            let mut request = request.map_err(|error| error.to_string())?;
            identify(request.headers_mut(), &aggregator());
            let answer = tokio::select! {
                answer = self.outbound.send(&remote.endpoint, request) => answer,
                () = self.environment.clock.sleep(ANSWER_TIMEOUT) => {
                    return Err("timed out".into());
                }
            };
            let answer = answer.map_err(|error| error.to_string())?;
            if !answer.status().is_success() {
                return Err(answer.status().to_string());
            }
            let body = whole(answer.into_body()).await?;
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

fn whole(body: crate::connect::BoxBody) -> BoxFuture<'static, Result<Bytes, String>> {
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect();
    read.map(|read| read.map(|read| read.to_bytes()).map_err(|error| error.to_string())).boxed()
}

/// Resources as aggregated discovery has them, of the list that older servers give.
fn aggregated(resources: &[Value]) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for one in resources {
        let name = text(&one["name"]);
        let kind = json!({
            "group": text(&one["group"]), "version": text(&one["version"]), "kind": one["kind"],
        });
        let mut entry = Map::new();
        entry.insert("responseKind".into(), kind);
        entry.insert("verbs".into(), one["verbs"].clone());
        if let Some((parent, sub)) = name.split_once('/') {
            entry.insert("subresource".into(), sub.into());
            let parent = found.iter_mut().find(|entry| entry["resource"] == parent);
            let Some(parent) = parent else { continue };
            match parent["subresources"].as_array_mut() {
                Some(list) => list.push(Value::Object(entry)),
                None => parent["subresources"] = json!([entry]),
            }
            continue;
        }
        let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
        entry.insert("resource".into(), name.into());
        entry.insert("scope".into(), scope.into());
        entry.insert("singularResource".into(), text(&one["singularName"]).into());
        for field in ["shortNames", "categories"] {
            if let Some(value) = one.get(field) {
                entry.insert(field.into(), value.clone());
            }
        }
        found.push(Value::Object(entry));
    }
    found
}
