//! The contents of `configMap`, `secret`, `downwardAPI` and `projected` volumes.
//!
//! Source: `pkg/volume/{configmap,secret,downwardapi,projected}`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{
            ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount,
            ServiceAccountTokenProjection, Volume,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::Resources;

use super::{
    Token, VolumeError, Volumes,
    atomic::{File, Payload},
};
use crate::{agent::spec, downward::PodFields};

const MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(MODE).unsigned_abs()
}

/// Takes all keys, or those that `items` names under the paths that it gives.
fn select(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    default_mode: Option<i32>,
    optional: bool,
    what: &str,
) -> Result<Payload, VolumeError> {
    let file = |data: &Vec<u8>, own| File { data: data.clone(), mode: mode(own, default_mode) };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.iter().map(|(k, v)| (k.clone(), file(v, None))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => _ = payload.insert(item.path.clone(), file(value, item.mode)),
            None if optional => {}
            None => {
                let text = format!("{what} references non-existent key: {}", item.key);
                return Err(VolumeError::Source(text));
            }
        }
    }
    Ok(payload)
}

fn downward(
    items: Option<&Vec<DownwardAPIVolumeFile>>,
    default_mode: Option<i32>,
    fields: PodFields<'_>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items.into_iter().flatten() {
        let text = if let Some(field) = &item.field_ref {
            fields.field(&field.field_path)
        } else if let Some(resource) = &item.resource_field_ref {
            fields.resource(resource, "")
        } else {
            Err("neither a field nor a resource is given".into())
        };
        let data = text.map_err(VolumeError::Source)?.into_bytes();
        payload.insert(item.path.clone(), File { data, mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

impl Volumes {
    /// A volume's files; `None` if it is of a type without such.
    pub(super) async fn payload(
        &self,
        pod: &Pod,
        volume: &Volume,
        fields: PodFields<'_>,
    ) -> Result<Option<Payload>, VolumeError> {
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            let data = self.config_map(pod, &source.name, optional).await?;
            let items = source.items.as_ref();
            let what = "configmap";
            return select(&data, items, source.default_mode, optional, what).map(Some);
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = self.secret(pod, name, optional).await?;
            let items = source.items.as_ref();
            return select(&data, items, source.default_mode, optional, "secret").map(Some);
        }
        if let Some(source) = &volume.downward_api {
            return downward(source.items.as_ref(), source.default_mode, fields).map(Some);
        }
        if let Some(source) = &volume.projected {
            return self.projected(pod, &volume.name, source, fields).await.map(Some);
        }
        Ok(None)
    }

    async fn projected(
        &self,
        pod: &Pod,
        volume: &str,
        source: &k8s_openapi::api::core::v1::ProjectedVolumeSource,
        fields: PodFields<'_>,
    ) -> Result<Payload, VolumeError> {
        let default = source.default_mode;
        let mut all = Payload::new();
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                let optional = map.optional == Some(true);
                let data = self.config_map(pod, &map.name, optional).await?;
                all.extend(select(&data, map.items.as_ref(), default, optional, "configmap")?);
            } else if let Some(secret) = &part.secret {
                let optional = secret.optional == Some(true);
                let data = self.secret(pod, &secret.name, optional).await?;
                all.extend(select(&data, secret.items.as_ref(), default, optional, "secret")?);
            } else if let Some(part) = &part.downward_api {
                all.extend(downward(part.items.as_ref(), default, fields)?);
            } else if let Some(token) = &part.service_account_token {
                let data = self.token(pod, volume, token).await?.into_bytes();
                all.insert(token.path.clone(), File { data, mode: mode(None, default) });
            } else {
                let text = "projected (clusterTrustBundle, podCertificate)".to_owned();
                return Err(VolumeError::NotSupported(text));
            }
        }
        Ok(all)
    }

    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let all = Resources::<ConfigMap>::namespaced(self.client.clone(), spec::namespace(pod));
        let Some(map) = all.get_opt(name).await? else {
            return missing("configmap", name, optional);
        };
        let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
        Ok(text.chain(binary).collect())
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let all = Resources::<Secret>::namespaced(self.client.clone(), spec::namespace(pod));
        let Some(secret) = all.get_opt(name).await? else {
            return missing("secret", name, optional);
        };
        Ok(secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect())
    }

    /// A token of the pod's service account, bound to the pod; renewed after four fifths of its
    /// life.
    ///
    /// Source: `pkg/kubelet/token/token_manager.go`.
    async fn token(
        &self,
        pod: &Pod,
        volume: &str,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let key = (spec::uid(pod).to_owned(), format!("{volume}/{}", wanted.path));
        let now = self.environment.clock.now();
        let known = self.tokens.lock().get(&key).cloned();
        if let Some(token) = known.filter(|t| now < t.replace_at) {
            return Ok(token.text);
        }
        let seconds = wanted.expiration_seconds.unwrap_or(3600);
        let audience = wanted.audience.clone().filter(|a| !a.is_empty());
        let request = TokenRequest {
            metadata: ObjectMeta::default(),
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|a| vec![a]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            status: None,
        };
        let account = spec::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let accounts =
            Resources::<ServiceAccount>::namespaced(self.client.clone(), spec::namespace(pod));
        let answer = accounts.create_sub(account, "token", &request).await?;
        let answer = answer.decode::<TokenRequest>().map_err(orch_core::ClientError::from)?;
        let Some(status) = &answer.status else {
            return Err(VolumeError::Source("the token request was answered without one".into()));
        };
        let Some(text) = status.token.clone() else {
            return Err(VolumeError::Source("the token request was answered without one".into()));
        };
        let expires = status.expiration_timestamp.as_ref().map(|t| t.0);
        let life = expires.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let keep = life.unwrap_or_default() * 4 / 5;
        let token = Token { text, replace_at: now.saturating_add(keep).unwrap_or(now) };
        self.tokens.lock().insert(key, token.clone());
        Ok(token.text)
    }
}

fn missing(
    what: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
    if optional {
        return Ok(BTreeMap::new());
    }
    Err(VolumeError::Source(format!("{what} \"{name}\" not found")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_and_rename_keys() {
        let data = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
        let all = select(&data, None, Some(0o600), false, "configmap").unwrap();
        assert_eq!((all.len(), all["a"].mode), (2, 0o600));
        let item =
            |key: &str| vec![KeyToPath { key: key.into(), path: "d/x".into(), mode: Some(0o400) }];
        let one = select(&data, Some(&item("b")), None, false, "configmap").unwrap();
        assert_eq!((one.len(), one["d/x"].mode), (1, 0o400));
        assert!(select(&data, Some(&item("z")), None, false, "configmap").is_err());
        assert!(select(&data, Some(&item("z")), None, true, "configmap").unwrap().is_empty());
    }
}
