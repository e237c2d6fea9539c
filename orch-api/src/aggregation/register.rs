//! APIServices of what is served here: of the built-in group versions, and of definitions.
//!
//! Source: `k8s.io/kubernetes/pkg/controlplane/apiserver/apis_priorities.go`,
//! `pkg/controlplane/controller/crdregistration`,
//! `k8s.io/kube-aggregator/pkg/controllers/autoregister`.

use std::sync::Arc;

use orch_core::{
    ApiError, Client, ClientError, Target,
    client::{DeleteOptions, Read, ReadReply, Write, WriteOptions},
};
use serde_json::{Value, json};

use super::API_SERVICES;
use crate::{catalog::Catalog, custom::version_rank, server::Inner};

/// What says that the server keeps an APIService: made at every start, or when it is missing.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The priority of groups that definitions make.
const CUSTOM: (i64, i64) = (1000, 100);
/// The priorities of the built-in groups.
const GROUPS: [(&str, i64); 23] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15800),
    // Nobody but the aggregator itself serves it, so that it has no APIService.
    ("apiregistration.k8s.io", 20001),
];

/// The priority of a group that is served here.
pub(super) fn group_priority(group: &str) -> i64 {
    GROUPS.iter().find(|(name, _)| *name == group).map_or(CUSTOM.0, |(_, priority)| *priority)
}

/// Stable versions before beta ones before alpha ones.
fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        _ => match version_rank(version) {
            Some((2, ..)) => 15,
            Some((1, ..)) => 9,
            _ => 1,
        },
    }
}

fn api_service(group: &str, version: &str, priorities: (i64, i64), managed: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1,
        },
    })
}

/// Makes the APIServices of the built-in group versions, where they are missing.
///
/// # Errors
/// [`ClientError`] of the first call that failed.
pub(crate) async fn register_built_in(
    client: &Arc<dyn Client>,
    catalog: &Catalog,
) -> Result<(), ClientError> {
    for gv in catalog.group_versions().iter().filter(|gv| gv.group != API_SERVICES.group) {
        let priorities = (group_priority(&gv.group), version_priority(&gv.group, &gv.version));
        let body = api_service(&gv.group, &gv.version, priorities, "onstart");
        let target = Target::collection(API_SERVICES, None);
        match client.write(Write::Create(target, body, WriteOptions::default())).await {
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Inner {
    /// Brings the APIServices of a definition up to date with the versions that are served now.
    pub(crate) async fn register_definition(&self, name: &str) -> Result<(), ApiError> {
        let Some((_, group)) = name.split_once('.') else { return Ok(()) };
        let catalog = self.newest_catalog().await?;
        let client = self.own_client();
        let versions: Vec<&str> = catalog
            .group_versions()
            .iter()
            .filter(|gv| gv.group == group)
            .map(|gv| &*gv.version)
            .collect();
        for version in &versions {
            let target = Target::object(API_SERVICES, None, &format!("{version}.{group}"));
            if client.read(Read::Get(target)).await.is_ok() {
                continue;
            }
            let body = api_service(group, version, CUSTOM, "true");
            let target = Target::collection(API_SERVICES, None);
            let write = Write::Create(target, body, WriteOptions::default());
            settled(client.write(write).await.map(drop))?;
        }
        self.forget_versions(&client, group, &versions).await
    }

    /// Takes away the APIServices of versions that no definition of a group makes any more.
    async fn forget_versions(
        &self,
        client: &Arc<dyn Client>,
        group: &str,
        versions: &[&str],
    ) -> Result<(), ApiError> {
        let selector = format!("{MANAGED}=true");
        let options = orch_core::client::ListOptions {
            label_selector: Some(selector),
            ..orch_core::client::ListOptions::default()
        };
        let target = Target::collection(API_SERVICES, None);
        let Ok(ReadReply::List(list)) = client.read(Read::List(target, options)).await else {
            return Ok(());
        };
        for object in &list.items {
            let name = object.key().name;
            let gone = name
                .split_once('.')
                .is_some_and(|(version, of)| of == group && !versions.contains(&version));
            if gone {
                let target = Target::object(API_SERVICES, None, &name);
                let write = Write::Delete(target, DeleteOptions::default());
                settled(client.write(write).await.map(drop))?;
            }
        }
        Ok(())
    }
}

/// What somebody else did first is done.
fn settled(done: Result<(), ClientError>) -> Result<(), ApiError> {
    match done {
        Err(error) if error.is_already_exists() || error.is_not_found() => Ok(()),
        Err(ClientError::Api(error)) => Err(error),
        Err(error) => Err(ApiError::internal(error)),
        Ok(()) => Ok(()),
    }
}
